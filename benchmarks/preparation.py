"""What is done once, before anything is timed; started by `epoch.py` in a process of its own.

MNIST is extracted for torchvision, the teachers are trained, the positions of the training images
are written down for the loops, and the runs that find their teacher's outputs have an earlier run.
"""

import argparse
import gzip
import logging
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import startup
import torch
from contenders import FILLED, LARGE_TEACHER, STARTUPS, TEACHER
from loops import PlainCNN, in_memory
from rich.console import Console
from runs import composed, empty_cache, run_once
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.datasets import MNIST
from work import REPOSITORY, Work

from kdlit.app.build import build
from kdlit.data import MNISTDataModule
from kdlit.files import write_atomically, write_json
from kdlit.models import ArticleCNN
from kdlit.weights import save_weights

# The same layers by kdlit's names and by the article's.
_LAYERS = {"block1.0": "conv1", "block2.0": "conv2", "hidden.0": "fc1", "classifier": "fc2"}


def main() -> None:
    """Prepare what the contenders on the command line need."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--images", type=int)
    parser.add_argument("--seeds", type=int, required=True, help="how many, beginning with 0")
    asked = parser.parse_args()
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    prepare(Work(asked.work), asked.names, asked.images, asked.seeds)


def prepare(work: Work, names: Sequence[str], images: int | None, seeds: int) -> None:
    """Prepare what these contenders need.

    Args:
        work: where it goes.
        names: of the contenders.
        images: training images; None is all of them.
        seeds: how many seeds will be measured, beginning with 0.

    Raises:
        RuntimeError: if the teacher is not the same function in both ways to write it.
    """
    console = Console(stderr=True)
    console.print("preparing: MNIST, teacher")
    work.folder.mkdir(parents=True, exist_ok=True)
    _extract(work)
    for seed in range(seeds):
        data = MNISTDataModule(REPOSITORY / "data", train_size=images, seed=seed)
        data.setup()
        _save(data.train_data.index.clone(), work.images(seed))
        _save(data.val_data.index.clone(), work.validation)  # the same for every seed
    teacher = _trained(work, TEACHER)
    save_weights(work.teacher, teacher)
    _save(_renamed(teacher, in_memory(work, work.validation)[0]), work.plain_teacher)
    told = {"images": images, "student": _size(ArticleCNN()), "teacher": _size(teacher)}
    if "kdlit-large-teacher" in names:
        console.print("preparing: large teacher")
        told["large_teacher"] = _size(_trained(work, LARGE_TEACHER))
    write_json(work.prepared, told)
    for name in sorted(FILLED & set(names)):
        # All seeds train on the same images, unless some are chosen by seed.
        for seed in range(seeds if images is not None else 1):
            console.print(f"preparing: the outputs that {name} finds, seed {seed}")
            empty_cache(name, work, seed, images)
            run_once(name, work, seed, images)
    for name in STARTUPS.keys() & set(names):
        console.print(f"preparing: {name}, once, for bytecode and files in memory")
        startup.measure(name)


def _extract(work: Work) -> None:
    """Extract the repository's archives, which torchvision does not read as they are."""
    for archive, _ in MNIST.resources:
        target = (work.mnist / "MNIST" / "raw" / archive).with_suffix("")
        if not target.exists():
            with gzip.open(REPOSITORY / "data" / "MNIST" / "raw" / archive) as opened:
                write_atomically(target, partial(_write_bytes, opened.read()))


def _write_bytes(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def _trained(work: Work, overrides: tuple[str, ...]) -> nn.Module:
    """Return kdlit's cached teacher, trained now if there is none."""
    with tempfile.TemporaryDirectory() as folder:
        config = composed(overrides, Path(folder), work.teachers, None)
        option = build(config, "teacher")
        option.check(config)
        network: nn.Module = option.prepare(config).network.eval()
    return network


def _renamed(teacher: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Return the teacher's weights by the article's names, tried out on some images."""
    state = {}
    for name, value in teacher.state_dict().items():
        layer, _, parameter = name.rpartition(".")
        state[f"{_LAYERS[layer]}.{parameter}"] = value.contiguous()
    plain = PlainCNN()
    plain.load_state_dict(state)
    with torch.inference_mode():
        if not torch.allclose(plain.eval()(images), teacher(images), atol=1e-4):
            raise RuntimeError("kdlit's network and the article's as printed answer differently")
    return state


def _save(value: object, path: Path) -> None:
    write_atomically(path, lambda temporary: torch.save(value, temporary))


def _size(network: nn.Module) -> dict[str, int]:
    """Return a network's parameters, and its multiply-adds for one image."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network.eval()(torch.zeros(1, 1, 28, 28))
    return {
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "multiply_adds": counter.get_total_flops() // 2,
    }


if __name__ == "__main__":
    main()
