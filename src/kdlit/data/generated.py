"""A transfer set that is a generator: images that a teacher's answers have taught it to make."""

import math
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.utils.data import Dataset

from kdlit import checks
from kdlit.data.generator_training import DEFAULT_OPTIMIZER, GeneratorTraining
from kdlit.data.resuming import InOrder, ResumableDataModule, ResumableLoader
from kdlit.errors import ConfigError
from kdlit.models import ImageGenerator
from kdlit.taps import PENULTIMATE


class Order(NamedTuple):
    """What the loaders give: which batch of an epoch is to be made, and of how many images."""

    trains: bool
    number: int
    size: int


class _Orders(Dataset[Order]):
    """Says what is to be made; how many samples that are it does not know."""

    def __init__(self, trains: bool, sizes: list[int]) -> None:
        self.trains, self.sizes = trains, sizes

    def __getitem__(self, number: int) -> Order:
        return Order(self.trains, number, self.sizes[number])


class GeneratedImages(ResumableDataModule):
    """Data-free distillation: the student never sees a real image, nor does its selection.

    A training batch is made when it is asked for: a generator makes images, the teacher answers
    them, the generator takes a step (:class:`kdlit.data.generator_training.GeneratorTraining`),
    and the student gets `(image, teacher's decision)`. In validation the present generator makes
    images of noise that is always the same, and the teacher's decisions count as the truth. Only
    tests and predictions read real images: those of the datamodule `real`, which is not set up
    before.

    The teacher must be told before `fit`, by :meth:`learn_from`. Generator and optimizer are kept
    in the checkpoint as the datamodule's state, and a run that goes on gets the same images as one
    that was never interrupted.

    With the defaults it is the method of Chen et al. 2019, with a smaller generator. What goes
    beyond it: `adversarial`, by which the generator looks for images on which the student still
    errs, `student_steps`, and `anneal`.

    Args:
        real: the datamodule whose data the teacher has learned, for the test.
        root: where those data lie, if not where `real` says.
        generator: maps noise (N, noise) to images as the networks see them; default
            :class:`kdlit.models.ImageGenerator`. One without parameters is not trained, such as
            `nn.Unflatten(1, (1, 28, 28))` with `noise=784`: images of Gaussian noise.
        optimizer: a function of the generator's parameters; default Adam at 0.001.
        noise: numbers that an image is made of.
        batch_size: images per step.
        steps_per_epoch: training batches in an epoch.
        student_steps: training batches for each step of the generator.
        anneal: whether the generator's learning rate falls to 0 over the training, along half a
            cosine. With `adversarial` it should: a student whose own rate falls cannot keep up
            with a generator whose rate does not.
        val_size: images in validation.
        eval_batch_size: images per batch in validation.
        one_hot: weight of :func:`kdlit.functional.one_hot_loss`. Default 1, as in the source.
        activation: weight of :func:`kdlit.functional.activation_loss`. Default 0.1, likewise.
        entropy: weight of :func:`kdlit.functional.information_entropy_loss`. Default 5 / ln 10,
            which is the source's 5 for logarithms to base 10.
        adversarial: weight of :func:`kdlit.functional.agreement_loss`, which the source has not.
        layer: the teacher's layer whose activations count; the input of its last linear layer,
            unless named.
        seed: of the noise.

    Raises:
        ConfigError: if an argument cannot work; in `setup`, if there are several processes.
        TeacherError: in `setup`, if no teacher was told.

    Source: Chen et al., "Data-Free Learning of Student Networks", ICCV 2019 (arXiv:1904.01186).

    >>> from kdlit.data import MNISTDataModule
    >>> data = GeneratedImages(MNISTDataModule(root="data"), steps_per_epoch=10)
    >>> data.learn_from(nn.Sequential(nn.Flatten(), nn.Linear(784, 10)))
    >>> len(data.train_dataloader()), data.sample_shape
    (10, (1, 28, 28))
    """

    def __init__(
        self,
        real: Any,
        root: str | Path | None = None,
        generator: nn.Module | None = None,
        optimizer: Any = DEFAULT_OPTIMIZER,
        noise: int = 100,
        batch_size: int = 128,
        steps_per_epoch: int = 100,
        student_steps: int = 1,
        anneal: bool = False,
        val_size: int = 1000,
        eval_batch_size: int = 1000,
        one_hot: float = 1.0,
        activation: float = 0.1,
        entropy: float = 5 / math.log(10),
        adversarial: float = 0.0,
        layer: str = PENULTIMATE,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.real = real
        if root is not None:
            self.real.root = Path(root)
        self.batch_size = checks.integer("batch_size", batch_size, least=2)
        self.steps_per_epoch = checks.integer("steps_per_epoch", steps_per_epoch)
        self.student_steps = checks.integer("student_steps", student_steps)
        self.anneal = anneal
        self.val_size = checks.integer("val_size", val_size)
        self.eval_batch_size = checks.integer("eval_batch_size", eval_batch_size)
        weights = {
            "one_hot": one_hot,
            "activation": activation,
            "entropy": entropy,
            "adversarial": adversarial,
        }
        generator = ImageGenerator(noise) if generator is None else generator
        self.lesson = GeneratorTraining(generator, optimizer, noise, weights, layer, seed)
        for name in ("sample_shape", "num_classes", "class_names"):
            if hasattr(real, name):
                setattr(self, name, getattr(real, name))
        self._check_images()
        self._made: tuple[int, Any] | None = None

    @torch.no_grad()
    def _check_images(self) -> None:
        """Check that the generator makes images of the real ones' shape."""
        lesson, shape = self.lesson, getattr(self, "sample_shape", None)
        training = lesson.generator.training
        lesson.generator.eval()
        try:
            made = tuple(lesson.generator(torch.zeros(2, lesson.noise)).shape[1:])
        except RuntimeError as error:
            raise ConfigError(f"`generator` cannot take {lesson.noise} numbers: {error}") from error
        finally:
            lesson.generator.train(training)
        if shape is not None and made != tuple(shape):
            raise ConfigError(
                f"`generator` makes images of shape {made}, and the real ones have {tuple(shape)}"
            )

    def learn_from(self, teacher: nn.Module | None) -> None:
        """Take a trained network, which is frozen, as the one whose answers teach the generator.

        Raises:
            TeacherError: if it is no single network.
        """
        self.lesson.learn_from(teacher)

    # Data ----------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Download what is missing of the real data."""
        self.real.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """Look into the teacher before a training; set up the real data before a test."""
        super().setup(stage)
        self.real.trainer = self.trainer
        if stage in ("test", "predict", None):
            self.real.setup(stage)
        elif self.trainer is not None:
            if self.trainer.world_size > 1:
                raise ConfigError(
                    "generated images are made in one process: set trainer.devices to 1, got "
                    f"{self.trainer.world_size} processes"
                )
            if self.anneal and (self.trainer.max_epochs or 0) < 1:
                raise ConfigError(
                    "`anneal` needs to know the training's end: set the trainer's max_epochs, or "
                    "anneal=False"
                )
            self._made = None
            self.lesson.tap()

    def teardown(self, stage: str) -> None:
        """Leave the teacher as it was."""
        self.lesson.untap()

    # Loaders -------------------------------------------------------------------------------

    def _loader(self, trains: bool, sizes: list[int]) -> ResumableLoader:
        return ResumableLoader(
            _Orders(trains, sizes),
            batch_size=None,
            sampler=InOrder(len(sizes)),
            # Not from the global generator, whose state belongs to the networks.
            generator=torch.Generator().manual_seed(self.lesson.seed),
        )

    def train_dataloader(self) -> ResumableLoader:
        """Ask for an epoch of batches."""
        return self.resumed(self._loader(True, [self.batch_size] * self.steps_per_epoch))

    def val_dataloader(self) -> ResumableLoader:
        """Ask for the validation images."""
        whole, rest = divmod(self.val_size, self.eval_batch_size)
        return self._loader(False, [self.eval_batch_size] * whole + [rest] * bool(rest))

    def test_dataloader(self) -> Any:
        """Give the real test set."""
        return self.real.test_dataloader()

    def predict_dataloader(self) -> Any:
        """Give what the real data have to predict."""
        return self.real.predict_dataloader()

    # Batches -------------------------------------------------------------------------------

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Make the batch that is ordered; hand a real one to its own datamodule."""
        if not isinstance(batch, Order):
            return self.real.on_after_batch_transfer(batch, dataloader_idx)
        assert self.trainer is not None  # noqa: S101 - orders come from a training
        if not batch.trains:
            return self._make(batch, self.trainer)
        # A dry run asks for the first batch, and the training asks for it again.
        number = self.trainer.current_epoch * self.steps_per_epoch + batch.number
        if self._made is None or self._made[0] != number:
            self._made = number, self._make(batch._replace(number=number), self.trainer)
        return self._made[1]

    def _make(self, order: Order, trainer: pl.Trainer) -> tuple[Tensor, Tensor]:
        module: Any = trainer.lightning_module
        lesson, precision = self.lesson, trainer.precision_plugin
        lesson.to(module.device)
        noise = lesson.draw(order.size, int(order.trains), order.number)
        lesson.generator.train(order.trains)
        if order.trains and order.number % self.student_steps == 0:
            lesson.set_rate(self._rate(order.number, trainer))
            return lesson.step(noise, module.trained, precision)
        return lesson.show(noise, precision)

    def _rate(self, number: int, trainer: pl.Trainer) -> float:
        """Return by what the generator's learning rate is multiplied."""
        if not self.anneal:
            return 1.0
        steps = (trainer.max_epochs or 1) * self.steps_per_epoch
        return 0.5 * (1 + math.cos(math.pi * min(number / steps, 1)))

    # Checkpoints ---------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the generator and its optimizer, and where the loader is."""
        return {**self.lesson.state_dict(), "loader": super().state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with them, if it is a training that goes on."""
        super().load_state_dict(state_dict.get("loader", {}))
        if self.trainer is None or self.trainer.state.fn == TrainerFn.FITTING:
            self._made = None
            self.lesson.load_state_dict(state_dict)
