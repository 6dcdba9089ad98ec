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
    assert set(cells) == {(r, c) for r in ("100", "600") for c in ("ground truth", "soft labels")}
    mean = {key: statistics.fmean(cell["values"]) for key, cell in cells.items()}
    assert mean["100", "soft labels"] > mean["100", "ground truth"] + 0.02
    assert mean["600", "soft labels"] > mean["600", "ground truth"]
    assert all(cell["seeds"] == [0, 1] for cell in cells.values())
    assert [cells[row, "soft labels"]["training_samples"] for row in ("100", "600")] == [100, 600]

    # The numbers of the text are those of the runs.
    summaries = [
        json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(
            tmp_path.glob("sweeps/papers/few_labels/quick/100/soft_labels/*/*/*.json")
        )
    ]
    values = [100 * summary["student"]["test"]["accuracy"] for summary in summaries]
    text = (tmp_path / "out" / "few_labels.md").read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith("| 100 | 40 |"))
    assert row.endswith(f"| {statistics.fmean(values):.2f} ± {statistics.stdev(values):.2f} |")
    gain = 100 * (mean["100", "soft labels"] - mean["100", "ground truth"])
    assert f"+{gain:.2f}" in next(line for line in text.splitlines()[::-1] if "| 100 |" in line)
    with Image.open(tmp_path / "out" / "few_labels.png") as picture:
        assert len(set(picture.convert("RGB").resize((64, 64)).getdata())) > 50

    # A second call goes on with what is there: nothing is trained again.
    def never(config):
        raise AssertionError("a finished run was begun again")

    monkeypatch.setattr(train, "_run", never)
    call("few_labels", "--size", "quick", "--out", "again")
    again = json.loads((tmp_path / "again" / "few_labels.json").read_text(encoding="utf-8"))
    assert again == result


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


def test_every_experiment_composes(call, monkeypatch):
    """All cells of all sizes are settings that `train.py` knows."""
    from app.test_config import composed

    for name in experiments():
        for size in {"full", "quick"} if name == "few_labels" else {"full"}:
            experiment = Experiment.read(name, size)
            row = next(iter(experiment.rows))
            cells = [(r, c) for r in experiment.rows for c in list(experiment.columns)[:1]]
            for cell in cells + [(row, column) for column in experiment.columns]:
                assert composed(*experiment.overrides(*cell))
            told = experiment.text
            assert told.get("baseline") in {None, *experiment.columns}
            assert set(told.get("references", {})) <= set(Experiment.read(name, "full").rows)
