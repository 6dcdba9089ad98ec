"""The comparison of a file with its student can fail, and says by how much."""

import pytest
import torch
from torch import nn

from kdlit.errors import ExportError
from kdlit.export.check import Comparison, Reference, in_batches, require_accuracy, require_equal


def reference(count: int = 600) -> Reference:
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(count, 5, generator=generator)
    return Reference(nn.Flatten(), images, images.argmax(dim=1))


@pytest.mark.parametrize("count", [1, 8, 71, 72, 73, 600])
def test_every_sample_is_asked_for_and_counted_once(count):
    parts = in_batches(count)
    assert [len(part) for part in parts[:3]] == [1, 7, 64]
    assert set(torch.cat(parts).tolist()) == set(range(count))
    ours = reference(count)
    wrong = ours.images.clone()
    wrong[0] = -wrong[0]
    found = ours.compare(nn.Flatten(), wrong)
    assert found.samples == count
    assert found.equal_decisions == pytest.approx((count - 1) / count)
    assert found.accuracy == pytest.approx((count - 1) / count)
    assert found.accuracy_of_student == 1.0


def test_what_is_equal_up_to_rounding_passes():
    ours = reference()
    found = ours.compare(lambda images: images * (1 + 1e-6), ours.images)
    assert 0 < found.largest_difference < 1e-5
    require_equal(found, 1e-5)
    with pytest.raises(ExportError, match=r"by up to .* and 0 is allowed \(tolerance=0 times"):
        require_equal(found, 0)


def test_one_other_logit_is_refused():
    ours = reference()

    def run(images):
        logits = images.clone()
        if len(images) == 64:
            logits[5, 2] += 0.01
        return logits

    found = ours.compare(run, ours.images)
    assert found.largest_difference == pytest.approx(0.01, rel=1e-4)
    with pytest.raises(ExportError, match=r"differ from the student's by up to 0\.01"):
        require_equal(found, 1e-4)


def test_no_numbers_are_refused():
    ours = reference()
    found = ours.compare(lambda images: images * float("nan"), ours.images)
    with pytest.raises(ExportError):
        require_equal(found, 1e9)
    with pytest.raises(ExportError):
        require_accuracy(found, 100)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda images: images[:2], r"a batch of 7 is answered by \(2, 5\)"),
        (lambda images: images[:, :4], "4 classes and the student 5"),
        (lambda images: images.view(7, 5), "a batch of 1 is refused"),
    ],
)
def test_other_shapes_are_refused(run, message):
    ours = reference()
    with pytest.raises(ExportError, match=message):
        ours.compare(run, ours.images)


def test_the_allowed_loss_of_accuracy():
    found = Comparison(3.0, 0.97, 0.970, 0.975, 20.0, 1000)
    require_accuracy(found, 0.5 + 1e-9)
    with pytest.raises(ExportError, match=r"97\.00 % where the student has 97\.50 %: 0\.50 points"):
        require_accuracy(found, 0.49)
