"""One bit flipped at random, in each file that kdlit reads again: found, or without effect."""

import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from kdlit.batch import Outputs
from kdlit.checkpoints import AtomicCheckpointIO
from kdlit.data.idx import load_idx_resource
from kdlit.errors import DataError
from kdlit.files import read_sealed_json, state_fingerprint
from kdlit.teachers import TeacherStore
from kdlit.teachers.table import CARD, Table, TableWriter

FLIPS = 200


def outcomes(paths: list[Path], read: Callable[[], str], flips: int = FLIPS) -> Counter:
    """Count what comes of flips in files, chosen at random: first the file, then the bit."""
    drawn, counts = random.Random(0), Counter()
    assert read() == "harmless"
    for _ in range(flips):
        path = drawn.choice(paths)
        place, bit = divmod(drawn.randrange(8 * path.stat().st_size), 8)
        with path.open("r+b") as file:
            file.seek(place)
            (before,) = file.read(1)
            file.seek(place)
            file.write(bytes([before ^ 1 << bit]))
        outcome = read()
        assert outcome != "different", f"{path.name}: byte {place}, bit {bit}"
        counts[outcome] += 1
        with path.open("r+b") as file:
            file.seek(place)
            file.write(bytes([before]))
    assert read() == "harmless"
    return counts


class TrainedAnewError(Exception):
    pass


@pytest.fixture
def teacher(tmp_path) -> tuple[Callable[[], str], Path, Path]:
    recipe = {"network": {"widths": [32], "dropout": 0.1}, "seed": 0, "trainer": {"max_epochs": 1}}
    told = {
        "metrics": {"val/accuracy": 0.8123999834060669, "test/nll": 0.6543154716491699},
        "training_samples": 2000,
        "seconds": 0.7,
        "versions": {"torch": "2.15.0", "lightning": "2.6"},
    }

    def network() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(28, 8), nn.ReLU(), nn.Linear(8, 10))

    store = TeacherStore(tmp_path)
    made = network()
    stored = store.get_or_train("mlp", recipe, made, lambda _: told)
    weights = state_fingerprint(made.state_dict())

    def anew(_: nn.Module) -> dict:
        raise TrainedAnewError

    def read() -> str:
        found = network()
        nn.init.zeros_(found[1].weight)
        try:
            again = store.get_or_train("mlp", recipe, found, anew)
        except TrainedAnewError:
            return "made anew"
        same = state_fingerprint(found.state_dict()) == weights and again.card == stored.card
        return "harmless" if same else "different"

    return read, stored.weights, stored.weights.with_suffix(".json")


def test_in_a_teachers_weights(teacher, figures):
    read, weights, _ = teacher
    counts = outcomes([weights], read)
    assert counts["made anew"] > FLIPS // 2
    figures("bit flips: teacher's weights", dict(counts))


def test_in_a_teachers_card(teacher, figures):
    read, _, card = teacher
    counts = outcomes([card], read)
    assert counts["made anew"] > FLIPS // 2
    figures("bit flips: teacher's card", dict(counts))


@pytest.fixture
def outputs(tmp_path) -> tuple[Callable[[], str], Path]:
    torch.manual_seed(0)
    key = {"teacher": "FrozenTeacher", "weights": "0123456789ab", "views": 2, "top_k": None}
    index, said = torch.arange(0, 60, 3), Outputs(torch.randn(20, 10), {"fc": torch.randn(20, 4)})
    staged, place = tmp_path / "staged", tmp_path / "train-0123"
    staged.mkdir()
    writer = TableWriter(staged, index, 2, said, "float32", None, create=True)
    for view in range(2):
        writer.write(view, 0, said)
    writer.flush()
    writer.finish(place, key, 0.25)
    card = read_sealed_json(place / CARD)

    def read() -> str:
        try:
            table = Table(place, key)
        except DataError:
            return "made anew"  # by the teacher that remembers, with a warning
        found = [table.outputs(index, view) for view in range(2)]
        same = table.card == card and all(
            torch.equal(one.logits, said.logits)
            and torch.equal(one.features["fc"], said.features["fc"])
            for one in found
        )
        return "harmless" if same else "different"

    return read, place


def test_in_the_arrays_of_kept_outputs(outputs, figures):
    read, place = outputs
    counts = outcomes(sorted(place.glob("*.npy")), read)
    assert counts == {"made anew": FLIPS}
    figures("bit flips: kept outputs, arrays", dict(counts))


def test_in_the_card_of_kept_outputs(outputs, figures):
    read, place = outputs
    counts = outcomes([place / CARD], read)
    assert counts["made anew"] > FLIPS // 2
    figures("bit flips: kept outputs, card", dict(counts))


def test_in_mnists_archives(tmp_path, mnist_root, figures):
    """The large one is read in a tenth of a second: a quarter of the flips is in each."""
    shutil.copytree(mnist_root / "MNIST" / "raw", tmp_path / "MNIST" / "raw")
    names = [name for name, _ in torchvision.datasets.MNIST.resources]
    counts: Counter = Counter()
    for name in names:
        path = tmp_path / "MNIST" / "raw" / name

        def read(name: str = name) -> str:
            try:
                load_idx_resource(torchvision.datasets.MNIST, tmp_path, name)
            except DataError as error:
                return "refused" if "is damaged: its MD5 is not" in str(error) else "different"
            return "harmless"

        counts += outcomes([path], read, FLIPS // len(names))
    assert counts == {"refused": FLIPS}
    figures("bit flips: MNIST's archives", dict(counts))


def test_in_a_checkpoint(tmp_path, figures):
    torch.manual_seed(0)
    path, way = tmp_path / "last.ckpt", AtomicCheckpointIO()
    content = {
        "epoch": 3,
        "state_dict": {"weight": torch.randn(20, 10), "bias": torch.randn(10)},
        "callbacks": {"best": {"score": torch.tensor(0.75), "path": "run/best.ckpt"}},
    }
    way.save_checkpoint(content, path)

    def read() -> str:
        try:
            found = way.load_checkpoint(path, weights_only=True)
        except DataError:
            return "refused"
        return "harmless" if _same(found, content) else "different"

    counts = outcomes([path], read)
    assert counts["refused"] > FLIPS // 2
    figures("bit flips: checkpoint", dict(counts))


def _same(found: object, wanted: object) -> bool:
    if isinstance(wanted, dict):
        return (
            isinstance(found, dict)
            and found.keys() == wanted.keys()
            and all(_same(found[key], wanted[key]) for key in wanted)
        )
    if isinstance(wanted, torch.Tensor):
        return isinstance(found, torch.Tensor) and torch.equal(found, wanted)
    return type(found) is type(wanted) and found == wanted


def test_a_card_from_before_there_were_checksums_is_taken(tmp_path):
    path = tmp_path / "card.json"
    path.write_text('{"weights": "0123456789ab", "seconds": 1.5}')
    assert read_sealed_json(path) == {"weights": "0123456789ab", "seconds": 1.5}
