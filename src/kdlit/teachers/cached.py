"""A teacher that is asked once for each sample and view, and remembered."""

import json
import logging
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor, nn

from kdlit import checks
from kdlit.batch import Batch, Outputs
from kdlit.errors import ConfigError, DataError, TeacherError
from kdlit.files import fingerprint, state_fingerprint, writing
from kdlit.teachers.frozen import TeacherSource, as_source
from kdlit.teachers.surroundings import Split, Surroundings
from kdlit.teachers.table import Table, TableWriter

log = logging.getLogger("kdlit")

DTYPES = ("float32", "float16")
_COMPARED, _COMPARED_IN_EPOCH = 32, 8
_EXACT, _COARSE = 1e-3, 1e-2


class CachedTeacher(TeacherSource):
    r"""A frozen teacher whose outputs are computed once per sample and view, and kept in files.

    Before training the teacher runs over the samples of the training and validation sets, and what
    it says of each is written to memory-mapped arrays: logits, and the layers that objectives tap.
    In training they are looked up by the sample's number, so that a step costs the same whatever
    the teacher's size. The test set, and whatever else has no table, asks the teacher itself.

    A table is found by what it was made from: the teacher's weights and layers, the data and their
    preparation, the augmentation with its seed and views, the precision. It is verified by its
    checksums when it is opened, and compared with what the teacher says of some of the samples,
    then and at the first batch of each epoch; one that differs is refused, one that is damaged or
    unfinished is made anew. Of several runs that want the same table one makes
    it. Several processes of one training make it together, each its share; they need to see the
    same folder.

    Where the teacher answers each token (:mod:`kdlit.positions`), all samples must have one length,
    and each token's logits are kept: C or `top_k` numbers a token.

    With `top_k` the k likeliest classes are kept as log-probabilities, and the mass of all others
    is shared out equally among them:

    .. math:: t_c = \log p_c \;\text{for the top}\; k, \quad
        t_c = \log \frac{1 - \sum_{c'} p_{c'}}{C - k} \;\text{otherwise}

    Args:
        teacher: a network or a :class:`TeacherSource` that does not change in training.
        folder: where the tables lie.
        dtype: `float32`, which gives what the teacher gives, or `float16`, half the size.
        top_k: k, or None to keep every class.
        batch_size: samples in a batch when a table is made.

    Raises:
        ConfigError: if an argument cannot work, or the teacher changes in training.
        TeacherError: before training, if the data cannot be drawn again: see
            :class:`kdlit.data.Indexed`; in training, for a sample that is not in the table.

    >>> CachedTeacher(nn.Linear(4, 3), "cache/outputs", top_k=2)
    CachedTeacher(
      dtype=float32, top_k=2
      (source): FrozenTeacher(
        (network): Linear(in_features=4, out_features=3, bias=True)
      )
    )
    """

    by_sample = True

    def __init__(
        self,
        teacher: nn.Module,
        folder: str | Path,
        dtype: str = "float32",
        top_k: int | None = None,
        batch_size: int = 250,
    ) -> None:
        super().__init__()
        self.source = as_source(teacher)
        if self.source.changes:
            raise ConfigError(
                f"{type(self.source).__name__} changes in training: its outputs cannot be kept"
            )
        if self.source.spreads:
            raise ConfigError(
                "a teacher that is sharded over processes answers only where all of them ask at "
                "once: its outputs cannot be kept. Give the teacher itself"
            )
        if dtype not in DTYPES:
            raise ConfigError(f"`dtype` must be {' or '.join(DTYPES)}, got {dtype!r}")
        self.folder, self.dtype = Path(folder), dtype
        self.top_k = None if top_k is None else checks.integer("top_k", top_k)
        self.batch_size = checks.integer("batch_size", batch_size)
        self.normalizes = self.top_k is not None or self.source.normalizes
        self.tables: dict[str, Table] = {}
        self.seconds = 0.0
        self._layers: tuple[str, ...] = ()
        self._table: Table | None = None
        self._view = 0
        self._is_compared = self._is_coarse = False
        self.eval()

    @property
    def single_network(self) -> nn.Module | None:
        """The network that teaches, where there is exactly one."""
        return self.source.single_network

    def tap(self, layers: Sequence[str]) -> None:
        """Give these layers' outputs as `features` from now on; none removes all taps."""
        self.source.tap(layers)
        self._layers = tuple(dict.fromkeys(layers))

    def probe(self, batch: Batch) -> Outputs:
        """Ask the teacher itself."""
        return self.source.probe(batch)

    @torch.no_grad()
    def forward(self, batch: Batch) -> Outputs:
        """Look up what the teacher said of the samples; ask it where there is no table."""
        if self._table is None:
            outputs: Outputs = self.source(batch)
            return outputs
        if batch.index is None:
            raise TeacherError(
                "kept outputs are found by the samples' numbers: give batches of (x, y, index), "
                "as MNISTDataModule(index=True) and data sets in kdlit.data.Indexed do"
            )
        if not self._is_compared:
            self._is_compared = True
            part = batch.whole().split(_COMPARED_IN_EPOCH)[0].whole()
            self._compare(self._table, self._view, part, self.source(part), self._is_coarse)
        return batch.rows.of(self._table.outputs(batch.index, self._view))

    def turn_to(self, split: str | None, epoch: int = 0) -> None:
        """Answer from the table of a split, in an epoch's view; from none where there is none."""
        self._table = self.tables.get(split) if split else None
        self._view, self._is_compared = epoch, False

    # Before training -----------------------------------------------------------------------

    @torch.no_grad()
    def remember(self, around: Surroundings) -> None:
        """Open the table of each split; make those that are not there."""
        self.tables, self.seconds = {}, 0.0
        described = {
            "teacher": type(self.source).__name__,
            "structure": fingerprint(repr(self.source)),
            "weights": state_fingerprint(self.source.state_dict()),
            "layers": list(self._layers),
            "precision": around.precision,
            "device": around.device.type,
            "dtype": self.dtype,
            "top_k": self.top_k,
        }
        # Half precision rounds otherwise in batches of another size, and so do accelerators.
        exact = around.precision in ("32-true", "64-true") and around.device.type == "cpu"
        self._is_coarse = self.dtype == "float16" or not exact
        for split in around.splits():
            index = split.index
            if not len(index) or (isinstance(index, Tensor) and (index.diff() <= 0).any()):
                raise TeacherError(
                    f"the numbers of the {split.name} samples must be ascending and all different, "
                    "and there must be some"
                )
            # As JSON gives it back, and the same in all processes.
            told = json.dumps({**described, **split.key, "views": split.views})
            key = json.loads(around.processes.broadcast(told))
            place = self.folder / f"{split.name}-{fingerprint(key)}"
            table = self._open_or_make(place, key, split, around)
            table.to(around.device)
            self.tables[split.name] = table
            count = len(split.index)
            positions = range(0, count, -(-count // _COMPARED))
            for view in {0, split.views - 1}:
                for batch in split.batches(positions, view, self.batch_size):
                    with around.context():
                        now = self.source(batch.whole())
                    self._compare(table, view, batch, now, self._is_coarse)

    def _open_or_make(
        self, place: Path, key: Mapping[str, Any], split: Split, around: Surroundings
    ) -> Table:
        processes, first = around.processes, around.rank == 0
        lock = FileLock(place.with_name(f"{place.name}.lock"))
        known = self._open(place, key) if first else None
        problem: str | None = None
        if first and known is None:
            try:
                self._check_folder()
                # Freed by the operating system when its holder dies.
                lock.acquire()
                for left in self.folder.glob(f".{place.name}.*"):
                    shutil.rmtree(left, ignore_errors=True)
                known = self._open(place, key)
            except TeacherError as error:
                problem = str(error)
            except OSError as error:  # a lock that is another user's, or no locks at all
                problem = f"a teacher's outputs cannot be kept in {self.folder}: {error}"
        try:
            # All processes fail together, or none waits for one that has failed.
            known_to_all, problem = processes.broadcast((known is not None, problem))
            if problem is not None:
                raise TeacherError(problem)
            if not known_to_all:
                start = time.perf_counter()
                self._make(place, key, split, around)
                self.seconds += time.perf_counter() - start
        finally:
            lock.release()
        return known or Table(place, key)

    def _check_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            raise TeacherError(
                f"a teacher's outputs cannot be kept in {self.folder}: {error.strerror}. Give a "
                "folder that can be written, or train with cache=none"
            ) from error

    def _open(self, place: Path, key: Mapping[str, Any]) -> Table | None:
        """Return the table; None if there is none, or if it must be made anew."""
        if not place.exists():
            return None
        try:
            return Table(place, key)
        except DataError as error:
            log.warning("The teacher's outputs are computed anew: %s", error)
            return None

    def _make(
        self, place: Path, key: Mapping[str, Any], split: Split, around: Surroundings
    ) -> None:
        """Fill a table, this process its share of the samples."""
        processes, rank, size = around.processes, around.rank, around.world_size
        count, start = len(split.index), time.perf_counter()
        share = range(rank * count // size, (rank + 1) * count // size)
        with (
            writing(self.folder, only_storage=True),
            tempfile.TemporaryDirectory(dir=self.folder, prefix=f".{place.name}.") as own,
        ):
            shared = Path(processes.broadcast(str(Path(own, "table"))))
            example = next(self._answers(split, range(min(2, count)), 0, around))[2]

            def writer(*, create: bool) -> TableWriter:
                return TableWriter(
                    shared, split.index, split.views, example, self.dtype, self.top_k, create=create
                )

            if rank == 0:
                shared.mkdir()
                table = writer(create=True)
            processes.barrier()
            if rank != 0:
                table = writer(create=False)
            steps = (
                answer
                for view in range(split.views)
                for answer in self._answers(split, share, view, around)
            )
            batches = split.views * -(-len(share) // self.batch_size)
            for view, position, outputs in around.track(steps, batches):
                table.write(view, position, outputs)
            table.flush()
            processes.barrier()
            if rank == 0:
                table.finish(place, key, time.perf_counter() - start)
            processes.barrier()

    def _answers(
        self, split: Split, positions: range, view: int, around: Surroundings
    ) -> Iterator[tuple[int, int, Outputs]]:
        """Yield what the teacher says, batch by batch, with the view and the first position."""
        position = positions.start
        for batch in split.batches(positions, view, self.batch_size):
            with around.context():
                outputs = self.source(batch.whole())
            found = batch.index
            expected = split.numbers(position, position + len(outputs.logits))
            if found is None or not torch.equal(found.cpu().long(), expected):
                raise TeacherError(
                    f"the {split.name} batches do not carry the numbers of their samples: give "
                    "batches of (x, y, index), as MNISTDataModule(index=True) and data sets in "
                    "kdlit.data.Indexed do"
                )
            yield view, position, outputs
            position += len(outputs.logits)

    def _compare(self, table: Table, view: int, batch: Batch, now: Outputs, coarse: bool) -> None:
        """Compare what a table says of some samples with what the teacher says of them now."""
        if batch.index is None:
            raise TeacherError("the batches carry no numbers of their samples")
        kept = table.outputs(batch.index, view)
        pairs = [(name, kept.features[name], now.features[name]) for name in kept.features]
        if self.top_k is None:
            pairs.append(("logits", kept.logits, now.logits))
        else:
            # Of the others only their sum is kept.
            best = now.logits.argmax(dim=-1, keepdim=True)
            ours, theirs = (
                torch.log_softmax(said.logits.float(), dim=-1).gather(-1, best)
                for said in (kept, now)
            )
            pairs.append(("logits", ours, theirs))
        tolerance = _COARSE if coarse else _EXACT
        for name, ours, theirs in pairs:
            gap = (ours.float() - theirs.float()).abs().max().item()
            if not gap <= tolerance * (1 + theirs.float().abs().max().item()):
                raise TeacherError(
                    f"the {name} in {table.place} are not what the teacher says of these samples "
                    f"now: they differ by {gap:.3g}. If the data draw random numbers, give "
                    "kdlit.data.Indexed `views`; if data or teacher have changed in a way that "
                    "does not show, delete the folder; or train without the cache (cache=none)"
                )

    def extra_repr(self) -> str:
        """Show what is kept."""
        return f"dtype={self.dtype}, top_k={self.top_k}"
