"""What objectives with networks of their own share."""

from collections.abc import Sequence

from torch import Tensor, nn

from kdlit.errors import ConfigError
from kdlit.functional.checks import check_maps
from kdlit.functional.precision import float32_at_least


def layer_names(name: str, layers: Sequence[str]) -> tuple[str, ...]:
    """Return names of layers as a tuple; raise `ConfigError` if they are none or a single string.

    >>> layer_names("student_layers", ["block1", "block2"])
    ('block1', 'block2')
    >>> layer_names("student_layers", "block1")
    Traceback (most recent call last):
    kdlit.errors.ConfigError: `student_layers` must be a list of layers' names, got 'block1'
    """
    if isinstance(layers, str) or not layers:
        raise ConfigError(f"`{name}` must be a list of layers' names, got {layers!r}")
    return tuple(layers)


def applied(part: nn.Module, features: Tensor) -> Tensor:
    """Return what a part makes of features: it runs in its own type, and answers in float32.

    >>> import torch
    >>> applied(nn.Linear(2, 3), torch.zeros(4, 2, dtype=torch.bfloat16)).dtype
    torch.float32
    """
    result: Tensor = part(features.to(next(part.parameters()).dtype))
    return float32_at_least(result)


def as_maps(features: Tensor, whose: str) -> Tensor:
    """Return maps as they are, and vectors (N, D) as maps of one pixel.

    Raises:
        ConfigError: for any other shape.
    """
    maps = features[:, :, None, None] if features.ndim == 2 else features
    check_maps(maps, whose)
    return maps
