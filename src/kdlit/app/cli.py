"""What every command does alike: run under Hydra, and report errors in one line."""

import os
import re
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any

import hydra
from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kdlit.checks import did_you_mean
from kdlit.errors import KdlitError, StorageError

CONFIG_MODULE = "kdlit.conf"
_DEBUG = "HYDRA_FULL_ERROR"
_CHILD = "KDLIT_REPORTS_ERRORS"
# The exit statuses of a command that was interrupted or terminated.
_INTERRUPTED, _TERMINATED = 130, 143
STOPPED = {_INTERRUPTED, _TERMINATED}
# On the command line: flags, and overrides that are not of the job's configuration.
_HYDRAS_OWN = re.compile(r"-|[+~]*hydra[./]")


def debugging() -> bool:
    """Return whether the user asked for tracebacks, with HYDRA_FULL_ERROR=1."""
    # A process that was started by one of ours inherits its environment.
    return os.environ.get(_DEBUG, "0") not in ("", "0") and _CHILD not in os.environ


def typed(name: str) -> str:
    """Return the command line that was typed, of one of our commands."""
    return shlex.join([*called_as(name), *sys.argv[1:]])


def called_as(name: str) -> list[str]:
    """Return the words that call one of our commands as the present one was called."""
    script = Path(sys.argv[0]).with_name(f"{name}.py")
    return ["python", str(script)] if script.is_file() else [f"kdlit-{name}"]


def run_reporting_errors(
    command: Callable[[], object], config_name: str, *, way_on: Callable[[], str] | None = None
) -> None:
    """Run a Hydra command; on an error print one line and exit with status 1.

    With HYDRA_FULL_ERROR=1 the error is raised with its full traceback instead.

    Args:
        command: what to do.
        config_name: of the configuration that it composes, for errors.
        way_on: returns the command that goes on after an interruption.
    """
    debug = debugging()
    if not debug:
        # Hydra then hands every error on instead of printing its own account of it.
        os.environ.update({_DEBUG: "1", _CHILD: "1"})
    before = _listen_for_sigterm()
    try:
        command()
    except Exception as error:
        if debug:
            raise
        told = f". This goes on: {way_on()}" if way_on and isinstance(error, StorageError) else ""
        print(f"kdlit: {explain(error, config_name, sys.argv[1:])}{told}", file=sys.stderr)
        sys.exit(1)
    except (KeyboardInterrupt, SystemExit) as stopped:
        # Lightning turns an interruption into an exit, and SIGTERM into one that reads as success.
        lightnings = type(stopped).__name__ == "SIGTERMException"
        terminated = lightnings or getattr(stopped, "code", None) == _TERMINATED
        if (
            isinstance(stopped, SystemExit)
            and not isinstance(stopped.__context__, KeyboardInterrupt)
            and not terminated
        ):
            raise
        told = f". This goes on: {way_on()}" if way_on is not None else ""
        print(f"kdlit: interrupted{told}", file=sys.stderr)
        sys.exit(_TERMINATED if terminated else _INTERRUPTED)
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)
        if not debug:
            for name in (_DEBUG, _CHILD):
                os.environ.pop(name, None)


def _listen_for_sigterm() -> Any:
    """Let SIGTERM end the command as Ctrl-C does, with everything put away; return what it did.

    It is None, and nothing is changed, where somebody else listens already, and in SLURM's jobs,
    which Lightning saves and requeues.
    """
    before = signal.getsignal(signal.SIGTERM)
    if (
        before is not signal.SIG_DFL
        or threading.current_thread() is not threading.main_thread()
        or "SLURM_JOB_ID" in os.environ
    ):
        return None
    signal.signal(signal.SIGTERM, _terminate)
    return before


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(_TERMINATED)


def run_command(work: Callable[[DictConfig], object], config_name: str) -> None:
    """Compose a configuration from the command line and do `work` with it, errors in one line."""

    def compose_and_work() -> None:
        failures: list[Exception] = []

        @hydra.main(
            version_base="1.3", config_path=f"pkg://{CONFIG_MODULE}", config_name=config_name
        )
        def command(config: DictConfig) -> None:
            try:
                work(config)
            except Exception as error:
                # Hydra would print its own account of it.
                failures.append(error)

        command()
        if failures:
            raise failures[0]

    run_reporting_errors(compose_and_work, config_name)


def explain(error: BaseException, config_name: str, overrides: Sequence[str]) -> str:
    """Return one line that says what is wrong and, where it can be told, the way out."""
    if isinstance(error, StorageError):
        error = _first_of(error)
    if isinstance(error, KdlitError):
        return one_line(str(error))
    if isinstance(error, OverrideParseException):
        name, _, value = str(error.override).partition("=")
        return one_line(
            f"{error.override}: this is not in Hydra's grammar; a value with accents, commas or an "
            f"equals sign needs quotes of its own: \"{name}='{value}'\""
        )
    if isinstance(error, ConfigCompositionException):
        key = re.search(
            r"Could not (?:override|delete)(?: from config[^']*)? '([^']+)'", str(error)
        )
        if key is not None and "/" not in key[1]:
            return _unknown_key(key[1], config_name, overrides)
        launcher = re.search(r"hydra/launcher/(joblib|submitit)", str(error))
        if launcher is not None:
            told = f"hydra/launcher={launcher[1]} is not installed, or has no such option"
            return f'{told}: it comes with pip install "kdlit[{launcher[1]}]"'
    if isinstance(error, (HydraException, OmegaConfBaseException)):
        cause = f" ({error.__cause__})" if error.__cause__ is not None else ""
        return one_line(str(error) + cause)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return one_line(f"{error.filename}: {error.strerror}")
    return one_line(f"{type(error).__name__}: {error}. {_DEBUG}=1 shows where it comes from")


