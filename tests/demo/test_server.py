"""What the server answers, and what it refuses."""

import asyncio

import pytest
import torch
from starlette.testclient import TestClient

from kdlit.demo import Judge, application, digit_of
from kdlit.demo.server import DRAWING_SIDE

# Small enough that no class is certain.
WEIGHTS = torch.linspace(-0.03, 0.03, 28 * 28 * 3).reshape(3, 28 * 28)
LOCAL = "http://127.0.0.1:8000"


def judge(title: str = "a network") -> Judge:
    networks = {
        "teacher": lambda images: images.flatten(1) @ WEIGHTS.T,
        "student": lambda images: images.flatten(1) @ WEIGHTS.T / 2,
    }
    return Judge(networks, lambda images: images / 255, ("a", "b", "<c>"), title)


def drawing() -> torch.Tensor:
    drawn = torch.zeros(DRAWING_SIDE, DRAWING_SIDE, dtype=torch.uint8)
    drawn[20:90, 50:60] = 255
    return drawn


def body(drawn: torch.Tensor) -> bytes:
    return drawn.numpy().tobytes()


@pytest.fixture
def client():
    return TestClient(application(judge()), base_url=LOCAL)


def test_the_answer_is_what_the_networks_say_of_the_digit(client):
    response = client.post("/answer", content=body(drawing()))
    said = response.json()
    digit = digit_of(drawing())
    assert said["digit"] == digit.flatten().tolist()
    logits = (digit.float() / 255).flatten() @ WEIGHTS.T
    assert said["networks"]["teacher"]["logits"] == pytest.approx(logits.tolist(), rel=1e-4)
    assert said["networks"]["student"]["logits"] == pytest.approx((logits / 2).tolist(), rel=1e-4)
    assert all(network["milliseconds"] > 0 for network in said["networks"].values())


def test_the_page_has_both_networks_and_escapes_what_it_is_told():
    client = TestClient(application(judge("<script>alert(1)</script>")), base_url=LOCAL)
    text = client.get("/").text
    assert 'id="teacher"' in text
    assert 'id="student"' in text
    assert "<script>alert" not in text
    assert "<span><c></span>" not in text
    assert "http://" not in text
    assert "https://" not in text


def test_a_page_cannot_load_or_send_anything_elsewhere(client):
    policy = client.get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy


@pytest.mark.parametrize("size", [0, 1, DRAWING_SIDE**2 - 1, DRAWING_SIDE**2 + 1, 10_000_000])
def test_a_drawing_of_another_size_is_refused(client, size):
    assert client.post("/answer", content=bytes(size)).status_code == 413


def test_who_leaves_before_all_is_sent_is_no_error():
    async def leave() -> None:
        parts = iter(({"type": "http.request", "body": b"1", "more_body": True},
                      {"type": "http.disconnect"}))  # fmt: skip

        async def receive():
            return next(parts)

        async def send(message):
            pass

        scope = {"type": "http", "method": "POST", "path": "/answer", "query_string": b"",
                 "headers": [(b"host", b"127.0.0.1")], "scheme": "http"}  # fmt: skip
        await application(judge())(scope, receive, send)

    asyncio.run(leave())


def test_an_empty_drawing_is_told(client):
    response = client.post("/answer", content=bytes(DRAWING_SIDE**2))
    assert response.status_code == 422
    assert response.json()["error"] == "nothing is drawn"


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9000"])
def test_another_page_cannot_ask(client, origin):
    response = client.post("/answer", content=body(drawing()), headers={"origin": origin})
    assert response.status_code == 403


def test_its_own_page_can_ask(client):
    response = client.post("/answer", content=body(drawing()), headers={"origin": LOCAL})
    assert response.status_code == 200


def test_a_foreign_name_that_leads_here_is_refused(client):
    assert client.get("/", headers={"host": "evil.example"}).status_code == 400


def test_too_many_drawings_at_once_are_refused():
    client = TestClient(application(judge(), per_second=1.0), base_url=LOCAL)
    codes = [client.post("/answer", content=body(drawing())).status_code for _ in range(6)]
    assert codes[:2] == [200, 200]
    assert 429 in codes


@pytest.mark.parametrize("path", ["/../pyproject.toml", "/static/x", "/page.html.j2", "/docs"])
def test_no_files_are_served(client, path):
    assert client.get(path).status_code == 404


def test_only_the_right_methods(client):
    assert client.get("/answer").status_code == 405
    assert client.post("/", content=b"").status_code == 405
