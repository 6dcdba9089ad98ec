"""The command that makes a table: it runs the cells, and says what it found."""

import json
import statistics
import sys

import pytest
from PIL import Image

from conftest import REPOSITORY
from kdlit.app import reproduce, train
from kdlit.app.experiments import Experiment, experiments


@pytest.fixture
def call(tmp_path, cache, monkeypatch):
    """Call `scripts/reproduce.py` below a directory of its own."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> None:
        setting = [f"cache_dir={cache}", f"data.root={REPOSITORY / 'data'}"]
        monkeypatch.setattr(sys, "argv", ["reproduce.py", *arguments, *setting])
        reproduce.main()

    return call


def test_with_few_images_soft_labels_win_and_the_table_says_so(call, tmp_path, monkeypatch):
    call("few_labels", "--size", "quick", "--out", "out")
    result = json.loads((tmp_path / "out" / "few_labels.json").read_text(encoding="utf-8"))
    cells = {(cell["row"], cell["column"]): cell for cell in result["cells"]}
    assert set(cells) == {("100", "ground truth"), ("100", "soft labels")}
    mean = {key: statistics.fmean(cell["values"]["accuracy"]) for key, cell in cells.items()}
    assert mean["100", "soft labels"] > mean["100", "ground truth"] + 2
    assert all(cell["seeds"] == [0, 1] for cell in cells.values())
    assert cells["100", "soft labels"]["training_samples"] == 100

    # The numbers of the text are those of the runs.
    summaries = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(
            tmp_path.glob("sweeps/papers/few_labels/quick/100/soft_labels/*/*/*.json")
        )
    ]
    values = [100 * summary["student"]["test"]["accuracy"] for summary in summaries]
    text = (tmp_path / "out" / "few_labels.md").read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith("| 100 | 32 |"))
    assert row.endswith(f"| {statistics.fmean(values):.2f} ± {statistics.stdev(values):.2f} |")
    gain = mean["100", "soft labels"] - mean["100", "ground truth"]
    assert f"+{gain:.2f}" in next(line for line in text.splitlines()[::-1] if "| 100 |" in line)
    with Image.open(tmp_path / "out" / "few_labels.png") as picture:
        assert len(picture.convert("RGB").getcolors(1_000_000)) > 50

    # The table alone is the same, and the same command goes on with the same sweeps.
    call("few_labels", "--size", "quick", "--out", "again", "--table")
    assert (tmp_path / "again" / "few_labels.md").read_text(encoding="utf-8") == text
    begun = []
    monkeypatch.setattr(train, "call", lambda arguments, _: begun.append(arguments[-1]) or True)
    call("few_labels", "--size", "quick", "--out", "again")
    folders = [tmp_path / argument.partition("=")[2] for argument in begun]
    assert len(folders) == 2
    assert all((folder / "1" / "summary.json").is_file() for folder in folders)


def test_a_cell_that_fails_is_told_and_the_others_are_in_the_table(
    call, capsys, monkeypatch, tmp_path
):
    def run(arguments, caller):
        settings = dict(word.split("=", 1) for word in arguments if "=" in word)
        if settings["label"] == "soft":
            return False
        for number, seed in enumerate(settings["seed"].split(",")):
            accuracy = 0.9 + 0.01 * int(seed)
            told = {
                "seed": int(seed), "epochs": 1, "steps": 2, "teacher": None,
                "student": {"type": "MLP", "training_samples": 3, "test": {"accuracy": accuracy}},
                "seconds": {"fit": 1.0}, "versions": {"torch": "2"},
                "device": {"type": "cpu", "name": "x", "threads": 1},
            }  # fmt: skip
            folder = tmp_path / settings["hydra.sweep.dir"] / str(number)
            folder.mkdir(parents=True)
            (folder / "summary.json").write_text(json.dumps(told), encoding="utf-8")
        return True

    monkeypatch.setattr(train, "call", run)
    for seeds in ("0,1", "2"):  # seeds that come later join those that are there
        with pytest.raises(SystemExit):
            call("few_labels", "--size", "quick", "--out", "out", "--seeds", seeds)
    assert "runs failed in 100, soft labels: see above" in capsys.readouterr().err
    text = (tmp_path / "out" / "few_labels.md").read_text(encoding="utf-8")
    assert "| 100 | 1 | 2 | 0, 1, 2 | 91.00 ± 1.00 |  |" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["few_label"], "there is no experiment few_label: did you mean few_labels?"),
        (["few_labels", "--size", "qick"], "few_labels has no size qick: did you mean quick?"),
        (["few_labels", "--seeds", "0;1"], "--seeds 0;1: numbers with commas between"),
        (["few_labels", "--table"], "there are no runs below"),
    ],
)
def test_says_what_is_wrong_in_one_line(call, capsys, arguments, message):
    with pytest.raises(SystemExit):
        call(*arguments)
    error = capsys.readouterr().err
    assert error.startswith(f"kdlit: {message}")
    assert error.count("\n") == 1


def test_every_experiment_composes():
    """The cells of all sizes are settings that `train.py` knows."""
    from app.test_config import composed

    for name in experiments():
        for size in {"full"} if name.endswith("_schedules") else {"full", "quick"}:
            experiment = Experiment.read(name, size)
            # The rows of an experiment differ in values alone.
            row = list(experiment.rows)[-1]
            for column in experiment.columns:
                assert composed(*experiment.overrides(row, column))
            columns = set(Experiment.read(name, "full").columns)
            told = experiment.text
            assert told.get("baseline") in {None, *experiment.columns}
            for measure in told["measures"]:
                references = measure.get("references", {})
                assert set(references) <= set(Experiment.read(name, "full").rows)
                assert {column for of in references.values() for column in of} <= columns


def test_an_interruption_names_the_command_that_goes_on(call, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "_run", interrupted)
    with pytest.raises(SystemExit) as stopped:
        call("few_labels", "--size", "quick", "--out", "out")
    assert stopped.value.code == 130
    error = capsys.readouterr().err
    assert "reproduce few_labels --size quick --out out" in error
    assert "train" not in error.partition("This goes on:")[2]
