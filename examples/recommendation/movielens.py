"""MovieLens-100k as implicit feedback: leave-one-out by time, candidates, ranking measures."""

import gzip
import re
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, WeightedRandomSampler
from torchmetrics.retrieval import RetrievalHitRate, RetrievalNormalizedDCG

from kdlit import ConfigError, DataError


def read_histories(folder: Path) -> list[list[int]]:
    """Return each user's items, oldest first, numbered from 0; equal times in the file's order."""
    found = [path for path in (folder / "u.data", folder / "u.data.gz") if path.is_file()]
    if not found:
        raise DataError(
            f"no u.data or u.data.gz in {folder}: unpack MovieLens-100k "
            "(https://grouplens.org/datasets/movielens/100k/) and give its folder as --data"
        )
    opener: Any = gzip.open if found[0].suffix == ".gz" else open
    with opener(found[0], "rt", encoding="utf-8") as file:
        lines = [re.split(r"[\t|]", line.strip()) for line in file]
    try:  # user, item, rating, time; a first line of names is left out
        rows = [[int(value) for value in line] for line in lines[not lines[0][0].isdigit() :]]
        rows.sort(key=lambda row: (row[0], row[3]))
    except (ValueError, IndexError) as error:
        raise DataError(f"{found[0]} is not MovieLens-100k's u.data: {error}") from error
    numbers = {item: number for number, item in enumerate(sorted({row[1] for row in rows}))}
    histories: dict[int, list[int]] = {}
    for user, item, *_ in rows:
        histories.setdefault(user, []).append(numbers[item])
    short = [user for user, items in histories.items() if len(items) < 3]
    if short:
        raise DataError(
            f"leave-one-out needs 3 interactions of each user; user {short[0]} has fewer"
        )
    return list(histories.values())


class MovieLens(pl.LightningDataModule):
    """The last item of each user is test, the one before it validation, the rest training.

    A batch is `{"user": (N,), "items": (N, 1 + K), "label": (N,)}`: one item that the user chose,
    at position 0, and K sampled from those that the user has not chosen in training. Training draws
    a user's interaction with a probability that halves with every `half_life` later ones.

    Args:
        folder: where `u.data` or `u.data.gz` is.
        half_life: in interactions of the user; infinite draws all alike.
        negatives: K.
        batch_size: N.
        steps: batches in an epoch.
    """

    def __init__(
        self,
        folder: Path,
        half_life: float = 10.0,
        negatives: int = 50,
        batch_size: int = 512,
        steps: int = 50,
    ) -> None:
        super().__init__()
        histories = read_histories(folder)
        self.users, self.items = len(histories), 1 + max(map(max, histories))
        pairs = [(user, item) for user, items in enumerate(histories) for item in items[:-2]]
        ages = [age for items in histories for age in range(len(items) - 3, -1, -1)]
        self.train, self.ages = torch.tensor(pairs), torch.tensor(ages, dtype=torch.float32)
        self.val = torch.tensor([(user, items[-2]) for user, items in enumerate(histories)])
        self.test = torch.tensor([(user, items[-1]) for user, items in enumerate(histories)])
        self.seen = torch.zeros(self.users, self.items, dtype=torch.bool)
        self.seen[tuple(self.train.T)] = True
        if negatives < 1:
            raise ConfigError(f"`negatives` must be >= 1, got {negatives}")
        self.half_life, self.negatives = half_life, negatives
        self.batch_size, self.steps = batch_size, steps

    def interactions(self, half_life: float) -> Tensor:
        """Return the training interactions, users by items: 1 for the latest, older ones less."""
        matrix = torch.zeros(self.users, self.items)
        matrix[tuple(self.train.T)] = 0.5 ** (self.ages / half_life)
        return matrix

    def candidates(self, pairs: Tensor) -> dict[str, Tensor]:
        """Return the batch of these (user, item) pairs, with new negatives."""
        user, item = pairs.T
        others = torch.randint(self.items, (len(pairs), self.negatives))
        while (chosen := self.seen[user[:, None], others]).any():
            others[chosen] = torch.randint(self.items, (int(chosen.sum()),))
        items = torch.cat([item[:, None], others], dim=1)
        return {"user": user, "items": items, "label": torch.zeros_like(user)}

    def _loader(self, pairs: Tensor, sampler: WeightedRandomSampler | None = None) -> DataLoader:
        return DataLoader(
            range(len(pairs)),
            self.batch_size,
            sampler=sampler,
            collate_fn=lambda numbers: self.candidates(pairs[torch.tensor(numbers)]),
        )

    def train_dataloader(self) -> DataLoader:
        """Give interactions, recent ones more often."""
        weights = 0.5 ** (self.ages / self.half_life)
        sampler = WeightedRandomSampler(weights.tolist(), self.steps * self.batch_size)
        return self._loader(self.train, sampler)

    def val_dataloader(self) -> DataLoader:
        """Give each user's last but one item; the accuracy over sampled items is for watching."""
        return self._loader(self.val)

    @torch.no_grad()
    def rank(self, network: nn.Module, split: str) -> tuple[Tensor, Tensor]:
        """Return each user's HR@10 and NDCG@10 over all items that the user had not chosen before.

        Only the ten best are handed to torchmetrics, which gives the same values: a chosen item
        that is not among them counts 0.
        """
        user, chosen = (self.val if split == "val" else self.test).T
        scores = network(user, torch.arange(self.items).expand(self.users, -1))
        before = self.seen.clone()
        if split == "test":
            before[tuple(self.val.T)] = True
        best = scores.masked_fill(before, -torch.inf).topk(min(10, self.items))
        found, queries = best.indices == chosen[:, None], user[:, None].expand_as(best.indices)
        measures = [
            RetrievalHitRate(top_k=10, aggregation=_each),
            RetrievalNormalizedDCG(top_k=10, aggregation=_each),
        ]
        hits, gains = (measure(best.values, found, indexes=queries) for measure in measures)
        return hits, gains


def _each(values: Tensor, dim: int = 0) -> Tensor:
    return values
