"""Passes over the data before training: one batch for shapes, or every sample for a teacher."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import move_data_to_device
from lightning_utilities.core.apply_func import apply_to_collection
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader

from kdlit.batch import Batch
from kdlit.errors import TeacherError
from kdlit.teachers.surroundings import Split, Surroundings


def first_batch(module: pl.LightningModule, take_apart: Callable[[Any], Batch] = Batch.of) -> Batch:
    """Return the first batch that training would see, on the module's device."""
    trainer = module.trainer
    # The datamodule's loader, or the one that was given to fit() itself.
    raw = next(iter(trainer.fit_loop._data_source.dataloader()))
    return take_apart(_transferred(module, raw))


def _transferred(module: pl.LightningModule, raw: Any) -> Any:
    """Do what Lightning does to a batch before a step sees it."""
    raw = module._on_before_batch_transfer(raw, 0)
    return module._apply_batch_transfer_handler(raw, device=module.device, dataloader_idx=0)


def show_view(trainer: pl.Trainer) -> None:
    """Let a training set with several views of its samples show that of the epoch."""
    dataset: Any = getattr(trainer.train_dataloader, "dataset", None)
    if hasattr(dataset, "set_view"):
        dataset.set_view(trainer.current_epoch)


def surroundings(module: pl.LightningModule, *, train: bool) -> Surroundings:
    """Return what a teacher may learn of a module's data; of the training data if `train`."""
    trainer = module.trainer

    def shown(steps: Iterable[Any], count: int) -> Iterable[Any]:
        visible = trainer.progress_bar_callback is not None and trainer.is_global_zero
        return track(
            steps, "Teacher's outputs", count, transient=True, disable=not visible or count < 2
        )

    return Surroundings(
        splits=lambda: list(_splits(module, train=train)),
        precision=str(trainer.precision),
        device=trainer.strategy.root_device,
        processes=trainer.strategy,
        rank=trainer.global_rank,
        world_size=trainer.world_size,
        context=trainer.precision_plugin.forward_context,
        track=shown,
    )


def _datamodule(trainer: pl.Trainer) -> Any:
    return getattr(trainer, "datamodule", None)


def _splits(module: pl.LightningModule, *, train: bool) -> Iterator[Split]:
    trainer = module.trainer
    if train:
        loader = trainer.fit_loop._data_source.dataloader()
        if not _can_be_drawn_again(loader):
            kind = type(getattr(loader, "dataset", loader)).__name__
            raise TeacherError(
                "to keep a teacher's outputs, training needs one DataLoader whose samples have "
                f"numbers: wrap its data set in kdlit.data.Indexed, got {kind}"
            )
        yield _split("train", loader, module)
    source = trainer.fit_loop.epoch_loop.val_loop._data_source
    if source.is_defined() and trainer.limit_val_batches:
        loader = source.dataloader()
        # Others ask the teacher itself.
        if _can_be_drawn_again(loader) and not (train and _changes_along(loader, trainer)):
            yield _split("val", loader, module)


def _changes_along(loader: Any, trainer: pl.Trainer) -> bool:
    """Return whether a validation set shows another view in each epoch, as the training set does.

    It is the same object, then.
    """
    training = getattr(trainer.fit_loop._data_source.dataloader(), "dataset", None)
    return loader.dataset is training and getattr(training, "view_count", 1) != 1


def _can_be_drawn_again(loader: Any) -> bool:
    return isinstance(loader, DataLoader) and hasattr(loader.dataset, "fingerprint")


def _split(name: str, loader: DataLoader[Any], module: pl.LightningModule) -> Split:
    trainer = module.trainer
    data, dataset = _datamodule(trainer), loader.dataset
    views = getattr(data, "view_count", getattr(dataset, "view_count", 1)) if name == "train" else 1
    if views is None:
        raise TeacherError(
            "the training samples are augmented anew in every epoch, and no table can hold that: "
            "set `views`, how many views of each there are (data.views=4), or train with cache=none"
        )

    passes = itertools.count()
    # A datamodule of kdlit's prepares a batch as in any epoch.
    prepare = data.prepare if hasattr(data, "preparation") else None

    def batches(positions: range, view: int, size: int) -> Iterator[Batch]:
        drawn = DataLoader(
            dataset.at_view(view) if hasattr(dataset, "at_view") else dataset,
            batch_size=size,
            sampler=positions,  # type: ignore[arg-type]
            collate_fn=loader.collate_fn,
            num_workers=loader.num_workers,
            worker_init_fn=loader.worker_init_fn,
            multiprocessing_context=loader.multiprocessing_context,
            # Another seed for each pass: random numbers that nobody fixed shall be noticed.
            generator=torch.Generator().manual_seed(next(passes)),
        )
        for raw in drawn:
            raw = trainer.precision_plugin.convert_input(raw)
            if prepare is not None:
                raw = module._on_before_batch_transfer(raw, 0)
                raw = move_data_to_device(raw, module.device)
                yield Batch.of(prepare(raw, view if name == "train" else None))
                continue
            # Hooks may ask in which stage they are.
            trainer.validating = name == "val"
            trainer.training = name == "train"
            try:
                yield Batch.of(_transferred(module, raw))
            finally:
                trainer.training = True

    index = getattr(dataset, "index", None)
    key = {"data": dataset.fingerprint(), "preparation": getattr(data, "preparation", None)}  # type: ignore[attr-defined]
    return Split(
        name=name,
        index=index.cpu() if isinstance(index, Tensor) else range(len(dataset)),  # type: ignore[arg-type]
        views=views,
        key=key,
        batches=batches,
    )


def placed(network: torch.nn.Module, batch: Batch) -> Batch:
    """Return a batch whose inputs are where a network's parameters are, and of their type.

    Only floating-point tensors change their type.
    """
    weight = next((p for p in network.parameters() if p.is_floating_point()), None)
    if weight is None:
        return batch

    def moved(value: Tensor) -> Tensor:
        return value.to(weight if value.is_floating_point() else weight.device)

    return replace(batch, inputs=apply_to_collection(batch.inputs, Tensor, moved))
