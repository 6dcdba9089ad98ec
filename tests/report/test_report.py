"""The report as a whole, from folders of runs to the two files."""

import functools
import json
import math
import os
import re
import sys
import time
from pathlib import Path

import pytest

from kdlit.app.report import main
from kdlit.errors import ConfigError
from kdlit.report import read_runs
from kdlit.report.figures import latency_in
from kdlit.report.histories import curve, read_history
from report.made import put, put_all, summary

THREE = (
    ("Truth", [0.95, 0.96, 0.955], {}),
    ("Soft", [0.972, 0.979, 0.978], {"temperature": 4.0, "alpha": 0.9}),
)


@pytest.fixture
def report(tmp_path, monkeypatch, capsys):
    """Call the command on `runs`; returns what it printed, the page and the Markdown."""

    def call(*arguments: str) -> tuple[str, str, str]:
        folder = tmp_path / "runs"
        monkeypatch.setattr(sys, "argv", ["report.py", str(folder), *arguments])
        main()
        out = capsys.readouterr().out
        texts = [folder / f"report.{kind}" for kind in ("html", "md")]
        return out, *(path.read_text() if path.exists() else "" for path in texts)

    return call


def numbers(text: str) -> set[str]:
    return set(re.findall(r"\d+\.\d\d", text))


def test_the_table_is_printed_and_two_files_say_the_same(report, tmp_path):
    put_all(tmp_path / "runs", *THREE)
    out, page, text = report()
    assert "| soft | 3 | 97.63 ± 0.38 |" in out
    assert f"Written to {tmp_path}/runs/report.html and {tmp_path}/runs/report.md" in out
    # Differences 2.2, 1.9, 2.3: mean 2.133, sd .2082, t(2) = 4.303.
    claim = "soft beats truth by 2.13 ± 0.52 points (95 % interval 1.62 to 2.65, 3 seeds)"
    assert claim in page
    assert claim in text
    tables = "".join(re.findall(r"<table>.*?</table>", page, flags=re.DOTALL))
    assert len(numbers(tables)) >= 9
    assert numbers(tables) <= numbers(text)
    titles = re.findall(r"<h2[^>]*>(.*?)</h2>", page)
    assert titles == re.findall(r"^## (.*)$", text, flags=re.MULTILINE)
    assert {"Ranking", "Learning curves", "Reliability"} <= set(titles)


def test_the_page_needs_nothing_else(report, tmp_path):
    put_all(tmp_path / "runs", *THREE)
    _, page, _ = report()
    assert not re.search(r"https?:|//[a-z]|@import|<script|<link|<iframe", page)
    assert re.findall(r'(?:src|href)="([^"#]{1,30})', page) == []
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', page)) <= set(ids)


def test_the_same_runs_give_the_same_page(report, tmp_path):
    put_all(tmp_path / "runs", *THREE)
    assert report()[1] == report()[1]


def test_values_are_escaped(report, tmp_path):
    put_all(tmp_path / "runs", ("Truth", [0.9, 0.91], {"note": "<script>alert(1)</script>|*"}),
            ("Truth", [0.9, 0.92], {"note": "plain"}))  # fmt: skip
    _, page, text = report()
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;|*" in page
    assert "<script" not in text
    assert r"&lt;script&gt;alert(1)&lt;/script&gt;\|\*" in text


def test_a_single_run(report, tmp_path):
    put(tmp_path / "runs", summary(0, 0.9612))
    out, page, text = report()
    assert "| all runs | 1 | 96.12 |" in out
    assert "<h1>One run</h1>" in page
    assert "A single seed gives no interval and no claim." in text
    assert "beats" not in text


def test_without_a_baseline_nothing_is_said_of_differences(report, tmp_path):
    put_all(tmp_path / "runs", *(("Soft", [0.9, 0.91], {"temperature": t}) for t in (1.0, 4.0)))
    text = report()[2]
    assert "There is nothing to compare these settings with: --baseline names one" in text
    assert "No difference" not in text


def test_students_that_were_not_selected_are_told(report, tmp_path):
    put_all(tmp_path / "runs", *THREE)
    assert "every student was selected on validation" in report()[2]
    odd = summary(5, 0.9)
    odd["selected"]["checkpoint"] = None
    put(tmp_path / "runs" / "odd", odd)
    assert "; of 1 run it is not known that the student was selected on validation." in report()[2]


