"""The networks, one objective of the project's own, and a fit that keeps the best epoch."""

import tempfile
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from movielens import MovieLens
from torch import Tensor, nn

from kdlit import Objective
from kdlit.batch import Batch, Outputs
from kdlit.functional import truth_loss
from kdlit.objectives.base import logits_of, target_of


class Factors(nn.Module):
    """Matrix factorisation: the score of an item is a dot product and the item's bias."""

    def __init__(self, data: MovieLens, dimensions: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.users = nn.Embedding(data.users, dimensions)
        self.items = nn.Linear(dimensions, data.items)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.users.weight, std=0.1)
        nn.init.normal_(self.items.weight, std=0.1)
        nn.init.zeros_(self.items.bias)

    def forward(self, user: Tensor, items: Tensor) -> Tensor:
        """Return logits (N, C) of items (N, C) for users (N,)."""
        return self.items(self.dropout(self.users(user))).gather(1, items)


class Table(nn.Module):
    """Scores that are known for every user and item."""

    def __init__(self, scores: Tensor) -> None:
        super().__init__()
        self.register_buffer("scores", scores)

    def forward(self, user: Tensor, items: Tensor) -> Tensor:
        """Return logits (N, C) of items (N, C) for users (N,)."""
        return self.scores[user].gather(1, items)


def item_item(data: MovieLens, half_life: float, ridge: float) -> Tensor:
    r"""Return the scores of an item-item model, users by items: the users' recent items times B.

    .. math:: B = I - P \, \mathrm{diag}(P)^{-1}, \quad P = (X^\top X + \lambda I)^{-1}

    with X the interactions, all alike. Source: Steck, "Embarrassingly Shallow Autoencoders for
    Sparse Data", 2019 (arXiv:1905.03375); that a user's recent items count more is added here.
    """
    gram = (seen := data.seen.float()).T @ seen
    inverse = torch.linalg.inv(gram + ridge * torch.eye(data.items))
    weights = (-inverse / inverse.diagonal()).fill_diagonal_(0)
    return data.interactions(half_life) @ weights


class RankingDistillation(Objective):
    r"""The teacher's best items count as chosen: the first of them most.

    .. math:: \mathcal{L} = -\alpha \frac1N \sum_n \sum_{r=1}^{R} w_r \log \sigma(z_{n, \pi_{nr}})
        + (1 - \alpha) \, \mathrm{CE}(z, y), \quad w_r \propto e^{-r / \lambda}

    with :math:`\pi_{nr}` the teacher's r-th best of the sampled items. Source: Tang, Wang, "Ranking
    Distillation", 2018 (arXiv:1809.07428), whose ranking is over all items, and who add a weight by
    the discrepancy of the ranks.
    """

    def __init__(self, alpha: float = 0.5, best: int = 10, decay: float = 10.0) -> None:
        super().__init__()
        self.weights = {"ranking": alpha, "truth": 1 - alpha}
        self.best, self.decay = best, decay

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return both terms."""
        sampled = logits_of(teacher)[:, 1:]  # position 0 is the truth's
        order = sampled.topk(min(self.best, sampled.shape[1])).indices
        place = torch.arange(1.0, order.shape[1] + 1, device=order.device)
        weights = torch.softmax(-place / self.decay, dim=0)
        chances = F.logsigmoid(student.logits[:, 1:].gather(1, order))
        ranking = -(chances * weights).sum(dim=1).mean()
        return {"ranking": ranking, "truth": truth_loss(student.logits, target_of(batch))}


class Ranking(Callback):
    """Logs the ranking measures of the network in training on the validation items."""

    def __init__(self, data: MovieLens) -> None:
        self.data = data

    def on_validation_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Measure."""
        hits, gains = self.data.rank(module.trained, "val")
        module.log_dict({"val/hit_rate": hits.mean(), "val/ndcg": gains.mean()})


def fit(module: Any, data: MovieLens, epochs: int) -> float:
    """Train a kdlit module; leave it as in its best epoch, and return that one's NDCG@10."""
    with tempfile.TemporaryDirectory() as folder:
        best = ModelCheckpoint(folder, monitor="val/ndcg", mode="max", save_weights_only=True)
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=epochs,
            callbacks=[Ranking(data), best],
            num_sanity_val_steps=0,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, data)
        kept = torch.load(best.best_model_path, weights_only=True)
    module.load_state_dict(kept["state_dict"])
    module.eval()
    return float(best.best_model_score)
