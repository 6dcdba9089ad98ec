"""The module that distils a teacher into a student."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from kdlit.batch import Batch, Outputs
from kdlit.classifier import ClassifierModule, OptimizerFactory, SchedulerFactory
from kdlit.distiller import Distiller, check_apart, undisturbed
from kdlit.errors import ConfigError
from kdlit.mixup import Mix
from kdlit.objectives import Objective, SoftLabels
from kdlit.objectives.base import shard_parts
from kdlit.passes import first_batch
from kdlit.positions import Positions
from kdlit.schedules import Weight
from kdlit.tasks import Task
from kdlit.teachers import TeacherSource

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
    and `kl_from_teacher`, and the test the teacher's own values as `test/teacher_accuracy` etc.;
    where the label strategy has another task than one of C classes, what that measures.

    Args:
        student: the network to train; maps a batch's inputs to logits (N, C), or (N, ..., C) with
            `positions`.
        teacher: a trained network, frozen in place, or a
            :class:`kdlit.teachers.TeacherSource`; None where the label strategy needs none.
        label: what the student is asked to imitate; default :class:`kdlit.objectives.SoftLabels`.
        optimizer: see :class:`kdlit.classifier.ClassifierModule`.
        scheduler: likewise.
        features: further objectives, each by a name under which its terms are logged.
        mix: what to do to a training batch before both networks see it, such as
            :class:`kdlit.mixup.Mixup`; None leaves it as it is.
        step_size: samples per step, where the loader's batches have more; see
            :class:`kdlit.classifier.ClassifierModule`.
        positions: which positions are learned from where both networks answer each token, such as
            :class:`kdlit.positions.Tokens`; None where they answer each sample.
        parallelize: a function of the student and a device mesh that shards the student in place,
            with torch's `fully_shard` or `parallelize_module`, for a student that does not fit
            on one device. It goes with Lightning's `ModelParallelStrategy`, whose mesh has the
            dimensions `data_parallel` and `tensor_parallel`, and is called after the dry run and
            before the optimizer is made. What the objectives train is sharded likewise.

    Raises:
        ConfigError: if student and teacher share parameters, if `label` or one of `features` is no
            objective, if two terms have the same name, if there are none, or if `mix` or an
            objective cannot do with `positions`, or the teacher with the task.
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
        positions: Positions | None = None,
        parallelize: "Callable[[nn.Module, DeviceMesh], object] | None" = None,
    ) -> None:
        super().__init__(optimizer, scheduler, step_size, positions)
        self.mix = mix
        self._parallelize = parallelize
        self._is_parallel = False
        self.student = student
        self.label = SoftLabels() if label is None else label
        self._distiller = Distiller(teacher, self.label, features or {}, student)
        self.features = nn.ModuleDict(dict(features or {}))
        if not self._distiller.names:
            raise ConfigError(
                f"{type(self.label).__name__} has no loss, and there is no feature objective: "
                "nothing would be learned"
            )
        if positions is not None:
            self._distiller.check_rows(mix)
        self.uses_teacher = self._distiller.uses_teacher

    @property
    def task(self) -> Task:
        """What the networks' outputs mean: the label strategy says."""
        return self._distiller.task

    @property
    def objectives(self) -> dict[str, Objective]:
        """The label strategy and the feature objectives, by name."""
        return self._distiller.objectives

    @property
    def teacher(self) -> TeacherSource | None:
        """The teacher, or None; a network that is assigned here is frozen."""
        return self._distiller.teacher

    def __setattr__(self, name: str, value: Any) -> None:
        """Keep a teacher that is assigned out of the submodules, where torch would put it."""
        if name != "teacher":
            super().__setattr__(name, value)
            return
        check_apart(self.student, value)
        self._distiller.teacher = value

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "DistillationModule":
        """Move the teacher along: torch calls this for `.to()`, `.cuda()`, `.half()` and so on."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.teacher is not None:
            self.teacher._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    @property
    def trained(self) -> nn.Module:
        """The student."""
        return self.student

    # Before training -----------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Tap the layers that objectives ask for, and let the objectives make their parts."""
        distiller = self._distiller
        distiller.turn_away()
        if stage != "fit":
            return
        distiller.begin(self.student)
        if distiller.looks_inside and distiller.is_set_up:
            distiller.dry_run(self.student, self._example(), self.device)
        elif distiller.looks_inside:
            self.student = distiller.set_up(self.student, self._example(), self.device)
        distiller.is_set_up = True

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
        self._distiller.begin(self.student)
        self._distiller.set_up(self.student, self.with_rows(batch), self.device)
        self._distiller.untap()

    def _example(self) -> Batch:
        """Return the batch of the first step that training would see."""
        with undisturbed(self.device):
            batch = first_batch(self)
        batch = batch if self.step_size is None else batch.split(self.step_size)[0]
        return self.with_rows(batch)

    def on_fit_start(self) -> None:
        """Let the teacher see the data, now that everything is on its device."""
        mixes = self.mix is not None and not self.mix.keeps_target
        if self.teacher is not None and self.teacher.by_sample and self.uses_teacher and mixes:
            raise ConfigError(
                f"{type(self.teacher).__name__} answers by the samples' numbers, and {self.mix!r} "
                "mixes samples: give the teacher itself"
            )
        self._distiller.remember(self)

    def teardown(self, stage: str) -> None:
        """Remove the taps."""
        self._distiller.untap()
        self._distiller.turn_away()

    # Training ------------------------------------------------------------------------------

    def on_train_start(self) -> None:
        """Count the optimizer's steps from where this training begins."""
        super().on_train_start()
        self._distiller.count_from(self.global_step)
        self._distiller.turn_to_training(self.current_epoch)

    def on_train_epoch_start(self) -> None:
        """Turn to what the teacher says in this epoch."""
        super().on_train_epoch_start()
        self._distiller.turn_to_training(self.current_epoch)

    def on_validation_start(self) -> None:
        """Turn to the validation set, where there is one alone."""
        super().on_validation_start()
        self._distiller.turn_to_validation(self.trainer)

    def on_validation_end(self) -> None:
        """Turn back to the training samples."""
        if self.trainer.state.fn == TrainerFn.FITTING:
            self._distiller.turn_to_training(self.current_epoch)

    def loss_of(self, batch: Batch) -> Tensor:
        """Return the weighted sum of the terms, for the mixed batch where there is a `mix`."""
        return super().loss_of(batch if self.mix is None else self.mix(batch))

    def _nothing(self, outputs: Outputs) -> Tensor:
        """Return a loss of 0, unless other processes wait for this one's part of what is asked."""
        parts = (p for objective in self.objectives.values() for p in objective.parameters())
        spread = self.uses_teacher and self.teacher is not None and self.teacher.spreads
        if self._is_parallel and (spread or any(p.requires_grad for p in parts)):
            raise ConfigError(
                "no position of a batch counts, and where teacher or objectives are sharded each "
                "process must ask them in each step: leave such batches out of the data"
            )
        return super()._nothing(outputs)

    def answer(self, batch: Batch) -> Outputs:
        """Return the student's outputs for a training batch, with the layers that are tapped."""
        return self._distiller.run(self.student, batch)

    def terms(
        self, outputs: Outputs, teacher: Outputs | None, batch: Batch
    ) -> tuple[dict[str, Tensor], Mapping[str, Weight]]:
        """Return the terms and weights of all objectives."""
        return self._distiller.terms(outputs, teacher, batch)

    def after_step(self) -> None:
        """Let objectives and the teacher act on what was learned."""
        self._distiller.after_step(self.student, self.global_step)

    def ask_teacher(self, batch: Batch, outputs: Outputs) -> Outputs | None:
        """Return the teacher's outputs, once they are known to fit the student's.

        Raises:
            TeacherError: if student and teacher disagree in the number of classes.
        """
        return self._distiller.ask(batch, outputs)

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
            if not self._distiller.is_set_up:
                self.teacher.begin(self.student)
            self.teacher.restore(checkpoint["teacher_state"])
        if not self._distiller.is_set_up:
            own = self.state_dict()
            state = checkpoint["state_dict"]
            checkpoint["state_dict"] = {
                name: value
                for name, value in state.items()
                if name in own or not name.startswith(("label.", "features."))
            }
