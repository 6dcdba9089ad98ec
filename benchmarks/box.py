"""The same epoch in torchdistill's training box."""

import time
from typing import Any

import torch
from contenders import ALPHA, BATCH_SIZE, LEARNING_RATE, TEMPERATURE
from loops import PlainCNN, plain_teacher, result, subset
from torch.utils.data import RandomSampler
from torchdistill.core.distillation import DistillationBox
from work import Work

# The forward pass of both networks gets the images alone.
_FORWARD = {"forward_proc": "forward_batch_only"}


def config() -> dict[str, Any]:
    """Return what torchdistill would read from a YAML file."""
    return {
        "num_epochs": 1,
        "train_data_loader": {
            "dataset_id": "train",
            "sampler": {"class_or_func": RandomSampler},
            "kwargs": {"batch_size": BATCH_SIZE, "num_workers": 0},
            # Its wrapper, which adds an empty mapping to each sample, is not needed here: the
            # loader is the one that the article's loop has.
            "requires_supp": False,
        },
        "teacher": {**_FORWARD, "requires_grad": False},
        "student": {**_FORWARD},
        "optimizer": {"key": "Adam", "kwargs": {"lr": LEARNING_RATE}},
        "criterion": {
            "key": "WeightedSumLoss",
            "kwargs": {
                "sub_terms": {
                    "kd": {
                        "criterion": {
                            "key": "KDLoss",
                            "kwargs": {
                                "student_module_path": ".",
                                "student_module_io": "output",
                                "teacher_module_path": ".",
                                "teacher_module_io": "output",
                                "temperature": TEMPERATURE,
                                # Its alpha weighs the cross-entropy, and kdlit's the teacher.
                                "alpha": 1 - ALPHA,
                                "reduction": "batchmean",
                            },
                        },
                        "weight": 1.0,
                    }
                }
            },
        },
    }


def measure(work: Work, seed: int) -> dict[str, Any]:
    """Run the epoch as torchdistill's examples do, without their logging."""
    student = PlainCNN()
    box = DistillationBox(
        plain_teacher(work),
        student,
        {"train": subset(work, seed)},
        config(),
        device=torch.device("cpu"),
        device_ids=None,
        distributed=False,
        lr_factor=1,
    )
    steps = 0
    start = time.perf_counter()
    box.pre_epoch_process(epoch=0)
    for images, labels in box.train_data_loader:
        loss = box.forward_process(images, labels, None)
        box.post_forward_process(loss=loss)
        steps += 1
    box.post_epoch_process()
    return result(time.perf_counter() - start, steps, student, work)
