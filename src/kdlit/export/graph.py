"""What is exported: a network of one tensor that gives its logits, traced for any batch size."""

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from kdlit.batch import Outputs
from kdlit.errors import ExportError
from kdlit.loading import Preprocessing

INPUT, OUTPUT, BATCH = "images", "logits", "batch"
"""The names of the input, of the output, and of the dimension that may have any size."""


class Deployed(nn.Module):
    """A student as it is shipped, with its preprocessing in front if it is given.

    Args:
        network: gives logits, or anything with `.logits`.
        preprocessing: of the pixels that the file is given; None: it is given what the network
            takes.

    Shape:
        input (N, ...), output logits (N, C).

    >>> halves = Preprocessing((1, 2), mean=0.0, std=0.5, scale=255)
    >>> Deployed(nn.Flatten(), halves)(torch.full((1, 1, 2), 255, dtype=torch.uint8))
    tensor([[2., 2.]])
    """

    offset: Tensor
    divisor: Tensor

    def __init__(self, network: nn.Module, preprocessing: Preprocessing | None = None) -> None:
        super().__init__()
        self.network = network
        self.prepares = preprocessing is not None
        if preprocessing is not None:
            for name, constant in zip(
                ("offset", "divisor"), preprocessing.constants(), strict=True
            ):
                self.register_buffer(name, constant)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        if self.prepares:
            images = (images.to(torch.float32) - self.offset) / self.divisor
        return Outputs.of(self.network(images)).logits


def traced(network: nn.Module, example: Tensor) -> ExportedProgram:
    """Return a network, in evaluation mode, as a program for batches of any size.

    Args:
        network: takes one tensor.
        example: a few samples of what it takes, two at least.

    Raises:
        ExportError: if torch.export cannot follow the network.
    """
    try:
        with torch.no_grad():
            program = torch.export.export(
                network.eval(), (example,), dynamic_shapes=({0: Dim(BATCH)},)
            )
    except Exception as error:  # torch.export has many types for what it cannot follow
        lines = str(error).strip().splitlines()
        raise ExportError(
            f"torch.export cannot follow this network for batches of any size: "
            f"{type(error).__name__}: {lines[0] if lines else ''}"
        ) from error
    # A saved program would carry the samples along, as a pickle: images of somebody's test set.
    program.example_inputs = None
    return program
