"""The progress bar, short enough for a terminal of 80 columns."""

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import RichProgressBarTheme

# The first that is known: there is room for one.
_SHOWN = {"val/accuracy": "val", "train/loss": "loss"}


class ProgressBar(RichProgressBar):
    """Lightning's bar with the validation accuracy beside it, or the loss where there is none.

    >>> bar = ProgressBar()
    """

    def __init__(self) -> None:
        super().__init__(leave=False, theme=RichProgressBarTheme(metrics_format=".3g"))

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """Return what is shown, under a short name and without the logger's version."""
        found = super().get_metrics(trainer, pl_module)
        known = [(short, found[name]) for name, short in _SHOWN.items() if name in found]
        return dict(known[:1])
