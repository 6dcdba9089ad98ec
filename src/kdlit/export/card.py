"""`README.md` beside exported files: a model card with code that loads each of them."""

import json
from collections.abc import Mapping, Sequence

from kdlit.errors import ConfigError
from kdlit.export.files import ExportedFile
from kdlit.export.graph import INPUT, OUTPUT
from kdlit.loading import Preprocessing, StudentCard, network_of

_METRICS: Mapping[str, tuple[str, float, str]] = {
    "accuracy": ("accuracy", 100.0, "{:.2f} %"),
    "ece": ("expected calibration error", 100.0, "{:.2f} %"),
    "nll": ("negative log-likelihood, nats", 1.0, "{:.4f}"),
    "agreement": ("agreement with the teacher", 100.0, "{:.2f} %"),
    "kl_from_teacher": ("KL divergence from the teacher, nats", 1.0, "{:.4f}"),
}


def model_card(
    name: str,
    dataset: str,
    facts: Mapping[str, str],
    card: StudentCard,
    files: Sequence[ExportedFile],
) -> str:
    """Return a model card in Markdown, with front matter as the Hugging Face Hub reads it.

    Args:
        name: of the student's class.
        dataset: on which it was trained and tested.
        facts: what to tell of the training, a line each.
        card: what the student's file says.
        files: what was exported.
    """
    teacher = card.teacher
    title = f"{name} distilled from {teacher['type']}" if teacher else name
    classes = ", ".join(card.classes)
    parts = [
        _front_matter(title, dataset, card, files),
        f"# {title}",
        f"A network that says which of {len(card.classes) or 'several'} classes an image of "
        f"{dataset} belongs to. It was trained with kdlit {card.versions.get('kdlit', '')}"
        + (", by knowledge distillation." if teacher else "."),
        "\n".join(["| | |", "|---|---|", *(f"| {key} | {told} |" for key, told in facts.items())]),
        *([f"Classes, in order of the logits: {classes}."] if classes else []),
        "## On the test set",
        _metrics(card),
        "## Files",
        _table(files),
        _compared(files),
        *(part for file in files for part in _how_to_load(file, card)),
    ]
    return "\n\n".join(parts) + "\n"


def _front_matter(
    title: str, dataset: str, card: StudentCard, files: Sequence[ExportedFile]
) -> str:
    # JSON is YAML, too.
    text = json.dumps
    runtimes = [tag for tag, known in (("pytorch", {"safetensors", "program"}),
                                       ("onnx", {"onnx", "int8"}))
                if known & {file.format for file in files}]  # fmt: skip
    lines = [
        "---",
        "library_name: kdlit",
        "pipeline_tag: image-classification",
        f"tags: {text(['knowledge-distillation', 'image-classification', *runtimes])}",
        "metrics: [accuracy]",
        "model-index:",
        f"  - name: {text(title)}",
        "    results:",
        "      - task: {type: image-classification}",
        f"        dataset: {text({'name': dataset, 'type': dataset.lower(), 'split': 'test'})}",
        f"        metrics: {text([{'type': 'accuracy', 'value': card.test.get('accuracy')}])}",
        "---",
    ]
    return "\n".join(lines)


def _metrics(card: StudentCard) -> str:
    columns = [card.test, *([card.teacher["test"]] if card.teacher else [])]
    lines = [
        f"| | student |{' teacher |' if card.teacher else ''}",
        "|---|" + "---|" * len(columns),
    ]
    for key, (title, scale, form) in _METRICS.items():
        if key in card.test:
            cells = [form.format(scale * c[key]) if key in c else "" for c in columns]
            lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _table(files: Sequence[ExportedFile]) -> str:
    lines = [
        "| file | bytes | takes | largest difference | equal decisions | accuracy |",
        "|---|---|---|---|---|---|",
    ]
    for file in files:
        lines.append(
            f"| `{file.file}` | {file.bytes:,} | {_takes(file)} | {file.largest_difference:.2g} | "
            f"{100 * file.equal_decisions:.2f} % | {100 * file.accuracy:.2f} % |"
        )
    return "\n".join(lines)


def _takes(file: ExportedFile) -> str:
    return "prepared images" if file.takes == "prepared" else f"pixels, {file.takes}"


def _compared(files: Sequence[ExportedFile]) -> str:
    samples = sorted({file.samples for file in files})
    count = " or ".join(f"{number:,}" for number in samples)
    return (
        f"Each file was read again and compared with the student on {count} test images, in "
        "batches of 1, 7, 64 and more: the largest absolute difference of a logit, the share of "
        "equal decisions, and the file's accuracy. Batches may have any size."
    )


def _how_to_load(file: ExportedFile, card: StudentCard) -> list[str]:
    """Return a heading, perhaps a text, and a block of code."""
    heading = f"### {file.file}"
    if file.format == "safetensors":
        try:
            network_of(card)
        except ConfigError as error:
            return [heading, f"The weights alone, which cannot be loaded without more: {error}."]
    lines = _CODE[file.format].format(file=file.file, prepare=_prepare(file, card.input))
    return [heading, f"```python\n{lines}\n```"]


_ONNX = f"""\
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession("{{file}}")
{{prepare}}
(logits,) = session.run(["{OUTPUT}"], {{{{"{INPUT}": images}}}})"""

_CODE = {
    "safetensors": """\
import kdlit

student = kdlit.load_student("{file}")
{prepare}
logits = student(images)""",
    "program": """\
import torch

# It can run code from a file: load none that you do not trust.
student = torch.export.load("{file}").module()
{prepare}
logits = student(images)""",
    "onnx": _ONNX,
    "int8": _ONNX,
}

# What pixels are, how they are cast, and how a constant for each channel is written.
_TORCH = ("a tensor", "pixels.to(torch.{})", "torch.tensor({})")
_NUMPY = ("an array", "pixels.astype(np.{})", "np.float32({})")


def _prepare(file: ExportedFile, preprocessing: Preprocessing | None) -> str:
    """Return the line of code that makes of pixels what a file takes."""
    if preprocessing is None:
        return "images = ...  # as in training, float32"
    kind, cast, constant = _NUMPY if file.format in ("onnx", "int8") else _TORCH
    if file.takes != "prepared":
        made = cast.format(file.takes)
    elif file.format == "safetensors":
        made = f'kdlit.read_card("{file.file}").input(pixels)'
    else:
        offset, divisor = (
            f"{float(part):.7g}" if part.ndim == 0 else constant.format(part.tolist())
            for part in preprocessing.constants()
        )
        made = f"({cast.format('float32')} - {offset}) / {divisor}"
    shape = ", ".join(map(str, preprocessing.shape))
    return f"images = {made}  # pixels: {kind} (N, {shape}), 0 to {preprocessing.scale:g}"
