"""Searches: what is drawn, what is pruned, and that a search goes on where it was."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from optuna.trial import TrialState
from safetensors.torch import load_file

from app.conftest import SMALL, summary
from conftest import REPOSITORY
from kdlit.app.search import main
from kdlit.app.spaces import read_space
from kdlit.errors import ConfigError

QUICK = [
    *SMALL, "label=truth", "teacher=none", "logger=[]", "trainer.limit_test_batches=1",
    "trainer.max_epochs=3",
]  # fmt: skip
QUICK = [line for line in QUICK if not line.startswith("teacher/") and "teacher." not in line]
# Most of these learn next to nothing.
SPACE = ["optimizer.lr=tag(log,interval(1e-6,0.1))", "student.dropout=0,0.5"]
ARGUMENTS = [*QUICK, *SPACE, "--name", "lr"]


@pytest.fixture
def search(tmp_path, monkeypatch):
    """Call `kdlit-search` in this process; returns the study."""

    def call(*arguments: str, folder: str = "here") -> optuna.Study:
        (tmp_path / folder).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / folder)
        monkeypatch.setattr(sys, "argv", ["kdlit-search", *ARGUMENTS, *arguments])
        GlobalHydra.instance().clear()
        main()
        return study_of(tmp_path / folder)

    return call


def study_of(folder: Path) -> optuna.Study:
    url = f"sqlite:///{folder / 'searches' / 'lr' / 'study.db'}"
    return optuna.load_study(study_name="lr", storage=url)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> optuna.Study:
    """Return a search that was not interrupted, of five trials."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        arguments = ["--trials", "5", "--startup", "2"]
        patch.setattr(sys, "argv", ["kdlit-search", *ARGUMENTS, *arguments])
        GlobalHydra.instance().clear()
        main()
    return study_of(folder)


def drawn(study: optuna.Study) -> list[tuple]:
    return [(trial.params, trial.value, trial.state) for trial in study.trials]


def folder_of(study: optuna.Study) -> Path:
    return Path(study._storage._backend.url.removeprefix("sqlite:///")).parent


def test_each_trial_is_a_run_and_its_value_is_that_of_the_validation(whole):
    states = {trial.number: trial.state for trial in whole.trials}
    assert len(states) == 5
    assert set(states.values()) == {TrialState.COMPLETE, TrialState.PRUNED}
    assert all(states[number] is TrialState.COMPLETE for number in range(2)), "not pruned"
    for trial in whole.trials:
        run = folder_of(whole) / str(trial.number)
        assert (run / "summary.json").is_file() == (trial.state is TrialState.COMPLETE)
        if trial.state is TrialState.PRUNED:
            assert len(trial.intermediate_values) < 3
            continue
        found = summary(run)
        assert trial.value == found["selected"]["score"]
        assert found["selected"]["monitor"] == "val/accuracy"
        assert trial.value == pytest.approx(max(trial.intermediate_values.values()))
        assert found["config"]["optimizer"]["lr"] == trial.params["optimizer.lr"]
        assert str(found["config"]["student"]["dropout"]) == trial.params["student.dropout"]


def test_a_search_in_two_parts_is_the_whole_one(whole, search, capsys):
    """The same command goes on: finished trials are not repeated, and what is drawn is the same."""
    first = search("--trials", "3", "--startup", "2")
    assert len(first.trials) == 3
    before = [(trial.number, trial.datetime_complete) for trial in first.trials]
    second = search("--trials", "5", "--startup", "2")
    assert [(t.number, t.datetime_complete) for t in second.trials[:3]] == before
    assert drawn(second) == drawn(whole)
    capsys.readouterr()
    assert drawn(search("--trials", "5", "--startup", "2")) == drawn(whole), "nothing is left"
    out = capsys.readouterr().out
    best = max((t for t in whole.trials if t.state is TrialState.COMPLETE), key=lambda t: t.value)
    rows = [line for line in out.splitlines() if line.startswith("│")]
    assert rows[0].split("│")[1].strip() == str(best.number)
    assert f"{best.value:.4f}" in rows[0]
    pruned = [t for t in whole.trials if t.state is TrialState.PRUNED]
    assert sum(" pruned " in row for row in rows) == len(pruned)
    assert f"5 trials: {5 - len(pruned)} finished, {len(pruned)} pruned" in out
    assert f"optimizer.lr={best.params['optimizer.lr']} student.dropout=" in out
    assert out.splitlines()[-1] == "Compare these runs: kdlit-report searches/lr"


