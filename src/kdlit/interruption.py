"""Ctrl-C and SIGTERM: stop at the next step, and keep a checkpoint from which to go on."""

import logging
import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.utilities.exceptions import SIGTERMException

log = logging.getLogger("kdlit")


class StopAtNextStep(pl.Callback):
    """Stop the training after the step in which Ctrl-C or SIGTERM comes, with a checkpoint.

    Lightning breaks off in the middle of a step at Ctrl-C, and keeps nothing of the epoch at
    SIGTERM. With this callback the batch is finished first, and where the trainer is then is saved:
    `trainer.fit(..., ckpt_path=...)` goes on within the epoch, with the same weights to the bit
    where data and random numbers are resumed (:class:`kdlit.data.MNISTDataModule`,
    :class:`kdlit.reproducibility.ReseedEachEpoch`). Where the next thing to do is a validation, or
    gradients are being accumulated, it is a later batch. `fit` then ends as it does without:
    with a `SystemExit` of Lightning's. A second Ctrl-C stops at once, and nothing is saved.

    Of several processes all stop at the same batch. Jobs that SLURM requeues are left to Lightning.

    Args:
        path: of the checkpoint, such as `run/last.ckpt`.

    >>> callback = StopAtNextStep("run/last.ckpt")
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.received: signal.Signals | None = None
        """The signal that came, if one did."""
        self._stops = False
        self._before: dict[signal.Signals, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen for signals from here on, in place of Lightning, which has done so before."""
        self.received, self._stops = None, False
        if threading.current_thread() is not threading.main_thread():
            return  # signals are for the main thread alone
        environment = trainer._accelerator_connector.cluster_environment
        requeued = isinstance(environment, SLURMEnvironment) and environment.auto_requeue
        for number in (signal.SIGINT,) if requeued else (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._receive)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        again = self.received is not None
        self.received = signal.Signals(number)
        if again and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not again:
            name = "Ctrl-C" if number == signal.SIGINT else self.received.name
            log.info("%s: stopping at the next step (Ctrl-C again: at once)", name)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Ask Lightning to stop behind this batch, if a signal came to one of the processes."""
        came = self.received is not None
        if trainer.world_size > 1:
            came = trainer.strategy.reduce_boolean_decision(came, all=False)
        loop = trainer.fit_loop.epoch_loop
        fetcher = trainer.fit_loop._data_fetcher
        # A training that goes on behind such a batch would leave the validation out.
        waits = trainer.is_last_batch or loop._should_check_val_fx(fetcher)  # type: ignore[arg-type]
        if came and not waits and not loop._should_accumulate():
            self._stops = True
            trainer._signal_connector.received_sigterm = True

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Save where the trainer has stopped."""
        if self._stops and isinstance(exception, SIGTERMException):
            trainer.save_checkpoint(self.path)
        self._listen_no_more()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop all the same if no step has come since the signal.

        Raises:
            SIGTERMException: if a signal came.
        """
        if self.received is not None:
            raise SIGTERMException
        self._listen_no_more()

    def _listen_no_more(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
