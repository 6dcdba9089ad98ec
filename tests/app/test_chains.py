"""Teachers that were students."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from app.conftest import summary
from app.test_config import composed
from kdlit.app.build import build, build_part
from kdlit.app.chains import BornAgainTeacher
from kdlit.app.options import NetworkTeacher
from kdlit.app.trained import TrainedTeacher
from kdlit.models import MLP
from kdlit.weights import save_weights

ASSISTANT = [
    "teacher=assistant",
    "teacher/network@teacher.teacher.network=mlp",
    "teacher.teacher.network.widths=[48]",
    "teacher.teacher.trainer.max_epochs=1",
    "teacher.teacher.data.train_size=2000",
]


def option(*overrides: str) -> tuple[NetworkTeacher, dict]:
    """Return a teacher option, made from the configuration, and its recipe."""
    config = composed(*overrides)
    made = build(config, "teacher")
    return made, made.recipe(config)


# Assistants -------------------------------------------------------------------------------


def test_a_chain_is_trained_once(command, capsys, tmp_path):
    own = tmp_path / "own"
    first = command(*ASSISTANT, f"cache_dir={own}", name="first")
    out = capsys.readouterr().out
    assert "Training teacher 1 of 2: MLP, 1 epochs" in out
    assert "Training teacher 2 of 2: MLP, 1 epochs" in out
    assert out.index("teacher 1 of 2") < out.index("teacher 2 of 2")
    found = summary(first)["teacher"]
    assert found["source"] == "trained now"
    assert found["parameters"] == 784 * 32 + 32 + 32 * 10 + 10
    before = found["card"]["teacher"]
    assert before["parameters"] == 784 * 48 + 48 + 48 * 10 + 10
    assert (own / before["source"]).is_file()
    assert before["test"]["accuracy"] == before["card"]["metrics"]["test/accuracy"]
    members = (before, found, summary(first)["student"])
    told = ", ".join(f"MLP {100 * member['test']['accuracy']:.2f} %" for member in members)
    assert f"chain: {told}\n" in out

    second = command(*ASSISTANT, f"cache_dir={own}", name="second")
    assert "Training" not in capsys.readouterr().out
    assert summary(second)["teacher"]["source"].startswith("cached, mnist-mlp-distilled-seed0-")
    assert summary(second)["teacher"]["card"] == found["card"]
    assert summary(second)["student"] == summary(first)["student"]

    # A cached assistant does not ask for its own teacher; one of another recipe does.
    for path in own.glob(f"{Path(before['source']).stem}.*"):
        path.unlink()
    command(*ASSISTANT, f"cache_dir={own}", name="third")
    assert "Training" not in capsys.readouterr().out
    command(*ASSISTANT, f"cache_dir={own}", "teacher.label.alpha=0.5", name="fourth")
    assert capsys.readouterr().out.count("Training") == 2


def test_an_assistant_is_the_same_whether_or_not_its_teacher_was_cached(command, tmp_path):
    options = [
        *ASSISTANT,
        "task=teacher",
        "teacher.network.dropout=0.3",
        f"cache_dir={tmp_path / 'own'}",
    ]
    command(*options, name="first")
    (path,) = (tmp_path / "own").glob("*distilled*.safetensors")
    before = load_file(path)
    path.unlink()
    command(*options, name="second")
    after = load_file(path)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_an_assistant_knows_what_its_teacher_knows(command, tmp_path):
    """The teacher has seen five digits, and the assistant, shown all ten, asks it alone."""
    options = [
        *ASSISTANT,
        "teacher.teacher.data.classes=[0,1,2,3,4]",
        "teacher.trainer.max_epochs=2",
        f"cache_dir={tmp_path / 'own'}",
    ]
    taught = command(*options, "teacher.label.alpha=1", name="taught")
    untaught = command(*options, "label@teacher.label=truth", name="untaught")
    metrics, control = (summary(run)["teacher"]["card"]["metrics"] for run in (taught, untaught))
    assert metrics["test/teacher_accuracy"] < 0.55
    assert metrics["test/agreement"] > 0.8
    assert metrics["test/kl_from_teacher"] < 0.3
    assert metrics["test/accuracy"] < 0.55
    assert control["test/agreement"] < 0.6
    assert control["test/accuracy"] > 0.7


def test_training_an_assistant_on_purpose(command, capsys, tmp_path):
    own = f"cache_dir={tmp_path / 'own'}"
    command(*ASSISTANT, own, "task=teacher", name="first")
    assert capsys.readouterr().out.count("Training") == 2
    found = summary(command(*ASSISTANT, own, "task=teacher", name="second"))
    # Its own teacher is what it was.
    out = capsys.readouterr().out
    assert out.count("Training") == 1
    assert "Teacher 1 of 2: MLP (cached, " in out
    assert found["selected"]["score"] == found["teacher"]["card"]["metrics"]["val/accuracy"]
    assert found["teacher"]["card"]["teacher"]["type"] == "MLP"


def test_an_assistant_of_a_teacher_from_a_file(command, capsys, tmp_path):
    save_weights(tmp_path / "weights.safetensors", MLP(widths=[8]), {})
    run = command(
        "teacher=assistant",
        "teacher@teacher.teacher=checkpoint",
        "teacher/network@teacher.teacher.network=mlp",
        "teacher.teacher.network.widths=[8]",
        "teacher.teacher.path=weights.safetensors",
        f"cache_dir={tmp_path / 'own'}",
    )
    before = summary(run)["teacher"]["card"]["teacher"]
    assert before["source"] == "weights.safetensors"
    assert before["test"]["accuracy"] < 0.4  # it was never trained
    assert "Training teacher 2 of 2" in capsys.readouterr().out


def test_a_file_is_known_by_its_weights(tmp_path):
    def recipe(path):
        return option(
            "teacher=assistant",
            "teacher@teacher.teacher=checkpoint",
            "teacher/network@teacher.teacher.network=mlp",
            "teacher.teacher.network.widths=[8]",
            f"teacher.teacher.path={path}",
        )[1]

    network = MLP(widths=[8])
    save_weights(tmp_path / "one.safetensors", network, {})
    save_weights(tmp_path / "same.safetensors", network, {})
    save_weights(tmp_path / "other.safetensors", MLP(widths=[8]), {})
    one = recipe(tmp_path / "one.safetensors")
    assert recipe(tmp_path / "same.safetensors") == one
    assert recipe(tmp_path / "other.safetensors") != one


@pytest.mark.parametrize(
    "override",
    [
        "teacher.teacher.optimizer.lr=0.02",
        "teacher.teacher.seed=1",
        "teacher.teacher.label_smoothing=0.1",
        "teacher.teacher.network.widths=[20]",
        "teacher.teacher.data.train_size=1000",
        "teacher.teacher.trainer.max_epochs=2",
        "teacher.label.temperature=3",
        "teacher.seed=1",
    ],
)
def test_another_chain_is_another_teacher(override):
    assert option(*ASSISTANT, override)[1] != option(*ASSISTANT)[1]


@pytest.mark.parametrize("teacher", ["auto", "assistant", "born_again"])
def test_label_noise_is_the_students_and_of_a_recipe_only_where_there_is_some(teacher):
    before = option(f"teacher={teacher}", "~data.label_noise", *_without_noise(teacher))[1]
    clean = option(f"teacher={teacher}")[1]
    assert clean == before
    taught = option(f"teacher={teacher}", "data.label_noise=0.4")[1]
    if teacher == "born_again":  # whose generations learn from the student's images and labels
        assert taught.pop("data") == {**clean.pop("data"), "label_noise": 0.4}
    assert taught == clean


def _without_noise(teacher: str) -> list[str]:
    """Return what leaves out the setting where a teacher's data have their own."""
    if teacher == "born_again":
        return []
    own = ["~teacher.data.label_noise"]
    return [*own, "~teacher.teacher.data.label_noise"] if teacher == "assistant" else own


