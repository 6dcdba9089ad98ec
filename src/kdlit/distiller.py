"""What stands between a teacher and a student in training, whoever does the training."""

from collections.abc import Mapping
from contextlib import AbstractContextManager

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from kdlit.batch import Batch, Outputs
from kdlit.errors import ConfigError, TeacherError
from kdlit.mixup import Mix
from kdlit.objectives import DryRun, Objective
from kdlit.objectives.base import acts_after_step, looks_inside
from kdlit.passes import placed, surroundings
from kdlit.schedules import Weight
from kdlit.taps import Taps
from kdlit.tasks import Task
from kdlit.teachers import TeacherSource, as_source

# What is logged beside the terms.
_LOGGED = {"loss", "total", "accuracy", "learning_rate"}


def undisturbed(device: torch.device) -> AbstractContextManager[None]:
    """Return a context whose random numbers a training on that device does not miss."""
    devices = [device] if device.type == "cuda" else []
    forked: AbstractContextManager[None] = torch.random.fork_rng(devices)
    return forked


def check_apart(network: nn.Module, teacher: nn.Module | None) -> None:
    """Raise a `ConfigError` if a teacher has parameters of what is trained: it would freeze it."""
    own = {id(parameter) for parameter in network.parameters()}
    if teacher is not None and any(id(parameter) in own for parameter in teacher.parameters()):
        raise ConfigError(
            "student and teacher share parameters; freezing the teacher would freeze the "
            "student. Give the teacher a copy (copy.deepcopy)"
        )


