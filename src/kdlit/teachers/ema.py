"""The student's own average as its teacher."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from kdlit import checks
from kdlit.batch import Batch, Outputs
from kdlit.errors import TeacherError
from kdlit.functional.precision import float32_at_least
from kdlit.taps import unwrapped
from kdlit.teachers.frozen import FrozenTeacher, TeacherSource

_STEPS = "steps"
_AVERAGE = "average."


class EMATeacher(TeacherSource):
    r"""An exponential moving average of the student's weights: the mean teacher.

    .. math:: \theta'_k = a_k \, \theta'_{k-1} + (1 - a_k) \, \theta_k, \quad
        a_k = \min\Bigl(a, 1 - \frac{1}{k + 1}\Bigr)

    after the optimizer's k-th step. As in the authors' code the average is the plain mean of all
    weights so far until the exponential one is better founded, so that the student's initial
    weights are soon forgotten. Floating-point buffers, such as the statistics of batch norm, are
    averaged like the weights; others, such as its counter, are copied. The average is kept in
    float32 also where the networks run in half precision, whose digits end before a step of
    1 - a would be seen.

    It begins anew at the student's weights with every `fit` that does not go on from a checkpoint;
    one that does restores the average to the bit. In several processes all hold the same average:
    they have the same weights after a step, and take the buffers of the first process, as torch's
    DDP does for the student.

    Here the teacher runs in evaluation mode and sees the same view of a batch as the student. In
    the paper it has dropout and another augmentation, the consistency loss is the mean squared
    difference of probabilities with a weight that is ramped up, and a is 0.99 in that phase; here
    the loss is any objective's.

    Args:
        decay: a in [0, 1). Default 0.999, as in the paper after the ramp-up phase; it averages
            over some 1/(1 - a) steps, so a shorter training wants a smaller one.

    Raises:
        ConfigError: if `decay` is not in [0, 1).
        TeacherError: if it is asked before a training has begun.

    Source: Tarvainen, Valpola, "Mean teachers are better role models: Weight-averaged consistency
    targets improve semi-supervised deep learning results", 2017, section 2 (arXiv:1703.01780).

    >>> student = nn.Linear(1, 1, bias=False)
    >>> _ = nn.init.constant_(student.weight, 8.0)
    >>> teacher = EMATeacher(decay=0.9)
    >>> teacher.begin(student)
    >>> _ = nn.init.zeros_(student.weight)
    >>> teacher.after_step(student)
    >>> teacher.single_network.weight.item()
    4.0
    """

    changes = True

    def __init__(self, decay: float = 0.999) -> None:
        super().__init__()
        self.decay = checks.fraction("decay", decay, below_one=True)
        self.teacher: FrozenTeacher | None = None
        self._steps = 0
        # In a dictionary, where torch does not look for tensors: it must not become half precise.
        self._average: dict[str, Tensor] = {}
        self.eval()

    @property
    def single_network(self) -> nn.Module | None:
        """The network with the averaged weights, once a training has begun."""
        return None if self.teacher is None else self.teacher.network

    def _begun(self) -> FrozenTeacher:
        if self.teacher is None:
            raise TeacherError(
                "EMATeacher averages a student in training, and no training has begun"
            )
        return self.teacher

    # As a teacher --------------------------------------------------------------------------

    def forward(self, batch: Batch) -> Outputs:
        """Run the network with the averaged weights."""
        outputs: Outputs = self._begun()(batch)
        return outputs

    def tap(self, layers: Sequence[str]) -> None:
        """Give these layers' outputs as `features` from now on; none removes all taps."""
        if self.teacher is not None or layers:
            self._begun().tap(layers)

    def probe(self, batch: Batch) -> Outputs:
        """Answer one batch, and find which layers' outputs must be copied."""
        return self._begun().probe(batch)

    # As an average -------------------------------------------------------------------------

    @torch.no_grad()
    def begin(self, student: nn.Module) -> None:
        """Begin the average at the student's weights."""
        student = unwrapped(student)
        self.teacher = FrozenTeacher(copy.deepcopy(student))
        self._steps = 0
        self._average = {
            name: _kept(tensor).clone() for name, tensor in student.state_dict().items()
        }

    @torch.no_grad()
    def after_step(self, student: nn.Module) -> None:
        """Take the student's new weights into the average."""
        network, student = self._begun().network, unwrapped(student)
        state = student.state_dict()
        _share_buffers(student)
        self._steps += 1
        decay = min(self.decay, 1 - 1 / (self._steps + 1))
        means, news = [], []
        for name, tensor in state.items():
            new = _kept(tensor)
            # The module may have been moved to another device or type since it began.
            mean = self._average[name] = self._average[name].to(new)
            if new.is_floating_point():
                means.append(mean)
                news.append(new)
            else:
                mean.copy_(new)
        if means:
            update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
            update(means, news, self._steps)
        network.load_state_dict(self._average)

    def state_to_keep(self) -> Mapping[str, Tensor] | None:
        """Return the average and how many steps it has seen."""
        average = {_AVERAGE + name: tensor.clone() for name, tensor in self._average.items()}
        return {_STEPS: torch.tensor(self._steps), **average}

    @torch.no_grad()
    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on with a kept average."""
        network = self._begun().network
        average = {
            name.removeprefix(_AVERAGE): _kept(tensor).clone()
            for name, tensor in state.items()
            if name.startswith(_AVERAGE)
        }
        try:
            network.load_state_dict(average)
        except RuntimeError as error:
            raise TeacherError(
                f"the checkpoint's average is of another student: {error}"
            ) from error
        self._average, self._steps = average, int(state[_STEPS])

    def extra_repr(self) -> str:
        """Show the decay."""
        return f"decay={self.decay:g}"


def _kept(tensor: Tensor) -> Tensor:
    return float32_at_least(tensor) if tensor.is_floating_point() else tensor


def _share_buffers(student: nn.Module) -> None:
    """Give all processes the first one's buffers, which each has updated from its own batch."""
    if distributed.is_available() and distributed.is_initialized():
        for buffer in student.buffers():
            distributed.broadcast(buffer, src=0)
