"""The run: everything is made and checked, then trained, tested once, and written down."""

import logging
import signal
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig, OmegaConf

from kdlit.app.build import (
    build,
    build_all,
    check_network,
    check_objectives,
    check_optimizer,
    step_size_of,
)
from kdlit.app.directory import writing_run
from kdlit.app.metadata import student_metadata
from kdlit.app.outputs import describe, source_of, why_not_kept
from kdlit.app.processes import check_processes
from kdlit.app.resume import CONFIG_FILE, checkpoint_to_resume
from kdlit.app.summary import (
    describe_machine,
    describe_network,
    print_table,
    split_metrics,
    training_samples,
)
from kdlit.app.teachers import PreparedTeacher, TeacherOption
from kdlit.checkpoints import AtomicCheckpointIO, check_checksums
from kdlit.checks import did_you_mean, integer
from kdlit.distillation import DistillationModule
from kdlit.errors import ConfigError, KdlitError, TeacherError
from kdlit.files import write_atomically, write_json
from kdlit.mixup import Mix
from kdlit.objectives import Objective
from kdlit.weights import load_weights, save_weights

log = logging.getLogger("kdlit")

_TASKS = ("distil", "teacher")
_COMPILE = ("default", "reduce-overhead", "max-autotune")


def run(
    config: DictConfig, callbacks: Sequence[pl.Callback] = (), *, show: bool = True
) -> dict[str, Any]:
    """Do what a composed configuration says, and return the summary.

    Args:
        config: the configuration.
        callbacks: of the student's trainer, beside those of the configuration.
        show: whether to tell at the end what came of it.

    Raises:
        KdlitError: for whatever can be known to be wrong, before anything is trained.
    """
    _quiet()
    if config.task not in _TASKS:
        raise ConfigError(f"task={config.task}: {did_you_mean(str(config.task), _TASKS)}")
    integer("seed", config.seed, least=0)
    OmegaConf.resolve(config)
    _check_trainer(config.trainer, config.optimizer)
    return _teach(config) if config.task == "teacher" else _distil(config, callbacks, show)


def _check_trainer(trainer: DictConfig, optimizer: DictConfig) -> None:
    """Check what Lightning would accept and trip over later."""
    clip, fused = trainer.gradient_clip_val, optimizer.get("fused")
    if str(trainer.precision) in ("16", "16-mixed") and clip and fused:
        raise ConfigError(
            f"trainer.gradient_clip_val={clip} with trainer.precision={trainer.precision}: "
            "gradients of a fused optimizer are unscaled too late to be clipped; add "
            "optimizer.fused=false"
        )
    integer("trainer.log_every_n_steps", trainer.log_every_n_steps)
    every = integer("trainer.check_val_every_n_epoch", trainer.check_val_every_n_epoch)
    if trainer.max_epochs is not None and integer("trainer.max_epochs", trainer.max_epochs) % every:
        raise ConfigError(
            f"trainer.check_val_every_n_epoch={every} leaves the last epochs of trainer.max_epochs="
            f"{trainer.max_epochs} without validation and checkpoint: choose a divisor"
        )


def _teach(config: DictConfig) -> dict[str, Any]:
    """Train a teacher, whether or not one of its recipe is cached."""
    run_dir = Path(config.run_dir)
    if config.ckpt_path is not None:
        raise ConfigError(
            f"task=teacher goes on with nothing: leave out ckpt_path={config.ckpt_path}"
        )
    option = _teacher_option(config)
    if not option.trains:
        raise ConfigError(
            "task=teacher trains a teacher: choose teacher=auto, article, large, assistant or "
            "born_again"
        )
    option.check(config)
    _save_config(config)
    teacher = option.prepare(config, anew=True)
    summary = {
        "task": "teacher",
        "config": OmegaConf.to_container(config, resolve=True),
        "teacher": _describe_teacher(teacher),
        "selected": {"score": teacher.card["metrics"]["val/accuracy"]},
        **describe_machine(torch.device(teacher.card["device"])),
    }
    write_json(run_dir / "summary.json", summary)
    metrics = teacher.card["metrics"]
    log.info(
        "Teacher: %.2f %% on validation, %.2f %% on test, %.0f s; kept in %s",
        100 * metrics["val/accuracy"], 100 * metrics["test/accuracy"],
        teacher.card["seconds"], teacher.weights,
    )  # fmt: skip
    return summary


