"""Going on with a run that was interrupted."""

import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from kdlit.errors import ConfigError

CONFIG_FILE = "config.yaml"
"""The composed configuration in a run's directory."""


SUMMARY_FILE = "summary.json"
"""What a run's directory holds when the run is finished."""

LAST_FILE, BEST_FILE = "last.ckpt", "best.ckpt"
"""The checkpoint from which a run goes on, and the one that it may go on from without it."""


def checkpoint_in(run_dir: Path) -> Path:
    """Return the checkpoint from which a run goes on, whether it is there or not.

    The best one is written first: where the disk was full then, it is all that there is.
    """
    last, best = run_dir / LAST_FILE, run_dir / BEST_FILE
    return best if best.is_file() and not last.is_file() else last


def checkpoint_to_resume(config: DictConfig) -> Path | None:
    """Return the checkpoint that `ckpt_path` names, or None to begin anew.

    `last` is `last.ckpt` in the run's own directory, or `best.ckpt` where that alone is there.

    Raises:
        ConfigError: if there is none, or if it belongs to a run with another configuration.
    """
    if config.ckpt_path is None:
        return None
    run_dir = Path(config.run_dir)
    path = checkpoint_in(run_dir) if config.ckpt_path == "last" else Path(config.ckpt_path)
    if not path.is_file():
        folder = run_dir.parent if config.ckpt_path == "last" else path.parent
        raise ConfigError(
            f"ckpt_path={config.ckpt_path}: there is no {path.name} in {folder}. Name a checkpoint "
            "with ckpt_path=<file>, or the run to go on with by hydra.run.dir=<its directory>"
        )
    written = path.with_name(CONFIG_FILE)
    if written.is_file():
        if written.parent.resolve() != run_dir.resolve():
            raise ConfigError(
                f"ckpt_path={config.ckpt_path}: a run goes on in its own directory; leave out "
                "hydra.run.dir, or set it to that directory"
            )
        differ = _differences(written, config)
        if differ:
            raise ConfigError(
                f"ckpt_path={config.ckpt_path}: {path.parent} was run with another configuration: "
                + differ
            )
    return path


def take_up(config: DictConfig) -> dict[str, Any] | None:
    """Return the summary of a run that is finished, or set `ckpt_path` to where it goes on from.

    That is `last` where the run's directory holds a checkpoint, and None where it holds none. A
    `ckpt_path` that names a file is left as it is.

    Raises:
        ConfigError: if the directory holds a run with another configuration.
    """
    run_dir = Path(config.run_dir)
    written = run_dir / CONFIG_FILE
    begun = written.is_file()
    differ = _differences(written, config) if begun else ""
    if differ:
        raise ConfigError(
            f"{run_dir} holds a run with another configuration: {differ}. It is left as it is: "
            "choose another directory"
        )
    found = summary_of(config)
    if found is None and config.ckpt_path in (None, "last"):
        config.ckpt_path = "last" if begun and checkpoint_in(run_dir).is_file() else None
    return found


def summary_of(config: DictConfig) -> dict[str, Any] | None:
    """Return the summary of a run that is finished, None where it is not, or is another one."""
    written, summary = (Path(config.run_dir, name) for name in (CONFIG_FILE, SUMMARY_FILE))
    if not (written.is_file() and summary.is_file()) or _differences(written, config):
        return None
    found: dict[str, Any] = json.loads(summary.read_text(encoding="utf-8"))
    return found


def _differences(written: Path, config: DictConfig) -> str:
    """Return in which keys a configuration differs from that in a file; "" if in none."""
    before, now = _flat(OmegaConf.load(written)), _flat(config)
    return "; ".join(
        f"{key}={now.get(key)} where it was {before.get(key)}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and key != "ckpt_path"
    )


def _flat(node: Any) -> dict[str, Any]:
    """Return all leaves by their dotted key, the run's own directory shown as a dot."""
    flat: dict[str, Any] = {}

    def walk(value: Any, key: str) -> None:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for name, child in items:
            inner = f"{key}.{name}" if key else str(name)
            if isinstance(child, (dict, list)) and child:
                walk(child, inner)
            else:
                flat[inner] = child

    walk(OmegaConf.to_container(node, resolve=True), "")
    run_dir = str(flat["run_dir"])
    for key, value in flat.items():
        if isinstance(value, str) and value.startswith(run_dir):
            flat[key] = "." + value.removeprefix(run_dir)
    return flat
