"""Contrastive representation distillation."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics.utilities.distributed import gather_all_tensors

from kdlit import checks
from kdlit.batch import Batch, Outputs
from kdlit.errors import ConfigError
from kdlit.functional import crd_log_mean, crd_loss, crd_scores
from kdlit.functional.precision import float32_at_least
from kdlit.objectives.base import DryRun, index_of
from kdlit.objectives.layers import LayerObjective
from kdlit.randomness import uniform
from kdlit.schedules import Weight
from kdlit.taps import PENULTIMATE


class CRD(LayerObjective):
    r"""The student's feature of a sample is told from the teacher's features of other samples.

    .. math:: \mathcal{L} = w \cdot (\mathcal{L}_\text{NCE}(s \mid \text{teacher})
        + \mathcal{L}_\text{NCE}(t \mid \text{student}))

    with s and t linear embeddings of both networks' features, of unit length and trained with the
    student; in the first term the student's embeddings are anchors and the teacher's positives and
    negatives, in the second the other way round. See :func:`kdlit.functional.crd_loss`.

    Negatives come from a memory of each network's embedding of every training sample, which is
    updated after each step: momentum times the old, plus the rest times the new, to unit length.
    Memories are part of the checkpoint. Under DDP they take in the embeddings of all processes,
    and are the same on all of them.

    Departures from the authors' code: the positive is the other network's embedding in the same
    batch, as in the paper's formula, and not its entry in the memory, which is noise until the
    sample has been met once; it gets no gradient, as an entry of a memory gets none. Negatives are
    drawn from the other samples met so far (at the first step: from the memory's random
    beginning), so that `samples` may exceed what is trained on; of those drawn, samples of the
    anchor's own class are left out where the batch has ground truth. An entry's first embedding is
    taken as it is, and what is stored is embedded after the optimizer's step. As buffers the
    memories are broadcast by DDP at every step, 61 MB for 60,000 samples.

    Args:
        samples: M, size of the memory: every index in a batch lies in 0 to M - 1.
        negatives: K, drawn for each sample and step; fewer than `samples`. Default 256, a choice
            of ours for small data; the paper has 16384, and improves from 16 to there. A step
            holds 2 N K D numbers: 17 MB at N = 64 and the defaults.
        feature_dim: D of the embeddings. Default 128, as in the paper.
        temperature: tau > 0. Default 0.07, as in the authors' code.
        momentum: share of an entry that is kept, in [0, 1). Default 0.5, as in the authors' code.
        student_layer: a layer's name, or `penultimate`; its output is flattened.
        teacher_layer: likewise, of the teacher.
        weight: w. Default 0.8, as in the paper.
        seed: of the memory's beginning and of the choice of negatives, which depends on it, on the
            step, on the sample's index and on which samples were met, and on nothing else.

    Raises:
        ConfigError: if a value is out of range; in training, if a batch has no index or one that
            is not in the memory.

    Source: Tian, Krishnan, Isola, "Contrastive Representation Distillation", 2020, section 3
    (arXiv:1910.10699).

    >>> CRD(samples=60_000, negatives=1024).needs_index
    True
    """

    term = "crd"
    needs_index = True
    student_embedding: "Embedding"
    teacher_embedding: "Embedding"
    student_memory: Tensor
    teacher_memory: Tensor
    met: Tensor
    place: Tensor
    count: Tensor
    steps: Tensor
    log_means: Tensor
    classes: Tensor

    def __init__(
        self,
        samples: int,
        negatives: int = 256,
        feature_dim: int = 128,
        temperature: float = 0.07,
        momentum: float = 0.5,
        student_layer: str = PENULTIMATE,
        teacher_layer: str = PENULTIMATE,
        weight: Weight = 0.8,
        seed: int = 0,
    ) -> None:
        super().__init__(student_layer, teacher_layer, weight)
        self.samples = checks.integer("samples", samples, least=2)
        self.negatives = checks.integer("negatives", negatives)
        if negatives >= samples:
            raise ConfigError(
                f"`negatives` must be smaller than `samples`, got {negatives} of {samples}"
            )
        self.feature_dim = checks.integer("feature_dim", feature_dim)
        self.temperature = checks.positive("temperature", temperature)
        self.momentum = checks.fraction("momentum", momentum, below_one=True)
        self.seed = checks.integer("seed", seed, least=0)

    def setup(self, run: DryRun) -> None:
        """Make the embeddings and the memories."""
        ours, theirs = self.pair(run.student, run.teacher)
        self.student_embedding = Embedding(ours, self.feature_dim)
        self.teacher_embedding = Embedding(theirs, self.feature_dim)
        generator = torch.Generator().manual_seed(self.seed)
        for name in ("student_memory", "teacher_memory"):
            entries = torch.randn(self.samples, self.feature_dim, generator=generator)
            self.register_buffer(name, F.normalize(entries, dim=1))
        # The samples met so far are met[:count]; place is where each stands there, or -1.
        self.register_buffer("met", torch.arange(self.samples))
        self.register_buffer("place", torch.full((self.samples,), -1))
        self.register_buffer("classes", torch.full((self.samples,), -1))
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("steps", torch.tensor(0))
        self.register_buffer("log_means", torch.zeros(2))

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the one term; the memories stay as they are."""
        others = self.negatives_of(self._index(batch))
        scores = self._scores(*self._embedded(student, teacher), others)
        # Known from the first step on; before that, estimated from the batch itself.
        log_means = self._estimated(scores) if self.steps == 0 else self.log_means
        # Classes that are not known, -1, are taken for others.
        target = batch.target
        differ = None if target is None else self.classes[others] != target[:, None]
        terms = [crd_loss(side, mean, differ) for side, mean in zip(scores, log_means, strict=True)]
        return {self.term: torch.stack(terms).sum()}

    @torch.no_grad()
    def after_step(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> None:
        """Take the embeddings of all processes into the memories."""
        embeddings, index = torch.stack(self._embedded(student, teacher)), self._index(batch)
        if self.steps == 0:
            others = self.negatives_of(index)
            self.log_means.copy_(
                self._estimated(self._scores(embeddings[0], embeddings[1], others))
            )
        target = torch.full_like(index, -1) if batch.target is None else batch.target
        self._remember(*map(gathered, (embeddings.transpose(0, 1), index, target)))
        self.steps += 1

    def negatives_of(self, index: Tensor) -> Tensor:
        """Return which samples are the negatives of each sample at this step, shape (N, K)."""
        # A sample that has been met is left out of its own negatives: they are drawn from one
        # place fewer, and those behind its own move up by one.
        any_met = self.count > 0
        own = torch.where(any_met, self.place[index], index)[:, None]
        size = torch.where(any_met, self.count, self.samples) - (own >= 0).long()
        drawn = uniform(self.seed, index + self.steps * self.samples, self.negatives)
        places = ((drawn * 2**24).long() * size) >> 24  # all 24 bits, in whole numbers
        places = places + ((own >= 0) & (places >= own)).long()
        chosen: Tensor = self.met[places]
        return chosen

    def _index(self, batch: Batch) -> Tensor:
        index = index_of(batch).long()
        least, most = (int(end) for end in index.aminmax())
        if least < 0 or most >= self.samples:
            raise ConfigError(
                f"the memory has {self.samples} entries (`samples`), and the batch has the index "
                f"{least if least < 0 else most}: `samples` must exceed every index of the "
                "training data, 60000 for MNIST"
            )
        return index

    def _embedded(self, student: Outputs, teacher: Outputs | None) -> tuple[Tensor, Tensor]:
        ours, theirs = self.pair(student, teacher)
        return self.student_embedding(ours), self.teacher_embedding(theirs)

    def _scores(self, ours: Tensor, theirs: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scores with the student as anchor, and with the teacher as anchor."""
        return (
            crd_scores(ours, theirs.detach(), self.teacher_memory[others], self.temperature),
            crd_scores(theirs, ours.detach(), self.student_memory[others], self.temperature),
        )

    @torch.no_grad()
    def _estimated(self, scores: tuple[Tensor, Tensor]) -> Tensor:
        """Return the logarithm of the mean score of either side, over all processes."""
        # Each sample has as many scores as any other: the mean of their means is the mean.
        both = torch.stack(scores)
        means = gathered((torch.logsumexp(both, dim=2) - math.log(both.shape[2])).T)
        return torch.stack([crd_log_mean(side) for side in means.T])

    def _remember(self, embeddings: Tensor, index: Tensor, target: Tensor) -> None:
        """Update the entries of samples (N,) by their embeddings, shape (N, 2, D), and classes."""
        # Of a sample that comes twice the first counts, so that the order of writing does not.
        known, group = torch.unique(index, return_inverse=True)
        rows = torch.arange(len(index), device=index.device)
        first = torch.full_like(known, len(index)).scatter_reduce(0, group, rows, "amin")
        is_new = self.place[known] < 0
        kept = torch.where(is_new, 0.0, self.momentum)[:, None]
        for side, memory in enumerate((self.student_memory, self.teacher_memory)):
            moved = kept * memory[known] + (1 - kept) * embeddings[first, side]
            memory[known] = F.normalize(moved, dim=1).to(memory.dtype)
        self.classes[known] = torch.where(target[first] < 0, self.classes[known], target[first])
        new = known[is_new]
        places = self.count + torch.arange(len(new), device=new.device)
        self.place[new] = places
        self.met[places] = new
        self.count += len(new)

    def extra_repr(self) -> str:
        """Show the settings."""
        return (
            f"samples={self.samples}, negatives={self.negatives}, "
            f"temperature={self.temperature:g}, momentum={self.momentum:g}, {super().extra_repr()}"
        )


class Embedding(nn.Module):
    """A linear map of flattened features, to unit length.

    Args:
        source: an example of what comes in, shape (N, ...).
        feature_dim: numbers that come out.

    >>> Embedding(torch.zeros(1, 4, 2, 2), 3)(torch.randn(5, 4, 2, 2)).norm(dim=1).round(decimals=3)
    tensor([1., 1., 1., 1., 1.], grad_fn=<RoundBackward1>)
    """

    def __init__(self, source: Tensor, feature_dim: int) -> None:
        super().__init__()
        self.map = nn.Linear(source[0].numel(), feature_dim)

    def forward(self, features: Tensor) -> Tensor:
        """Return embeddings (N, D), in float32 at least."""
        mapped = self.map(features.flatten(start_dim=1).to(self.map.weight.dtype))
        return F.normalize(float32_at_least(mapped), dim=1)


def gathered(values: Tensor) -> Tensor:
    """Return the rows of all processes, in the order of their ranks; those given if there is one.

    >>> gathered(torch.ones(2)).tolist()
    [1.0, 1.0]
    """
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return values
    return torch.cat(gather_all_tensors(values.contiguous()))