def test_unlike_versions_and_teachers_of_one_recipe_are_told(report, tmp_path):
    for seed in (0, 1):
        found = summary(seed, 0.9)
        found["versions"] = {"torch": f"2.{seed}", "numpy": "2.4"}
        found["teacher"]["card"] = {"recipe": {"seed": 0}, "weights": f"abc{seed}"}
        put(tmp_path / "runs" / str(seed), found)
    text = report()[2]
    assert "The runs are of unlike versions: torch 2.0, 2.1." in text
    assert "Teachers of one recipe have unlike weights" in text
    found["versions"]["torch"], found["teacher"]["card"]["weights"] = "2.0", "abc0"
    (tmp_path / "runs" / "1" / "summary.json").write_text(json.dumps(found))
    assert " unlike " not in report()[2]
    for odd in ("2.0", None, [1]):  # of another hand than train.py's
        found["versions"], found["teacher"]["card"] = odd, odd
        (tmp_path / "runs" / "1" / "summary.json").write_text(json.dumps(found))
        assert " unlike " not in report("--no-pictures")[2]


def test_what_cannot_be_compared_is_listed(report, tmp_path):
    folder = tmp_path / "runs"
    put_all(folder, *THREE)
    put(folder / "fashion", summary(0, 0.999, data="FashionMNIST"))
    put(folder / "teacher", {"task": "teacher"})
    put(folder / "damaged", {"task": "distil"})
    (put(folder / "cut", summary(0, 0.5)) / "summary.json").write_text('{"task": "dis')
    (put(folder / "unfinished", summary(0, 0.5)) / "summary.json").unlink()
    (folder / "failed" / ".hydra").mkdir(parents=True)
    (folder / "failed" / ".hydra" / "config.yaml").write_text("{}")
    out, page, text = report()
    assert "Left out: 2 broken, 2 unfinished, 1 on other data, 1 of teachers alone." in out
    for told in (page, text):
        assert "runs/cut/summary.json: cannot be read" in told
        assert "runs/damaged/summary.json: has no config" in told
        assert "runs/unfinished" in told
        assert "runs/failed" in told
        assert "runs/fashion: FashionMNIST, accuracy 99.90 %" in told
        assert "1 run trained a teacher alone." in told
    assert "99.90" not in out


@pytest.mark.parametrize(
    ("keys", "value", "reason"),
    [
        (("config", "data"), "MNIST", "has a config whose data cannot be read"),
        (("config", "label", "_target_"), 1, "has a config whose label cannot be read"),
        (("student", "test", "accuracy"), math.inf, "has no accuracy of the student"),
        (("student", "test", "nll"), math.nan, "has nan as the student's nll on the test set"),
        (("student", "reliability", 0), None, "has reliability bins of the student"),
        (("teacher", "reliability", 0, "count"), math.nan, "has reliability bins of the teacher"),
        (("teacher", "test"), [1], "has a teacher that cannot be read"),
        (("teacher",), "gone", "has a teacher that cannot be read"),
    ],
    ids=str,
)
def test_a_summary_with_something_odd_in_it_is_listed(tmp_path, keys, value, reason):
    odd = json.loads(json.dumps(summary(0, 0.9)))
    *path, last = keys
    functools.reduce(lambda node, key: node[key], path, odd)[last] = value
    put(tmp_path / "odd", odd)
    put(tmp_path / "good", summary(0, 0.9))
    found = read_runs([tmp_path])
    assert [run.folder.name for run in found.runs] == ["good"]
    ((path, told),) = found.broken
    assert path == tmp_path / "odd" / "summary.json"
    assert told.startswith(reason)


def test_a_folder_that_is_closed_is_listed(tmp_path, monkeypatch):
    put(tmp_path / "good", summary(0, 0.9))
    closed = put(tmp_path / "closed", summary(1, 0.9))
    scan = os.scandir

    def scandir(path):
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = read_runs([tmp_path])
    assert len(found.runs) == 1
    assert found.broken == [(closed, "cannot be read: Permission denied")]