def _distil(config: DictConfig, callbacks: Sequence[pl.Callback], show: bool) -> dict[str, Any]:
    clock = _Clock()
    run_dir = Path(config.run_dir)
    # Everything is made, and fails if it must, before a teacher is trained.
    with clock("setup"):
        resume_from = checkpoint_to_resume(config)
        pl.seed_everything(config.seed, workers=True, verbose=False)
        student = build(config, "student")
        data = build(config, "data")
        label, features = build(config, "label"), build_all(config, "feature")
        mix = build(config, "mix")
        _check_compile(config.compile, features)
        optimizer, scheduler = build(config, "optimizer"), build(config, "scheduler")
        check_optimizer(optimizer, scheduler, "")
        check_network(student, data, "student")
        trainer = _trainer(config, callbacks)
        if _needs_each_batch(trainer, scheduler) and hasattr(data, "batches_at_once"):
            data.batches_at_once = 1
        option = _teacher_option(config)
        for objective in (label, *features.values()):
            _check_objective(objective, option, mix)
            if objective.needs_index and hasattr(data, "index"):
                data.index = True
        data.prepare_data()
        data.setup("fit")
        cache = build(config, "cache")
        why_not = why_not_kept(option, cache, data, mix, [label, *features.values()])
        if why_not is None and hasattr(data, "index"):
            data.index = True
        if hasattr(data, "learn_from"):  # which then fails if this teacher cannot teach it
            data.learn_from(option.blank() if option.gives_layers else None)
        option.check(config)
        check_objectives(student, option.blank(), label, features, data)
        _save_config(config)
    with clock("teacher"):
        teacher = option.prepare(config)
        if teacher.network is not None:
            log.info("Teacher: %s (%s)", type(teacher.network).__name__, teacher.source)
    # A teacher was seeded in between, or not: the run goes on with its own seed in either case.
    pl.seed_everything(config.seed, workers=True, verbose=False)
    if hasattr(data, "learn_from"):
        data.learn_from(teacher.network)
    source = None if teacher.network is None else source_of(teacher.network, cache, why_not)
    module = DistillationModule(
        student,
        source,
        label,
        optimizer,
        scheduler,
        features,
        mix,
        step_size=step_size_of(data),
    )
    if config.compile is not None:
        module.student.compile(mode=config.compile)
    with clock("fit"), writing_run(run_dir):
        if resume_from is not None:
            log.info("Going on from %s", resume_from)
        _fit(trainer, module, data, resume_from)
    shown = {
        "training_samples": training_samples(trainer),
        # Of objectives: trained with the student, and not shipped with it.
        "extra_parameters": _trained(module) - _trained(module.student),
    }
    _forget_what_was_saved_for_slurm(trainer)
    with clock("test"), writing_run(run_dir):
        best = _best_checkpoint(trainer)
        if best is not None:
            check_checksums(best)
            load_weights(module.student, best)
        # On all ranks: the test set is shared among them.
        trainer.test(module, data, verbose=False)
    if not trainer.is_global_zero:
        return {"selected": _selection(trainer)}
    summary = {
        "task": "distil",
        "config": OmegaConf.to_container(config, resolve=True),
        "seed": config.seed,
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "selected": {"checkpoint": best.name if best else None, **_selection(trainer)},
        **_results(trainer, module, teacher, shown),
        "outputs": describe(source, why_not),
        "seconds": clock.seconds,
        **describe_machine(trainer.strategy.root_device),
    }
    metadata = student_metadata(
        config, summary, getattr(data, "real", data), [label, *features.values()]
    )
    save_weights(run_dir / "student.safetensors", module.student, metadata)
    write_json(run_dir / "summary.json", summary)
    if show:
        print_table(summary)
        log.info("Written to %s/: student.safetensors, summary.json, ...", run_dir)
    return summary


def _fit(trainer: pl.Trainer, module: DistillationModule, data: Any, resume: Path | None) -> None:
    """Train; an interruption is told from a termination, also where it has waited for a step."""
    try:
        trainer.fit(module, data, ckpt_path=resume, weights_only=True)
    except SIGTERMException:
        if any(getattr(found, "received", None) == signal.SIGINT for found in trainer.callbacks):  # type: ignore[attr-defined]
            raise KeyboardInterrupt from None
        raise


def _check_compile(mode: object, features: dict[str, Objective]) -> None:
    """Check how the student is to be compiled, before it takes its time."""
    if mode is None:
        return
    if mode not in _COMPILE:
        raise ConfigError(f"compile={mode}: {did_you_mean(str(mode), _COMPILE)}")
    if features:
        raise ConfigError(
            f"compile={mode} with feature={','.join(features)}: what layers say is not seen from "
            "outside a compiled student; leave one of the two out"
        )


def _check_objective(objective: Objective, option: TeacherOption, mix: Mix) -> None:
    """Check that an objective will find what it reads."""
    name = type(objective).__name__
    if objective.needs_teacher and not option.gives_network:
        raise TeacherError(f"{name} needs a teacher: choose teacher=auto, or label=truth")
    if objective.teacher_layers and not option.gives_layers:
        raise TeacherError(
            f"{name} reads the teacher's layers {', '.join(objective.teacher_layers)}, and this "
            "teacher gives logits alone: choose teacher=auto"
        )
    if not mix.keeps_target and {"truth", "smooth"} & objective.weights.keys():
        raise ConfigError(
            f"{name} reads the ground truth, which mixed images do not have: choose mix=none, "
            "or label=matching, or label=soft label.alpha=1"
        )


