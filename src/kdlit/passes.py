"""Passes over the data before training: one batch for shapes, or every sample for a teacher."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import move_data_to_device
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader

from kdlit.batch import Batch
from kdlit.errors import TeacherError
from kdlit.teachers.surroundings import Split, Surroundings


def first_batch(module: pl.LightningModule) -> Batch:
    """Return the first batch that training would see, on the module's device."""
    trainer = module.trainer
    hooks = trainer.datamodule if _datamodule(trainer) is not None else module  # type: ignore[attr-defined]
    if hooks is not module:
        raw = next(iter(hooks.train_dataloader()))
    else:
        # The loaders that were given to fit() itself.
        raw = next(iter(trainer.fit_loop._data_source.dataloader()))
    raw = hooks.on_before_batch_transfer(raw, 0)
    return Batch.of(hooks.on_after_batch_transfer(move_data_to_device(raw, module.device), 0))


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
        if _can_be_drawn_again(loader):
            yield _split("val", loader, module)


def _can_be_drawn_again(loader: Any) -> bool:
    return isinstance(loader, DataLoader) and hasattr(loader.dataset, "fingerprint")


def _split(name: str, loader: DataLoader[Any], module: pl.LightningModule) -> Split:
    trainer = module.trainer
    data, dataset = _datamodule(trainer), loader.dataset
    hooks = module if data is None else data
    views = getattr(data, "view_count", getattr(dataset, "view_count", 1)) if name == "train" else 1
    if views is None:
        raise TeacherError(
            "the training samples are augmented anew in every epoch, and no table can hold that: "
            "set `views`, how many views of each there are (data.views=4), or train with cache=none"
        )

    def batches(positions: range, view: int, size: int) -> Iterator[Batch]:
        if hasattr(dataset, "set_view"):
            dataset.set_view(view)
        drawn = DataLoader(
            dataset,
            batch_size=size,
            sampler=positions,  # type: ignore[arg-type]
            collate_fn=loader.collate_fn,
            num_workers=loader.num_workers,
            generator=torch.Generator().manual_seed(0),
        )
        try:
            yield from prepared(drawn, view)
        finally:
            if hasattr(dataset, "set_view"):
                dataset.set_view(0)

    def prepared(drawn: Iterable[Any], view: int) -> Iterator[Batch]:
        for raw in drawn:
            raw = hooks.on_before_batch_transfer(trainer.precision_plugin.convert_input(raw), 0)
            raw = move_data_to_device(raw, module.device)
            if hasattr(data, "prepare"):
                raw = data.prepare(raw, view if name == "train" else None)
            else:
                raw = hooks.on_after_batch_transfer(raw, 0)
            yield Batch.of(raw)

    index = getattr(dataset, "index", None)
    key = {"data": dataset.fingerprint(), "preparation": getattr(data, "preparation", None)}  # type: ignore[attr-defined]
    return Split(
        name=name,
        index=index.cpu() if isinstance(index, Tensor) else torch.arange(len(dataset)),  # type: ignore[arg-type]
        views=views,
        key=key,
        batches=batches,
    )


def in_the_type_of(network: torch.nn.Module, batch: Batch) -> Batch:
    """Return a batch whose floating-point inputs have the type of a network's parameters."""
    dtype = next((p.dtype for p in network.parameters() if p.is_floating_point()), None)
    inputs = batch.inputs
    if dtype is None or not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        return batch
    return replace(batch, inputs=inputs.to(dtype))
