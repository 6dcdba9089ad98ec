"""What networks say of a whole set of samples, and the samples that they are shown."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from kdlit.batch import Batch, Outputs
from kdlit.data import InMemoryDataset
from kdlit.data.corruptions import Corruption
from kdlit.errors import ConfigError, NonFiniteError

Asked = Callable[[Batch], Outputs]
"""A teacher source, or `lambda batch: batch.run(network)`."""


@torch.no_grad()
def ask(asked: Mapping[str, Asked], batches: Iterable[Batch]) -> tuple[dict[str, Tensor], Tensor]:
    """Return everybody's logits for all samples, and the ground truth.

    Args:
        asked: who answers, by name.
        batches: the samples, on the device of those who answer.

    Returns:
        Logits (N, C) by name, in float32 on the CPU, and targets (N,).

    Raises:
        ConfigError: if there is no sample, or one without ground truth.
        NonFiniteError: if an answer is not finite.

    >>> batches = [Batch(torch.zeros(2, 3), torch.tensor([0, 1])) for _ in range(2)]
    >>> logits, target = ask({"student": lambda batch: Outputs(batch.inputs)}, batches)
    >>> logits["student"].shape, target.tolist()
    (torch.Size([4, 3]), [0, 1, 0, 1])
    """
    answers: dict[str, list[Tensor]] = {name: [] for name in asked}
    targets = []
    for batch in batches:
        if batch.target is None:
            raise ConfigError("evaluation needs ground truth, but the batch has no target")
        targets.append(batch.target.cpu())
        for name, answer in asked.items():
            logits = answer(batch).logits.float().cpu()
            if not logits.isfinite().all():
                raise NonFiniteError(
                    f"the {name}'s logits are not finite: its training went wrong, and nothing "
                    "can be said of it"
                )
            answers[name].append(logits)
    if not targets:
        raise ConfigError("there are no samples to evaluate on")
    return {name: torch.cat(parts) for name, parts in answers.items()}, torch.cat(targets)


def batches_of_test(data: Any, device: torch.device) -> Iterator[Batch]:
    """Yield a datamodule's test set, the first where there are several, on a device."""
    loaders = data.test_dataloader()
    for batch in loaders[0] if isinstance(loaders, (list, tuple)) else loaders:
        before = data.on_before_batch_transfer(batch, 0)
        there = data.transfer_batch_to_device(before, device, 0)
        yield Batch.of(data.on_after_batch_transfer(there, 0))


def why_not_corruptible(data: Any) -> str | None:
    """Return why a datamodule's test images cannot be corrupted, or None if they can."""
    if isinstance(getattr(data, "test_data", None), InMemoryDataset) and hasattr(data, "normalize"):
        return None
    return (
        f"{type(data).__name__} gives no pixels: it has no `test_data` in memory and no "
        "`normalize`, as kdlit's datamodules have"
    )


def corrupted_batches(
    data: Any, corruption: Corruption, seed: int, device: torch.device
) -> Iterator[Batch]:
    """Yield the test set with every image corrupted, on a device.

    The images are made on the CPU, so that they are the same for every device.
    """
    size = len(data.test_data)
    for start in range(0, size, data.eval_batch_size):
        positions = range(start, min(start + data.eval_batch_size, size))
        images, labels, index = data.test_data.__getitems__(positions)
        corrupted = data.normalize(corruption(images.cpu(), index.cpu(), seed))
        yield Batch(corrupted.to(device), labels.to(device))


def first_samples(batch: Batch, count: int) -> Any:
    """Return the inputs of `count` samples of a batch, begun anew where it is shorter.

    >>> first_samples(Batch(torch.tensor([[1.0], [2.0]]), torch.zeros(2)), 3).flatten().tolist()
    [1.0, 2.0, 1.0]
    """

    def taken(values: Any) -> Any:
        return values[torch.arange(count, device=values.device) % len(values)]

    if isinstance(batch.inputs, Mapping):
        return {
            name: taken(values) if isinstance(values, Tensor) else values
            for name, values in batch.inputs.items()
        }
    return taken(batch.inputs)
