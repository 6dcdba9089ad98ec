"""What lies on the disk: whole, verified, or refused with the reason."""

import random

import numpy as np
import pytest
import torch

from kdlit.batch import Outputs
from kdlit.errors import DataError, TeacherError
from kdlit.files import read_sealed_json, write_sealed_json
from kdlit.functional import kl_divergence
from kdlit.teachers.table import CARD, Table, TableWriter

KEY = {"teacher": "a", "data": "b"}


def outputs(samples: int, classes: int = 5, features: bool = True) -> Outputs:
    generator = torch.Generator().manual_seed(samples)
    named = {"block1": torch.randn(samples, 2, 3, generator=generator)} if features else {}
    return Outputs(4 * torch.randn(samples, classes, generator=generator), named)


def table(folder, index=None, views=2, dtype="float32", top_k=None, said=None) -> Table:
    index = torch.tensor([2, 3, 7, 20]) if index is None else index
    said = [outputs(len(index) + view) for view in range(views)] if said is None else said
    said = [Outputs(o.logits[: len(index)], {n: v[: len(index)] for n, v in o.features.items()})
            for o in said]  # fmt: skip
    (folder / "new").mkdir(parents=True)
    writer = TableWriter(folder / "new", index, views, said[0], dtype, top_k, create=True)
    for view, answer in enumerate(said):
        half = len(index) // 2
        for part in (slice(0, half), slice(half, None)):
            features = {name: values[part] for name, values in answer.features.items()}
            writer.write(view, part.start, Outputs(answer.logits[part], features))
    writer.flush()
    writer.finish(folder / "table", KEY, 1.0)
    return Table(folder / "table", KEY)


def test_gives_what_was_written_by_number_and_view(tmp_path):
    said = [outputs(4), outputs(5)]
    kept = table(tmp_path, said=said)
    index = torch.tensor([20, 2, 7])
    for view in (0, 1):
        found = kept.outputs(index, view)
        assert torch.equal(found.logits, said[view].logits[[3, 0, 2]])
        assert torch.equal(found.features["block1"], said[view].features["block1"][[3, 0, 2]])
    assert torch.equal(kept.outputs(index, 4).logits, kept.outputs(index, 0).logits)
    assert not (tmp_path / "new").exists()


def test_a_sample_that_is_not_there_is_named(tmp_path):
    sparse = table(tmp_path / "sparse")
    dense = table(tmp_path / "dense", index=torch.arange(4))
    counted = table(tmp_path / "counted", index=range(4))
    assert not (counted.place / "index.npy").exists()
    for kept, missing in ((sparse, 4), (sparse, 21), (dense, 4), (dense, -1), (counted, 4)):
        with pytest.raises(TeacherError, match=f"no outputs for sample {missing}"):
            kept.outputs(torch.tensor([2, missing]), 0)


def test_half_the_size_in_float16(tmp_path):
    said = [outputs(4), outputs(5)]
    kept = table(tmp_path / "half", dtype="float16", said=said)
    assert kept.bytes * 2 == table(tmp_path / "whole", said=said).bytes
    found = kept.outputs(torch.tensor([3]), 1).logits
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, said[1].logits[[1]], rtol=1e-3, atol=0)
    large = [Outputs(1e6 * torch.ones(4, 5))]
    with pytest.raises(TeacherError, match="float32"):
        table(tmp_path / "large", dtype="float16", views=1, said=large)


def test_the_likeliest_classes_and_the_mass_of_the_rest(tmp_path):
    said = outputs(4, classes=50, features=False)
    kept = table(tmp_path, views=1, top_k=3, said=[said]).outputs(torch.tensor([2, 3, 7, 20]), 0)
    expected, found = (torch.softmax(logits, dim=1) for logits in (said.logits, kept.logits))
    values, classes = expected.topk(3, dim=1)
    torch.testing.assert_close(found.gather(1, classes), values, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(4))
    rest = found.scatter(1, classes, 0.0)
    assert torch.allclose(rest.amax(dim=1), (1 - values.sum(dim=1)) / 47, rtol=1e-4)
    # A teacher that is all but certain: the rest has no mass that one minus the top would show.
    sure = Outputs(torch.tensor([[60.0, 0.0, 0.0, 0.0]] * 4))
    found = table(tmp_path / "sure", views=1, top_k=1, said=[sure]).outputs(torch.tensor([2]), 0)
    assert kl_divergence(found.logits, sure.logits[:1]).abs() < 1e-6
    torch.testing.assert_close(found.logits[0, 1:], torch.full((3,), -60.0))


def test_as_many_classes_as_there_are_is_all_of_them(tmp_path):
    said = outputs(4, features=False)
    kept = table(tmp_path, views=1, top_k=5, said=[said])
    assert torch.equal(kept.outputs(torch.tensor([2]), 0).logits, said.logits[:1])


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda place: (place / CARD).unlink(), "cannot be read"),
        (lambda place: (place / "0.npy").unlink(), "cannot be read"),
        (lambda place: (place / CARD).write_text("{"), "cannot be read"),
        (lambda place: (place / CARD).write_text("[]"), "cannot be read"),
        (lambda place: edit(place, format=9), "its format is 9, not 1"),
        (lambda place: edit(place, key={**KEY, "data": "c"}), "made with another data"),
        (lambda place: edit(place, key={**KEY, "more": "c"}), "made with another key"),
        (lambda place: edit(place, views=3), "arrays have shapes"),
        (lambda place: cut(place / "1.npy"), "1.npy is damaged"),
        (lambda place: cut(place / "index.npy"), "index.npy is damaged"),
    ],
)
def test_refused_with_the_reason(tmp_path, damage, reason):
    kept = table(tmp_path)
    damage(kept.place)
    with pytest.raises(DataError, match=reason):
        Table(kept.place, KEY)


def edit(place, **entries) -> None:
    write_sealed_json(place / CARD, read_sealed_json(place / CARD) | entries)


def cut(path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def test_a_flipped_bit_anywhere_is_found(tmp_path):
    kept = table(tmp_path)
    places = sorted(kept.place.glob("*.npy"))
    generator = random.Random(0)
    for _ in range(60):
        path = generator.choice(places)
        whole = path.read_bytes()
        bit = generator.randrange(8 * len(whole))
        changed = bytearray(whole)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(DataError, match="damaged"):
            Table(kept.place, KEY)
        path.write_bytes(whole)
    Table(kept.place, KEY)


def test_a_pickle_in_the_place_of_an_array_is_not_loaded(tmp_path):
    from kdlit.teachers.table import _checksum

    kept = table(tmp_path)
    np.save(kept.place / "0.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    card = read_sealed_json(kept.place / CARD)
    entry = next(e for e in card["arrays"].values() if e["file"] == "0.npy")
    entry["sha256"] = _checksum(kept.place / "0.npy")
    write_sealed_json(kept.place / CARD, card)
    with pytest.raises(DataError, match="cannot be read"):
        Table(kept.place, KEY)
