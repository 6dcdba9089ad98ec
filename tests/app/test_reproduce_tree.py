"""Frosst and Hinton's tree in its quick size: the penalty keeps it from poor solutions."""

import json
import statistics
import sys

from PIL import Image

from conftest import REPOSITORY
from kdlit.app import reproduce


def test_the_penalty_makes_better_trees_and_one_is_shown(tmp_path, cache, monkeypatch):
    monkeypatch.chdir(tmp_path)
    setting = [f"cache_dir={cache}", f"data.root={REPOSITORY / 'data'}"]
    command = ["reproduce.py", "frosst2017", "--size", "quick", "--out", "out", *setting]
    monkeypatch.setattr(sys, "argv", command)
    reproduce.main()
    result = json.loads((tmp_path / "out" / "frosst2017.json").read_text(encoding="utf-8"))
    rows = {
        row: statistics.fmean(
            value
            for cell in result["cells"]
            if cell["row"] == row
            for value in cell["values"]["accuracy"]
        )
        for row in result["rows"]
    }
    assert rows["as in the paper"] > 70
    assert rows["as in the paper"] > rows["no penalty"] + 3
    text = (tmp_path / "out" / "frosst2017.md").read_text(encoding="utf-8")
    assert "(frosst2017_tree.png)" in text
    with Image.open(tmp_path / "out" / "frosst2017_tree.png") as picture:
        assert len(picture.convert("RGB").getcolors(1_000_000)) > 50
