"""The command that lets one draw a digit: `scripts/demo.py`, `kdlit-demo`."""

import socket
from typing import Any

from omegaconf import DictConfig

from kdlit.app.cli import run_command
from kdlit.errors import ConfigError

_LOOPBACK = ("127.0.0.1", "localhost")


def main() -> None:
    """Serve the page until interrupted."""
    run_command(serve, "demo")


def serve(config: DictConfig) -> None:
    """Make the networks of a finished run again and serve the page.

    Raises:
        ConfigError: if the run, the address or the extra is missing.
    """
    try:
        import jinja2  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise ConfigError(f'{error}: it comes with pip install "kdlit[demo]"') from error
    from kdlit.app.finished import FinishedRun
    from kdlit.demo import application

    moved = {"data.root": config.data.root, "cache_dir": config.cache_dir}
    judge = judge_of(FinishedRun.read(config.run, moved))
    listening = _listen(str(config.host), config.port)
    listening.listen()  # who follows the address at once waits for an answer
    address = f"{config.host}:{listening.getsockname()[1]}"
    print(f"Draw a digit on http://{address}/ (Ctrl-C ends it)", flush=True)
    if config.host not in _LOOPBACK:
        print(f"Everybody who reaches {address} can use it.", flush=True)
    settings = uvicorn.Config(
        application(judge, hosts=(*_LOOPBACK, str(config.host), *config.names)),
        log_config=None,  # logging is Hydra's
        log_level="warning",
        server_header=False,
        limit_concurrency=32,
        timeout_keep_alive=5,
    )
    uvicorn.Server(settings).run(sockets=[listening])


def judge_of(finished: Any) -> Any:
    """Return who is asked: the student of a run, and its teacher where there is one.

    Raises:
        ConfigError: if its data are not images of one channel.
    """
    from kdlit.batch import Batch
    from kdlit.demo import Judge

    data = finished.data
    shape = tuple(getattr(data, "sample_shape", ()))
    if shape != (1, 28, 28):
        raise ConfigError(
            f"run={finished.folder}: a drawing is an image of shape (1, 28, 28), and this run's "
            f"data are of shape {shape}"
        )
    student, teacher = finished.student, finished.teacher
    networks = {"student": lambda images: Batch(images).run(student).logits}
    if teacher is not None:
        networks = {"teacher": lambda images: teacher(Batch(images)).logits, **networks}
    label = finished.summary["config"]["label"]["_target_"].rsplit(".", 1)[-1]
    accuracy = 100 * finished.summary["student"]["test"]["accuracy"]
    return Judge(
        networks,
        data.normalize,
        tuple(data.class_names),
        f"{type(student).__name__} taught with {label}; {accuracy:.2f} % on the test set.",
    )


def _listen(host: str, port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except (OSError, OverflowError, TypeError) as error:
        listening.close()
        raise ConfigError(
            f"port={port} on host={host} cannot be used: {error}. Choose another port, or port=0 "
            "for any that is free"
        ) from error
    return listening
