"""The results that are committed: each page is its run's, and prose quotes no other numbers."""

import json
import re
from pathlib import Path

import pytest

from conftest import REPOSITORY
from kdlit.app.experiments import Experiment, experiments
from kdlit.report.papers_page import markdown

RESULTS = REPOSITORY / "docs" / "results"
FILES = sorted(RESULTS.glob("*.json"))
# A mean with its spread, as tables and prose have it.
MEASURED = re.compile(r"\d[\d,]*(?:\.\d+)? ± \d+(?:\.\d+)?")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_page_is_what_its_numbers_say_and_its_command_still_makes(path):
    result = json.loads(path.read_text(encoding="utf-8"))
    assert path.with_suffix(".md").read_text(encoding="utf-8") == markdown(result)
    experiment = Experiment.read(path.stem, result["size"])
    assert result["size"] == "full"
    assert result["settings"] == list(experiment.settings)
    assert result["rows"] == dict(experiment.rows)
    assert result["columns"] == dict(experiment.columns)
    for key in ("title", "about", "differences"):
        assert result[key] == experiment.text[key], key


def test_there_are_no_results_but_of_experiments():
    assert {path.stem for path in FILES} <= set(experiments())
    pages = {path.stem for path in RESULTS.glob("*.md")}
    assert pages == {path.stem for path in FILES}
    index = (REPOSITORY / "docs" / "index.md").read_text(encoding="utf-8")
    assert all(f"results/{page}\n" in index for page in pages)


def quoted(text: str) -> list[tuple[set[str], set[str]]]:
    """Return the results pages that a paragraph or a table's row links to, and its numbers."""
    parts = re.split(r"\n\s*\n|\n(?=[|-])", text)
    found = []
    for part in parts:
        pages = set(re.findall(r"results/(\w+)\.md\)", part))
        numbers = set(MEASURED.findall(part.replace("\n", " ")))
        if pages and numbers:
            found.append((pages, numbers))
    return found


@pytest.mark.parametrize("name", ["README.md", "docs/article.md"])
def test_numbers_in_prose_are_those_of_the_pages_that_it_links_to(name):
    found = quoted((REPOSITORY / name).read_text(encoding="utf-8"))
    assert found
    for pages, numbers in found:
        known = " ".join(Path(RESULTS, f"{page}.md").read_text(encoding="utf-8") for page in pages)
        assert numbers <= set(MEASURED.findall(known)), pages
