"""What every trained classifier does alike: optimise, watch, evaluate, predict."""

import inspect
import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import DataLoader

from kdlit import checks
from kdlit.batch import Batch, Outputs
from kdlit.errors import ConfigError, NonFiniteError
from kdlit.metrics import NetworkMetrics
from kdlit.passes import show_view
from kdlit.positions import Positions, check_positions
from kdlit.schedules import Weight, weight_at
from kdlit.tally import Tally
from kdlit.tasks import Task

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
SchedulerFactory = Callable[[Optimizer], LRScheduler]

DEFAULT_OPTIMIZER: OptimizerFactory = partial(torch.optim.Adam, lr=1e-3)


def wants_total_steps(scheduler: SchedulerFactory) -> bool:
    """Return whether a schedule's factory has an argument `total_steps` that is not yet given.

    >>> wants_total_steps(partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1))
    True
    >>> wants_total_steps(partial(torch.optim.lr_scheduler.StepLR, step_size=1))
    False
    """
    if isinstance(scheduler, partial) and "total_steps" in scheduler.keywords:
        return scheduler.keywords["total_steps"] is None
    argument = inspect.signature(scheduler).parameters.get("total_steps")
    return argument is not None and argument.default in (None, inspect.Parameter.empty)


# In each step torch's optimizers ask whether a GPU captures them in a graph, and to that end
# search for GPUs: some per cent of a small network's step. The method's names, new and old.
_HEALTH_CHECKS = ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check")


def _nothing() -> None:
    """Do nothing."""


