"""`student.onnx`: a graph that ONNX Runtime and others run without torch."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.export import ExportedProgram

from kdlit.export.graph import BATCH, INPUT, OUTPUT


def to_onnx(program: ExportedProgram) -> bytes:
    """Return a program as an ONNX model with its weights, in torch's recommended opset."""
    exported = torch.onnx.export(
        program,
        dynamo=True,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes=({0: BATCH},),
        verbose=False,
    )
    assert exported is not None  # noqa: S101 - with dynamo it is a program
    model: bytes = exported.model_proto.SerializeToString()
    return model


def read_onnx(path: Path) -> Callable[[Tensor], Tensor]:
    """Read a file with ONNX Runtime on the CPU; returns what maps a batch to its logits."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        (logits,) = session.run([OUTPUT], {INPUT: images.numpy()})
        return torch.from_numpy(logits)

    return run
