"""Shared fixtures: networks small enough to train in a blink, and the real MNIST."""

import os
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:
    # Before torch is imported: workers that each use every core wait for one another.
    share = (os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("OMP_NUM_THREADS", str(max(share, 1)))

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    return REPOSITORY


@pytest.fixture(scope="session")
def mnist_root() -> Path:
    return REPOSITORY / "data"


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def network(features: int = 6, classes: int = 3, *, dropout: float = 0.0) -> nn.Module:
    return nn.Sequential(
        nn.Linear(features, 8),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(8, classes),
    )


class PlainData(pl.LightningDataModule):
    """A datamodule of somebody else's, which knows nothing of kdlit."""

    def __init__(self, samples: int = 64, batch_size: int = 16, collate=None) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        inputs = torch.randn(samples, 6, generator=generator)
        self.data = TensorDataset(inputs, inputs[:, :3].argmax(dim=1))
        self.batch_size, self.collate = batch_size, collate

    def _loader(self) -> DataLoader:
        return DataLoader(self.data, batch_size=self.batch_size, collate_fn=self.collate)

    train_dataloader = val_dataloader = test_dataloader = predict_dataloader = _loader


def trainer(**options) -> pl.Trainer:
    quiet = {
        "accelerator": os.environ.get("KDLIT_TEST_ACCELERATOR", "cpu"),
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "max_epochs": 1,
        "log_every_n_steps": 1,
    }
    return pl.Trainer(**quiet | options)
