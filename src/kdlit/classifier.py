"""What every trained classifier does alike: optimise, watch, evaluate, predict."""

import inspect
import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from kdlit.batch import Batch, Outputs, probabilities
from kdlit.errors import ConfigError, NonFiniteError
from kdlit.metrics import ClassifierMetrics
from kdlit.schedules import Weight, weight_at
from kdlit.tally import Tally

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
SchedulerFactory = Callable[..., Any]

DEFAULT_OPTIMIZER: OptimizerFactory = partial(torch.optim.Adam, lr=1e-3)


def wants_total_steps(scheduler: SchedulerFactory) -> bool:
    """Return whether a schedule's factory has an argument `total_steps` that is not yet given.

    >>> wants_total_steps(partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1))
    True
    >>> wants_total_steps(partial(torch.optim.lr_scheduler.StepLR, step_size=1))
    False
    """
    argument = inspect.signature(scheduler).parameters.get("total_steps")
    return argument is not None and argument.default in (None, inspect.Parameter.empty)


class ClassifierModule(pl.LightningModule):
    """Base of the modules that train a network to classify.

    A subclass names the `trained` network and gives the loss `terms` of a batch. Logged are, every
    `log_every_n_steps`, `train/loss` and each term by its name; at the end of each epoch their
    means and the accuracy over the epoch (`train/loss_epoch`, `train/accuracy`, ...); in
    validation and test the values of :class:`kdlit.metrics.ClassifierMetrics` as `val/accuracy`,
    `test/ece` and so on. A second loader's names begin with `val_1/` or `test_1/`.

    A loss or validation loss that is NaN or infinite stops the training with a `NonFiniteError`
    that names the step, before a checkpoint of it can be written.

    Args:
        optimizer: a function of the parameters that makes the optimizer, such as
            `functools.partial(torch.optim.Adam, lr=1e-3)`, which is the default.
        scheduler: a function of the optimizer that makes the learning rate schedule, or None. One
            that takes `total_steps` and has not been given it (`OneCycleLR`) is given the number of
            steps and advances every step; any other advances every epoch.
    """

    def __init__(
        self,
        optimizer: OptimizerFactory | None = None,
        scheduler: SchedulerFactory | None = None,
    ) -> None:
        super().__init__()
        for name, factory in (("optimizer", optimizer), ("scheduler", scheduler)):
            if factory is not None and not callable(factory):
                raise ConfigError(
                    f"`{name}` must be a function that makes one, such as a functools.partial, "
                    f"got {type(factory).__name__}"
                )
        self._make_optimizer = optimizer or DEFAULT_OPTIMIZER
        self._make_scheduler = scheduler
        self._tally = Tally()
        self._metrics: dict[str, ClassifierMetrics] = {}

    # For subclasses ------------------------------------------------------------------------

    uses_teacher: bool = False
    """Whether training reads a teacher's outputs; evaluation reads them if there is a teacher."""

    @property
    @abstractmethod
    def trained(self) -> nn.Module:
        """The network that is trained, evaluated and shipped."""

    @abstractmethod
    def terms(
        self, outputs: Outputs, teacher: Outputs | None, batch: Batch
    ) -> tuple[dict[str, Tensor], Mapping[str, Weight]]:
        """Return the named terms of the loss and the weight of each."""

    def answer(self, batch: Batch) -> Outputs:
        """Return the trained network's outputs for a training batch."""
        return batch.run(self.trained)

    def ask_teacher(self, batch: Batch, outputs: Outputs) -> Outputs | None:
        """Return a teacher's outputs for the batch that got `outputs`, or None without one."""
        return None

    # Training ------------------------------------------------------------------------------

    def forward(self, inputs: Any) -> Any:
        """Call the trained network."""
        return self.trained(inputs)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the weighted sum of the terms."""
        batch = Batch.of(batch)
        outputs = self.answer(batch)
        teacher = self.ask_teacher(batch, outputs) if self.uses_teacher else None
        # Loss mathematics runs in float32 under any precision plugin.
        with torch.autocast(outputs.logits.device.type, enabled=False):
            terms, weights = self.terms(outputs, teacher, batch)
            weighted = [
                weight_at(weights[name], self.global_step) * term for name, term in terms.items()
            ]
            loss = torch.stack(weighted).sum()
        values = {"loss": loss, **terms}
        if batch.target is not None:
            values["accuracy"] = (outputs.logits.argmax(dim=-1) == batch.target).float().mean()
        self._tally.add(values, len(outputs.logits), self.global_step)
        # Lightning hands values to the loggers at these steps only: log none in vain.
        if (self.global_step + 1) % self.trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self._tally.check()
            self.log("train/loss", loss.detach(), prog_bar=True)
            self.log_dict({f"train/{name}": term.detach() for name, term in terms.items()})
        return loss

    def on_train_epoch_start(self) -> None:
        """Begin the epoch's means."""
        self._tally = Tally()

    def on_validation_start(self) -> None:
        """Stop before a checkpoint can be written if the loss was not finite."""
        self._tally.check()

    def on_train_epoch_end(self) -> None:
        """Log the epoch's means, over all processes."""
        self._tally.check()
        means = self._tally.means(self.trainer.strategy)
        if "accuracy" in means:
            self.log("train/accuracy", means.pop("accuracy"))
        self.log_dict({f"train/{name}_epoch": mean for name, mean in means.items()})

    def configure_optimizers(self) -> Any:
        """Make the optimizer of all parameters that require gradients, and its schedule."""
        optimizer = self._make_optimizer([p for p in self.parameters() if p.requires_grad])
        if self._make_scheduler is None:
            return optimizer
        if wants_total_steps(self._make_scheduler):
            steps = int(self.trainer.estimated_stepping_batches)
            scheduler, interval = self._make_scheduler(optimizer, total_steps=steps), "step"
        else:
            scheduler, interval = self._make_scheduler(optimizer), "epoch"
        plan = {"scheduler": scheduler, "interval": interval, "monitor": "val/nll"}
        return {"optimizer": optimizer, "lr_scheduler": plan}

    # Evaluation ----------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Begin afresh."""
        self._metrics = {}

    def on_test_epoch_start(self) -> None:
        """Begin afresh."""
        self._metrics = {}

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Measure the trained network, and how it agrees with a teacher."""
        self._measure("val", Batch.of(batch), dataloader_idx)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Measure the trained network, how it agrees with a teacher, and the teacher itself."""
        self._measure("test", Batch.of(batch), dataloader_idx)

    def _measure(self, stage: str, batch: Batch, loader: int) -> None:
        if batch.target is None:
            raise ConfigError("evaluation needs ground truth, but the batch has no target")
        prefix = f"{stage}_{loader}/" if loader else f"{stage}/"
        outputs = batch.run(self.trained)
        teacher = self.ask_teacher(batch, outputs)
        own = self._metrics.setdefault(prefix, ClassifierMetrics())
        own.update(outputs.logits, batch.target, teacher.logits if teacher else None)
        if teacher is not None and stage == "test":
            theirs = self._metrics.setdefault(f"{prefix}teacher_", ClassifierMetrics())
            theirs.update(teacher.logits, batch.target)

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics; stop if the validation loss is not finite."""
        self._log_metrics()

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        self._log_metrics()

    def _log_metrics(self) -> None:
        for prefix, metrics in self._metrics.items():
            for name, value in metrics.compute().items():
                if prefix == "val/" and name == "nll" and not math.isfinite(value):
                    raise NonFiniteError(
                        f"the validation loss is {value} after step {self.global_step}: the "
                        "weights are no longer finite. Try a smaller learning rate, or "
                        "trainer.gradient_clip_val=1. Earlier checkpoints are untouched"
                    )
                # The values are the same on all processes already; sync_dist says so.
                self.log(
                    prefix + name,
                    value,
                    prog_bar=prefix + name == "val/accuracy",
                    sync_dist=self.trainer.world_size > 1,
                    add_dataloader_idx=False,
                )

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Return the trained network's probabilities, float32, shape (N, C)."""
        return probabilities(Batch.of(batch).run(self.trained).logits)