def test_a_teacher_of_wrong_labels_has_a_recipe_of_its_own():
    recipe = option("teacher.data.label_noise=0.4")[1]
    assert recipe["data"]["label_noise"] == 0.4
    chain = option("teacher=assistant", "teacher.teacher.data.label_noise=0.2")[1]
    assert chain["teacher"]["data"]["label_noise"] == 0.2
    assert "label_noise" not in chain["data"]


def test_where_data_lie_is_not_in_the_recipe_of_any_member():
    assert option(*ASSISTANT, "data.root=elsewhere")[1] == option(*ASSISTANT)[1]


def test_the_last_member_counts_the_whole_chain():
    teacher, recipe = option("teacher=assistant", "teacher@teacher.teacher=assistant")
    assert [member.called for member in teacher.members] == [
        "teacher 1 of 3", "teacher 2 of 3", "teacher 3 of 3",
    ]  # fmt: skip
    assert [member.key for member in teacher.members] == [
        "teacher.teacher.teacher", "teacher.teacher", "teacher",
    ]  # fmt: skip
    assert "label_smoothing" in recipe["teacher"]["teacher"]


def test_an_assistant_stands_between_teacher_and_student():
    config = composed("experiment=takd")
    networks = (config.student, config.teacher.network, config.teacher.teacher.network)
    sizes = [sum(p.numel() for p in build_part(node, "network").parameters()) for node in networks]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 3


