"""Take the README's pictures of the demo and of a report, in a real browser.

python scripts/train.py label=soft
python scripts/train.py -m label=soft,hard,truth,smooth seed=0,1,2
python scripts/report.py sweeps
python docs/pictures/make.py --run outputs/soft-article/<time> --report sweeps/report.html
"""

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import Browser, expect, sync_playwright

HERE = Path(__file__).resolve().parent
DEMO = HERE.parent.parent / "scripts" / "demo.py"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
# Something between a four and a nine, in parts of the field's side.
STROKES = [
    [(0.40, 0.20), (0.35, 0.26), (0.32, 0.34), (0.31, 0.42), (0.34, 0.48), (0.40, 0.51),
     (0.48, 0.51), (0.55, 0.48), (0.61, 0.42)],
    [(0.60, 0.19), (0.63, 0.30), (0.62, 0.42), (0.60, 0.55), (0.58, 0.68), (0.56, 0.82)],
]  # fmt: skip


def demo(browser: Browser, run: Path, settings: list[str]) -> None:
    """Serve the demo of a run, draw a digit, and turn the temperature up to 4."""
    server = subprocess.Popen(  # noqa: S603 - our own script
        [sys.executable, str(DEMO), f"run={run}", "port=0", *settings],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        told = server.stdout.readline() if server.stdout else ""
        address = re.search(r"http://\S+", told)
        if address is None:
            sys.exit("the demo does not start")
        page = browser.new_page(viewport={"width": 960, "height": 680}, device_scale_factor=1.5)
        page.goto(address[0])
        field = page.locator("#drawing").bounding_box()
        if field is None:
            sys.exit("the page has no field to draw on")
        for stroke in STROKES:
            for number, (x, y) in enumerate(stroke):
                page.mouse.move(
                    field["x"] + x * field["width"], field["y"] + y * field["height"], steps=4
                )
                if number == 0:
                    page.mouse.down()
            page.mouse.up()
        expect(page.locator("#student .percent").first).to_contain_text("%")
        page.wait_for_timeout(2000)  # the answer to the whole drawing
        page.locator("#temperature").fill("0.46")
        page.locator("#temperature").blur()
        page.screenshot(path=HERE / "demo.png")
    finally:
        server.terminate()
        server.wait()


def report(browser: Browser, path: Path) -> None:
    """Take the beginning of a report."""
    page = browser.new_page(viewport={"width": 1000, "height": 1640})
    page.goto(path.resolve().as_uri())
    page.screenshot(path=HERE / "report.png")


def main() -> None:
    """Take the pictures that are asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, help="a finished run, for demo.png")
    parser.add_argument("--report", type=Path, help="a report's page, for report.png")
    parser.add_argument("settings", nargs="*", help="further settings of the demo, key=value")
    asked = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        if asked.run is not None:
            demo(browser, asked.run, asked.settings)
        if asked.report is not None:
            report(browser, asked.report)
        browser.close()


if __name__ == "__main__":
    main()
