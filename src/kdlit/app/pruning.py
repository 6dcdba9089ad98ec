"""A trial of a search tells how it goes, and ends early where others did better by then."""

import lightning.pytorch as pl
import optuna


class ReportAndPrune(pl.Callback):
    """Reports the monitored metric after each validation; ends the run if the pruner says so.

    Args:
        trial: what the run is a trial of.
        monitor: the metric, of the validation set.

    Raises:
        optuna.TrialPruned: from the fit, once the pruner has had enough.
    """

    def __init__(self, trial: optuna.Trial, monitor: str) -> None:
        self.trial, self.monitor = trial, monitor

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report, and ask."""
        step = trainer.current_epoch
        known = self.trial.study.trials[self.trial.number].intermediate_values
        # A killed trial that is tried again and goes on from a checkpoint has told some before.
        if trainer.sanity_checking or step in known or self.monitor not in trainer.callback_metrics:
            return
        self.trial.report(float(trainer.callback_metrics[self.monitor]), step)
        # A run that is over anyway is worth its test and its files.
        if step + 1 != trainer.max_epochs and self.trial.should_prune():
            raise optuna.TrialPruned(f"after epoch {step}")
