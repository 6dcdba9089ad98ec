"""The bias of classes that a finished run's transfer set has left out, or was made of."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from kdlit.app.build import build
from kdlit.app.finished import FinishedRun
from kdlit.batch import Batch
from kdlit.evaluation.answers import ask, batches_of_test
from kdlit.evaluation.class_bias import bias_for_share, bias_of_fewest_errors, errors_with_bias


def measure(run: Path, classes: Sequence[int]) -> dict[str, Any]:
    """Return the test errors of a run's student with several biases on some classes.

    Args:
        run: the run's directory.
        classes: which get the bias.

    Returns:
        By the way in which the bias was chosen, what
        :func:`kdlit.evaluation.class_bias.errors_with_bias` gives: `none`; `shares`, with which the
        student decides for the classes as often among the validation images, of all classes and
        without their labels, as they are among the labels of the training images; `test`, with
        which there are the fewest test errors.
    """
    finished = FinishedRun.read(run)
    config = finished.config.copy()
    config.data.update(classes=None, train_size=None)
    data = build(config, "data")
    data.prepare_data()
    data.setup()
    device = torch.device("cpu")
    asked = {"student": lambda batch: batch.run(finished.student)}
    on_test, target = ask(asked, batches_of_test(data, device))
    images = [Batch.of(data.prepare(batch, None)) for batch in data.val_dataloader()]
    unlabelled, _ = ask(asked, images)
    labels = data.train_data.labels
    share = float(torch.isin(labels, torch.tensor(list(classes))).double().mean())
    biases = {
        "none": 0.0,
        "shares": bias_for_share(unlabelled["student"], classes, share),
        "test": bias_of_fewest_errors(on_test["student"], classes, target),
    }
    return {
        name: errors_with_bias(on_test["student"], classes, target, bias)
        for name, bias in biases.items()
    }
