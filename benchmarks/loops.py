"""The loops that kdlit is measured against, each as short as it can be written.

They import neither Lightning nor, except for `bare-step` and `bare-evaluation`, kdlit: their peak
memory is their own.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from contenders import ALPHA, BATCH_SIZE, LEARNING_RATE, TEMPERATURE
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from torchvision import transforms
from torchvision.datasets import MNIST
from work import Work

MEAN, STD = 0.1307, 0.3081
Batches = Iterable[tuple[Tensor, Tensor]]


class PlainCNN(nn.Module):
    """The article's network as it is printed: convolution, ReLU, pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 10, kernel_size=5)
        self.conv2 = nn.Conv2d(10, 20, kernel_size=5)
        self.fc1 = nn.Linear(320, 50)
        self.fc2 = nn.Linear(50, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = x.view(-1, 320)
        x = F.relu(self.fc1(x))
        x = self.fc2(x)
        return x  # noqa: RET504 - as it is printed


# Data --------------------------------------------------------------------------------------


def subset(work: Work, seed: int) -> Subset[tuple[Tensor, int]]:
    """Return the training images as the article reads them: each is transformed when asked for."""
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((MEAN,), (STD,))])
    chosen = torch.load(work.images(seed), weights_only=True)
    return Subset(MNIST(work.mnist, train=True, transform=transform), chosen.tolist())


def in_memory(work: Work, positions: Path) -> tuple[Tensor, Tensor]:
    """Return the images at the positions in a file, normalised, and their labels."""
    data = MNIST(work.mnist, train=True)
    chosen = torch.load(positions, weights_only=True)
    return normalize(data.data[chosen]), data.targets[chosen]


def normalize(images: Tensor) -> Tensor:
    """Map bytes to float32 of zero mean and unit variance."""
    return images.unsqueeze(1).float().div_(255).sub_(MEAN).div_(STD)


def shuffled(images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of an epoch."""
    for chosen in torch.split(torch.randperm(len(labels)), BATCH_SIZE):
        yield images[chosen], labels[chosen]


# Training ----------------------------------------------------------------------------------


def plain_teacher(work: Work) -> PlainCNN:
    """Return the trained teacher, in evaluation mode."""
    teacher = PlainCNN()
    teacher.load_state_dict(torch.load(work.plain_teacher, weights_only=True))
    return teacher.eval()


def soft_loss(logits: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """Return alpha T² KL + (1 - alpha) CE."""
    distance = F.kl_div(
        F.log_softmax(logits / TEMPERATURE, dim=1),
        F.log_softmax(teacher / TEMPERATURE, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return ALPHA * TEMPERATURE**2 * distance + (1 - ALPHA) * F.cross_entropy(logits, labels)


def train(
    student: nn.Module,
    teacher: nn.Module | None,
    batches: Batches,
    optimizer: torch.optim.Optimizer,
) -> tuple[float, int]:
    """Train for an epoch and return its seconds and steps."""
    steps = 0
    student.train()
    start = time.perf_counter()
    for images, labels in batches:
        logits = student(images)
        if teacher is None:
            loss = F.cross_entropy(logits, labels)
        else:
            with torch.no_grad():
                answer = teacher(images)
            loss = soft_loss(logits, answer, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
    return time.perf_counter() - start, steps


def result(seconds: float, steps: int, student: nn.Module, work: Work) -> dict[str, Any]:
    """Return what a repetition says, with the student's accuracy on the test set."""
    test = MNIST(work.mnist, train=False)
    student.eval()
    with torch.inference_mode():
        parts = [
            student(normalize(images)).argmax(dim=1) for images in torch.split(test.data, 1000)
        ]
    accuracy = (torch.cat(parts) == test.targets).float().mean().item()
    return {
        "seconds": seconds,
        "training_seconds": seconds,
        "steps": steps,
        "accuracy": accuracy,
    }


# Contenders --------------------------------------------------------------------------------


def article(work: Work, seed: int) -> dict[str, Any]:
    """The article's loop made right."""
    loader = DataLoader(subset(work, seed), batch_size=BATCH_SIZE, shuffle=True, num_workers=0)
    teacher, student = plain_teacher(work), PlainCNN()
    optimizer = torch.optim.Adam(student.parameters(), lr=LEARNING_RATE)
    return result(*train(student, teacher, loader, optimizer), student, work)


def bare_live(work: Work, seed: int) -> dict[str, Any]:
    """The same work on images in memory."""
    images, labels = in_memory(work, work.images(seed))
    teacher, student = plain_teacher(work), PlainCNN()
    optimizer = torch.optim.Adam(student.parameters(), lr=LEARNING_RATE)
    spent = train(student, teacher, shuffled(images, labels), optimizer)
    return result(*spent, student, work)


def bare_student(work: Work, seed: int) -> dict[str, Any]:
    """The student alone."""
    images, labels = in_memory(work, work.images(seed))
    student = PlainCNN()
    optimizer = torch.optim.Adam(student.parameters(), lr=LEARNING_RATE)
    return result(*train(student, None, shuffled(images, labels), optimizer), student, work)


def bare_step(work: Work, seed: int) -> dict[str, Any]:
    """What a step of kdlit's costs without kdlit and Lightning around it."""
    from kdlit.models import ArticleCNN

    images, labels = in_memory(work, work.images(seed))
    student = ArticleCNN()
    optimizer = torch.optim.Adam(student.parameters(), lr=LEARNING_RATE, fused=True)
    return result(*train(student, None, shuffled(images, labels), optimizer), student, work)


def bare_evaluation(work: Work, seed: int) -> dict[str, Any]:
    """One pass of the teacher over the images whose outputs kdlit keeps."""
    from kdlit import load_weights
    from kdlit.models import ArticleCNN

    images = torch.cat([in_memory(work, p)[0] for p in (work.images(seed), work.validation)])
    teacher = ArticleCNN()
    load_weights(teacher, work.teacher)
    teacher.eval()
    outputs = torch.empty(len(images), 10)
    start = time.perf_counter()
    with torch.inference_mode():
        for batch, place in zip(images.split(250), outputs.split(250), strict=True):
            place.copy_(teacher(batch))
    return {"seconds": time.perf_counter() - start}


MEASURES: dict[str, Callable[[Work, int], dict[str, Any]]] = {
    "article": article,
    "bare-live": bare_live,
    "bare-student": bare_student,
    "bare-step": bare_step,
    "bare-evaluation": bare_evaluation,
}