class ClassifierModule(pl.LightningModule):
    """Base of the modules that train a network.

    A subclass names the `trained` network and gives the loss `terms` of a batch. Logged are, every
    `log_every_n_steps` steps of the optimizer, `train/loss`, each term by its name and
    `train/learning_rate`; at the end of each epoch the means and the accuracy over the epoch
    (`train/loss_epoch`, `train/accuracy`, ...); in validation and test what the task measures, for
    classes the values of :class:`kdlit.metrics.ClassifierMetrics`, as `val/accuracy`, `test/ece`
    and so on. A second loader's names begin with `val_1/` or `test_1/`.

    What a step says is read from the device, and handed to the loggers, some hundred steps later:
    a step waits for nothing. What is no single number is an attribute: after a test `reliability`
    holds the bins of :meth:`kdlit.metrics.ClassifierMetrics.reliability` under `test/` and
    `test/teacher_`. A loss or validation loss that is NaN or infinite stops the training
    with a `NonFiniteError` that names the step, before a checkpoint of it can be written.

    Args:
        optimizer: a function of the parameters that makes the optimizer, such as
            `functools.partial(torch.optim.Adam, lr=1e-3)`, which is the default.
        scheduler: a function of the optimizer that makes the learning rate schedule, or None. One
            that takes `total_steps` and has not been given it (`OneCycleLR`) is given the number of
            steps and advances every step; any other advances every epoch.
        step_size: samples per step of the optimizer; a batch of the loader that is larger is taken
            apart, in order, and each part is a step of its own. A loader that gives the batches of
            many steps at once saves what Lightning does around each batch, and gives the same
            weights to the bit, where the loader's batch size is a multiple of it. Callbacks are
            called for the loader's batches, and so a ModelCheckpoint by steps or time does not see
            each step; `limit_train_batches` counts them. Lightning does not clip or accumulate
            gradients or serve `ReduceLROnPlateau`: it refuses. None: each batch is a step.
        positions: which positions count where the networks answer each token of a sample, such as
            :class:`kdlit.positions.Tokens`; None where they answer each sample.

    Raises:
        ConfigError: if an argument cannot work.
    """

    def __init__(
        self,
        optimizer: OptimizerFactory | None = None,
        scheduler: SchedulerFactory | None = None,
        step_size: int | None = None,
        positions: Positions | None = None,
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
        self.step_size = None if step_size is None else checks.integer("step_size", step_size)
        self.positions = check_positions(positions)
        # What Lightning calls manual: a batch is as many steps as the module wants.
        self.automatic_optimization = step_size is None
        self._tally = Tally()
        self._sums: dict[str, float] | None = None
        self._rates: dict[int, float] = {}
        self._metrics: dict[str, NetworkMetrics] = {}
        self._measured: dict[str, int] = {}
        self.reliability: dict[str, list[dict[str, float]]] = {}

    # For subclasses ------------------------------------------------------------------------

    uses_teacher: bool = False
    """Whether training reads a teacher's outputs; evaluation reads them if there is a teacher."""

    @property
    @abstractmethod
    def trained(self) -> nn.Module:
        """The network that is trained, evaluated and shipped."""

    @property
    @abstractmethod
    def task(self) -> Task:
        """What the network's outputs mean."""

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

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        """Return the weighted sum of the terms; with a `step_size`, do the batch's steps."""
        batch = Batch.of(batch)
        if self.step_size is None:
            loss = self.loss_of(batch)
        else:
            loss = None
            self._take_steps(batch.split(self.step_size))
        if self._tally.is_full:
            self._read_tally()
        return loss

    def loss_of(self, batch: Batch) -> Tensor:
        """Return the weighted sum of the terms for the batch of one step."""
        batch = self.with_rows(batch)
        outputs = self.answer(batch)
        if not len(outputs.logits):
            return self._nothing(outputs)
        if batch.target is not None:
            self.task.check(outputs.logits, batch.target)
        teacher = self.ask_teacher(batch, outputs) if self.uses_teacher else None
        step = self.global_step
        # Loss mathematics runs in float32 under any precision plugin.
        with torch.autocast(outputs.logits.device.type, enabled=False):
            terms, weights = self.terms(outputs, teacher, batch)
            weighted = [weight_at(weights[name], step) * term for name, term in terms.items()]
            loss = weighted[0] if len(weighted) == 1 else torch.stack(weighted).sum()
        hits = None
        if batch.target is not None:
            hits = self.task.hits(outputs.logits.detach(), batch.target)
        self._tally.add({"loss": loss, **terms}, len(outputs.logits), step, hits)
        if self._logs(step):
            self._rates[step] = self.trainer.optimizers[0].param_groups[0]["lr"]
        return loss

    def with_rows(self, batch: Batch) -> Batch:
        """Return a batch whose rows are the positions that count, where `positions` chooses."""
        return batch if self.positions is None else self.positions(batch)

    def _nothing(self, outputs: Outputs) -> Tensor:
        """Return a loss of 0 with gradients of 0, for a batch in which no position counts.

        The mean over no positions is NaN, and a step without gradients would keep the other
        processes waiting. Through the logits the trained network has its own.
        """
        own = {id(p) for p in self.trained.parameters()}
        beside = [p for p in self.parameters() if p.requires_grad and id(p) not in own]
        zeros = [(0.0 * p.sum()).float() for p in beside]
        return torch.stack([outputs.logits.float().sum(), *zeros]).sum()

    def _take_steps(self, parts: list[Batch]) -> None:
        """Do for each part what Lightning does for each batch."""
        optimizer, most = self.optimizers(), self.trainer.max_steps
        schedulers = self.trainer.lr_scheduler_configs if self._steps_scheduler else []
        loop = self.trainer.fit_loop.epoch_loop
        for number, part in enumerate(parts):
            if self.global_step == most:
                break
            # The step at which Lightning logs; it adds one for each batch.
            loop._batches_that_stepped += number > 0
            loss = self.loss_of(part)
            optimizer.zero_grad()  # type: ignore[union-attr]
            self.manual_backward(loss)
            optimizer.step()  # type: ignore[union-attr]
            for config in schedulers:
                config.scheduler.step()  # type: ignore[call-arg]
            self.after_step()

    def after_step(self) -> None:
        """Act on what was learned in a step of the optimizer."""

    def _logs(self, step: int) -> bool:
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        return bool(every) and (step + 1) % every == 0

    def _read_tally(self) -> None:
        """Read the steps since the last time, and hand those that are logged to the loggers."""
        found = self._tally.read()
        for step, values in found:
            if step in self._rates:
                row = {f"train/{name}": value for name, value in values.items()}
                row |= {"train/learning_rate": self._rates[step], "epoch": self.current_epoch}
                for logger in self.trainer.loggers:
                    logger.log_metrics(row, step)
        self._rates = {}

    def on_fit_start(self) -> None:
        """Forget what a fit that was broken off may have left."""
        self._tally, self._rates = Tally(), {}

    def on_train_start(self) -> None:
        """Turn to the epoch's view of the samples, also where a run goes on within an epoch.

        Raises:
            ConfigError: if the loader's workers have begun with another view than this epoch's.
        """
        loader = self.trainer.train_dataloader
        views = getattr(getattr(loader, "dataset", None), "view_count", 1)
        workers = getattr(loader, "num_workers", 0)
        if self.current_epoch and workers and views is not None and views > 1:
            raise ConfigError(
                "a run with views of samples cannot go on with a loader that has workers, which "
                f"draw before the epoch is known: set num_workers to 0, got {workers}"
            )
        show_view(self.trainer)
        if self._sums is not None:
            # They are of all processes: the first counts them.
            first = self.trainer.is_global_zero
            self._tally.restore({n: total if first else 0.0 for n, total in self._sums.items()})
        self._sums = None
        if self.device.type == "cpu":
            for optimizer in self.trainer.optimizers:
                for name in _HEALTH_CHECKS:
                    setattr(optimizer, name, _nothing)

    def on_train_epoch_start(self) -> None:
        """Begin the epoch's means, and its view of the samples."""
        self._tally = Tally()
        show_view(self.trainer)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Act on Lightning's step; else advance a schedule by epochs when Lightning would."""
        if self.step_size is None:
            self.after_step()
        elif self.trainer.is_last_batch and not self._steps_scheduler:
            for config in self.trainer.lr_scheduler_configs:
                config.scheduler.step()  # type: ignore[call-arg]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note the size of a step, and the epoch's sums so far.

        Raises:
            NonFiniteError: before the checkpoint is written, if the loss was not finite.
        """
        checkpoint["step_size"] = self.step_size
        if self._trainer is not None and self._trainer.state.fn == TrainerFn.FITTING:
            self._read_tally()
            checkpoint["tally"] = self._tally.state(self._trainer.strategy)
            # A run that goes on from here does not log again what has been logged so far.
            for logger in self._trainer.loggers:
                logger.save()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to go on where Lightning would count the steps from 0 again.

        Raises:
            ConfigError: if the checkpoint is of a training with a `step_size` and this one has
                none, or the other way round.
        """
        trainer = self._trainer
        if trainer is None or trainer.state.fn != TrainerFn.FITTING:
            return
        before = checkpoint.get("step_size", self.step_size)
        if (before is None) != (self.step_size is None):
            raise ConfigError(
                f"the checkpoint is of a training with step_size={before}, which cannot go on with "
                f"step_size={self.step_size}: with one, Lightning counts steps in another way"
            )
        self._sums = checkpoint.get("tally")

    def on_validation_start(self) -> None:
        """Stop before a checkpoint can be written if the loss was not finite."""
        self._read_tally()

    def on_train_epoch_end(self) -> None:
        """Log the epoch's means, over all processes."""
        self._read_tally()
        means = self._tally.means(self.trainer.strategy)
        # The values are the same on all processes already; sync_dist says so.
        same = self.trainer.world_size > 1
        if "accuracy" in means:
            self.log("train/accuracy", means.pop("accuracy"), sync_dist=same)
        if "loss" in means:
            self.log("train/loss", means["loss"], prog_bar=True, logger=False, sync_dist=same)
        epoch = {f"train/{name}_epoch": mean for name, mean in means.items()}
        self.log_dict(epoch, sync_dist=same)

    def configure_optimizers(self) -> Any:
        """Make the optimizer of all parameters that require gradients, and its schedule."""
        optimizer = self._make_optimizer([p for p in self.parameters() if p.requires_grad])
        self._steps_scheduler = False
        if self._make_scheduler is None:
            return optimizer
        if wants_total_steps(self._make_scheduler):
            self._steps_scheduler = True
            make: Callable[..., LRScheduler] = self._make_scheduler
            scheduler = make(optimizer, total_steps=self._total_steps())
        else:
            scheduler = self._make_scheduler(optimizer)
        if self.step_size is not None:
            if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
                raise ConfigError(
                    "ReduceLROnPlateau waits for a validation, which Lightning tells it only where "
                    "each batch is a step: leave `step_size` out"
                )
            return [optimizer], [scheduler]
        interval = "step" if self._steps_scheduler else "epoch"
        monitored = f"val/{self.task.criterion}"
        plan = {"scheduler": scheduler, "interval": interval, "monitor": monitored}
        return {"optimizer": optimizer, "lr_scheduler": plan}

    def _total_steps(self) -> int:
        """Return how many steps the optimizer will do."""
        trainer = self.trainer
        batches = trainer.estimated_stepping_batches
        if self.step_size is None or trainer.max_epochs == -1:
            return int(batches)
        loader = trainer.train_dataloader
        if not isinstance(loader, DataLoader) or not loader.batch_size:
            raise ConfigError(
                "with `step_size` a schedule over steps needs one torch DataLoader with a "
                f"batch_size, to count the steps, got {type(loader).__name__}"
            )
        epochs, whole = (
            max(trainer.max_epochs or 1, 1),
            math.ceil(loader.batch_size / self.step_size),
        )
        every = int(trainer.num_training_batches)
        # The epoch's last batch may be smaller.
        left = min(len(loader.sampler) - (every - 1) * loader.batch_size, loader.batch_size)  # type: ignore[arg-type]
        last = math.ceil(left / self.step_size)
        steps = epochs * ((every - 1) * whole + last)
        return steps if trainer.max_steps == -1 else min(steps, trainer.max_steps)

    # Evaluation ----------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:
        """Begin afresh."""
        self._metrics, self._measured = {}, {}

    def on_test_epoch_start(self) -> None:
        """Begin afresh."""
        self._metrics, self._measured = {}, {}

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
        batch = self.with_rows(batch)
        outputs = batch.run(self.trained)
        target: Tensor = batch.target  # type: ignore[assignment]
        self.task.check(outputs.logits, target)
        teacher = self.ask_teacher(batch, outputs)
        # Also where no position counts: each process must have the same metrics in the end.
        self._metrics_of(prefix).update(
            outputs.logits, target, teacher.logits if teacher is not None else None
        )
        self._measured[prefix] = self._measured.get(prefix, 0) + len(target)
        if teacher is not None and stage == "test":
            self._metrics_of(f"{prefix}teacher_").update(teacher.logits, target)

    def _metrics_of(self, prefix: str) -> NetworkMetrics:
        if prefix not in self._metrics:
            self._metrics[prefix] = self.task.metrics()
        return self._metrics[prefix]

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics; stop if the validation loss is not finite."""
        self._log_metrics()

    def on_test_epoch_end(self) -> None:
        """Log the test metrics, and keep the bins of the reliability diagram."""
        self._log_metrics()
        self.reliability = {name: kept.reliability() for name, kept in self._metrics.items()}

    def _log_metrics(self) -> None:
        nothing = [prefix for prefix, count in self._measured.items() if not count]
        if nothing and self.trainer.world_size == 1:
            raise ConfigError(
                f"in the data of {nothing[0]} no position counts, and there is nothing to measure: "
                "look at the targets and at `ignore_index`"
            )
        for prefix, metrics in self._metrics.items():
            for name, value in metrics.compute().items():
                is_loss = prefix == "val/" and name == self.task.criterion
                if is_loss and not math.isfinite(value):
                    raise NonFiniteError(
                        f"the validation loss is {value} after step {self.global_step}: the "
                        "weights are no longer finite. Try a smaller learning rate, or "
                        "trainer.gradient_clip_val=1. Earlier checkpoints are untouched"
                    )
                # The values are the same on all processes already; sync_dist says so.
                self.log(
                    prefix + name,
                    value,
                    prog_bar=prefix + name == f"val/{self.task.shown}",
                    sync_dist=self.trainer.world_size > 1,
                    add_dataloader_idx=False,
                )

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Return what the trained network predicts, float32: for classes probabilities (N, C).

        Where it answers each position these are (N, L, C), of all positions.
        """
        batch = Batch.of(batch)
        outputs = (batch if self.positions is None else batch.whole()).run(self.trained)
        return self.task.predictions(outputs.logits)
