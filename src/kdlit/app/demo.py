"""The command that lets one draw a digit: `scripts/demo.py`, `kdlit-demo`."""

import ipaddress
import socket
from contextlib import suppress
from typing import Any

from omegaconf import DictConfig, ListConfig

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
    from kdlit.app.build import run_folder
    from kdlit.app.finished import FinishedRun
    from kdlit.demo import application

    moved = {"data.root": config.data.root, "cache_dir": config.cache_dir}
    host, hosts = _hosts(config)
    judge = judge_of(FinishedRun.read(run_folder(config), moved))
    listening = _listen(str(config.host), config.port)
    listening.listen()  # who follows the address at once waits for an answer
    port = listening.getsockname()[1]
    print(f"Draw a digit on http://{host}:{port}/ (Ctrl-C ends it)", flush=True)
    if not _is_loopback(str(config.host)):
        print(
            "Everybody who reaches this machine can use it, under one of these names:\n"
            f"{', '.join(hosts)} (names=[...] adds others)",
            flush=True,
        )
    settings = uvicorn.Config(
        application(judge, hosts=hosts),
        log_config=None,  # logging is Hydra's
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        limit_concurrency=32,
        timeout_keep_alive=5,
    )
    # Uvicorn raises an interruption again when it has closed everything.
    with listening, suppress(KeyboardInterrupt):
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


def _hosts(config: DictConfig) -> tuple[str, tuple[str, ...]]:
    """Return the host as a link has it, and all names under which the page may be called."""
    if not isinstance(config.names, ListConfig):
        raise ConfigError(f"names={config.names}: it must be a list, such as names=[my-machine]")
    names = [str(name) for name in config.names]
    wild = [name for name in names if "*" in name]
    if wild:
        raise ConfigError(f"names: {wild[0]} is no name: tell each that the machine has")
    host = str(config.host)
    known = [f"[{name}]" if ":" in name else name for name in (host, *_LOOPBACK, *names)]
    return known[0], tuple(dict.fromkeys(known))


def _is_loopback(host: str) -> bool:
    """Return whether a host is this machine alone.

    >>> [_is_loopback(host) for host in ("localhost", "127.0.0.2", "::1", "0.0.0.0", "example.org")]
    [True, True, True, False, False]
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


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