def test_an_interrupted_trial_is_tried_again_and_goes_on(search, monkeypatch, whole, tmp_path):
    from kdlit.distillation import DistillationModule

    def stop(self):
        if self.current_epoch == 2:
            raise KeyboardInterrupt
        start(self)

    start = DistillationModule.on_train_epoch_start
    monkeypatch.setattr(DistillationModule, "on_train_epoch_start", stop)
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as stopped:
        search("--trials", "1", "--startup", "2")
    signal.signal(signal.SIGINT, handler)  # Lightning ignores further ones
    assert stopped.value.code == 130
    first, waiting = study_of(tmp_path / "here").trials
    assert (first.state, waiting.state) == (TrialState.FAIL, TrialState.WAITING)
    monkeypatch.setattr(DistillationModule, "on_train_epoch_start", start)
    again = search("--trials", "1", "--startup", "2").trials[1]
    assert again.state is TrialState.COMPLETE
    assert again.params == whole.trials[0].params
    assert again.intermediate_values == whole.trials[0].intermediate_values
    runs = folder_of(whole) / "0", tmp_path / "here" / "searches" / "lr" / "0"
    one, two = (load_file(run / "student.safetensors") for run in runs)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not (runs[1].parent / "1").exists(), "it has the directory of the first try"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["seed=0,1"], "would find a lucky one"),
        (["+data.split_seed=0,1"], "would find a lucky one"),
        (["data.val_size=500,1000"], "the values of such trials could not be compared"),
        (["callbacks.checkpoint.monitor=val/accuracy,val/nll"], "could not be compared"),
        (["callbacks.checkpoint.monitor=train/loss"], "a search needs a metric of the validation"),
        (["trainer.devices=2"], "a trial runs on one device"),
        (["--storage", "nonsense://x"], "--storage nonsense://x: "),
        (["--trials", "0"], "`--trials` must be an integer >= 1, got 0"),
        (["student.width=8,16"], "there is no key student.width (student=mlp): did you mean"),
    ],
)
def test_bad_input(search, arguments, told, capsys):
    with pytest.raises(SystemExit):
        search(*arguments)
    error = capsys.readouterr().err.strip()
    assert error.startswith("kdlit: ")
    assert told in error
    assert "\n" not in error


def test_a_folder_that_cannot_be_written(search, capsys, tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "searches").touch()
    with pytest.raises(SystemExit):
        search()
    assert "cannot be written, and a search keeps its trials there" in capsys.readouterr().err


def test_only_what_was_interrupted_is_tried_again():
    from kdlit.app.study import ERROR, try_again

    study = optuna.create_study()
    for state, attribute in (("COMPLETE", None), ("PRUNED", None), ("FAIL", ERROR), ("FAIL", None)):
        trial = study.ask()
        if attribute:
            trial.set_user_attr(attribute, "its own")
        study.tell(trial, 1.0 if state == "COMPLETE" else None, state=TrialState[state])
        try_again(study, trial.number)
    assert [trial.number for trial in study.trials if trial.state is TrialState.WAITING] == [4]


def test_another_search_of_the_same_name(search, capsys, tmp_path):
    from kdlit.app.study import open_study

    options = {"mode": "max", "startup": 1, "pruning": True, "heartbeat": 15}
    open_study(tmp_path / "here" / "searches" / "lr", None, ["label=soft,hard"], **options)
    with pytest.raises(SystemExit):
        search()
    assert "searches/lr holds another search, label=soft,hard: " in capsys.readouterr().err


