import base64

import pytest
import torch

from kdlit.report.content import Report
from kdlit.report.knowledge import Seen, entropy, mean_soft_labels, png, section
from kdlit.report.page import html, markdown

LOGITS = torch.tensor([[4.0, 1.0, 0.0], [0.2, 0.1, 0.0], [0.0, 6.0, 1.0], [0.0, 0.0, 9.0]])
TARGET = torch.tensor([0, 1, 1, 2])


def seen(**changed) -> Seen:
    given = {
        "images": torch.rand(4, 1, 8, 8), "target": TARGET, "teacher": LOGITS,
        "student": LOGITS.roll(1, dims=0), "classes": ["cat", "<script>dog", "eel"],
        "setting": "soft", "seed": 0,
    }  # fmt: skip
    return Seen(**given | changed)


def test_mean_soft_labels_by_definition():
    for temperature in (1.0, 4.0):
        found = mean_soft_labels(LOGITS, TARGET, temperature)
        soft = torch.softmax(LOGITS.double() / temperature, dim=1)
        torch.testing.assert_close(
            found.double(), torch.stack([soft[0], (soft[1] + soft[2]) / 2, soft[3]]),
            rtol=1e-6, atol=1e-7,
        )  # fmt: skip


def test_the_least_sure_come_first_and_disagreements_are_counted():
    found = section(seen())
    unsure, apart = (block for block in found.blocks if type(block).__name__ == "Gallery")
    order = entropy(LOGITS).argsort(descending=True).tolist()
    assert [sample.index for sample in unsure.samples] == order
    assert order[0] == 1
    # The student says what the teacher says of the sample before: 2 0 0 1, the teacher 0 0 1 2.
    assert [sample.index for sample in apart.samples] == [0, 3, 2]
    text = markdown(Report("title", "origin", [found]))
    assert "decide differently on 3 of 4 samples; the teacher is right on 3 of them, the student " \
        "on 0." in text  # fmt: skip


def test_names_of_classes_are_escaped():
    found = Report("title", "origin", [section(seen())])
    assert "<script" not in html(found)
    assert "&lt;script&gt;dog" in html(found)
    assert "<script" not in markdown(found)


def test_networks_that_agree_and_many_classes():
    assert len([b for b in section(seen(student=LOGITS)).blocks if hasattr(b, "samples")]) == 1
    logits = torch.randn(4, 40)
    many = section(seen(teacher=logits, student=logits, classes=[*map(str, range(40))]))
    assert "40 classes are too many" in markdown(Report("", "", [many]))


@pytest.mark.parametrize(
    ("shape", "mode"), [((8, 8), "L"), ((1, 8, 8), "L"), ((3, 8, 8), "RGB"), ((2, 8, 8), "L")]
)
def test_pictures(shape, mode, tmp_path):
    from PIL import Image

    image = torch.linspace(-0.4, 2.8, torch.Size(shape).numel()).reshape(shape)
    path = tmp_path / "picture.png"
    path.write_bytes(base64.b64decode(png(image)))
    with Image.open(path) as found:
        assert (found.mode, found.size) == (mode, (8, 8))
        if shape[0] in (1, 8):
            assert found.getextrema() == (0, 255)
    png(torch.zeros(8, 8))
