"""`student.pt2`: a program of torch.export, which torch runs without the network's Python code."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.export import ExportedProgram


def write_program(program: ExportedProgram, path: Path) -> None:
    """Write a program for `torch.export.load`, with any batch size."""
    torch.export.save(program, path)


def read_program(path: Path) -> Callable[[Tensor], Tensor]:
    """Read a program as a user would; returns what maps a batch to its logits."""
    module = torch.export.load(path).module()

    def run(images: Tensor) -> Tensor:
        with torch.no_grad():
            logits: Tensor = module(images)
        return logits

    return run
