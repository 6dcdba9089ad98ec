"""The comparison: it runs its sweeps, and says what it found."""

import sys

import pytest

from app.conftest import SMALL
from conftest import REPOSITORY
from kdlit.app import compare

CONF = REPOSITORY / "conf"


@pytest.fixture
def comparison(tmp_path, cache, monkeypatch):
    """Call `scripts/compare.py` on two small sweeps; returns what it wrote."""
    monkeypatch.chdir(tmp_path)
    sweeps = {"labels": ["label=soft,truth"], "features": ["label=truth", "feature=hint"]}
    monkeypatch.setattr(compare, "SWEEPS", sweeps)

    def call(*arguments: str) -> str:
        setting = [*SMALL, "trainer.max_epochs=1", "logger=[]", f"cache_dir={cache}"]
        monkeypatch.setattr(sys, "argv", ["compare.py", "--seeds", "0,1", *arguments, *setting])
        compare.main()
        return (tmp_path / "docs" / "comparison.md").read_text(encoding="utf-8")

    return call


def test_runs_every_sweep_and_writes_a_table_of_each(comparison):
    text = comparison()
    assert "## Labels" in text
    assert "## Features" in text
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert {row.split("`")[1] for row in rows} == {
        "label=soft", "label=truth", "label=truth feature=hint",
    }  # fmt: skip
    for row in rows:
        cells = [cell.strip() for cell in row.split("|")[1:-1]]
        assert cells[1] == "0, 1"
        assert all("±" in cell for cell in cells[2:6]), row
        # The student's, and the hint's projector from 16 to 32 features.
        assert cells[6:] == ["12,730", "544" if "hint" in row else "0"]
    assert comparison("--table") == text


def test_says_where_there_are_no_runs(comparison, capsys):
    with pytest.raises(SystemExit):
        comparison("--table")
    assert "kdlit: there are no runs below" in capsys.readouterr().err


def test_a_failed_sweep_is_told_and_the_others_are_in_the_table(comparison, capsys, monkeypatch):
    monkeypatch.setitem(compare.SWEEPS, "features", ["label=truth", "feature=review"])
    with pytest.raises(SystemExit):
        comparison()
    assert "runs failed in features" in capsys.readouterr().err


def test_every_option_is_compared():
    """The sweeps take all options there are but those that they name apart."""
    assert compare.SWEEPS["label strategies"] == ["label=glob(*,exclude=none)"]
    chosen = [word for words in compare.SWEEPS.values() for word in words]
    assert "feature=glob(*,exclude=[simkd,soft_tree])" in chosen
    assert {"label=none", "feature=simkd"} <= set(chosen)
    assert (CONF / "label" / "none.yaml").is_file()
    assert all((CONF / "feature" / f"{name}.yaml").is_file() for name in ("simkd", "soft_tree"))
