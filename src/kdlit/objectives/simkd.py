"""SimKD: the teacher's own classifier, behind the student's features."""

import copy
from collections import OrderedDict

from torch import Tensor, nn

from kdlit import checks
from kdlit.batch import Batch, Outputs
from kdlit.errors import ConfigError, TeacherError
from kdlit.functional import hint_loss
from kdlit.objectives.base import DryRun
from kdlit.objectives.layers import LayerObjective, resized
from kdlit.schedules import Weight
from kdlit.taps import PENULTIMATE, Taps, last_linear, unwrapped

# Layers that work alike in training and evaluation mode.
_SAME_IN_BOTH_MODES = (nn.Linear, nn.Sequential, nn.Flatten, nn.AdaptiveAvgPool2d, nn.ReLU)


class SimKD(LayerObjective):
    r"""The student learns the teacher's last features alone, and uses the teacher's classifier.

    .. math:: \mathcal{L} = w \cdot \frac{1}{N D} \sum_n \lVert P(s_n) - t_n \rVert_2^2

    What follows `student_layer` is taken out of the student, in place, and a
    :class:`ReusedClassifier` put there: a projector P, which is trained, and a frozen copy of what
    follows `teacher_layer` in the teacher. That is the network that is trained, evaluated and
    shipped. The layers before keep their names; the input of the reused classifier is the
    student's new `penultimate`.

    The paper has no other loss: use it with :class:`kdlit.objectives.NoLabels`. With another label
    strategy the gradient of the logits reaches the student through the frozen classifier.

    A network can be cut at `penultimate`, whatever it is made of, and an `nn.Sequential` after any
    of its own layers, such as that whose maps are then pooled or flattened, where the paper cuts.

    To load an exported student, build both networks anew (the weights do not matter) and do the
    same to them:

    >>> import torch
    >>> from kdlit.models import ArticleCNN, ConvNet
    >>> objective = SimKD(student_layer="block2", teacher_layer="block2")
    >>> student = objective.rebuild(ArticleCNN(), ConvNet(), torch.zeros(1, 1, 28, 28))
    >>> list(student.state_dict())[-1], sum(p.numel() for p in student.parameters())
    ('classifier.head.classifier.bias', 40522)

    and then `load_weights(student, "student.safetensors")`.

    Args:
        student_layer: a layer's name, or `penultimate`.
        teacher_layer: likewise, of the teacher. Both give vectors, or both maps.
        factor: r >= 1, by which the projector is narrower inside than the teacher's layer; see
            :class:`Bottleneck`. Default 2, as in the paper.
        weight: w. Default 1, as in the authors' published commands, where it stands alone.

    Raises:
        ConfigError: before training, if a network cannot be cut there or its layers do not match.
        TeacherError: before training, if there is no single network that teaches.

    Source: Chen et al., "Knowledge Distillation with the Reused Teacher Classifier", 2022,
    section 3 (arXiv:2203.14001).
    """

    term = "simkd"

    def __init__(
        self,
        student_layer: str = PENULTIMATE,
        teacher_layer: str = PENULTIMATE,
        factor: int = 2,
        weight: Weight = 1.0,
    ) -> None:
        super().__init__(student_layer, teacher_layer, weight)
        self.cut = student_layer
        self.factor = checks.integer("factor", factor)

    def deployed(self, run: DryRun) -> nn.Module:
        """Return the student with the teacher's classifier."""
        if run.teacher_network is None:
            raise TeacherError(
                "SimKD reuses the classifier of its teacher, which must be one network: not "
                "several, and not their stored answers"
            )
        source = run.student.features[self.cut]
        target = run.teacher.features[self.teacher_layers[0]] if run.teacher else source
        projector = Bottleneck(source, target, self.factor)
        reused = ReusedClassifier(projector, head_of(run.teacher_network, self.teacher_layers[0]))
        name = replace_head(run.student_network, self.cut, reused.to(source.device, source.dtype))
        # From now on the student's projected features are read.
        self.student_layers = (f"{name}.projector",)
        return run.student_network

    def rebuild(self, student: nn.Module, teacher: nn.Module, inputs: Tensor) -> nn.Module:
        """Give a student the teacher's classifier, in place, without training it.

        Args:
            student: of the kind that was trained; any weights.
            teacher: of the kind that taught; any weights.
            inputs: one batch of inputs, for the shapes.

        Returns:
            The student, for :func:`kdlit.weights.load_weights` to load an exported file into.
        """
        outputs = []
        for network, layer in ((student, self.cut), (teacher, self.teacher_layers[0])):
            taps = Taps(network, [layer], type(network).__name__)
            outputs.append(taps.probe(Batch(inputs)))
            taps.close()
        return self.deployed(DryRun(outputs[0], outputs[1], student, teacher))

    def forward(self, student: Outputs, teacher: Outputs | None, batch: Batch) -> dict[str, Tensor]:
        """Return the one term."""
        return {self.term: hint_loss(*self.pair(student, teacher))}


