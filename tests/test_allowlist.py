"""A file may name a network, and nothing else."""

import pytest
import torch

from kdlit.allowlist import build_network
from kdlit.errors import ConfigError
from kdlit.models import MLP, ArticleCNN, ConvNet


@pytest.mark.parametrize(
    ("node", "kind"),
    [
        ({"_target_": "kdlit.models.MLP", "widths": [4]}, MLP),
        ({"_target_": "kdlit.models.ArticleCNN", "_convert_": "all"}, ArticleCNN),
        ({"_target_": "kdlit.models.ConvNet", "channels": [4, 8]}, ConvNet),
    ],
)
def test_our_networks(node, kind):
    assert type(build_network(node)) is kind


def test_a_network_of_timm_without_its_pretrained_weights(monkeypatch):
    timm = pytest.importorskip("timm")
    given = []
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda **kw: given.append(kw) or create(**kw))
    network = build_network(
        {
            "_target_": "timm.create_model",
            "model_name": "test_resnet.r160_in1k",
            "pretrained": True,
            "checkpoint_path": "weights.bin",
            "in_chans": 1,
            "num_classes": 10,
        }
    )
    assert network.eval()(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    assert given == [
        {
            "model_name": "test_resnet.r160_in1k",
            "in_chans": 1,
            "num_classes": 10,
            "pretrained": False,
        }
    ]


def test_a_network_of_torchvision_without_its_pretrained_weights(monkeypatch):
    def never(*args, **kwargs):
        raise AssertionError("weights were asked for")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", never)
    for node in (
        {"_target_": "torchvision.models.squeezenet1_1"},
        {"_target_": "kdlit.models.torchvision_network", "name": "squeezenet1_1"},
    ):
        network = build_network({**node, "weights": "DEFAULT", "num_classes": 3})
        assert network.eval()(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "os.system", "command": "touch exploded"},
        {"_target_": "os.system", "_args_": ["touch exploded"]},
        {"_target_": "builtins.eval", "_args_": ["open('exploded', 'w')"]},
        {"_target_": "hydra.utils.get_method", "path": "os.system"},
        {"_target_": "torch.load", "f": "weights.pt", "weights_only": False},
        {"_target_": "torch.nn.Sequential"},
        {"_target_": "kdlit.models.article.OrderedDict"},
        {"_target_": "kdlit.models.article"},
        {"_target_": "kdlit.models.__builtins__"},
        {"_target_": "kdlit.models.MLP.load_state_dict"},
        {"_target_": "torchvision.models.get_model_weights", "name": "resnet18"},
        {"_target_": "torchvision.models.resnet.resnet18"},
        {"_target_": "kdlit.models.vision.torchvision_network"},
        {"_target_": "torchvision.models.RESNET18"},
        {"_target_": "torchvision.models.googlenet", "weights": "DEFAULT"},
        {"_target_": "timm.models.load_checkpoint"},
        {"_target_": "timm.create_model", "model_name": "hf-hub:someone/something"},
        {"_target_": "timm.create_model", "model_name": "local-dir:/tmp/x"},
        {"_target_": "timm.create_model", "model_name": ["test_resnet"]},
        {
            "_target_": "timm.create_model",
            "model_name": "test_resnet",
            "pretrained_cfg": {"file": "x.bin"},
        },
        {
            "_target_": "kdlit.models.MLP",
            "widths": {"_target_": "os.system", "command": "touch exploded"},
        },
        {"_target_": "kdlit.models.MLP", "widths": [[{"_target_": "os.getpid"}]]},
        {"_target_": "kdlit.models.MLP", "_args_": [784]},
        {"_target_": "kdlit.models.MLP", "_partial_": True},
        {"_target_": "kdlit.models.MLP", "widths": ["wide"]},
        {"_target_": "kdlit.models.MLP", "nonsense": 1},
        {"_target_": ["kdlit.models.MLP"]},
        {},
        None,
        "kdlit.models.MLP",
    ],
    ids=str,
)
def test_everything_else_is_refused_and_not_called(node, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as refused:
        build_network(node)
    assert "`network=`" in str(refused.value) or "`widths` must be" in str(refused.value)
    assert not list(tmp_path.iterdir())
