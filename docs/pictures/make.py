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
# A three, in parts of the field's side.
STROKE = [
    (0.30, 0.25), (0.45, 0.20), (0.62, 0.25), (0.66, 0.38), (0.55, 0.47), (0.45, 0.48),
    (0.58, 0.50), (0.68, 0.60), (0.64, 0.75), (0.48, 0.82), (0.30, 0.77),
]  # fmt: skip


def demo(browser: Browser, run: Path, settings: list[str]) -> None:
    """Serve the demo of a run, draw a three, and turn the temperature up to 4."""
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
        page = browser.new_page(viewport={"width": 960, "height": 640}, device_scale_factor=1.5)
        page.goto(address[0])
        field = page.locator("#drawing").bounding_box()
        if field is None:
            sys.exit("the page has no field to draw on")
        points = [(field["x"] + x * field["width"], field["y"] + y * field["height"])
                  for x, y in STROKE]  # fmt: skip
        page.mouse.move(*points[0])
        page.mouse.down()
        for point in points[1:]:
            page.mouse.move(*point, steps=4)
        page.mouse.up()
        expect(page.locator("#student .percent").first).to_contain_text("%")
        page.locator("#temperature").fill("0.46")
        page.locator("#temperature").blur()
        page.screenshot(path=HERE / "demo.png")
    finally:
        server.terminate()
        server.wait()


def report(browser: Browser, path: Path) -> None:
    """Take the beginning of a report."""
    page = browser.new_page(viewport={"width": 960, "height": 900}, device_scale_factor=1.25)
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
