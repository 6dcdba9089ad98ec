"""The module that distils a teacher into a student."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from kdlit.batch import Batch, Outputs
from kdlit.classifier import ClassifierModule, OptimizerFactory, SchedulerFactory
from kdlit.errors import ConfigError, TeacherError
from kdlit.mixup import Mix
from kdlit.objectives import DryRun, Objective, SoftLabels
from kdlit.objectives.base import acts_after_step, looks_inside, shard_parts
from kdlit.passes import first_batch, in_the_type_of, surroundings
from kdlit.schedules import Weight
from kdlit.taps import Taps
from kdlit.teachers import TeacherSource, as_source

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh


class DistillationModule(ClassifierModule):
    r"""A frozen teacher, a trainable student, a label strategy and other objectives between them.

    .. math:: \mathcal{L} = \sum_i w_i \, \mathcal{L}_i(\text{student}, \text{teacher}, y)

    with the weights and terms of the label strategy and of every feature objective. Both networks
    see the same batch: the same augmentation, the same mixing.

    Objectives that look into the networks name the layers they need. Before training one batch is
    run through both networks, in evaluation mode, and each objective makes its projectors from the
    shapes; that batch comes from the datamodule or loader that is trained on.

    The teacher is in evaluation mode for ever and gets no gradients; a network that is given as
    teacher never changes (:class:`kdlit.teachers.EMATeacher`, which follows the student, is the one
    source that does, and keeps its average in the checkpoint). It is not a submodule: it is
    absent from `parameters()`, `state_dict()`, checkpoints, hyperparameters and the optimizer,
    and yet follows the module to other devices and types. A checkpoint therefore loads without it:
    `DistillationModule.load_from_checkpoint(path, student=network, label=TruthLabels())`.

    Batches may be `(x, y)`, `(x, y, index)` or mappings; see :class:`kdlit.batch.Batch`. Beside
    the values of :class:`kdlit.classifier.ClassifierModule`, validation and test log `agreement`
    and `kl_from_teacher`, and the test the teacher's own values as `test/teacher_accuracy` etc.

    Args:
        student: the network to train; maps a batch's inputs to logits (N, C).
        teacher: a trained network, frozen in place, or a
            :class:`kdlit.teachers.TeacherSource`; None where the label strategy needs none.
        label: what the student is asked to imitate; default :class:`kdlit.SoftLabels`.
        optimizer: see :class:`kdlit.classifier.ClassifierModule`.
        scheduler: likewise.
        features: further objectives, each by a name under which its terms are logged.
        mix: what to do to a training batch before both networks see it, such as
            :class:`kdlit.mixup.Mixup`; None leaves it as it is.
        step_size: samples per step, where the loader's batches have more; see
            :class:`kdlit.classifier.ClassifierModule`.
        parallelize: a function of the student and a device mesh that shards the student in place,
            with torch's `fully_shard` or `parallelize_module`, for a student that does not fit
            on one device. It goes with Lightning's `ModelParallelStrategy`, whose mesh has the
            dimensions `data_parallel` and `tensor_parallel`, and is called after the dry run and
            before the optimizer is made. What the objectives train is sharded likewise.

    Raises:
        ConfigError: if student and teacher share parameters, if `label` or one of `features` is no
            objective, if two terms have the same name, or if there are none.
        TeacherError: if an objective needs a teacher and there is none; at the first batch,
            if student and teacher disagree in the number of classes.

    >>> module = DistillationModule(student=nn.Linear(4, 3), teacher=nn.Linear(4, 3))
    >>> module.label
    SoftLabels(soft=0.9, truth=0.1, temperature=4)
    >>> sorted(module.state_dict())
    ['student.bias', 'student.weight']
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module | None = None,
        label: Objective | None = None,
        optimizer: OptimizerFactory | None = None,
        scheduler: SchedulerFactory | None = None,
        features: Mapping[str, Objective] | None = None,
        mix: Mix | None = None,
        step_size: int | None = None,
        parallelize: "Callable[[nn.Module, DeviceMesh], object] | None" = None,
    ) -> None:
        super().__init__(optimizer, scheduler, step_size)
        self.mix = mix
        self._parallelize = parallelize
        self._is_parallel = False
        self.student = student
        self.label = SoftLabels() if label is None else label
        for key, objective in {"label": self.label, **(features or {})}.items():
            if not isinstance(objective, Objective):
                raise ConfigError(
                    f"`{key}` must be an objective such as SoftLabels(), "
                    f"got {type(objective).__name__}"
                )
        self.features = nn.ModuleDict(dict(features or {}))
        names = [
            self._term_name(key, name)
            for key, objective in self.objectives.items()
            for name in objective.weights
        ]
        if not names:
            raise ConfigError(
                f"{type(self.label).__name__} has no loss, and there is no feature objective: "
                "nothing would be learned"
            )
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(
                f"two terms would be logged as {twice[0]!r}: give the feature objective another "
                "name"
            )
        # In a tuple, where torch does not look for submodules.
        self._teacher: tuple[TeacherSource, ...] = ()
        setattr(self, "teacher", teacher)  # noqa: B010
        self.uses_teacher = any(o.needs_teacher for o in self.objectives.values())
        if self.uses_teacher and teacher is None:
            needing = next(o for o in self.objectives.values() if o.needs_teacher)
            raise TeacherError(f"{type(needing).__name__} needs a teacher, and `teacher` is None")
        self._taps: Taps | None = None
        self._is_set_up = False
        self._seen: tuple[Outputs, Outputs | None, Batch] | None = None
        self._last_step = 0

    @property
    def objectives(self) -> dict[str, Objective]:
        """The label strategy and the feature objectives, by name."""
        named: dict[str, Any] = {"label": self.label, **dict(self.features.items())}
        return named

    @property
    def teacher(self) -> TeacherSource | None:
        """The teacher, or None; a network that is assigned here is frozen."""
        return self._teacher[0] if self._teacher else None

    def __setattr__(self, name: str, value: Any) -> None:
        """Keep a teacher that is assigned out of the submodules, where torch would put it."""
        if name != "teacher":
            super().__setattr__(name, value)
            return
        own = {id(parameter) for parameter in self.student.parameters()}
        if value is not None and any(id(parameter) in own for parameter in value.parameters()):
            raise ConfigError(
                "student and teacher share parameters; freezing the teacher would freeze the "
                "student. Give the teacher a copy (copy.deepcopy)"
            )
        self._teacher = () if value is None else (as_source(value),)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "DistillationModule":
        """Move the teacher along: torch calls this for `.to()`, `.cuda()`, `.half()` and so on."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for teacher in self._teacher:
            teacher._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    @property
    def trained(self) -> nn.Module:
        """The student."""
        return self.student

    # Before training -----------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Tap the layers that objectives ask for, and let the objectives make their parts."""
        if self.teacher is not None:
            self.teacher.turn_to(None)
        if stage != "fit":
            return
        if self.teacher is not None:
            self.teacher.begin(self.student)
        if any(map(looks_inside, self.objectives.values())):
            batch = self._example()
            run = self._dry_run(batch)
            if not self._is_set_up:
                self._set_up_objectives(run, batch)
        self._is_set_up = True

    def configure_model(self) -> None:
        """Shard the student, the objectives' parts and a teacher that says how, once.

        Raises:
            ConfigError: if the strategy and `parallelize` do not go together, or if the teacher
                follows the student's weights.
        """
        if self._trainer is None:
            return  # Lightning calls this also where it loads a checkpoint
        sharding = isinstance(self.trainer.strategy, ModelParallelStrategy)
        if sharding != (self._parallelize is not None):
            raise ConfigError(
                "ModelParallelStrategy shards what it is told to: give `parallelize` a function of "
                "the student and the device mesh that calls torch's fully_shard"
                if sharding
                else "`parallelize` needs a device mesh: give the Trainer the strategy "
                "ModelParallelStrategy(data_parallel_size=..., tensor_parallel_size=1), got "
                f"{type(self.trainer.strategy).__name__}"
            )
        if self._parallelize is None or self._is_parallel:
            return
        if self.teacher is not None and self.teacher.changes:
            raise ConfigError(
                f"{type(self.teacher).__name__} averages whole weights, and `parallelize` leaves "
                "each process a part: give a frozen teacher"
            )
        self._is_parallel = True
        mesh = self.device_mesh
        assert mesh is not None  # noqa: S101 - the strategy has made it
        self._parallelize(self.student, mesh)
        for objective in self.objectives.values():
            shard_parts(objective, mesh["data_parallel"])
        if self.teacher is not None:
            self.teacher.spread(mesh)

    def rehearse(self, batch: Batch) -> None:
        """Set the objectives up for a batch as :meth:`setup` does, to see that they fit.

        The module is used up by it: an objective may have changed the student. Rehearse a copy.

        Raises:
            ConfigError: if they do not, with the layer or the shapes.
        """
        if self.teacher is not None:
            self.teacher.begin(self.student)
        self._set_up_objectives(self._dry_run(batch), batch)
        self._untap()

    def _set_up_objectives(self, run: DryRun, batch: Batch) -> None:
        """Let objectives change the student first, and then make their parts for it."""
        for objective in self.objectives.values():
            if type(objective).deployed is not Objective.deployed:
                self.student = objective.deployed(run)
                self._untap()
                if self.teacher is not None:
                    self.teacher.begin(self.student)
                run = self._dry_run(batch)
        for objective in self.objectives.values():
            objective.setup(run)
        self.label.to(self.device)
        self.features.to(self.device)

    def _dry_run(self, batch: Batch) -> DryRun:
        """Tap the layers, and run a batch through both networks."""
        self._tap()
        # The networks may draw random numbers; the training does not notice.
        with self._undisturbed():
            outputs = (self._taps or Taps(self.student, ())).probe(batch)
            answer = self.teacher.probe(batch) if self.teacher else None
        network = self.teacher.single_network if self.teacher else None
        return DryRun(outputs, answer, self.student, network)

    def _tap(self) -> None:
        """Tap the layers that the objectives ask for, instead of those tapped so far."""
        self._untap()
        asked = self.objectives.values()
        layers = [name for objective in asked for name in objective.student_layers]
        self._taps = Taps(self.student, layers, "student") if layers else None
        if self.teacher is not None:
            self.teacher.tap([name for objective in asked for name in objective.teacher_layers])

    def _untap(self) -> None:
        if self._taps is not None:
            self._taps.close()
            self._taps = None
        if self.teacher is not None:
            self.teacher.tap([])

    def _example(self) -> Batch:
        """Return the batch of the first step that training would see, on the module's device."""
        with self._undisturbed():
            batch = first_batch(self)
        if self.step_size is not None:
            batch = batch.split(self.step_size)[0]
        return in_the_type_of(self.student, batch)

    def _undisturbed(self) -> AbstractContextManager[None]:
        """Return a context whose random numbers the training does not miss."""
        devices = [self.device] if self.device.type == "cuda" else []
        forked: AbstractContextManager[None] = torch.random.fork_rng(devices)
        return forked

    def on_fit_start(self) -> None:
        """Let the teacher see the data, now that everything is on its device."""
        if self.teacher is None:
            return
        mixes = self.mix is not None and not self.mix.keeps_target
        if self.teacher.by_sample and self.uses_teacher and mixes:
            raise ConfigError(
                f"{type(self.teacher).__name__} answers by the samples' numbers, and {self.mix!r} "
                "mixes samples: give the teacher itself"
            )
        if self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return  # a batch or two do not pay for a pass over all of the data
        with self._undisturbed():
            self.teacher.remember(surroundings(self, train=self.uses_teacher))

    def teardown(self, stage: str) -> None:
        """Remove the taps."""
        self._untap()
        self._seen = None
        if self.teacher is not None:
            self.teacher.turn_to(None)

    # Training ------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        """Count the optimizer's steps from where this training begins."""
        super().on_train_start()
        self._last_step = self.global_step
        self._turn_to_training()

    def on_train_epoch_start(self) -> None:
        """Turn to what the teacher says in this epoch."""
        super().on_train_epoch_start()
        self._turn_to_training()

    def on_validation_start(self) -> None:
        """Turn to the validation set, where there is one alone."""
        super().on_validation_start()
        if self.teacher is not None:
            fitting = self.trainer.state.fn == TrainerFn.FITTING
            alone = len(self.trainer.num_val_batches) == 1
            self.teacher.turn_to("val" if fitting and alone else None)

    def on_validation_end(self) -> None:
        """Turn back to the training samples."""
        if self.trainer.state.fn == TrainerFn.FITTING:
            self._turn_to_training()

    def _turn_to_training(self) -> None:
        if self.teacher is not None:
            self.teacher.turn_to("train", self.current_epoch)

    def loss_of(self, batch: Batch) -> Tensor:
        """Return the weighted sum of the terms, for the mixed batch where there is a `mix`."""
        return super().loss_of(batch if self.mix is None else self.mix(batch))

    def answer(self, batch: Batch) -> Outputs:
        """Return the student's outputs for a training batch, with the layers that are tapped."""
        return batch.run(self.student) if self._taps is None else self._taps.run(batch)

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

    def _term_name(self, key: str, name: str) -> str:
        """Return under which name a term is logged."""
        if key == "label":
            return name
        return key if len(self.objectives[key].weights) == 1 else f"{key}_{name}"

    @torch.no_grad()
    def after_step(self) -> None:
        """Let objectives and the teacher act on what was learned."""
        if self._seen is not None:
            for objective in filter(acts_after_step, self.objectives.values()):
                objective.after_step(*self._seen)
            self._seen = None
        if self.teacher is not None and self.global_step != self._last_step:
            self.teacher.after_step(self.student)
        self._last_step = self.global_step

    def ask_teacher(self, batch: Batch, outputs: Outputs) -> Outputs | None:
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
                "same ones"
                if ours[1] != theirs[1]
                else f"the student answers {ours[0]} samples and the teacher {theirs[0]} of the "
                "same batch"
            )
        return teacher

    # Checkpoints ---------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what a teacher that changes in training needs to go on."""
        super().on_save_checkpoint(checkpoint)
        kept = self.teacher.state_to_keep() if self.teacher is not None else None
        if kept is not None:
            checkpoint["teacher_state"] = dict(kept)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up a changing teacher's state; leave out objectives that this module has not made.

        A student can so be restored where there is neither its teacher nor its objectives.
        """
        super().on_load_checkpoint(checkpoint)
        if self.teacher is not None and "teacher_state" in checkpoint:
            if not self._is_set_up:
                self.teacher.begin(self.student)
            self.teacher.restore(checkpoint["teacher_state"])
        if not self._is_set_up:
            own = self.state_dict()
            state = checkpoint["state_dict"]
            checkpoint["state_dict"] = {
                name: value
                for name, value in state.items()
                if name in own or not name.startswith(("label.", "features."))
            }
