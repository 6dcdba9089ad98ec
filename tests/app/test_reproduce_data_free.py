"""The quick size of `data_free`: images that a generator has learned teach more than noise."""

import json
import statistics
import sys

from PIL import Image

from conftest import REPOSITORY
from kdlit.app import reproduce


def test_learned_images_teach_more_than_noise(tmp_path, cache, monkeypatch):
    monkeypatch.chdir(tmp_path)
    setting = [f"cache_dir={cache}", f"data.root={REPOSITORY / 'data'}"]
    arguments = ["data_free", "--size", "quick", "--out", "out", *setting]
    monkeypatch.setattr(sys, "argv", ["reproduce.py", *arguments])
    reproduce.main()
    result = json.loads((tmp_path / "out" / "data_free.json").read_text(encoding="utf-8"))
    mean = {
        cell["column"]: statistics.fmean(cell["values"]["accuracy"]) for cell in result["cells"]
    }
    assert set(mean) == {"noise", "DAFL"}
    assert mean["DAFL"] > mean["noise"] + 10
    assert mean["DAFL"] > 40
    with Image.open(tmp_path / "out" / "data_free_generated.png") as picture:
        assert picture.width > 500
