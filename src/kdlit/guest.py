"""As a guest in somebody's LightningModule: what is put there, and taken away again."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from kdlit.batch import Batch, Outputs

PARTS = "kdlit_objectives"
"""Name of the submodule that holds the objectives while a module is fitted."""

_ABSENT = object()


class Replacements:
    """Methods that stand before those of a class, for one object alone, until they are undone.

    >>> class Greeter:
    ...     def greet(self):
    ...         return "hello"
    >>> greeter, replacements = Greeter(), Replacements()
    >>> replacements.put(greeter, "greet", lambda: "welcome")
    >>> greeter.greet()
    'welcome'
    >>> replacements.undo()
    >>> greeter.greet(), vars(greeter)
    ('hello', {})
    """

    def __init__(self) -> None:
        self._before: list[tuple[Any, str, Any]] = []

    def put(self, owner: Any, name: str, method: Callable[..., Any]) -> None:
        """Put a method before the one that is there."""
        self._before.append((owner, name, vars(owner).get(name, _ABSENT)))
        setattr(owner, name, method)

    def undo(self) -> None:
        """Leave everything as it was."""
        for owner, name, before in reversed(self._before):
            if before is _ABSENT:
                delattr(owner, name)
            else:
                setattr(owner, name, before)
        self._before = []


class Parts(nn.ModuleDict):
    """Modules that are trained with somebody's module, and are no part of its state.

    >>> module = nn.Linear(2, 3)
    >>> module.add_module(PARTS, Parts({"projector": nn.Linear(3, 4)}))
    >>> len(list(module.parameters())), list(module.state_dict())
    (4, ['weight', 'bias'])
    >>> module.load_state_dict(module.state_dict())
    <All keys matched successfully>
    """

    def __init__(self, parts: Mapping[str, nn.Module]) -> None:
        super().__init__(dict(parts))
        self.register_load_state_dict_post_hook(_not_missed)  # type: ignore[no-untyped-call]

    def state_dict(  # type: ignore[override]
        self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False
    ) -> Any:
        """Return nothing."""
        return {} if destination is None else destination


def _not_missed(module: nn.Module, incompatible: Any) -> None:
    keys = incompatible.missing_keys
    keys[:] = [name for name in keys if not name.startswith(f"{PARTS}.")]


Call = tuple[Batch, Outputs]


class Listener:
    """Hears what a network is asked and what it says, while somebody else calls it.

    Args:
        outputs: takes apart what the network says of a batch.

    >>> network, listener = nn.Linear(2, 3), Listener(lambda said, batch: Outputs.of(said))
    >>> listener.attach(network)
    >>> with listener.listening(Batch(None, target=torch.tensor([1]))) as calls:
    ...     _ = network(torch.zeros(1, 2))
    >>> [(batch.inputs, batch.target, outputs.logits.shape) for batch, outputs in calls]
    [(tensor([[0., 0.]]), tensor([1]), torch.Size([1, 3]))]
    >>> listener.detach()
    """

    def __init__(self, outputs: Callable[[Any, Batch], Outputs]) -> None:
        self._outputs = outputs
        self._hook: Any = None
        self._calls: list[Call] | None = None
        self._around = Batch(None)
        self._with_gradients = False

    def attach(self, network: nn.Module) -> None:
        """Watch a network."""
        self._hook = network.register_forward_hook(self._hear, with_kwargs=True)

    def detach(self) -> None:
        """Watch none."""
        if self._hook is not None:
            self._hook.remove()
        self._hook, self._calls = None, None

    @contextmanager
    def listening(self, around: Batch, *, with_gradients: bool = False) -> Iterator[list[Call]]:
        """Collect the calls until the context ends.

        Args:
            around: where the calls' targets and indices come from.
            with_gradients: whether only calls that track gradients count.
        """
        self._calls, self._around, self._with_gradients = [], around, with_gradients
        try:
            yield self._calls
        finally:
            self._calls, self._around = None, Batch(None)

    def _hear(
        self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        # Under DDP the module itself is called once more, around the whole step.
        if self._calls is None or (self._with_gradients and not torch.is_grad_enabled()):
            return
        batch = _batch_of(args, kwargs, self._around)
        self._calls.append((batch, self._outputs(output, batch)))


@dataclass(frozen=True)
class _AnyCall(Batch):
    """A batch for which a network is called with any arguments; `inputs` are the positional."""

    keywords: Mapping[str, Any] = field(default_factory=dict)

    def call(self, network: nn.Module) -> Outputs:
        """Call a network as another was called."""
        return Outputs.of(network(*self.inputs, **self.keywords))


def _batch_of(args: tuple[Any, ...], kwargs: dict[str, Any], around: Batch) -> Batch:
    """Return the batch that calls a network with these arguments."""
    if len(args) == 1 and not kwargs and isinstance(args[0], Tensor):
        return replace(around, inputs=args[0])
    if not args:
        return replace(around, inputs=kwargs)
    return _AnyCall(args, around.target, around.index, around.rows, kwargs)


@contextmanager
def made_with(dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """Make tensors of a type on a device, whatever Lightning has set while a module is made."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            yield
    finally:
        torch.set_default_dtype(before)
