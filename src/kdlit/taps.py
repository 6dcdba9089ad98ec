"""What named layers of a network say of a batch, beside its logits."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from kdlit.batch import Batch, Outputs
from kdlit.errors import ConfigError

PENULTIMATE = "penultimate"
"""Names the input of a network's last linear layer: the features that it classifies."""


def unwrapped(network: nn.Module) -> nn.Module:
    """Return the network inside what `torch.compile` makes of it."""
    inner = getattr(network, "_orig_mod", network)
    return inner if isinstance(inner, nn.Module) else network


def named_layers(network: nn.Module) -> dict[str, nn.Module]:
    """Return every layer by the name that torch gives it, as if nothing were compiled.

    >>> list(named_layers(nn.Sequential(nn.Linear(2, 2), nn.ReLU())))
    ['0', '1']
    """
    return {
        name.replace("_orig_mod.", ""): module
        for name, module in unwrapped(network).named_modules()
        if name and not name.endswith("_orig_mod")
    }


def last_linear(network: nn.Module) -> tuple[str, nn.Linear] | None:
    """Return the name and the last of a network's linear layers, in order of registration."""
    found = [(n, m) for n, m in named_layers(network).items() if isinstance(m, nn.Linear)]
    return found[-1] if found else None


class Taps:
    """Captures what named layers of a network give, while the network runs as always.

    A layer's name is torch's (`layer3.1.conv2`); `penultimate` stands for the input of the last
    `nn.Linear`. Of a layer that is called several times the last call is kept, of one that gives a
    tuple its first entry. What an in-place operation behind a layer would spoil is copied; which
    layers that concerns is found out by :meth:`probe`.

    Args:
        network: any network, also a compiled one; tap it before it is first called.
        layers: the layers' names.
        key: what the network is called in error messages.

    Raises:
        ConfigError: for a name that the network lacks, with the nearest ones that it has.

    >>> network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> taps = Taps(network, ["1", "penultimate"])
    >>> found = taps.run(Batch(torch.ones(5, 3)))
    >>> found.logits.shape, found.features["1"].shape
    (torch.Size([5, 2]), torch.Size([5, 4]))
    >>> torch.equal(found.features["1"], found.features["penultimate"])
    True
    >>> taps.close()
    """

    def __init__(self, network: nn.Module, layers: Iterable[str], key: str = "network") -> None:
        self.network = network
        self.layers = tuple(dict.fromkeys(layers))
        self._found: dict[str, Tensor] = {}
        self._versions: dict[str, int] = {}
        self._copied: set[str] = set()
        self._probing = False
        known = named_layers(network)
        self._handles = [self._tap(known, name, key) for name in self.layers]

    def _tap(self, known: Mapping[str, nn.Module], name: str, key: str) -> Any:
        if name == PENULTIMATE:
            last = last_linear(self.network)
            if last is None:
                raise ConfigError(
                    f"{key}: `{PENULTIMATE}` is the input of the last nn.Linear, and there is none "
                    f"in {type(unwrapped(self.network)).__name__}; name a layer instead"
                )
            return last[1].register_forward_pre_hook(
                lambda _, args, name=name: self._keep(name, args)
            )
        if name not in known:
            near = get_close_matches(name, known, n=3, cutoff=0.3) or list(known)[:10]
            raise ConfigError(
                f"{key}: {type(unwrapped(self.network)).__name__} has no layer {name!r}; the "
                f"nearest are {', '.join(near)}"
            )
        return known[name].register_forward_hook(
            lambda _, __, output, name=name: self._keep(name, output)
        )

    def _keep(self, name: str, value: Any) -> None:
        tensor = value[0] if isinstance(value, (tuple, list)) and value else value
        if not isinstance(tensor, Tensor):
            raise ConfigError(
                f"layer {name!r} gives {type(value).__name__}; only tensors can be used"
            )
        self._found[name] = tensor.clone() if name in self._copied else tensor
        if self._probing:
            self._versions[name] = tensor._version

    @torch.no_grad()
    def probe(self, batch: Batch) -> Outputs:
        """Run once in evaluation mode, and find which layers' outputs must be copied.

        Returns:
            The outputs, whose shapes are those of any batch of this size.
        """
        network = unwrapped(self.network)
        modes = {module: module.training for module in network.modules()}
        network.eval()
        self._copied, self._versions, self._probing = set(), {}, True
        # Dropout acts in training only, so that no run in evaluation mode shows it.
        drops = any(isinstance(m, _DropoutNd) and m.inplace for m in network.modules())
        try:
            batch.call(network)
            self._copied = (
                set(self.layers)
                if drops
                else {
                    name
                    for name, found in self._found.items()
                    if found._version != self._versions[name]
                }
            )
            self._probing = False
            return batch.rows.of(self.collect(batch.call(network)))
        finally:
            self._probing = False
            for module, mode in modes.items():
                module.training = mode

    def run(self, batch: Batch) -> Outputs:
        """Call the network and return its logits with the layers' outputs as `features`."""
        return batch.rows.of(self.collect(batch.call(self.network)))

    def collect(self, outputs: Outputs) -> Outputs:
        """Return the outputs of the call that has just ended, with the layers' as `features`."""
        found, self._found = self._found, {}
        missing = [name for name in self.layers if name not in found]
        if missing:
            raise ConfigError(
                f"layer {missing[0]!r} was not called in this forward pass, so it gives nothing"
            )
        return Outputs(outputs.logits, {name: found[name] for name in self.layers})

    def close(self) -> None:
        """Remove every hook and forget what was captured."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._found = [], {}
