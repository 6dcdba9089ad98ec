"""The page in a real browser: draw, read the bars, move the slider."""

import os
import shutil
import socket
import threading
from contextlib import contextmanager

import pytest
import torch
import uvicorn

from demo.test_server import judge
from kdlit.demo import application

CHROMIUM = os.environ.get("KDLIT_CHROMIUM") or shutil.which("chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def served():
    """Serve the page in a thread, and give its address."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(application(judge()), log_config=None))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        listening.close()


def shares(page, name: str) -> list[float]:
    lines = page.locator(f"#{name} .percent").all_inner_texts()
    return [float(line.removesuffix(" %")) for line in lines]


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here")
@pytest.mark.filterwarnings("default::DeprecationWarning")
def test_draw_read_the_bars_move_the_slider_and_clear():
    from playwright.sync_api import expect, sync_playwright

    with served() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 390, "height": 844})
        errors, asked = [], []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        assert page.locator("#student .percent").all_inner_texts() == ["–"] * 3

        box = page.locator("#drawing").bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 30)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] - 30, steps=8)
        page.mouse.up()
        expect(page.locator("#student .percent").first).to_contain_text("%")
        cold = {name: shares(page, name) for name in ("teacher", "student")}
        for said in cold.values():
            assert sum(said) == pytest.approx(100, abs=0.02)
        # The student's logits are half the teacher's: less sure of the same class.
        best = cold["teacher"].index(max(cold["teacher"]))
        assert cold["student"].index(max(cold["student"])) == best
        assert max(cold["student"]) < max(cold["teacher"])
        hard = page.locator("#teacher .hard").inner_text()
        assert hard == f"Hard label: {('a', 'b', '<c>')[best]}, and nothing else."
        # However long the classes' names are.
        tracks = page.locator("#teacher .track").all()
        assert len({track.bounding_box()["x"] for track in tracks}) == 1
        assert page.locator("#teacher .time").inner_text().endswith("ms for one image")

        # At twice the temperature the teacher says what the student says at 1.
        page.locator("#temperature").fill("0.23")
        warm = shares(page, "teacher")
        told = float(page.locator("#told").inner_text())
        assert told == pytest.approx(20**0.23, abs=0.06)
        assert max(warm) < max(cold["teacher"])
        assert warm == pytest.approx(cold["student"], abs=1.5)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390

        page.locator("#clear").click()
        assert page.locator("#student .percent").all_inner_texts() == ["–"] * 3
        page.mouse.move(box["x"] + 40, box["y"] + 40)
        page.mouse.down(button="right")
        page.mouse.move(box["x"] + 90, box["y"] + 90)
        page.mouse.up(button="right")
        drawn = (
            "() => pen.getImageData(0, 0, SIDE, SIDE).data.some((value, i) => i % 4 < 3 && value)"
        )
        assert not page.evaluate(drawn)
        assert errors == []
        assert {url.split("/")[2] for url in asked} == {address.split("/")[2]}
        browser.close()


def test_the_judges_logits_are_far_enough_apart_for_the_test():
    said = judge()(torch.full((112, 112), 255, dtype=torch.uint8))
    assert len(set(said["networks"]["teacher"]["logits"])) == 3
