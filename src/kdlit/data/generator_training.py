"""The training of a generator whose images a teacher judges."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from kdlit import checks
from kdlit.batch import Batch, Outputs
from kdlit.errors import ConfigError, TeacherError
from kdlit.functional import (
    activation_loss,
    agreement_loss,
    information_entropy_loss,
    one_hot_loss,
)
from kdlit.randomness import derive_seed
from kdlit.taps import PENULTIMATE, Taps
from kdlit.teachers import as_source

DEFAULT_OPTIMIZER = partial(torch.optim.Adam, lr=1e-3)


class GeneratorTraining:
    r"""A generator and its optimizer, which learn from what a frozen teacher says of the images.

    .. math:: \mathcal{L}_G = w_\text{oh} \mathcal{L}_\text{oh} + w_\text{a} \mathcal{L}_\text{a}
        + w_\text{ie} \mathcal{L}_\text{ie} + w_\text{adv} \mathcal{L}_\text{adv}

    with the losses of :mod:`kdlit.functional`. The gradients are taken for the generator alone:
    neither teacher nor student gets any. The noise of a batch depends on the seed and the batch's
    number alone.

    Args:
        generator: maps noise (N, noise) to images; one without parameters is not trained.
        optimizer: a function of the generator's parameters that makes its optimizer.
        noise: numbers that an image is made of.
        weights: of the losses, by the names `one_hot`, `activation`, `entropy` and `adversarial`.
        layer: whose activations the activation loss takes, by its name in the teacher.
        seed: of the noise.

    Raises:
        ConfigError: if an argument cannot work.
    """

    def __init__(
        self,
        generator: nn.Module,
        optimizer: Any = DEFAULT_OPTIMIZER,
        noise: int = 100,
        weights: Mapping[str, float] | None = None,
        layer: str = PENULTIMATE,
        seed: int = 0,
    ) -> None:
        self.generator, self.layer = generator, layer
        self.noise = checks.integer("noise", noise)
        self.seed = checks.integer("seed", seed, least=0)
        weights = {"one_hot": 1.0} if weights is None else weights
        self.weights = {name: checks.non_negative(name, weight) for name, weight in weights.items()}
        parameters = list(generator.parameters())
        if parameters and not any(self.weights.values()):
            raise ConfigError(
                "the weights of all losses of the generator are 0, and it would learn nothing: "
                f"set one of {', '.join(self.weights)}"
            )
        self.optimizer = optimizer(parameters) if parameters else None
        groups = [] if self.optimizer is None else self.optimizer.param_groups
        self._rates = [group["lr"] for group in groups]
        self.device = torch.device("cpu")
        self.teacher: nn.Module | None = None
        self._taps: Taps | None = None

    def learn_from(self, teacher: nn.Module | None) -> None:
        """Take a network, or a source with one network, as the teacher, and freeze it.

        Raises:
            ConfigError: if it has no layer of the name.
            TeacherError: if it is no single network, through which gradients could flow.
        """
        source = None if teacher is None else as_source(teacher)
        network = None if source is None or source.changes else source.single_network
        if network is None:
            told = "there is none" if teacher is None else f"got {type(teacher).__name__}"
            raise TeacherError(
                f"images are generated for a teacher that is one frozen network, {told}: choose "
                "teacher=auto or teacher=checkpoint"
            )
        self.teacher = network
        self.tap()
        self.untap()

    def tap(self) -> None:
        """Look at the layer whose activations count.

        Raises:
            ConfigError: if the teacher has no such layer.
            TeacherError: if nobody has said who the teacher is.
        """
        if self.teacher is None:
            raise TeacherError(
                "nobody has said from whom the generator is to learn: call "
                "learn_from(teacher) of the datamodule before fit"
            )
        self.untap()
        if self.weights.get("activation"):
            self._taps = Taps(self.teacher, [self.layer], "teacher")

    def untap(self) -> None:
        """Leave the teacher as it was."""
        if self._taps is not None:
            self._taps.close()
        self._taps = None

    def to(self, device: torch.device) -> None:
        """Move the generator, and what its optimizer knows of it."""
        first = next(self.generator.parameters(), None)
        if self.optimizer is not None and first is not None and first.device != device:
            self.generator.to(device)
            # The optimizer moves what it loads to where the parameters are.
            self.optimizer.load_state_dict(self.optimizer.state_dict())
        self.device = device

    def set_rate(self, factor: float) -> None:
        """Multiply the learning rate that the optimizer was made with."""
        groups = [] if self.optimizer is None else self.optimizer.param_groups
        for rate, group in zip(self._rates, groups, strict=True):
            group["lr"] = factor * rate

    def draw(self, size: int, *number: int) -> Tensor:
        """Return the noise of the batch with a number, shape (size, noise)."""
        source = torch.Generator().manual_seed(derive_seed(self.seed, *number))
        return torch.randn(size, self.noise, generator=source).to(self.device)

    @torch.no_grad()
    def show(self, noise: Tensor, precision: Any = None) -> tuple[Tensor, Tensor]:
        """Return the images that are made of noise, and the teacher's decisions."""
        with _context(precision):
            images = _converted(self.generator(noise), precision)
            return images, self._asked(images).logits.argmax(dim=-1)

    def step(
        self, noise: Tensor, student: nn.Module | None = None, precision: Any = None
    ) -> tuple[Tensor, Tensor]:
        """Make images of noise, and let the generator learn from what is said of them.

        Returns:
            The images, as they were before the generator's step, and the teacher's decisions.
        """
        if self.optimizer is None:
            return self.show(noise, precision)
        with _context(precision):
            images = _converted(self.generator(noise), precision)
            teacher = self._asked(images)
            adversary = None
            if self.weights.get("adversarial") and student is not None:
                with _evaluating(student):
                    adversary = Batch(images).run(student).logits
        loss = self._loss(teacher, adversary)
        parameters = [p for p in self.generator.parameters() if p.requires_grad]
        for parameter, gradient in zip(
            parameters, torch.autograd.grad(loss, parameters), strict=True
        ):
            parameter.grad = gradient
        self.optimizer.step()
        return images.detach(), teacher.logits.detach().argmax(dim=-1)

    def _asked(self, images: Tensor) -> Outputs:
        assert self.teacher is not None  # noqa: S101 - `tap` has seen to it
        batch = Batch(images)
        return batch.run(self.teacher) if self._taps is None else self._taps.run(batch)

    def _loss(self, teacher: Outputs, student: Tensor | None) -> Tensor:
        losses = {
            "one_hot": lambda: one_hot_loss(teacher.logits),
            "activation": lambda: activation_loss(teacher.features[self.layer]),
            "entropy": lambda: information_entropy_loss(teacher.logits),
            "adversarial": lambda: agreement_loss(student, teacher.logits),  # type: ignore[arg-type]
        }
        terms = [weight * losses[name]() for name, weight in self.weights.items() if weight]
        return torch.stack(terms).sum()

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must keep to go on."""
        optimizer = None if self.optimizer is None else self.optimizer.state_dict()
        return {"generator": self.generator.state_dict(), "optimizer": optimizer}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        self.generator.load_state_dict(state["generator"])
        if self.optimizer is not None:
            self.optimizer.load_state_dict(state["optimizer"])


def _context(precision: Any) -> AbstractContextManager[Any]:
    """Return the context in which Lightning's plugin runs a network.

    Not in float16, whose gradients would have to be scaled.
    """
    if precision is None or str(precision.precision).startswith("16"):
        return nullcontext()
    context: AbstractContextManager[Any] = precision.forward_context()
    return context


def _converted(images: Tensor, precision: Any) -> Tensor:
    converted: Tensor = images if precision is None else precision.convert_input(images)
    return converted


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Run a network in evaluation mode, so that its statistics stay those of its own training."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
