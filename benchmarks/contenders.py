"""Who takes part, and with which settings; imports nothing heavy, for the driver stays small."""

from collections.abc import Mapping, Sequence

BATCH_SIZE = 64
LEARNING_RATE = 1e-3
TEMPERATURE = 4.0
ALPHA = 0.9

LOOPS: Mapping[str, str] = {
    "article": "the article's loop made right: images one by one through torchvision's transforms, "
    "DataLoader, live teacher",
    "bare-live": "the same networks and losses on images in memory, live teacher, no framework",
    "bare-student": "the same without a teacher: cross-entropy alone",
    "torchdistill": "the article's data and networks in torchdistill's DistillationBox, live "
    "teacher",
    "bare-step": "kdlit's network, images in memory, fused Adam, cross-entropy alone, no framework",
    "bare-evaluation": "kdlit's network as teacher over the training and validation images, in "
    "batches of 250",
}
"""What is no run of kdlit's: everything but the epoch is left out of their seconds."""

# What kdlit is asked for in every run; the cache, the images and the run's folder come on top.
COMMON: Sequence[str] = (
    "student=article",
    "optimizer=adam_article",
    "scheduler=constant",
    f"data.batch_size={BATCH_SIZE}",
    "trainer=cpu",
    "trainer.max_epochs=1",
)
# One epoch makes a teacher good enough: what is measured is the student's epoch.
TEACHER = ("teacher=article", "teacher.trainer.max_epochs=1")
# At least a hundred times the student's multiply-adds and parameters, and hardly trained, since
# only its cost counts here.
LARGE_TEACHER = (
    "teacher=article",
    "teacher/network=convnet",
    "teacher.network.channels=[80,160,320,640]",
    "teacher.data.train_size=64",
    "teacher.trainer.max_epochs=1",
)
SOFT = ("label=soft", f"label.temperature={TEMPERATURE}", f"label.alpha={ALPHA}")
TRUTH = ("label=truth", "teacher=none")
# Where the teacher's answers come from: files of an earlier run, or the teacher in every step.
OUTPUTS = ("cache=outputs",)
LIVE = ("cache=none",)

SETTINGS: Mapping[str, tuple[str, ...]] = {
    "kdlit": (*SOFT, *TEACHER, *OUTPUTS),
    "kdlit-filling": (*SOFT, *TEACHER, *OUTPUTS),
    "kdlit-live": (*SOFT, *TEACHER, *LIVE),
    "kdlit-one-by-one": (*SOFT, *TEACHER, *OUTPUTS, "data.batches_at_once=1"),
    "kdlit-bf16": (*SOFT, *TEACHER, *OUTPUTS, "trainer.precision=bf16-mixed"),
    "kdlit-truth": TRUTH,
    "kdlit-large-teacher": (*SOFT, *LARGE_TEACHER, *OUTPUTS),
}
"""Runs of kdlit by what they add to `COMMON`: the only place that says what a run is asked for."""

RUNS: Mapping[str, str] = {
    "kdlit": "the full run: progress bar, loggers, validation, checkpoints; teacher outputs from "
    "an earlier run",
    "kdlit-filling": "the same with an empty cache of outputs",
    "kdlit-live": "the same with the teacher in every step",
    "kdlit-one-by-one": "the same, a batch of the loader for each step",
    "kdlit-bf16": "the same in bfloat16 mixed precision",
    "kdlit-truth": "the full run without a teacher: cross-entropy alone",
    "kdlit-large-teacher": "the full run with a far larger teacher, outputs from an earlier run",
}

FILLED = frozenset({"kdlit", "kdlit-one-by-one", "kdlit-bf16", "kdlit-large-teacher"})
"""The runs that find their teacher's outputs: an earlier run that is not timed has written them."""

FILLING = frozenset({"kdlit-filling"})
"""The runs that compute them themselves."""

STARTUPS: Mapping[str, str] = {
    "help": "`python scripts/train.py --help`",
    "import": '`python -c "import torch, lightning, hydra"`',
}
"""What is started in a fresh process and timed from without."""

NAMES: Sequence[str] = (*LOOPS, *RUNS, *STARTUPS)