# Generations ------------------------------------------------------------------------------


def test_generations(command, capsys, tmp_path):
    own = tmp_path / "own"
    options = ["experiment=born_again", f"cache_dir={own}"]
    # They are trained as the student is, unless something else is asked for.
    first = command(*options, name="first")
    out = capsys.readouterr().out
    assert out.count("Training") == 1
    assert "Training generation 0 of 1: MLP, 1 epochs, seed 1000" in out
    found = summary(first)
    assert "teacher" not in found["teacher"]["card"]
    assert found["teacher"]["parameters"] == found["student"]["parameters"]

    second = command(*options, "teacher.generations=2", name="second")
    out = capsys.readouterr().out
    assert "Generation 0 of 2: MLP (cached, " in out
    assert "Training generation 1 of 2: MLP, 1 epochs, seed 1001" in out
    assert out.count("Training") == 1
    found = summary(second)
    card = found["teacher"]["card"]
    assert card["recipe"]["label"] == found["config"]["label"]
    assert card["recipe"]["teacher"]["seed"] == 1000
    assert 0.5 < card["metrics"]["test/agreement"] < 1
    before = card["teacher"]
    assert before["card"]["metrics"] == summary(first)["teacher"]["card"]["metrics"]
    assert before["parameters"] == found["student"]["parameters"]
    assert len(list(own.glob("*.safetensors"))) == 2

    command(*options, "teacher.generations=2", name="third")
    assert "Training" not in capsys.readouterr().out


def test_generations_are_trained_as_the_student_is():
    config = composed(
        "experiment=born_again", "label=hard", "student=mlp", "optimizer=sgd",
        "scheduler=cosine", "data/augment=shift", "data.train_size=77", "trainer.max_epochs=3",
        "seed=5", "teacher.generations=2",
    )  # fmt: skip
    teacher = build(config, "teacher")
    assert isinstance(teacher, BornAgainTeacher)
    recipe = teacher.recipe(config)
    for name in ("label", "optimizer", "scheduler"):
        assert recipe[name] == config[name]
    # What a recipe leaves out is as it was before there was a choice.
    assert {**recipe["network"], "input_dropout": 0.0} == config.student
    assert recipe["trainer"]["max_epochs"] == 3
    assert recipe["data"]["train_size"] == 77
    assert recipe["data"]["augment"] == config.data.augment
    assert recipe["data"]["seed"] == 5
    assert recipe["seed"] != recipe["teacher"]["seed"] != config.seed


def test_an_experiment_selects_options():
    assert composed("experiment=takd").teacher.teacher._target_.endswith("AutoTeacher")
    assert "teacher" not in composed("experiment=takd", "teacher=auto").teacher
    assert composed("experiment=born_again", "label=hard").teacher.label.alpha == 0.5


