import pytest
import torch

from kdlit.data import EpochSampler, EvaluationSampler, InMemoryDataset


def dataset(size: int) -> InMemoryDataset:
    return InMemoryDataset(torch.zeros(size, 1), torch.arange(size), torch.arange(size))


def test_the_order_depends_on_seed_and_epoch_alone():
    def order(seed: int, epoch: int) -> list[int]:
        sampler = EpochSampler(dataset(50), seed)
        sampler.set_epoch(epoch)
        return list(sampler)

    orders = {tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9
    assert all(sorted(found) == list(range(50)) for found in orders)
    torch.manual_seed(5)
    assert order(0, 2) == order(0, 2)


@pytest.mark.parametrize(("size", "processes"), [(10, 2), (11, 4), (3, 4)])
def test_evaluation_shares_every_sample_once(size, processes):
    samplers = [EvaluationSampler(dataset(size), rank, processes) for rank in range(processes)]
    parts = [list(sampler) for sampler in samplers]
    assert [len(sampler) for sampler in samplers] == [len(part) for part in parts]
    assert sorted(position for part in parts for position in part) == list(range(size))


def test_one_sample_is_a_row_of_the_batch():
    image, label, index = dataset(5)[3]
    assert (image.shape, int(label), int(index)) == ((1,), 3, 3)