@rank_zero_only
def _save_config(config: DictConfig) -> None:
    """Write the composed configuration: a run that has it has passed all checks."""
    text = OmegaConf.to_yaml(config, resolve=True)
    write_atomically(
        Path(config.run_dir, CONFIG_FILE), lambda path: path.write_text(text, encoding="utf-8")
    )


def _teacher_option(config: DictConfig) -> TeacherOption:
    option = build(config, "teacher")
    if not isinstance(option, TeacherOption):
        raise ConfigError(
            f"teacher: {config.teacher._target_} is no option of the teacher group: choose "
            "teacher=auto, article, assistant, born_again, checkpoint, ema, ensemble, large or "
            "none"
        )
    return option


def _trainer(config: DictConfig, further: Sequence[pl.Callback]) -> pl.Trainer:
    """Make the trainer with the loggers and callbacks of their groups, and further callbacks."""
    loggers = list(build_all(config, "logger").values())
    callbacks = [*build_all(config, "callbacks").values(), *further]
    try:
        trainer: pl.Trainer = build(config, "trainer")(callbacks=callbacks, logger=loggers)
    except KdlitError:
        raise
    except Exception as error:  # Lightning has many types for bad arguments
        raise ConfigError(f"trainer: {error}") from error
    check_processes(trainer)
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:  # none was asked for
        trainer.strategy.checkpoint_io = AtomicCheckpointIO()
    return trainer


def _needs_each_batch(trainer: pl.Trainer, scheduler: Any) -> bool:
    """Return whether Lightning is asked for something that it counts or does by batches."""
    return bool(
        trainer.gradient_clip_val
        or trainer.accumulate_grad_batches != 1
        or trainer.limit_train_batches != 1.0
        or trainer.val_check_interval != 1.0
        or any(
            getattr(callback, "_every_n_train_steps", 0)
            or getattr(callback, "_train_time_interval", None)
            for callback in trainer.checkpoint_callbacks
        )
        or getattr(scheduler, "func", None) is torch.optim.lr_scheduler.ReduceLROnPlateau
    )


def _trained(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def _forget_what_was_saved_for_slurm(trainer: pl.Trainer) -> None:
    """Remove what a requeued job went on from: Lightning would test it, not the best weights."""
    if trainer.is_global_zero:
        for left in Path(trainer.default_root_dir).glob("hpc_ckpt_*.ckpt"):
            left.unlink()
    trainer.strategy.barrier()


def _best_checkpoint(trainer: pl.Trainer) -> Path | None:
    path = getattr(trainer.checkpoint_callback, "best_model_path", "")
    return Path(path) if path else None


def _selection(trainer: pl.Trainer) -> dict[str, Any]:
    callback = trainer.checkpoint_callback
    score = getattr(callback, "best_model_score", None)
    return {
        "monitor": getattr(callback, "monitor", None),
        "score": None if score is None else float(score),
    }


def _results(
    trainer: pl.Trainer,
    module: DistillationModule,
    teacher: PreparedTeacher,
    shown: dict[str, Any],
) -> dict[str, Any]:
    found = {name: float(value) for name, value in trainer.callback_metrics.items()}
    test, train = split_metrics(found), split_metrics(found, "test_1")
    ours = {**(describe_network(module.student) or {}), **shown}
    results = {"student": ours, "teacher": _describe_teacher(teacher)}
    bins = {"student": "test/", "teacher": "test/teacher_"}
    for who, described in results.items():
        if described is not None:
            described["test"] = test[who]
            described["reliability"] = module.reliability.get(bins[who], [])
            if train[who]:
                described["train"] = train[who]
    return results


def _describe_teacher(teacher: PreparedTeacher) -> dict[str, Any] | None:
    described = describe_network(teacher.network)
    if described is None:
        return None
    samples = teacher.card.get("training_samples")
    return {
        **described,
        "training_samples": samples,
        "source": teacher.source,
        "card": teacher.card,
    }


class _Clock:
    """Wall time by phase, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[phase] = round(time.perf_counter() - start, 2)


def _quiet() -> None:
    """Keep Lightning's notices and advice that does not apply off the terminal."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        # The data are in memory: more workers would only be slower.
        r".*does not have many workers.*",
        # The run directory is the user's choice, and a resumed run finds its own files there.
        r".*Checkpoint directory .* exists and is not empty.*",
        # A small data set may have fewer batches than log_every_n_steps.
        r".*The number of training batches \(\d+\) is smaller than the logging interval.*",
        # A teacher's layers that are reused in a student (SimKD) stay in evaluation mode.
        r".*module\(s\) in eval mode at the start of training.*",
        r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",
    ):
        warnings.filterwarnings("ignore", message=message)
