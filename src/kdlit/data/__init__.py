"""LightningDataModules and what they are made of."""

from kdlit.data.augment import NoAugmentation, RandomAffine, RandomShift
from kdlit.data.generated import GeneratedImages
from kdlit.data.indexed import Indexed
from kdlit.data.loading import EpochSampler, EvaluationSampler, InMemoryDataset
from kdlit.data.mnist import FashionMNISTDataModule, MNISTDataModule
from kdlit.data.shards import BlockShuffle, ShardedDataset, write_shards
from kdlit.data.streaming import StreamingDataModule

__all__ = [
    "BlockShuffle",
    "EpochSampler",
    "EvaluationSampler",
    "FashionMNISTDataModule",
    "GeneratedImages",
    "InMemoryDataset",
    "Indexed",
    "MNISTDataModule",
    "NoAugmentation",
    "RandomAffine",
    "RandomShift",
    "ShardedDataset",
    "StreamingDataModule",
    "write_shards",
]
