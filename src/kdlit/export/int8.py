"""`student.int8.onnx`: weights and activations in 8 bits, by quantisation after training.

By ONNX Runtime and not by torchao: ONNX Runtime quantises convolutions and linear layers alike and
runs both with integer kernels on any CPU, from a file of the kind that is exported anyway.
torchao's `quantize_` is made for linear layers; its way for convolutions (PT2E) is lowered by
TorchInductor, and so needs a C++ compiler wherever the student runs. Both are well kept.

The quantisation is static: scales of activations are fixed from calibration images, so that
nothing is measured when the file runs. It is written as pairs of QuantizeLinear and
DequantizeLinear (QDQ), with one scale for each output channel of a weight. Both sides are unsigned:
with signed weights, ONNX Runtime's kernels for CPUs without VNNI add in 16 bits and saturate, which
made the differences from float32 about ten times as large as they need be.
What linear layers give is not quantised, so that no logit is cut off where the calibration images
had none as large.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kdlit.export.graph import INPUT

BATCH_SIZE = 64
# What has weights, and what stands between such. Normalisation stays in float32.
_QUANTIZED = ("Add", "AveragePool", "Conv", "Gemm", "MatMul", "MaxPool", "Relu")
_NOT_AFTER = ("Gemm", "MatMul")


def write_int8(source: Path, path: Path, images: Tensor) -> None:
    """Quantise an ONNX file.

    Args:
        source: the file in float32.
        path: where the other is written.
        images: what the file takes, some hundred of the training images, to find the range of each
            activation.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches: Iterator[Tensor] = iter(torch.split(images, BATCH_SIZE))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            return None if batch is None else {INPUT: batch.numpy()}

    # Shapes are inferred and layers fused before the ranges are measured.
    prepared = path.with_name("prepared.onnx")
    quant_pre_process(str(source), str(prepared))
    quantize_static(
        prepared,
        path,
        Reader(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=list(_QUANTIZED),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QUInt8,
        extra_options={"OpTypesToExcludeOutputQuantization": list(_NOT_AFTER)},
    )
    prepared.unlink()
