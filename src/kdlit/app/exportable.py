"""What of a finished run is exported, and what its model card tells."""

from collections.abc import Iterable
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from kdlit.app.build import build, build_all, plain, real_data
from kdlit.app.finished import FinishedRun
from kdlit.app.metadata import student_metadata
from kdlit.app.summary import in_words
from kdlit.batch import Batch
from kdlit.errors import ConfigError
from kdlit.export.formats import Student

_IMAGES_AS_THEY_ARE = ("NoAugmentation", "NoMix")


def student_of(
    run: FinishedRun, pixels: torch.dtype | None, samples: int, calibration_samples: int
) -> tuple[Student, Tensor]:
    """Return what is exported, and the classes of its test images.

    Args:
        run: as it was finished.
        pixels: the type of the pixels that files take which prepare them; None: no file does.
        samples: test images, at most.
        calibration_samples: training images, at most.

    Raises:
        ConfigError: if the data do not say what is needed.
    """
    objectives = [build(run.config, "label"), *build_all(run.config, "feature").values()]
    metadata = student_metadata(run.config, run.summary, run.data, objectives)
    if pixels is not None and metadata["input"] is None:
        raise ConfigError(
            f"preprocessing: {type(run.data).__name__} does not say how it prepares pixels "
            "(sample_shape, mean, std, pixel_scale): leave it out"
        )
    loader = run.data.test_dataloader()
    # With data.test_on_train there is a second loader, of training images.
    loader = loader[0] if isinstance(loader, (list, tuple)) else loader
    images, raw, target = _images(run.data, loader, samples)

    def calibration() -> Tensor:
        found = _images(run.data, run.data.train_dataloader(), calibration_samples)
        return found[0] if pixels is None else found[1].to(pixels)

    student = Student(
        network=run.student,
        metadata=metadata,
        images=images,
        pixels=None if pixels is None else raw.to(pixels),
        calibration=calibration,
    )
    return student, target


def _images(data: Any, loader: Iterable[Any], count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return some images as networks take them and as they came, and their classes."""
    prepared, raw = [], []
    missing = count
    for given in loader:
        batch = Batch.of(data.on_after_batch_transfer(data.on_before_batch_transfer(given, 0), 0))
        if not isinstance(batch.inputs, Tensor) or batch.target is None:
            raise ConfigError("export takes data of one tensor of images and their classes")
        prepared.append(Batch(batch.inputs[:missing], batch.target[:missing]))
        raw.append(Batch.of(given).inputs[:missing])
        missing -= len(batch.target)
        if missing <= 0:
            break
    if not raw:
        raise ConfigError("there are no images to compare the files on")
    return (
        torch.cat([batch.inputs for batch in prepared]),
        torch.cat(raw),
        torch.cat([batch.target for batch in prepared if batch.target is not None]),
    )


def dataset_of(run: FinishedRun) -> str:
    """Return what the data are called."""
    return _name(real_data(run.config)).removesuffix("DataModule")


def _name(node: DictConfig) -> str:
    return str(node._target_).rsplit(".", 1)[-1]


def facts_of(run: FinishedRun) -> dict[str, str]:
    """Return what the model card tells of the training."""
    config, summary = run.config, run.summary
    student, teacher, selected = summary["student"], summary["teacher"], summary["selected"]

    def told(node: DictConfig) -> str:
        settings = ", ".join(in_words(plain(node)))
        return _name(node) + (f" ({settings})" if settings else "")

    def network(described: dict[str, Any]) -> str:
        samples = described.get("training_samples")
        return f"{described['type']}, {described['parameters']:,} parameters" + (
            f", trained on {samples:,} images" if samples else ""
        )

    facts = {"student": network(student)}
    if teacher is not None:
        facts["teacher"] = network(teacher)
    if config.data.get("classes") is not None:
        facts["classes trained on"] = ", ".join(map(str, config.data.classes))
    if config.data.get("label_noise"):
        facts["wrong training labels"] = f"{100 * config.data.label_noise:g} %"
    shown = [told(node) for node in (config.data.get("augment"), config.get("mix"))
             if node is not None and _name(node) not in _IMAGES_AS_THEY_ARE]  # fmt: skip
    if shown:
        facts["images"] = ", ".join(shown)
    facts["label strategy"] = told(config.label)
    if config.get("feature"):
        facts["feature objectives"] = ", ".join(told(node) for node in config.feature.values())
    facts["optimizer"] = f"{told(config.optimizer)}, {told(config.scheduler)}"
    size = config.data.get("batch_size")
    facts["training"] = (
        f"{summary['epochs']} epochs, {summary['steps']:,} steps"
        + (f" of {size} images" if size else "")
        + f", seed {summary['seed']}"
    )
    if selected.get("score") is not None:
        facts["selected by"] = f"{selected['monitor']}, {selected['score']:.4f}"
    return facts