def test_a_trial_that_fails_does_not_end_the_search(search, capsys):
    arguments = ["student.dropout=0,1.5", "--startup", "9", "--trials", "3", "--seed", "2"]
    found = search(*arguments, "trainer.max_epochs=1")
    states = [trial.state for trial in found.trials]
    assert states[0] is TrialState.COMPLETE
    assert TrialState.FAIL in states
    out = capsys.readouterr().out
    assert len(states) == 3, "a failed trial counts, and is not repeated"
    assert "failed: student: `dropout` must lie in [0, 1), got 1.5" in out


# The grammar ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "lowest", "highest", "kind", "options"),
    [
        ("interval(1,20)", 1, 20, "Float", {"log": False, "step": None}),
        ("tag(log,interval(1e-4,1))", 1e-4, 1, "Float", {"log": True}),
        ("int(interval(1,20))", 1, 20, "Int", {"step": 1}),
        ("range(1,5,2)", 1, 3, "Int", {"step": 2}),
        ("range(0,1,0.25)", 0, 0.75, "Float", {"step": 0.25}),
        ("tag(log,range(1,5))", 1, 4, "Int", {"log": True}),
    ],
)
def test_numbers(text, lowest, highest, kind, options):
    fixed, space = read_space(["label=soft", f"key={text}", "student.widths=[16,8]"])
    assert fixed == ["label=soft", "student.widths=[16,8]"]
    found = space["key"]
    assert type(found).__name__ == f"{kind}Distribution"
    assert (found.low, found.high) == (lowest, highest)
    for name, value in options.items():
        assert getattr(found, name) == value


def test_options():
    _, space = read_space(["label=soft,dkd", "+a.b=choice([16],[32,8])", "c=shuffle(1,2,3)"])
    assert {key: found.choices for key, found in space.items()} == {
        "label": ("soft", "dkd"),
        "+a.b": ("[16]", "[32,8]"),
        "c": ("1", "2", "3"),
    }


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("label=soft", "there is nothing to search"),
        ("seed=1,2", "one seed"),
        ("a=tag(log,interval(0,1))", "a=tag(log,interval(0,1)): "),
        ("a=interval(2,1)", "a=interval(2,1): "),
        ("a=range(3,1)", "this range is empty"),
        ("a=tag(linear,interval(0,1))", "the only tag is log, got linear"),
        ("a=tag(log,choice(1,2))", "options have no logarithmic scale"),
        ("a=interval(", "a=interval("),
    ],
)
def test_what_cannot_be_searched(override, told):
    with pytest.raises(ConfigError) as refused:
        read_space([override])
    assert told in str(refused.value)


# Several processes ----------------------------------------------------------------------------


def started(folder: Path, *arguments: str) -> subprocess.Popen:
    script = str(REPOSITORY / "scripts" / "search.py")
    return subprocess.Popen(
        [sys.executable, script, *ARGUMENTS, *arguments], cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.mark.slow
def test_a_killed_trial_is_tried_again(tmp_path, search):
    folder = tmp_path / "here"
    folder.mkdir()
    options = ["--trials", "1", "--heartbeat", "1", "trainer.max_epochs=40"]
    process = started(folder, *options)
    until = time.monotonic() + 120
    while not (folder / "searches/lr/0/last.ckpt").is_file() and time.monotonic() < until:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    assert [t.state for t in study_of(folder).trials] == [TrialState.RUNNING]
    time.sleep(4)
    found = search(*options).trials
    assert [trial.state for trial in found] == [TrialState.FAIL, TrialState.COMPLETE]
    assert found[0].params == found[1].params
    assert (folder / "searches/lr/0/summary.json").is_file()


@pytest.mark.slow
def test_several_processes_share_the_trials(tmp_path):
    processes = [started(tmp_path, "--trials", "6", "--no-pruning") for _ in range(2)]
    for process in processes:
        out, error = process.communicate(timeout=300)
        assert process.returncode == 0, error + out
    trials = study_of(tmp_path).trials
    assert 6 <= len(trials) <= 7, "each counts those that the other is at"
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert len({json.dumps(trial.params) for trial in trials}) == len(trials)
    folder = tmp_path / "searches" / "lr"
    assert len(list(folder.glob("*/summary.json"))) == len(trials)
