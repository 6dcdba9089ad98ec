"""Torchvision's networks by their names."""

from typing import Any

import torch
from torch import nn

from kdlit import checks
from kdlit.errors import ConfigError


def torchvision_network(
    name: str = "resnet18",
    num_classes: int = 10,
    in_channels: int = 3,
    weights: str | None = None,
    **options: Any,
) -> nn.Module:
    """Make a classifier of torchvision's, also for images that have not three channels.

    Torchvision's networks take three channels. For another number the first convolution is made
    anew; for one channel its kernels are those of the three summed, so that the network answers
    grey images as the original answers them with the channel repeated.

    Args:
        name: such as `resnet18`, of `torchvision.models.list_models`.
        num_classes: C; with pretrained weights, theirs.
        in_channels: channels of the images.
        weights: pretrained ones by torchvision's name, such as `DEFAULT`, which are downloaded;
            None draws them.
        options: what else that network takes.

    Shape:
        input (N, in_channels, H, W), output logits (N, C). How small an image may be depends on
        the network: ResNets take 28x28, VGGs do not.

    Raises:
        ConfigError: if there is no such classifier, if it refuses its arguments, or if pretrained
            weights are wanted for a number of channels other than 1 or 3, or the network has a
            transformation of three channels (`transform_input`).

    >>> network = torchvision_network("resnet18", in_channels=1)
    >>> network.eval()(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """
    import torchvision.models as torchvisions

    known = torchvisions.list_models(module=torchvisions)
    if name not in known:
        raise ConfigError(
            f"torchvision has no classifier {name!r}: {checks.did_you_mean(str(name), known)}"
        )
    checks.integer("num_classes", num_classes)
    if checks.integer("in_channels", in_channels) not in (1, 3) and weights is not None:
        raise ConfigError(
            f"`weights` are for 3 channels, or 1 by their sum; `in_channels` is {in_channels}"
        )
    try:
        network: nn.Module = torchvisions.get_model(
            name, weights=weights, num_classes=num_classes, **options
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"torchvision's {name}: {error}") from error
    if in_channels != 3 and getattr(network, "transform_input", False):
        raise ConfigError(
            f"torchvision's {name} shifts each of three channels otherwise where `weights` are "
            f"pretrained or `transform_input` is true, and `in_channels` is {in_channels}"
        )
    if in_channels != 3:
        _replace_first_convolution(network, in_channels)
    return network


@torch.no_grad()
def _replace_first_convolution(network: nn.Module, channels: int) -> None:
    place, old = next((n, m) for n, m in network.named_modules() if isinstance(m, nn.Conv2d))
    settings = {
        key: getattr(old, key)
        for key in ("kernel_size", "stride", "padding", "dilation", "padding_mode")
    }
    new = nn.Conv2d(channels, old.out_channels, bias=old.bias is not None, **settings)
    if channels == 1:
        new.weight.copy_(old.weight.sum(dim=1, keepdim=True))
        if new.bias is not None and old.bias is not None:
            new.bias.copy_(old.bias)
    network.set_submodule(place, new)
