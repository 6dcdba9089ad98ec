"""SST-2: reading it, its sentences as tokens, and a datamodule that can withhold labels."""

import csv
import gzip
from collections.abc import Callable, Sequence
from pathlib import Path

import lightning.pytorch as pl
import torch
from networks import PAD
from torch import Tensor
from torch.utils.data import DataLoader

from kdlit import ConfigError, DataError
from kdlit.data.loading import EpochSampler, InMemoryDataset, as_it_is

Texts = dict[str, tuple[list[str], list[int]]]
Tensors = dict[str, tuple[Tensor, Tensor]]
Tokenize = Callable[[list[str]], Sequence[Sequence[int]]]

LONGEST = 64
UNLABELLED = -1


def read_folder(folder: Path) -> Texts:
    """Read `train`, `dev` and `test` from `<split>.tsv` or `<split>.tsv.gz`.

    Raises:
        DataError: if a file is missing, or its lines are not `sentence<TAB>label`.
    """
    found: Texts = {}
    for split in ("train", "dev", "test"):
        path = next(filter(Path.is_file, (folder / f"{split}.tsv{s}" for s in ("", ".gz"))), None)
        if path is None:
            raise DataError(f"there is neither {split}.tsv nor {split}.tsv.gz in {folder}")
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt", encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        head, labels = rows[:1], [row[1:] for row in rows[1:]]
        if head != [["sentence", "label"]] or not all(row in (["0"], ["1"]) for row in labels):
            raise DataError(
                f"{path} must have a line `sentence<TAB>label` and then sentences with 0 or 1"
            )
        found[split] = [r[0].strip() for r in rows[1:]], [int(r[1]) for r in rows[1:]]
    return found


def read_hub(name: str = "stanfordnlp/sst2", held_out: float = 0.1) -> Texts:
    """Load GLUE's SST-2 through Hugging Face `datasets`.

    The labels of its test set are not public. Its validation set is the test set here, and a part
    of its training set the validation set.

    Raises:
        ConfigError: if `datasets` is missing.
        DataError: if the data can be neither downloaded nor found in its cache.
    """
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise ConfigError(
            "without --data SST-2 is loaded with `datasets`: pip install -r "
            "examples/text/requirements.txt"
        ) from error
    try:
        whole = load_dataset(name)
    except OSError as error:
        raise DataError(
            f"{name} cannot be loaded: {error}. Give a folder of train.tsv, dev.tsv and test.tsv "
            "with --data"
        ) from error
    cut = whole["train"].train_test_split(test_size=held_out, seed=0)
    splits = {"train": cut["train"], "dev": cut["test"], "test": whole["validation"]}
    return {
        key: ([s.strip() for s in rows["sentence"]], list(rows["label"]))
        for key, rows in splits.items()
    }


def to_tensors(texts: Texts, tokenize: Tokenize) -> Tensors:
    """Return tokens (N, L), padded, and labels (N,) of each split, the shortest sentences first."""
    tensors = {}
    for split, (sentences, labels) in texts.items():
        rows = [torch.tensor(row[:LONGEST], dtype=torch.int32) for row in tokenize(sentences)]
        tokens = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD)
        order = torch.tensor([len(row) for row in rows]).argsort(stable=True)
        tensors[split] = tokens[order], torch.tensor(labels)[order]
    return tensors


class SST2(pl.LightningDataModule):
    """Batches of (tokens, label, index); a sentence without its label has the label -1.

    Args:
        tensors: what :func:`to_tensors` returns.
        sentences: how many of the training sentences there are, the same for all seeds; None: all.
        labels: whether they come with their labels.
        batch_size: sentences in a batch.
        seed: of the order.
    """

    def __init__(
        self,
        tensors: Tensors,
        sentences: int | None = None,
        *,
        labels: bool = True,
        batch_size: int = 32,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.batch_size, self.seed = batch_size, seed
        tokens, target = tensors["train"]
        # A smaller set is a part of each larger one.
        index = torch.randperm(len(target), generator=torch.Generator().manual_seed(0))[:sentences]
        index = index.sort().values
        target = target[index] if labels else torch.full_like(index, UNLABELLED)
        self.train = InMemoryDataset(tokens[index], target, index)
        self.dev, self.test = (
            InMemoryDataset(*tensors[split], torch.arange(len(tensors[split][1])))
            for split in ("dev", "test")
        )

    def train_dataloader(self) -> DataLoader:
        """Return the training sentences, in an order of (seed, epoch)."""
        sampler = EpochSampler(self.train, self.seed)
        return DataLoader(self.train, self.batch_size, sampler=sampler, collate_fn=as_it_is)

    def val_dataloader(self) -> DataLoader:
        """Return the validation sentences."""
        return DataLoader(self.dev, 500, collate_fn=as_it_is)

    def test_dataloader(self) -> DataLoader:
        """Return the test sentences."""
        return DataLoader(self.test, 500, collate_fn=as_it_is)