class ReusedClassifier(nn.Module):
    """A trained projector, and the frozen layers of a teacher that classify what it gives.

    Args:
        projector: maps the student's features to the teacher's.
        head: the teacher's layers; frozen in place, and never in training mode.

    Shape:
        the projector's input, and the head's output: logits (N, C).

    >>> import torch
    >>> head = nn.Sequential(nn.Dropout(), nn.Linear(8, 3))
    >>> reused = ReusedClassifier(nn.Linear(4, 8), head).train()
    >>> reused(torch.zeros(2, 4)).shape, reused.head[0].training
    (torch.Size([2, 3]), False)
    >>> [name for name, p in reused.named_parameters() if p.requires_grad]
    ['projector.weight', 'projector.bias']
    """

    def __init__(self, projector: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.projector = projector
        self.head = head.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "ReusedClassifier":
        """Put the projector into a mode; the head works as in evaluation."""
        super().train(mode)
        for module in self.head.modules():
            # Lightning warns of every module that is in evaluation mode: no more than need be.
            module.training = mode and isinstance(module, _SAME_IN_BOTH_MODES)
        return self

    def forward(self, features: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.head(self.projector(features))
        return logits


class Bottleneck(nn.Sequential):
    """Maps features (N, D) or maps (N, D, H, W) of one shape to another, narrower inside.

    Of maps, which are first averaged or interpolated to the wanted size: a 1x1, a 3x3 and a 1x1
    convolution, with batch norm and ReLU between them, with E/r channels inside where E are
    wanted. Of vectors: two linear maps with ReLU between them, E/r wide.

    The paper's projector ends in batch norm and ReLU too. Here its last layer is plain, for
    teachers whose features may be negative. The paper has only maps.

    Args:
        source: an example of what comes in, for its shape.
        target: an example of what is wanted.
        factor: r >= 1.

    >>> import torch
    >>> Bottleneck(torch.zeros(1, 8, 4, 4), torch.zeros(1, 16, 3, 3))(torch.zeros(5, 8, 4, 4)).shape
    torch.Size([5, 16, 3, 3])
    """

    def __init__(self, source: Tensor, target: Tensor, factor: int = 2) -> None:
        if source.ndim != target.ndim or source.ndim not in (2, 4):
            raise ConfigError(
                "SimKD's layers must both give vectors (N, D) or maps (N, D, H, W), got "
                f"{tuple(source.shape)} for the student and {tuple(target.shape)} for the teacher"
            )
        given, wanted = source.shape[1], target.shape[1]
        inside = max(wanted // factor, 1)
        if source.ndim == 2:
            super().__init__(nn.Linear(given, inside), nn.ReLU(), nn.Linear(inside, wanted))
            return
        super().__init__(
            Resize((target.shape[2], target.shape[3])),
            nn.Conv2d(given, inside, kernel_size=1, bias=False),
            nn.BatchNorm2d(inside),
            nn.ReLU(),
            nn.Conv2d(inside, inside, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(inside),
            nn.ReLU(),
            nn.Conv2d(inside, wanted, kernel_size=1),
        )


class Resize(nn.Module):
    """Averages maps to a smaller size, or interpolates them to a larger one."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps of the size."""
        return resized(maps, self.size)


def head_of(network: nn.Module, layer: str) -> nn.Module:
    """Return a copy of what follows a layer, or of the last linear layer for `penultimate`.

    Raises:
        ConfigError: if the network cannot be cut there.
    """
    kept: nn.Module = (
        _last_linear(network)[1]
        if layer == PENULTIMATE
        else nn.Sequential(OrderedDict(_after(network, layer)))
    )
    head = copy.deepcopy(kept)
    # Who watches the teacher's layers (taps do) does not watch the copy.
    for module in head.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    return head


def replace_head(network: nn.Module, layer: str, head: nn.Module) -> str:
    """Put `head` in the place of what follows a layer, and return its name in the network."""
    network = unwrapped(network)
    if layer == PENULTIMATE:
        name = _last_linear(network)[0]
        network.set_submodule(name, head)
        return name
    followers = _after(network, layer)
    for name in followers:
        delattr(network, name)
    name = list(followers)[-1]
    network.add_module(name, head)
    return name


def _last_linear(network: nn.Module) -> tuple[str, nn.Linear]:
    found = last_linear(network)
    if found is None or not found[0]:
        raise ConfigError(f"{type(network).__name__} has no nn.Linear inside it to be replaced")
    return found


def _after(network: nn.Module, layer: str) -> dict[str, nn.Module]:
    """Return the layers of an `nn.Sequential` that follow one of them, by name."""
    network = unwrapped(network)
    layers = dict(network.named_children())
    names = list(layers)
    if not isinstance(network, nn.Sequential) or layer not in names[:-1]:
        raise ConfigError(
            f"SimKD cannot cut {type(network).__name__} after {layer!r}: only an nn.Sequential can "
            f"be cut after one of its own layers, and not after the last; `{PENULTIMATE}` is where "
            "any network can be cut"
        )
    return {name: layers[name] for name in names[names.index(layer) + 1 :]}
