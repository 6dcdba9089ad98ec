"""Measure one epoch of soft distillation by kdlit and by others; see README.md beside this file."""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Nothing here imports torch: a process reports at least the peak memory that its parent had when
# it was started.
from contenders import NAMES, SETTINGS, STARTUPS
from document import document
from rich.console import Console
from work import REPOSITORY, Work

PACKAGES = ("torch", "torchvision", "lightning", "torchdistill", "kdlit")
# kdlit draws its progress bar as it does on a terminal, though its output is read by this program.
TERMINAL = {"FORCE_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "80"}

console = Console(stderr=True, highlight=False)


def main() -> None:
    """Measure what the command line asks for, and write the results."""
    asked = _arguments()
    work = Work(asked.work.resolve())
    if asked.one is not None:
        print(json.dumps(measure(asked.one, work, asked.seed)))
        return
    names = [name for name in NAMES if asked.only is None or name in asked.only]
    _prepare(work, names, asked.images, asked.rounds)
    repetitions: list[dict[str, Any]] = []
    failures: dict[str, str] = {}
    interrupted = False
    try:
        _repeat(work, names, asked.rounds, repetitions, failures)
    except KeyboardInterrupt:
        interrupted = True
        console.print("interrupted; what has been measured is written down", style="red")
    if repetitions:
        trial = asked.images is not None or asked.only is not None
        results = {
            "date": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
            "trial": trial,
            "rounds": 1 + repetitions[-1]["round"],
            "machine": _machine(repetitions),
            "prepared": json.loads(work.prepared.read_text(encoding="utf-8")),
            "failures": failures,
            "repetitions": repetitions,
        }
        # A trial does not replace the results of a whole measurement.
        _write(asked.out / ("epoch-trial" if trial else "epoch"), results)
    if failures or interrupted:
        sys.exit(1)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=_positive, default=5, help="default: %(default)s")
    parser.add_argument("--images", type=_positive, help="training images (default: all)")
    parser.add_argument("--only", nargs="+", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument(
        "--out", type=Path, default=REPOSITORY / "benchmarks" / "results",
        help="folder for the results (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--work", type=Path, default=REPOSITORY / "cache" / "benchmarks",
        help="folder for what is prepared once (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--one", choices=NAMES, metavar="NAME",
        help="measure once, in this process, what has been prepared, and print a line of JSON",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="with --one (default: %(default)s)")
    return parser.parse_args()


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


# One repetition, in a process of its own -----------------------------------------------------


def measure(name: str, work: Work, seed: int) -> dict[str, Any]:
    """Measure a contender once, in this process."""
    if name in STARTUPS:
        import startup

        return startup.measure(name)
    import torch

    torch.manual_seed(seed)
    if name in SETTINGS:
        import runs

        found = runs.measure(name, work, seed)
    elif name == "torchdistill":
        import box

        found = box.measure(work, seed)
    else:
        import loops

        found = loops.MEASURES[name](work, seed)
    # Kilobytes on Linux, bytes on macOS.
    unit = 1024**2 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return {**found, "peak_mib": peak, "threads": torch.get_num_threads()}


# All of them ---------------------------------------------------------------------------------


def _prepare(work: Work, names: Sequence[str], images: int | None, rounds: int) -> None:
    script = Path(__file__).with_name("preparation.py")
    options = [f"--work={work.folder}", f"--seeds={rounds}"]
    options += [] if images is None else [f"--images={images}"]
    subprocess.run(  # noqa: S603 - our own script
        [sys.executable, str(script), *names, *options], check=True, stdout=subprocess.DEVNULL
    )


def _repeat(
    work: Work,
    names: Sequence[str],
    rounds: int,
    repetitions: list[dict[str, Any]],
    failures: dict[str, str],
) -> None:
    """Measure every contender once a round, each round beginning with another."""
    for number in range(rounds):
        first = number % len(names)
        for name in [*names[first:], *names[:first]]:
            if name in failures:
                continue
            process = subprocess.run(  # noqa: S603 - this script
                [sys.executable, __file__, f"--one={name}", f"--seed={number}",
                 f"--work={work.folder}"],
                capture_output=True, text=True, env={**os.environ, **TERMINAL},
            )  # fmt: skip
            if process.returncode:
                failures[name] = (process.stderr.strip().splitlines() or ["no message"])[-1]
                console.print(f"{name} failed:\n{process.stderr}", style="red", markup=False)
                continue
            # What kdlit says comes before it.
            found = json.loads(process.stdout.splitlines()[-1])
            repetitions.append({"round": number, "name": name, **found})
            console.print(_progress(number, rounds, repetitions[-1]))


def _progress(number: int, rounds: int, found: dict[str, Any]) -> str:
    line = f"round {number + 1}/{rounds}  {found['name']:<20} {found['seconds']:7.2f} s"
    if "peak_mib" in found:
        line += f"  {found['peak_mib']:5.0f} MiB"
    if "accuracy" in found:
        line += f"  {100 * found['accuracy']:.2f} %"
    return line


def _machine(repetitions: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": next((r["threads"] for r in repetitions if "threads" in r), None),
        "system": platform.platform(),
        "versions": {"Python": platform.python_version()}
        | {package: version(package) for package in PACKAGES},
    }


def _cpu() -> str:
    """Return the processor's name, which Python itself does not know on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _write(path: Path, results: dict[str, Any]) -> None:
    from kdlit.files import write_atomically, write_json

    write_json(path.with_suffix(".json"), results)
    text = document(results)
    write_atomically(
        path.with_suffix(".md"), lambda temporary: temporary.write_text(text, encoding="utf-8")
    )
    console.print(f"Written to {path}.json and {path}.md")


if __name__ == "__main__":
    main()
