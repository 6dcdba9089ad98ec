"""MNIST and data sets of its form as a LightningDataModule."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import MNIST, FashionMNIST

from kdlit import checks
from kdlit.data.augment import Augmentation, NoAugmentation
from kdlit.data.idx import has_idx_resource, load_idx_resource
from kdlit.data.loading import EpochSampler, EvaluationSampler, InMemoryDataset, as_it_is, told
from kdlit.data.noise import symmetric_noise
from kdlit.data.resuming import ResumableDataModule, ResumableLoader
from kdlit.data.subsets import stratified_choice
from kdlit.errors import ConfigError
from kdlit.randomness import derive_seed, uniform

Loader = DataLoader[tuple[Tensor, ...]]


class MNISTDataModule(ResumableDataModule):
    """MNIST in memory as uint8; normalised and augmented a batch at a time, on the device.

    Batches are `(image, label)`, or `(image, label, index)` with `index=True`; images are float32
    of shape (N, 1, 28, 28), zero mean and unit variance over the training set. The validation
    split is cut from the training set, stratified, and depends on `split_seed` alone, so that a
    teacher and all its students leave out the same images. The test set is whole, always.

    Args:
        root: folder that holds `MNIST/raw/` with the four original archives; what is missing is
            downloaded there.
        batch_size: training samples per step of the optimizer and process.
        batches_at_once: how many such batches the training loader gives at a time, for a module
            that takes them apart again; see `step_size`.
        eval_batch_size: samples per batch in validation, test and prediction.
        val_size: images held out of training for model selection.
        train_size: how many of the rest to train on (stratified); None is all of them.
        classes: the classes to train and validate on, a transfer set that omits the others; None
            is all of them. Labels keep their numbers.
        label_noise: the share of wrong training labels, in [0, 1): each is replaced with this
            probability by another of the `classes`, as :func:`symmetric_noise` says. Images are
            chosen by their true labels before that, and validation and test labels (with
            `test_on_train` those of the training images, too) stay true.
        seed: of the order of training samples, of the augmentation, of which `train_size` images
            are taken, and of which labels are wrong.
        split_seed: of the validation split.
        augment: an augmentation of training images, such as :class:`kdlit.data.RandomShift`.
        views: how many augmented views of each image there are, repeated from epoch to epoch, so
            that what a teacher says of them can be kept; None: a new one in every epoch.
        index: whether batches carry each sample's position in the original training or test set.
        transform: a function of one image, run in the loader's workers on its uint8 tensor
            (1, 28, 28), training images only; returns the same, or float32 in [0, 255]. With
            `views` it must not be random.
        num_workers: loader processes; 0 is right unless `transform` is slow.
        persistent_workers: keep the workers between epochs.
        on_device: place the whole data set on the accelerator.
        test_on_train: give the training images, not augmented, as a second test loader.

    Raises:
        ConfigError: if an argument cannot work, at once where no data is needed to tell, else
            in `setup`.
        DataError: in `setup`, if a file is damaged, or missing and cannot be downloaded.

    >>> data = MNISTDataModule(root="data", batch_size=64, train_size=600)
    >>> data.setup()
    >>> len(data.train_data), len(data.val_data), len(data.test_data)
    (600, 5000, 10000)
    """

    source: ClassVar[type[MNIST]] = MNIST
    mean: ClassVar[float] = 0.1307
    std: ClassVar[float] = 0.3081
    pixel_scale: ClassVar[float] = 255.0
    num_classes: ClassVar[int] = 10
    sample_shape: ClassVar[tuple[int, ...]] = (1, 28, 28)

    def __init__(
        self,
        root: str | Path = "data",
        batch_size: int = 128,
        eval_batch_size: int = 1000,
        val_size: int = 5000,
        train_size: int | None = None,
        classes: Sequence[int] | None = None,
        seed: int = 0,
        split_seed: int = 0,
        augment: Augmentation | None = None,
        views: int | None = None,
        index: bool = False,
        transform: Callable[[Tensor], Tensor] | None = None,
        num_workers: int = 0,
        persistent_workers: bool = False,
        on_device: bool = False,
        test_on_train: bool = False,
        batches_at_once: int = 1,
        label_noise: float = 0.0,
    ) -> None:
        super().__init__()
        self.root = Path(root)
        self.batch_size = checks.integer("batch_size", batch_size)
        self.eval_batch_size = checks.integer("eval_batch_size", eval_batch_size)
        self.val_size = checks.integer("val_size", val_size)
        self.train_size = train_size
        if train_size is not None:
            checks.integer("train_size", train_size)
        self.classes = None if classes is None else sorted(set(classes))
        if classes is not None and not (classes and set(classes) <= set(range(self.num_classes))):
            raise ConfigError(
                f"`classes` must name classes from 0 to {self.num_classes - 1}, got {list(classes)}"
            )
        self.label_noise = checks.fraction("label_noise", label_noise, below_one=True)
        if self.label_noise and self.classes is not None and len(self.classes) == 1:
            raise ConfigError(
                f"`label_noise` puts another of the classes for a label, and `classes` "
                f"{self.classes} has no other: set `label_noise` to 0, got {label_noise}"
            )
        self.seed = checks.integer("seed", seed, least=0)
        self.split_seed = checks.integer("split_seed", split_seed, least=0)
        self.augment = augment or NoAugmentation()
        self.views = None if views is None else checks.integer("views", views)
        self.index = index
        self.transform = transform
        self.num_workers = checks.integer("num_workers", num_workers, least=0)
        self.persistent_workers = persistent_workers
        if persistent_workers and not num_workers:
            raise ConfigError("`persistent_workers` needs `num_workers` >= 1, got 0")
        if on_device and num_workers:
            raise ConfigError(
                f"`on_device` keeps the data out of the loader's workers: set `num_workers` to 0, "
                f"got {num_workers}"
            )
        self.on_device = on_device
        self.test_on_train = test_on_train
        self.batches_at_once = checks.integer("batches_at_once", batches_at_once)

    @property
    def class_names(self) -> list[str]:
        """The classes' names, in the order of the labels."""
        # torchvision calls a digit "7 - seven".
        return [name.partition(" - ")[0] for name in self.source.classes]

    @property
    def view_count(self) -> int | None:
        """How many views of each training image there are; None: more than can be kept."""
        changing = self.augment.count or self.transform is not None
        return self.views if changing else 1

    @property
    def preparation(self) -> dict[str, Any]:
        """What decides, beside the data, which inputs the networks see; JSON-like."""
        return {
            "mean": self.mean,
            "std": self.std,
            "augment": f"{type(self.augment).__qualname__} {vars(self.augment)}",
            "seed": self.seed if self.augment.count else None,
            "transform": told(self.transform),
        }

    @property
    def step_size(self) -> int | None:
        """The `step_size` of a module that trains on these batches."""
        return self.batch_size if self.batches_at_once > 1 else None

    # Data ----------------------------------------------------------------------------------

    @property
    def is_downloaded(self) -> bool:
        """Whether there is nothing to download."""
        return all(has_idx_resource(self.source, self.root, n) for n, _ in self.source.resources)

    def prepare_data(self) -> None:
        """Download what is missing, in one process of each machine."""
        for name, _ in self.source.resources:
            load_idx_resource(self.source, self.root, name)

    def setup(self, stage: str | None = None) -> None:
        """Read, verify and split the data set, once."""
        super().setup(stage)
        if hasattr(self, "test_data"):
            return
        load = partial(load_idx_resource, self.source, self.root)
        train_images, train_labels, test_images, test_labels = (
            load(name) for name, _ in self.source.resources
        )
        train, val = self._split(train_labels.long())
        taught = self._taught(train_labels)
        self.train_data = self._dataset(train_images, taught, train, self.transform)
        self.train_eval_data = self._dataset(train_images, train_labels, train)
        self.val_data = self._dataset(train_images, train_labels, val)
        self.test_data = self._dataset(test_images, test_labels, torch.arange(len(test_labels)))

    def _split(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the positions of training and validation samples."""
        if self.val_size >= len(labels):
            raise ConfigError(
                f"`val_size` must leave some of the {len(labels)} training images, "
                f"got {self.val_size}"
            )
        val = stratified_choice(labels, self.val_size, self.split_seed)
        kept = torch.ones(len(labels), dtype=torch.bool)
        kept[val] = False
        train = torch.nonzero(kept).flatten()
        if self.classes is not None:
            wanted = torch.tensor(self.classes)
            train, val = (part[torch.isin(labels[part], wanted)] for part in (train, val))
        if self.train_size is not None:
            if self.train_size > len(train):
                raise ConfigError(
                    f"`train_size` must be at most {len(train)}, the training images that are "
                    f"left beside the validation split, got {self.train_size}"
                )
            train = train[stratified_choice(labels[train], self.train_size, self.seed)]
        return train, val

    def _taught(self, labels: Tensor) -> Tensor:
        """Return the labels of all training images as they are learnt from."""
        classes = range(self.num_classes) if self.classes is None else self.classes
        index = torch.arange(len(labels))
        return symmetric_noise(labels, index, list(classes), self.label_noise, self.seed)

    def _dataset(
        self,
        images: Tensor,
        labels: Tensor,
        positions: Tensor,
        transform: Callable[[Tensor], Tensor] | None = None,
    ) -> InMemoryDataset:
        return InMemoryDataset(
            images[positions].unsqueeze(1), labels[positions].long(), positions, transform
        )

    # Loaders -------------------------------------------------------------------------------

    def _options(self, data: InMemoryDataset) -> dict[str, Any]:
        if self.on_device and self.trainer is not None:
            data.to(self.trainer.strategy.root_device)
        return {
            "collate_fn": as_it_is,
            "pin_memory": torch.cuda.is_available() and not self.on_device,
            # The loader draws a seed for its workers at every epoch: not from the global
            # generator, whose state belongs to the networks.
            "generator": torch.Generator().manual_seed(self.seed),
        }

    def train_dataloader(self) -> Loader:
        """Shuffle by (seed, epoch)."""
        several = self.trainer is not None and self.trainer.world_size > 1
        share = self.trainer.distributed_sampler_kwargs or {} if several else {}  # type: ignore[union-attr]
        loader = ResumableLoader(
            self.train_data,
            batch_size=self.batch_size * self.batches_at_once,
            sampler=EpochSampler(self.train_data, derive_seed(self.seed), **share),
            num_workers=self.num_workers,
            persistent_workers=self.persistent_workers,
            **self._options(self.train_data),
        )
        return self.resumed(loader)

    def _evaluation_loader(self, data: InMemoryDataset) -> Loader:
        sampler, batch_size = None, self.eval_batch_size
        if self.trainer is not None and self.trainer.world_size > 1:
            sampler = EvaluationSampler(data, self.trainer.global_rank, self.trainer.world_size)
            batch_size = sampler.batch_size(batch_size)
        return DataLoader(data, batch_size=batch_size, sampler=sampler, **self._options(data))

    def val_dataloader(self) -> Loader:
        """Give the validation split."""
        return self._evaluation_loader(self.val_data)

    def test_dataloader(self) -> Loader | list[Loader]:
        """Give the test set, and with `test_on_train` the training images behind it."""
        test = self._evaluation_loader(self.test_data)
        return [test, self._evaluation_loader(self.train_eval_data)] if self.test_on_train else test

    def predict_dataloader(self) -> Loader:
        """Give the test set."""
        return self._evaluation_loader(self.test_data)

    # Batches -------------------------------------------------------------------------------

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Augment (training only) and normalise, on the device where the batch lies."""
        training = self.trainer is not None and self.trainer.training
        return self.prepare(batch, self.trainer.current_epoch if training else None)  # type: ignore[union-attr]

    def prepare(self, batch: Any, epoch: int | None) -> Any:
        """Augment as in an epoch (None: not at all) and normalise."""
        images, labels, index = batch
        if epoch is not None and self.augment.count:
            view = epoch if self.views is None else epoch % self.views
            images = self.augment(
                images, uniform(derive_seed(self.seed, view), index, self.augment.count)
            )
        images = self.normalize(images)
        if self.trainer is not None:  # which has seen to bytes only
            images = self.trainer.precision_plugin.convert_input(images)
        return (images, labels, index) if self.index else (images, labels)

    def normalize(self, images: Tensor) -> Tensor:
        """Map pixels in 0 to 255 to float32 of zero mean and unit variance."""
        return images.sub(self.pixel_scale * self.mean).div_(self.pixel_scale * self.std)


class FashionMNISTDataModule(MNISTDataModule):
    """Fashion-MNIST: the same form, other pictures; downloaded unless it is found in `root`.

    Source: Xiao, Rasul, Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine
    Learning Algorithms", 2017 (arXiv:1708.07747).
    """

    source = FashionMNIST
    mean = 0.2860
    std = 0.3530
