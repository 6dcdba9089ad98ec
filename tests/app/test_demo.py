"""`scripts/demo.py`: the networks of a run behind the page."""

import sys

import pytest
import torch
import uvicorn
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from starlette.testclient import TestClient

from kdlit.app import demo
from kdlit.app.finished import FinishedRun
from kdlit.errors import ConfigError


def test_the_judge_says_what_the_run_s_networks_say(finished):
    run = FinishedRun.read(finished())
    judge = demo.judge_of(run)
    assert list(judge.networks) == ["teacher", "student"]
    images, labels = run.data.test_data.images[:500], run.data.test_data.labels[:500]
    with torch.no_grad():
        logits = judge.networks["student"](judge.normalize(images.float()))
    accuracy = run.summary["student"]["test"]["accuracy"]
    assert (logits.argmax(dim=1) == labels).float().mean() == pytest.approx(accuracy, abs=0.08)
    assert judge.classes == tuple("0123456789")
    assert "SoftLabels" in judge.title
    said = judge(images[0, 0])
    assert set(said["networks"]) == {"teacher", "student"}


def test_without_a_teacher_the_student_is_alone(finished):
    judge = demo.judge_of(FinishedRun.read(finished("label=truth", "teacher=none")))
    assert list(judge.networks) == ["student"]


def served(**values):
    settings = {"run": "x", "host": "127.0.0.1", "port": 0, "names": [], "data": {"root": None}}
    return OmegaConf.create({**settings, "cache_dir": None, **values})


@pytest.mark.parametrize("port", [-1, 70000])
def test_a_port_that_cannot_be_is_told(finished, port):
    with pytest.raises(ConfigError, match=f"port={port} .*port=0"):
        demo.serve(served(run=str(finished()), port=port))


def test_a_port_in_use_is_told(finished):
    taken = demo._listen("127.0.0.1", 0)
    taken.listen()
    port = taken.getsockname()[1]
    try:
        with pytest.raises(ConfigError, match=f"port={port} on host=127.0.0.1"):
            demo.serve(served(run=str(finished()), port=port))
    finally:
        taken.close()


@pytest.mark.parametrize(
    ("host", "link", "also"),
    [
        ("127.0.0.1", "127.0.0.1", None),
        ("::1", "[::1]", None),
        ("0.0.0.0", "0.0.0.0", "my-machine"),
    ],
)
def test_the_link_that_is_told_works(finished, monkeypatch, capsys, host, link, also):
    """A page at the address as it is printed may ask, and Ctrl-C is no error."""
    folder, asked = finished(), []
    capsys.readouterr()

    def run(server, sockets):
        client = TestClient(server.config.app, base_url=f"http://{link}:8000")
        for name in filter(None, (link, also)):
            asked.append(client.get("/", headers={"host": f"{name}:1"}).status_code)
        refused = client.post("/answer", headers={"origin": f"http://{link}:8000"})
        asked.append(refused.status_code)
        raise KeyboardInterrupt

    monkeypatch.setattr(uvicorn.Server, "run", run)
    demo.serve(served(run=str(folder), host=host, names=[also] if also else []))
    assert set(asked) == {200, 413}
    told = capsys.readouterr().out.partition("HTTP Request")[0]
    assert f"Draw a digit on http://{link}:" in told
    assert ("Everybody" in told) == (host == "0.0.0.0")
    assert max(map(len, told.splitlines())) <= 80


@pytest.mark.parametrize(("names", "why"), [("me", "must be a list"), (["*"], "is no name")])
def test_names_that_cannot_be(names, why):
    with pytest.raises(ConfigError, match=rf"names.*{why}"):
        demo.serve(served(names=names))


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ConfigError, match=r'pip install "kdlit\[demo\]"'):
        demo.serve(served())


def test_the_command_tells_of_a_missing_run_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["kdlit-demo", f"run={tmp_path}/none"])
    GlobalHydra.instance().clear()
    with pytest.raises(SystemExit):
        demo.main()
    err = capsys.readouterr().err
    assert err.startswith("kdlit: run=")
    assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
