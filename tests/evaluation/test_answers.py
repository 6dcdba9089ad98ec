import pytest
import torch

from conftest import PlainData, network
from kdlit.batch import Batch, Outputs
from kdlit.data import MNISTDataModule
from kdlit.data.corruptions import Rotation
from kdlit.errors import ConfigError, NonFiniteError
from kdlit.evaluation.answers import (
    ask,
    batches_of_test,
    corrupted_batches,
    first_samples,
    why_not_corruptible,
)

CPU = torch.device("cpu")


def test_the_answers_are_those_of_all_samples_in_order():
    data, student = PlainData(samples=50, batch_size=16), network().eval()
    logits, target = ask({"student": lambda b: b.run(student)}, batches_of_test(data, CPU))
    inputs, truth = data.data.tensors
    assert torch.allclose(logits["student"], student(inputs))
    assert torch.equal(target, truth)
    assert not logits["student"].requires_grad


def test_what_cannot_be_evaluated():
    good = {"student": lambda batch: Outputs(batch.inputs)}
    with pytest.raises(ConfigError, match="no target"):
        ask(good, [Batch(torch.zeros(2, 3))])
    with pytest.raises(ConfigError, match="no samples"):
        ask(good, [])
    with pytest.raises(NonFiniteError, match="student's logits are not finite"):
        ask(good, [Batch(torch.full((2, 3), torch.nan), torch.zeros(2, dtype=torch.int64))])


def test_mnist_is_shown_as_in_a_test_and_corrupted_by_seed(mnist_root):
    data = MNISTDataModule(root=mnist_root, eval_batch_size=4000)
    data.setup()
    clean = [batch.inputs for batch in batches_of_test(data, CPU)]
    assert torch.equal(torch.cat(clean), data.normalize(data.test_data.images.float()))
    assert why_not_corruptible(data) is None
    turned = list(corrupted_batches(data, Rotation(15), 0, CPU))
    assert [len(batch.target) for batch in turned] == [4000, 4000, 2000]
    assert torch.equal(torch.cat([batch.target for batch in turned]), data.test_data.labels)
    images, _, index = data.test_data.__getitems__([4321])
    alone = data.normalize(Rotation(15)(images, index, 0))
    assert torch.equal(turned[1].inputs[321:322], alone)
    assert not torch.allclose(alone, clean[1][321:322])


def test_somebody_elses_data_have_no_pixels_to_corrupt():
    assert "PlainData gives no pixels" in why_not_corruptible(PlainData())


def test_a_short_batch_is_begun_anew():
    batch = Batch({"a": torch.arange(3), "b": 7}, torch.zeros(3))
    found = first_samples(batch, 5)
    assert found["a"].tolist() == [0, 1, 2, 0, 1]
    assert found["b"] == 7
