"""The code that a model card tells to load a file with."""

import numpy as np
import pytest
import torch

from kdlit import Preprocessing, StudentCard
from kdlit.export.card import model_card
from kdlit.export.files import ExportedFile

PREPROCESSING = Preprocessing((2, 1, 1), (0.1, 0.2), (0.5, 0.25), 255.0)


def card_of(kind: str, takes: str, preprocessing: Preprocessing | None) -> str:
    file = ExportedFile(kind, "file", 1, takes, 0.0, 1.0, 1.0, 1.0, 1, {})
    return model_card("MLP", "MNIST", {}, StudentCard({}, input=preprocessing), [file])


@pytest.mark.parametrize(
    ("kind", "pixels"),
    [
        ("program", torch.tensor([[[[255]], [[51]]]], dtype=torch.uint8)),
        ("onnx", np.array([[[[255]], [[51]]]], dtype=np.uint8)),
    ],
)
def test_pixels_are_prepared_channel_by_channel(kind, pixels):
    (line,) = (
        line
        for line in card_of(kind, "prepared", PREPROCESSING).splitlines()
        if line.startswith("images = ")
    )
    known = {"pixels": pixels, "np": np, "torch": torch}
    exec(line, known)
    assert known["images"].dtype in (torch.float32, np.float32)
    found = torch.as_tensor(known["images"])
    torch.testing.assert_close(found, torch.tensor([[[[1.8]], [[0.0]]]]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["program", "onnx", "int8"])
def test_data_that_say_nothing_of_pixels(kind):
    assert "images = ...  # as in training, float32\n" in card_of(kind, "prepared", None)


def test_a_program_is_said_to_need_trust():
    assert "load none that you do not trust" in card_of("program", "uint8", PREPROCESSING)
    assert "trust" not in card_of("onnx", "uint8", PREPROCESSING)
