"""Runs our commands one after the other, and breaks something at a chosen moment of each.

    unshare -rm python saboteur.py PLAN FOUND

PLAN is a JSON file: `folder`, at which a small file system in memory is mounted, and `scenes`. A
scene calls commands in this process, `[name, *arguments]` each, first those of `before`; in the
first of `commands`, when a path
that matches `at` is opened for the `nth` time, the `fault` happens:

- `full`: the file system is filled to the last byte;
- `read-only`: from then on nothing in the folder can be opened for writing;
- `gone`: the folder named by `what` is removed with all that is in it;
- `killed`: SIGKILL; the only one that ends this process, and needs no mounted folder.

What came of each command is written to FOUND: exit status, what it said on stderr, whether the
fault happened, and the checksums of all files in the folder. The damage is repaired in between.
"""

import ctypes
import hashlib
import importlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
from pathlib import Path

MS_RDONLY, MS_REMOUNT, MS_BIND, MNT_DETACH = 1, 32, 4096, 2


def _call(name: str, *arguments) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments):
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


def mount(source: str, target: Path, kind: str | None, flags: int, options: str | None) -> None:
    _call("mount", *(word and str(word).encode() for word in (source, target, kind)), flags,
          options and options.encode())  # fmt: skip


class Saboteur:
    """Waits for a file to be opened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scene: dict = {}
        self.waits = self.happened = False
        self.count = 0
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple) -> None:
        if not (self.waits and event == "open" and isinstance(arguments[0], (str, bytes))):
            return
        if not re.search(self.scene["at"], os.fsdecode(arguments[0])):
            return
        self.count += 1
        if self.count == self.scene.get("nth", 1):
            self.waits, self.happened = False, True
            getattr(self, self.scene["fault"].replace("-", "_"))()

    def begin(self, scene: dict) -> None:
        self.scene, self.waits, self.happened, self.count = scene, "fault" in scene, False, 0

    def repair(self) -> None:
        self.waits = False
        if self.scene.get("fault") == "read-only" and self.happened:
            _call("umount2", str(self.folder).encode(), MNT_DETACH)
        (self.folder / "filler").unlink(missing_ok=True)

    def full(self) -> None:
        with (self.folder / "filler").open("wb", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                try:
                    while file.write(bytes(size)) == size:
                        pass
                except OSError:
                    pass

    def read_only(self) -> None:
        # Over itself: what is open already can be written on, as on a disk that is remounted.
        mount(str(self.folder), self.folder, None, MS_BIND, None)
        mount(str(self.folder), self.folder, None, MS_REMOUNT | MS_BIND | MS_RDONLY, None)

    def gone(self) -> None:
        shutil.rmtree(self.scene["what"])

    def killed(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def command(name: str, *arguments: str) -> tuple[int, str]:
    """Call one of our commands; return its exit status and what it said on stderr."""
    from hydra.core.global_hydra import GlobalHydra

    GlobalHydra.instance().clear()
    sys.argv = [f"kdlit-{name}", *arguments]
    code = 0
    with tempfile.TemporaryFile(dir="/dev/shm") as said:
        sys.stderr.flush()
        before = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            importlib.import_module(f"kdlit.app.{name}").main()
        except SystemExit as stopped:
            code = stopped.code or 0
        finally:
            sys.stderr.flush()
            os.dup2(before, 2)
            os.close(before)
        said.seek(0)
        return code, said.read().decode()


def files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "filler"
    }


def result(folder: Path) -> dict | None:
    """Return what makes two runs the same: weights, metrics, and the rows that were logged."""
    from kdlit.files import state_fingerprint
    from kdlit.weights import read_state

    if not (folder / "summary.json").is_file():
        return None
    summary = json.loads((folder / "summary.json").read_text())
    weights = state_fingerprint(read_state(folder / "student.safetensors"))
    rows = (folder / "metrics.csv").read_text() if (folder / "metrics.csv").is_file() else ""
    return {
        "weights": weights,
        "student": summary["student"],
        "epochs": summary["epochs"],
        "steps": summary["steps"],
        "teacher": summary["teacher"]["test"],
        "rows": rows,
    }


def main() -> None:
    plan_file, out = map(Path, sys.argv[1:])  # before they are a command's
    plan = json.loads(plan_file.read_text())
    folder = Path(plan["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    if plan.get("size"):
        mount("tmpfs", folder, "tmpfs", 0, f"size={plan['size']}")
    saboteur = Saboteur(folder)
    found = {}
    for scene in plan["scenes"]:
        for words in scene.get("before", ()):
            saboteur.begin({})
            command(*words)
        told = [{"files": files(folder)}]
        for number, words in enumerate(scene["commands"]):
            saboteur.begin(scene if number == 0 else {})
            code, error = command(*words)
            happened = saboteur.happened
            saboteur.waits = False
            told.append(
                {"code": code, "error": error, "happened": happened, "files": files(folder)}
            )
            if number == 0:
                saboteur.scene = scene
                saboteur.repair()
        told[-1]["result"] = result(folder / scene["name"])
        found[scene["name"]] = told
    out.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
