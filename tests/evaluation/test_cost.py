import pytest
import torch
from safetensors.torch import save
from torch import nn

from kdlit.evaluation.cost import multiply_adds, parameters, tensor_bytes
from kdlit.models import ArticleCNN


def test_the_articles_network_by_hand():
    network = ArticleCNN()
    convolutions = 24 * 24 * 10 * 25 + 8 * 8 * 20 * 10 * 25
    assert multiply_adds(lambda: network(torch.zeros(1, 1, 28, 28))) == (
        convolutions + 320 * 50 + 50 * 10
    )
    assert parameters(network) == 260 + 5020 + 16050 + 510
    assert tensor_bytes(network) == 4 * 21840


def test_multiply_adds_grow_with_the_batch():
    network = nn.Linear(7, 5)
    counts = [multiply_adds(lambda n=n: network(torch.zeros(n, 7))) for n in (1, 3)]
    assert counts == [35, 105]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_bytes_are_those_of_the_file_but_its_head(dtype):
    network = nn.Sequential(nn.Linear(100, 200), nn.BatchNorm1d(200)).to(dtype)
    file = len(save(network.state_dict()))
    assert 0 < file - tensor_bytes(network) < 1000