def test_nothing_to_report_is_one_line(tmp_path, monkeypatch, capsys):
    put(tmp_path / "runs" / "0", summary(0, 0.5))
    (tmp_path / "runs" / "0" / "summary.json").unlink()
    with pytest.raises(ConfigError, match=r"no summary\.json .* \(1 unfinished\)"):
        read_runs([tmp_path])
    monkeypatch.setattr(sys, "argv", ["report.py", str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    assert capsys.readouterr().err.startswith("kdlit: there is no folder")


def test_sweeps_of_temperature_and_alpha_are_drawn(report, tmp_path):
    put_all(tmp_path / "runs", *(
        ("Soft", [0.9 + t / 1000 + a / 100, 0.91 + t / 1000], {"temperature": t, "alpha": a})
        for t in (1.0, 4.0, 20.0) for a in (0.1, 0.9)
    ))  # fmt: skip
    _, page, text = report()
    for title in ("Accuracy against temperature", "Accuracy against alpha",
                  "Accuracy over temperature and alpha"):  # fmt: skip
        assert f"## {title}\n" in text
    # Two lines over three temperatures, three over two alphas, each with its numbers.
    assert len(re.findall(r"^\| alpha 0\.\d \|", text, flags=re.MULTILINE)) == 6
    assert len(re.findall(r"^\| temperature \d+ \|", text, flags=re.MULTILINE)) == 6
    assert page.count("<svg aria") == 1 + 1 + 1 + 2 + 7


def test_a_thousand_runs(report, tmp_path):
    folder = tmp_path / "runs"
    for setting in range(250):
        for seed in range(4):
            put(folder / f"{setting}-{seed}",
                summary(seed, 0.9 + setting / 5000 + seed / 1000, temperature=float(setting)),
                history=setting > 240)  # fmt: skip
    start = time.perf_counter()
    out, page, text = report()
    assert time.perf_counter() - start < 60
    assert "1,000 runs compared" in page
    assert "And 50 more rows." in page
    assert "And 50 more rows." in text
    assert len(page) < 3e6
    assert out.count("\n| temperature") == 250


def test_size_and_latency_where_they_are_known(report, tmp_path):
    folder = tmp_path / "runs"
    put_all(folder, *THREE)
    assert "against size" not in report()[2]
    for number, parameters in (("0-0", 1000), ("1-0", 8000)):
        path = folder / number / "summary.json"
        found = json.loads(path.read_text())
        found["student"]["parameters"] = parameters
        path.write_text(json.dumps(found))
        place = folder / number / "evaluation.json"
        row = {"network": "student", "backend": "eager", "batch_size": 1}
        rows = [{**row, "batch_size": 64, "median_ms": 1e6}, {**row, "backend": "onnx"}]
        rows.append({**row, "median_ms": parameters / 1000})
        device = {"type": "cpu", "name": "x86_64", "threads": 2}
        place.write_text(json.dumps({"latency": {"rows": rows}, "device": device}))
    text = report()[2]
    assert "first run that has one, on cpu (x86_64), threads: 2." in text
    place.write_text(json.dumps({"latency": {"rows": rows}}))
    told = "threads: 2; they are of unlike machines and do not compare."
    assert told in report()[2]
    assert "## Accuracy against size" in text
    assert "| soft | 8,000 | 97.63 ± 0.94 |" in text
    assert "## Accuracy against latency" in text
    for odd in ("[]", "{", '{"latency": null}', '{"latency": {"rows": [{}]}}'):
        place.write_text(odd)
        assert latency_in(place, "student") is None


def test_older_summaries_without_bins_and_without_metrics(report, tmp_path):
    found = summary(0, 0.9)
    del found["student"]["reliability"]
    put(tmp_path / "runs", found, history=False)
    text = report()[2]
    assert "These summaries hold no bins" in text
    assert "No run has a metrics.csv with epochs." in text


def test_the_table_alone_and_another_place(report, tmp_path):
    put_all(tmp_path / "runs", *THREE)
    assert "Written" not in report("--table")[0]
    report("--out", str(tmp_path / "new" / "place"))
    assert (tmp_path / "new" / "place" / "report.md").is_file()
    assert not (tmp_path / "runs" / "report.md").exists()


def test_a_place_that_cannot_be_written_and_an_interruption_are_one_line(
    report, tmp_path, capsys, monkeypatch
):
    put_all(tmp_path / "runs", *THREE)
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as stopped:
        report("--out", str(tmp_path / "file" / "below"))
    assert stopped.value.code == 1
    expected = f"kdlit: {tmp_path}/file/below cannot be written: --out names another folder"
    assert capsys.readouterr().err.startswith(expected)

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("kdlit.report.whole.put_together", interrupted)
    with pytest.raises(SystemExit) as stopped:
        report()
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "kdlit: interrupted\n"
    assert not (tmp_path / "runs" / "report.html").exists()


def test_learning_curves_are_of_the_epochs(tmp_path):
    found = read_history(put(tmp_path / "run", summary(0, 0.9)) / "metrics.csv")
    assert found["train/loss_epoch"] == {1: 0.5, 2: 0.25, 3: pytest.approx(1 / 6), 4: 0.125}
    assert found["val/accuracy"][4] == pytest.approx(0.57)
    assert len(curve([dict.fromkeys(range(1, 5002), 1.0)]).epochs) <= 200
    assert curve([dict.fromkeys(range(1, 5002), 1.0)]).epochs[-1] == 5001
    (tmp_path / "damaged.csv").write_text("step,epoch,val/nll\n0,zero,1.0\n")
    assert read_history(tmp_path / "damaged.csv") == {}
    assert read_history(Path("nowhere.csv")) == {}


def test_the_section_of_pictures_says_why_it_is_missing(report, tmp_path):
    put_all(tmp_path / "runs", *THREE)
    assert "Left out: run=" in report()[2]
    assert "Dark knowledge" not in report("--no-pictures")[2]