# Bad input --------------------------------------------------------------------------------

BAD = [
    (["teacher.teacher.network.num_classes=9"], ["teacher.teacher.network: ", "9 classes", "10"]),
    (["teacher.teacher.network.widths=[0]"], ["teacher.teacher.network: ", "widths", "got 0"]),
    (["teacher.teacher.seed=-1"], ["`teacher.teacher.seed`", "got -1"]),
    (["teacher.teacher.trainer.max_epochs=0"], ["`teacher.teacher.trainer.max_epochs`", "got 0"]),
    (["teacher.teacher.trainer.precision=17"], ["teacher.teacher.trainer: ", "17"]),
    (["teacher.teacher.optimizer.lr=-1"], ["teacher.teacher.optimizer: ", "-1"]),
    (["teacher.teacher.label_smoothing=1"], ["`teacher.teacher.label_smoothing`", "got 1"]),
    (["teacher.teacher.data.train_size=70000"], ["teacher.teacher.data: ", "got 70000"]),
    (["teacher.teacher.data.batch_size=0"], ["teacher.teacher.data: ", "got 0"]),
    (["teacher.teacher._target_=kdlit.Nothing"], ["teacher.teacher: ", "Nothing"]),
    (["teacher.network.num_classes=9"], ["teacher.network: ", "9 classes"]),
    (["teacher.label.temperature=0"], ["teacher.label: ", "temperature", "got 0"]),
    (["teacher.label._target_=kdlit.models.MLP"], ["teacher.label: "]),
    (["label@teacher.label=none"], ["teacher.label: ", "NoLabels has no loss"]),
    (["teacher.seed=-1"], ["`teacher.seed`", "got -1"]),
]


@pytest.fixture
def untrained(refused, monkeypatch):
    """Expect a refusal before any teacher is trained."""

    def train(*_):
        raise AssertionError("a teacher was trained")

    monkeypatch.setattr(TrainedTeacher, "_train", train)
    return refused


@pytest.mark.parametrize(("overrides", "words"), BAD, ids=lambda value: " ".join(value)[:50])
def test_a_bad_value_in_a_chain_is_refused_by_its_key(untrained, overrides, words):
    error = untrained(*ASSISTANT, *overrides)
    assert all(word in error for word in words), error
    # Once, and not behind the keys of those above it.
    assert error.startswith(f"kdlit: {words[0]}")


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["teacher.generations=0"], ["`teacher.generations`", "got 0"]),
        (["teacher.generations=2", "teacher.seed=-1"], ["`teacher.seed`", "got -1"]),
        (["teacher.generations=2", "+teacher.data.classes=[11]"], ["teacher.data: ", "[11]"]),
        (["teacher.generations=2", "teacher.trainer.precision=17"], ["teacher.trainer: ", "17"]),
    ],
    ids=lambda value: " ".join(value)[:50],
)
def test_a_bad_value_of_a_generation_is_refused_by_its_key(untrained, overrides, words):
    error = untrained("teacher=born_again", *overrides)
    assert error.startswith(f"kdlit: {words[0]}")
    assert all(word in error for word in words), error


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (["none"], ["teacher.teacher: NoTeacher cannot teach another teacher: choose auto"]),
        (["checkpoint", "teacher.teacher.path=missing.pt"], ["teacher.teacher.path: ", "missing"]),
        (["checkpoint"], ["teacher.teacher.path"]),
    ],
    ids=["none", "missing", "path"],
)
def test_a_teachers_teacher_must_be_a_network(untrained, choice, words):
    option, *more = choice
    error = untrained("teacher=assistant", f"teacher@teacher.teacher={option}", *more)
    assert all(word in error for word in words), error


def test_input_dropout_is_of_a_recipe_only_where_there_is_some():
    mlp = ("teacher/network=mlp",)
    assert "input_dropout" not in option(*mlp)[1]["network"]
    assert option(*mlp, "~teacher.network.input_dropout")[1] == option(*mlp)[1]
    assert option(*mlp, "teacher.network.input_dropout=0.1")[1]["network"]["input_dropout"] == 0.1
