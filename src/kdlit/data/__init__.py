"""LightningDataModules and what they are made of."""

from kdlit.data.augment import NoAugmentation, RandomAffine, RandomShift
from kdlit.data.indexed import Indexed
from kdlit.data.loading import EpochSampler, EvaluationSampler, InMemoryDataset
from kdlit.data.mnist import FashionMNISTDataModule, MNISTDataModule

__all__ = [
    "EpochSampler",
    "EvaluationSampler",
    "FashionMNISTDataModule",
    "InMemoryDataset",
    "Indexed",
    "MNISTDataModule",
    "NoAugmentation",
    "RandomAffine",
    "RandomShift",
]