def _first_of(error: StorageError) -> StorageError:
    """Return the error before which there was none: closing what was open may have failed, too."""
    first, before = error, error.__context__
    while before is not None:
        if isinstance(before, StorageError):
            first = before
        before = before.__context__
    return first


def one_line(text: str) -> str:
    r"""Join the lines of a message.

    >>> one_line("Available options:\n\thard\n\tsoft\n")
    'Available options: hard, soft'
    """
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    joined = ""
    for line in lines:
        joined += ("" if not joined else " " if joined[-1] in ":.;,'" else ", ") + line
    return joined


def _unknown_key(key: str, config_name: str, overrides: Sequence[str]) -> str:
    """Say which keys there are where `key` is not one, in what these overrides select."""
    parent, _, name = key.rpartition(".")
    given = [line for line in overrides if "=" in line and not line.startswith("-")]
    try:
        parsed = OverridesParser.create().parse_overrides(given)
        swept = [o.get_key_element() for o in parsed if o.is_sweep_override()]
        selects = [
            o.input_line or ""
            for o in parsed
            if "." not in o.get_key_element()
            and o.get_key_element() not in {key, *swept}
            and o.value() is not None
        ]
        GlobalHydra.instance().clear()
        with initialize_config_module(CONFIG_MODULE, version_base="1.3"):
            config = compose(config_name, selects)
    except (HydraException, OmegaConfBaseException):
        return f"there is no key {key}: see --cfg job for those there are"
    # Climb from the innermost part that is not there to the node that lacks it.
    node = OmegaConf.select(config, parent) if parent else config
    while parent and not isinstance(node, DictConfig):
        parent, _, name = parent.rpartition(".")
        node = OmegaConf.select(config, parent) if parent else config
    known = [str(child) for child in node if not str(child).startswith("_")]
    place = next((o for o in selects if parent and o.split("=")[0] == parent), parent or "kdlit")
    if name in known and parent in swept:
        return (
            f"there is no key {key} in every {parent} of the sweep: sweep those {parent}s that "
            "have it by themselves"
        )
    if not known:
        return f"there is no key {key}: {place} has no keys that could be set"
    return f"there is no key {key} ({place}): {did_you_mean(name, known)}"


def register_resolvers() -> None:
    """Make known what the configuration computes.

    `${kdlit.run_dir:ckpt_path,folder}` is the directory of a run, `${kdlit.sweep_dir:...}` that of
    a sweep, and `${kdlit.validate_every:max_epochs}` the epochs between two validations.
    """
    OmegaConf.register_new_resolver("kdlit.run_dir", _run_dir, replace=True, use_cache=True)
    # Kept with the configuration, so that a launcher's processes have the directory of the first.
    OmegaConf.register_new_resolver("kdlit.sweep_dir", _sweep_dir, replace=True, use_cache=True)
    OmegaConf.register_new_resolver("kdlit.validate_every", validate_every, replace=True)


def _run_dir(ckpt_path: str | None, folder: str) -> str:
    """Return the directory of the run to go on with, or a new one in `folder`."""
    if ckpt_path == "last":
        found = sorted(Path(folder).glob("*/last.ckpt"), key=lambda path: path.stat().st_mtime)
        if found:
            return str(found[-1].parent)
    elif ckpt_path is not None and Path(ckpt_path).with_name("config.yaml").is_file():
        return str(Path(ckpt_path).resolve().parent)
    return _now(folder)


def _sweep_dir(ckpt_path: str | None, folder: str) -> str:
    """Return the directory of the sweep to go on with, or a new one in `folder`."""
    if ckpt_path == "last":
        from kdlit.app.sweeps import newest_of

        # The value of a flag, as in `--config-dir folder`, is no override.
        words = [word for word in sys.argv[1:] if "=" in word or word.startswith("~")]
        words = [word for word in words if not _HYDRAS_OWN.match(word)]
        found = newest_of(words, Path(folder))
        if found is not None:
            return str(found)
    return _now(folder)


def _now(folder: str) -> str:
    return str(Path(folder) / datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f"))


def validate_every(max_epochs: object) -> int:
    """Return the largest divisor of `max_epochs` that gives four validations or more, or 1.

    A divisor, so that the last epoch is validated, too.

    >>> [validate_every(epochs) for epochs in (3, 10, 40, 47)]
    [1, 2, 10, 1]
    """
    if not isinstance(max_epochs, int):
        return 1
    return max((n for n in range(1, max_epochs // 4 + 1) if max_epochs % n == 0), default=1)
