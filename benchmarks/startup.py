"""How long a user waits before anything happens."""

import subprocess
import sys
import time
from typing import Any

from work import REPOSITORY

_COMMANDS = {
    "help": (str(REPOSITORY / "scripts" / "train.py"), "--help"),
    "import": ("-c", "import torch, lightning, hydra"),
}


def measure(name: str) -> dict[str, Any]:
    """Start a command in a fresh process and wait for its end."""
    start = time.perf_counter()
    subprocess.run(  # noqa: S603 - the commands above
        [sys.executable, *_COMMANDS[name]],
        check=True,
        cwd=REPOSITORY,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return {"seconds": time.perf_counter() - start}