class Distiller:
    """A teacher and objectives, set up for a student, asked at each step.

    What :class:`kdlit.DistillationModule` and :class:`kdlit.Distillation` have in common. It is no
    module: its owner decides which parts are submodules, and nothing of the teacher is.

    Args:
        teacher: a network, which is frozen in place, a source, or None.
        label: the label strategy; its terms are logged by their own names.
        features: further objectives, each by a name under which its terms are logged.
        student: see :func:`check_apart`; None where it is not yet known.

    Raises:
        ConfigError: if one is no objective, if its name means something else, if two terms have the
            same name, or if the student shares parameters with the teacher.
        TeacherError: if an objective needs a teacher and there is none.

    >>> from kdlit.objectives import Hint, SoftLabels
    >>> Distiller(nn.Linear(4, 3), SoftLabels(), {"hint": Hint()}).names
    ['soft', 'truth', 'hint']
    """

    def __init__(
        self,
        teacher: nn.Module | None,
        label: Objective,
        features: Mapping[str, Objective],
        student: nn.Module | None = None,
    ) -> None:
        for key in features:
            if key in ("", "label") or "." in key or hasattr(nn.ModuleDict(), key):
                raise ConfigError(
                    f"`features`: no objective can be named {key!r}, which means something else or "
                    "has a dot: give it another name"
                )
        self.objectives: dict[str, Objective] = {"label": label, **features}
        for key, objective in self.objectives.items():
            if not isinstance(objective, Objective):
                raise ConfigError(
                    f"`{key}` must be an objective such as SoftLabels(), "
                    f"got {type(objective).__name__}"
                )
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise ConfigError(
                f"two terms would be logged as {twice[0]!r}: give the feature objective another "
                "name"
            )
        taken = sorted(set(self.names) & _LOGGED)
        if taken:
            raise ConfigError(
                f"a term would be logged as {taken[0]!r}, which means something else: give the "
                "feature objective, or the label strategy's term, another name"
            )
        self.uses_teacher = any(o.needs_teacher for o in self.objectives.values())
        if self.uses_teacher and teacher is None:
            needing = next(o for o in self.objectives.values() if o.needs_teacher)
            raise TeacherError(f"{type(needing).__name__} needs a teacher, and `teacher` is None")
        if student is not None:
            check_apart(student, teacher)
        self.teacher = teacher
        self.is_set_up = False
        self._taps: Taps | None = None
        self._seen: tuple[Outputs, Outputs | None, Batch] | None = None
        self._last_step = 0

    @property
    def names(self) -> list[str]:
        """The names of all terms."""
        return [
            self._term_name(key, name)
            for key, objective in self.objectives.items()
            for name in objective.weights
        ]

    def _term_name(self, key: str, name: str) -> str:
        """Return under which name a term is logged."""
        if key == "label":
            return name
        return key if len(self.objectives[key].weights) == 1 else f"{key}_{name}"

    @property
    def task(self) -> Task:
        """What the networks' outputs mean: the label strategy says."""
        return self.objectives["label"].task

    @property
    def teacher(self) -> TeacherSource | None:
        """The teacher, or None; a network that is assigned here is frozen."""
        return self._teacher

    @teacher.setter
    def teacher(self, teacher: nn.Module | None) -> None:
        source = None if teacher is None else as_source(teacher)
        if source is not None and source.normalizes and not self.task.exclusive:
            raise ConfigError(
                f"{type(source).__name__} answers log-probabilities of one class out of C, and the "
                f"task is {self.task!r}: let an ensemble take average='logits', and a cache keep "
                "all outputs (top_k=None)"
            )
        self._teacher = source

    def check_rows(self, mix: Mix | None = None) -> None:
        """Raise a `ConfigError` for what needs samples, where rows are positions within them."""
        if mix is not None and not mix.keeps_target:
            raise ConfigError(f"{mix!r} mixes samples, and `positions` chooses within them")
        for objective in self.objectives.values():
            if objective.needs_index:
                raise ConfigError(
                    f"{type(objective).__name__} remembers samples by their number, and with "
                    "`positions` each position is a row, which has none: leave one of them out"
                )
            if type(objective).deployed is not Objective.deployed:
                raise ConfigError(
                    f"{type(objective).__name__} ships another network than the student, one that "
                    "answers samples, and `positions` wants one that answers each of theirs: leave "
                    "one of them out"
                )

    # Before training -----------------------------------------------------------------------

    @property
    def looks_inside(self) -> bool:
        """Whether an objective needs a dry run."""
        return any(map(looks_inside, self.objectives.values()))

    def begin(self, student: nn.Module) -> None:
        """Let the teacher take note of the student before its training begins."""
        if self.teacher is not None:
            self.teacher.begin(student)

    def set_up(self, student: nn.Module, batch: Batch, device: torch.device) -> nn.Module:
        """Let objectives change the student first, and then make their parts for it.

        Returns:
            The network to train, whose layers are tapped.

        Raises:
            ConfigError: if an objective does not fit, with the layer or the shapes.
        """
        run = self.dry_run(student, batch, device)
        for objective in self.objectives.values():
            if type(objective).deployed is not Objective.deployed:
                student = objective.deployed(run)
                self.untap()
                self.begin(student)
                run = self.dry_run(student, batch, device)
        for objective in self.objectives.values():
            objective.setup(run)
            objective.to(device)
        self.is_set_up = True
        return student

    def dry_run(self, student: nn.Module, batch: Batch, device: torch.device) -> DryRun:
        """Tap the layers, and run a batch through both networks."""
        self._tap(student)
        # The networks may draw random numbers; the training does not notice.
        with undisturbed(device):
            outputs = (self._taps or Taps(student, ())).probe(placed(student, batch))
            answer = self.teacher.probe(placed(self.teacher, batch)) if self.teacher else None
        network = self.teacher.single_network if self.teacher else None
        return DryRun(outputs, answer, student, network)

    def _tap(self, student: nn.Module) -> None:
        """Tap the layers that the objectives ask for, instead of those tapped so far."""
        self.untap()
        asked = self.objectives.values()
        layers = [name for objective in asked for name in objective.student_layers]
        self._taps = Taps(student, layers, "student") if layers else None
        if self.teacher is not None:
            self.teacher.tap([name for objective in asked for name in objective.teacher_layers])

    def untap(self) -> None:
        """Remove the taps, and forget what they gave."""
        if self._taps is not None:
            self._taps.close()
            self._taps = None
        if self.teacher is not None:
            self.teacher.tap([])
        self._seen = None

    def remember(self, module: pl.LightningModule) -> None:
        """Let the teacher see a module's data, when everything is on its device."""
        if self.teacher is None or module.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return  # a batch or two do not pay for a pass over all of the data
        with undisturbed(module.device):
            self.teacher.remember(surroundings(module, train=self.uses_teacher))

    # Which samples are asked about ---------------------------------------------------------

    def turn_to_training(self, epoch: int) -> None:
        """Answer for the training samples, in an epoch."""
        if self.teacher is not None:
            self.teacher.turn_to("train", epoch)

    def turn_to_validation(self, trainer: pl.Trainer) -> None:
        """Answer for the validation set, where there is one alone."""
        fitting = trainer.state.fn == TrainerFn.FITTING
        alone = len(trainer.num_val_batches) == 1
        if self.teacher is not None:
            self.teacher.turn_to("val" if fitting and alone else None)

    def turn_away(self) -> None:
        """Answer for other data."""
        if self.teacher is not None:
            self.teacher.turn_to(None)

    # In training ---------------------------------------------------------------------------

    def run(self, student: nn.Module, batch: Batch) -> Outputs:
        """Return the student's outputs for a batch, with the layers that are tapped."""
        return batch.run(student) if self._taps is None else self._taps.run(batch)

    def overheard(self, output: object, batch: Batch) -> Outputs:
        """Return what the student has just said of a batch, with the layers that are tapped."""
        outputs = Outputs.of(output)
        return batch.rows.of(outputs if self._taps is None else self._taps.collect(outputs))

    def ask(self, batch: Batch, outputs: Outputs) -> Outputs | None:
        """Return the teacher's outputs, once they are known to fit the student's.

        Raises:
            TeacherError: if student and teacher disagree in the number of classes.
        """
        if self.teacher is None:
            return None
        teacher: Outputs = self.teacher(batch)
        ours, theirs = outputs.logits.shape, teacher.logits.shape
        if ours != theirs:
            raise TeacherError(
                f"the student has {ours[1]} classes and the teacher {theirs[1]}: both need the "
                "same ones (of language models, one vocabulary)"
                if ours[1] != theirs[1]
                else f"the student answers {ours[0]} samples and the teacher {theirs[0]} of the "
                "same batch"
            )
        return teacher

    def terms(
        self, outputs: Outputs, teacher: Outputs | None, batch: Batch
    ) -> tuple[dict[str, Tensor], Mapping[str, Weight]]:
        """Return the terms and weights of all objectives."""
        terms: dict[str, Tensor] = {}
        weights: dict[str, Weight] = {}
        for key, objective in self.objectives.items():
            for name, term in objective(outputs, teacher, batch).items():
                terms[self._term_name(key, name)] = term
                weights[self._term_name(key, name)] = objective.weights[name]
        if any(map(acts_after_step, self.objectives.values())):
            self._seen = (outputs, teacher, batch)
        return terms, weights

    def count_from(self, step: int) -> None:
        """Count the optimizer's steps from where a training begins."""
        self._last_step = step

    @torch.no_grad()
    def after_step(self, student: nn.Module, step: int) -> None:
        """Let objectives and the teacher act on what was learned from a batch."""
        if self._seen is not None:
            for objective in filter(acts_after_step, self.objectives.values()):
                objective.after_step(*self._seen)
            self._seen = None
        if self.teacher is not None and step != self._last_step:
            self.teacher.after_step(student)
        self._last_step = step
