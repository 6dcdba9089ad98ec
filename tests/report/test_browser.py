"""The page in a real browser: it asks nobody, fits a telephone, and has a dark side."""

import os
import shutil
from pathlib import Path

import pytest

from kdlit.report import group, read_runs
from kdlit.report.knowledge import section
from kdlit.report.ranking import rank
from kdlit.report.whole import put_together, write
from report.made import put_all
from report.test_knowledge import seen

CHROMIUM = os.environ.get("KDLIT_CHROMIUM") or shutil.which("chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
COLOURS = """() => {
  const of = (element, name) => getComputedStyle(element)[name];
  return [of(document.body, "backgroundColor"), of(document.body, "color"),
          of(document.querySelector(".panel svg text"), "fill")];
}"""


def page_of(folder: Path) -> Path:
    """Write the report of some runs, with every kind of block in it."""
    put_all(folder, *(
        ("Soft", [0.9 + t / 1000, 0.91 + a / 100], {"temperature": t, "alpha": a, "note": "a" * 90})
        for t in (1.0, 4.0) for a in (0.1, 0.9)
    ), ("Truth", [0.9, 0.92], {}))  # fmt: skip
    found = read_runs([folder])
    settings = group(found.runs)
    ranked = rank(settings.ranked)
    report = put_together(found, settings, ranked, f"From {folder}.", section(seen()))
    return write(report, folder)[0]


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here")
@pytest.mark.filterwarnings("default::DeprecationWarning")
def test_the_page_asks_nobody_fits_a_telephone_and_has_a_dark_side(tmp_path):
    from playwright.sync_api import sync_playwright

    address = page_of(tmp_path / "runs of two").as_uri()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 390, "height": 844}, color_scheme="light")
        errors, asked = [], []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        for folded in page.locator("summary").all():
            folded.click()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.locator(".gallery img").count() > 0
        assert page.locator(".gallery img").evaluate_all("them => them.every(i => i.naturalWidth)")

        light = page.evaluate(COLOURS)
        assert light[0] == "rgb(255, 255, 255)"
        page.emulate_media(color_scheme="dark")
        dark = page.evaluate(COLOURS)
        assert all(one != other for one, other in zip(light, dark, strict=True))
        assert dark[1] == dark[2], "drawings have the colour of the text"
        # On paper it is light whatever the screen is.
        page.emulate_media(media="print", color_scheme="dark")
        assert page.evaluate(COLOURS)[0] == "rgb(255, 255, 255)"

        assert errors == []
        assert [url for url in asked if not url.startswith("data:")] == [address]
        browser.close()
