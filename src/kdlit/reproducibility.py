"""The same seed, the same weights: also when a run was interrupted in between."""

import random
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import distributed

from kdlit import checks
from kdlit.randomness import derive_seed

_PATHS = ("best_model_path", "last_model_path", "kth_best_model_path")


class ReseedEachEpoch(pl.Callback):
    """Seed the global generators at the start of each epoch from (seed, epoch, process).

    Dropout and whatever else draws from them then depends on the epoch alone, and a run that is
    resumed at an epoch's start draws the same numbers as one that was never interrupted. Their
    states are in every checkpoint, of each process, so that it does so within an epoch, too.

    Args:
        seed: any integer >= 0.

    >>> callback = ReseedEachEpoch(seed=0)
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = checks.integer("seed", seed, least=0)
        self._states: list[dict[str, Any]] | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go on with the numbers that were next when the checkpoint was written."""
        states, self._states = self._states, None
        if states is not None and len(states) == trainer.world_size:
            _set_states(states[trainer.global_rank])

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Seed Python, numpy and torch."""
        seed = derive_seed(self.seed, trainer.current_epoch, trainer.global_rank)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 - other people's transforms use it
        torch.manual_seed(seed)

    def state_dict(self) -> dict[str, Any]:
        """Return the generators' states, of all processes."""
        own = _states()
        if not (distributed.is_available() and distributed.is_initialized()):
            return {"states": [own]}
        states: list[Any] = [None] * distributed.get_world_size()
        distributed.all_gather_object(states, own)
        return {"states": states}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep them until training begins."""
        self._states = state_dict["states"]


def _states() -> dict[str, Any]:
    """Return the states of the global generators, as tensors and plain containers."""
    name, words, *rest = np.random.get_state()  # noqa: NPY002 - other people's transforms use it
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(words, np.int64)), *rest),
        "torch": torch.get_rng_state(),
        # Of the device that this process uses; to ask for others would make them ready for use.
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def _set_states(states: dict[str, Any]) -> None:
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    name, words, *rest = states["numpy"]
    np.random.set_state((name, words.numpy().astype(np.uint32), *rest))  # noqa: NPY002 - see above
    torch.set_rng_state(states["torch"].cpu())
    if states["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"].cpu())


class MovableCheckpoint(ModelCheckpoint):
    """Lightning's `ModelCheckpoint`, for a run whose directory may have been moved.

    Lightning forgets the best score so far when a run goes on in another directory than it began
    in, and the next validation then counts as the best, however poor it is. Here the files that
    were beside the checkpoint are looked for beside it again.

    >>> callback = MovableCheckpoint(dirpath="run", monitor="val/accuracy", mode="max")
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the state of a checkpoint, with its paths below the present directory."""
        before, now = str(state_dict["dirpath"]), str(self.dirpath)

        def moved(path: str) -> str:
            inside = path and Path(path).is_relative_to(before)
            return str(Path(now, Path(path).relative_to(before))) if inside else path

        paths = {name: moved(state_dict[name]) for name in _PATHS}
        best = {moved(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **paths, "best_k_models": best, "dirpath": now})
