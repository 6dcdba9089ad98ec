"""What the README says of results, measured again: minutes each."""

import statistics
import sys

import pytest
from hydra.core.global_hydra import GlobalHydra

from app.conftest import summary
from conftest import REPOSITORY
from kdlit.app.train import main

pytestmark = pytest.mark.slow


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Call the command as the README has it; returns the summaries of its runs."""
    monkeypatch.chdir(tmp_path)

    def call(*overrides: str) -> list[dict]:
        arguments = [f"data.root={REPOSITORY / 'data'}", f"hydra.sweep.dir={tmp_path / 'sweep'}"]
        monkeypatch.setattr(sys, "argv", ["kdlit-train", "-m", *overrides, *arguments])
        GlobalHydra.instance().clear()
        main()
        return [summary(path.parent) for path in (tmp_path / "sweep").glob("*/summary.json")]

    return call


def test_soft_labels_beat_the_truth_by_more_than_the_spread(train):
    runs = train("label=soft,truth", "seed=0,1,2")
    found: dict[str, list[float]] = {"SoftLabels": [], "TruthLabels": []}
    for run in runs:
        kind = run["config"]["label"]["_target_"].rsplit(".", 1)[-1]
        found[kind].append(run["student"]["test"]["accuracy"])
        assert run["teacher"]["test"]["accuracy"] >= 0.994
    gain = statistics.fmean(found["SoftLabels"]) - statistics.fmean(found["TruthLabels"])
    assert gain > 2 * max(map(statistics.stdev, found.values()))


def test_the_articles_set_up_passes_what_the_article_claims(train):
    (run,) = train("experiment=article", "seed=0")
    assert run["student"]["train"]["accuracy"] > 0.9863
