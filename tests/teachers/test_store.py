import multiprocessing
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from kdlit.errors import NonFiniteError, TeacherError
from kdlit.files import read_sealed_json
from kdlit.teachers import TeacherStore

RECIPE = {"network": "linear", "seed": 0}


def train(network: nn.Module) -> dict:
    with torch.no_grad():
        network.weight.fill_(2.5)
    return {"metrics": {"accuracy": 1.0}}


def get(folder: Path, **options):
    network = nn.Linear(2, 2)
    stored = TeacherStore(folder).get_or_train(
        "linear", options.pop("recipe", RECIPE), network, options.pop("train", train), **options
    )
    return network, stored


def test_trains_once_and_loads_afterwards(tmp_path):
    first, stored = get(tmp_path)
    second, again = get(tmp_path)
    assert (stored.trained_now, again.trained_now) == (True, False)
    assert torch.equal(first.bias, second.bias)
    assert (second.weight == 2.5).all()
    assert again.card == stored.card
    assert stored.card["recipe"] == RECIPE
    assert stored.card["metrics"] == {"accuracy": 1.0}
    assert read_sealed_json(stored.weights.with_suffix(".json")) == stored.card


def test_another_recipe_is_another_teacher(tmp_path):
    get(tmp_path)
    _, other = get(tmp_path, recipe=RECIPE | {"seed": 1})
    assert other.trained_now
    assert len(list(tmp_path.glob("*.safetensors"))) == 2


def test_training_anew_on_purpose(tmp_path):
    get(tmp_path)
    assert get(tmp_path, anew=True)[1].trained_now


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
@pytest.mark.parametrize(
    "damage",
    [lambda content: content[:-3], lambda content: b"", None],
    ids=["short", "empty", "gone"],
)
def test_a_damaged_teacher_is_noticed_and_trained_anew(tmp_path, caplog, suffix, damage):
    path = get(tmp_path)[1].weights.with_suffix(suffix)
    path.write_bytes(damage(path.read_bytes())) if damage else path.unlink()
    network, stored = get(tmp_path)
    assert stored.trained_now
    assert (network.weight == 2.5).all()
    assert not get(tmp_path)[1].trained_now
    assert ("damaged" in caplog.text) == (damage is not None)


def test_every_flipped_bit_of_the_weights_is_noticed(tmp_path):
    path = get(tmp_path)[1].weights
    content = path.read_bytes()
    for position in range(len(content) - 24, len(content)):
        path.write_bytes(
            content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]
        )
        assert get(tmp_path)[1].trained_now, position


def test_a_failed_training_leaves_nothing(tmp_path):
    def fail(network):
        raise NonFiniteError("NaN")

    with pytest.raises(NonFiniteError):
        get(tmp_path, train=fail)
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(TeacherError, match=r"cannot be stored in .*cache_dir"):
        get(tmp_path / "file")


def _train_slowly(network):
    time.sleep(0.2)
    return train(network)


def _one_of_many(folder, results):
    results.put(get(Path(folder), train=_train_slowly)[1].trained_now)


def test_of_eight_processes_one_trains(tmp_path):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [
        context.Process(target=_one_of_many, args=(str(tmp_path), results)) for _ in range(8)
    ]
    for process in processes:
        process.start()
    found = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join()
    assert sum(found) == 1
