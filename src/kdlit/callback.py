"""Distillation around somebody's own LightningModule."""

import copy
import functools
import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor, nn

from kdlit.batch import Batch
from kdlit.distiller import Distiller, check_apart, undisturbed
from kdlit.errors import ConfigError, KdlitError
from kdlit.functional.precision import float32_at_least
from kdlit.guest import PARTS, Call, Listener, Parts, Replacements, made_with
from kdlit.metrics import NetworkMetrics
from kdlit.objectives import Objective, SoftLabels
from kdlit.passes import first_batch, show_view
from kdlit.positions import Positions, check_positions
from kdlit.schedules import Weight, check_weight, weight_at

_TRUTH = "truth"


class Distillation(pl.Callback):
    r"""Adds a teacher to a LightningModule that knows nothing of it.

    .. math:: \mathcal{L} = w_\text{own} \, \mathcal{L}_\text{own}
        + \sum_i w_i \, \mathcal{L}_i(\text{student}, \text{teacher})

    The module keeps its `training_step`, its optimizers, schedules, metrics and logging. Whatever
    loss its step returns (a tensor, or a mapping with `loss`) is its own; it takes the place of
    the label strategy's cross-entropy with the ground truth, which is not computed. So
    `SoftLabels(alpha=0.9)` means 0.9 times the soft labels and 0.1 times the module's own loss, and
    no truth is counted twice.

    The student's logits are those that the module's own step computed: the student runs once. The
    teacher is called with the very inputs that the student was called with, so that both see the
    same augmentation and the same mixing, and under the same precision. Logged are, by the
    module's `log`, each term as `train/soft` and so on, their sum with the own loss as
    `train/total`; and, where the validation or test step calls the student, `val/agreement`,
    `val/kl_from_teacher` and the same under `test/` (`val_1/` for a second loader).

    The teacher never becomes a part of the module, and is frozen and kept in evaluation mode, see
    :class:`kdlit.DistillationModule`. Trained parts of the objectives are submodules of the module
    while it is fitted, so that strategies and precision treat them alike, but never entries of its
    `state_dict`: they are kept with this callback's state, and a checkpoint loads without it. If
    `configure_optimizers` leaves them out, they join the parameters of the first optimizer that
    have the largest learning rate, and so follow its schedule.

    Args:
        teacher: a trained network, frozen in place, or a :class:`kdlit.teachers.TeacherSource`;
            None where no objective needs one.
        label: what the student is asked to imitate; default :class:`kdlit.SoftLabels`.
        features: further objectives, each by a name under which its terms are logged.
        student: name of the submodule whose output are the logits, such as `model` or `net.body`;
            None for the module itself. It must be called as `self.model(x)`, once in a training
            step; calls without gradients do not count.
        own_weight: weight of the module's own loss: a number or a schedule. None takes that of the
            label strategy's ground truth (1 - alpha), 0 where it has none by that name, such as
            `SmoothLabels`, and 1 with `NoLabels`.
        take_apart: gives the :class:`kdlit.batch.Batch` of a batch of the module's loader; None
            takes `Batch.of`, which knows `(x, y)`, `(x, y, index)` and mappings. Its target and
            index are for objectives that need them, its inputs for the one call before training by
            which those that look into layers learn the shapes.
        positions: which positions count where both networks answer each token, such as
            :class:`kdlit.positions.Tokens`; None where they answer each sample.

    Raises:
        ConfigError: if an argument cannot work; when a training begins, if there is no such
            submodule, the module optimises by hand, the teacher is a part of it, or an objective
            would replace the student; in training, if the student is not called once.
        TeacherError: if an objective needs a teacher and there is none; at the first batch,
            if student and teacher disagree in the number of classes.

    >>> callback = Distillation(nn.Linear(4, 3), SoftLabels(alpha=0.75), student="model")
    >>> callback.label, callback.own_weight
    (SoftLabels(soft=0.75, temperature=4), 0.25)
    """

    def __init__(
        self,
        teacher: nn.Module | None = None,
        label: Objective | None = None,
        features: Mapping[str, Objective] | None = None,
        student: str | None = None,
        own_weight: Weight | None = None,
        take_apart: Callable[[Any], Batch] | None = None,
        positions: Positions | None = None,
    ) -> None:
        strategy = SoftLabels() if label is None else label
        self._distiller = Distiller(teacher, _without_truth(strategy), features or {})
        for key, objective in self._distiller.objectives.items():
            if type(objective).deployed is not Objective.deployed:
                raise ConfigError(
                    f"`{key}`: {type(objective).__name__} replaces layers of the student, and this "
                    "module is somebody else's: use DistillationModule"
                )
        if own_weight is None:
            own_weight = strategy.weights.get(_TRUTH, 0.0) if strategy.weights else 1.0
        self.own_weight = check_weight("own_weight", own_weight)
        self.student = student
        self._take_apart = take_apart or Batch.of
        self._positions = check_positions(positions)
        if positions is not None:
            self._distiller.check_rows()
        self._fitted: pl.LightningModule | None = None
        self._parts: Parts | None = None
        self._replacements = Replacements()
        self._listener = Listener(self._distiller.overheard)
        self._metrics: dict[str, NetworkMetrics] = {}
        self._prefix = ""

    @property
    def label(self) -> Objective:
        """The label strategy, without the term whose place the module's own loss takes."""
        return self._distiller.objectives["label"]

    # Before and after ----------------------------------------------------------------------

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Wait until the module has made its networks, in its `setup` or `configure_model`."""
        self._detach()
        if stage not in ("fit", "validate", "test"):
            return
        original, dtype = pl_module.configure_model, torch.get_default_dtype()
        device = torch.get_default_device()

        def configure_model() -> None:
            self._replacements.undo()
            original()
            with made_with(dtype, device):
                self._attach(trainer, pl_module, stage)

        self._replacements.put(pl_module, "configure_model", configure_model)

    def _attach(self, trainer: pl.Trainer, module: pl.LightningModule, stage: str) -> None:
        student = self._student_of(module)
        check_apart(module, self._distiller.teacher)
        if stage == "fit":
            self._prepare(module, student)
            self._replacements.put(module, "training_step", self._in_training(module))
        teacher = self._distiller.teacher
        # A teacher that follows the student has nothing to say where none is trained.
        if teacher is not None and (stage == "fit" or not teacher.changes):
            for name in ("validation_step", "test_step"):
                if is_overridden(name, module):
                    self._replacements.put(module, name, self._in_evaluation(module, name))
        self._listener.attach(student)

    def _student_of(self, module: pl.LightningModule) -> nn.Module:
        if self.student is None:
            return module
        try:
            return module.get_submodule(self.student)
        except AttributeError as error:
            known = [name for name, _ in module.named_modules() if name]
            near = get_close_matches(self.student, known, n=3, cutoff=0.3) or known[:10]
            raise ConfigError(
                f"`student`: {type(module).__name__} has no submodule {self.student!r}; the "
                f"nearest are {', '.join(near)}"
            ) from error

    def _prepare(self, module: pl.LightningModule, student: nn.Module) -> None:
        """Set the objectives up for a student, and let them be trained with it."""
        if not module.automatic_optimization:
            raise ConfigError(
                f"{type(module).__name__} optimises by hand (automatic_optimization = False), and "
                "a loss is added to what training_step returns: return the loss and let Lightning "
                "optimise, or use DistillationModule"
            )
        distiller = self._distiller
        distiller.begin(student)
        if distiller.looks_inside:
            with undisturbed(module.device):
                batch = first_batch(module, self._take_apart)
            known = distiller.is_set_up and self._fitted is module
            set_up = distiller.dry_run if known else distiller.set_up
            try:
                set_up(student, self._with_rows(batch), module.device)
            except KdlitError:
                raise
            except (AttributeError, RuntimeError, TypeError, ValueError) as error:
                raise ConfigError(
                    "the objectives cannot be set up with the inputs of a batch, of type "
                    f"{type(batch.inputs).__name__}: {error}. `take_apart` says with which inputs "
                    "the student is called: lambda batch: kdlit.batch.Batch({'x': ...}, target)"
                ) from error
        self._fitted = module
        self._parts = Parts(distiller.objectives)
        module.add_module(PARTS, self._parts)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Bring the teacher to where the module is, and what is trained to the optimizer."""
        self._place_teacher(trainer, pl_module)
        self._distiller.remember(pl_module)
        held = {id(p) for o in trainer.optimizers for g in o.param_groups for p in g["params"]}
        parameters = [] if self._parts is None else self._parts.parameters()
        left_out = [p for p in parameters if p.requires_grad and id(p) not in held]
        if left_out and trainer.optimizers:
            # No group of their own: the schedules that exist already know nothing of it.
            groups = trainer.optimizers[0].param_groups
            max(groups, key=lambda group: float(group["lr"]))["params"].extend(left_out)

    def _place_teacher(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self._distiller.teacher is not None:
            trainer.precision_plugin.convert_module(self._distiller.teacher)
            self._distiller.teacher.to(module.device)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Leave the module as it was."""
        self._detach()
        if self._distiller.teacher is not None:
            self._distiller.teacher.to(pl_module.device)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Leave the module as it was, also where Lightning calls no `teardown`."""
        self._detach()

    def _detach(self) -> None:
        self._replacements.undo()
        self._listener.detach()
        if self._parts is not None and self._fitted is not None:
            delattr(self._fitted, PARTS)
            self._parts = None
        self._distiller.untap()
        self._distiller.turn_away()
        self._metrics = {}

    def _known(self, batch: Any) -> Batch:
        """Return a batch's target and index, where it has any."""
        try:
            known = self._take_apart(batch)
        except ConfigError as error:
            if self._positions is None:
                return Batch(None)  # an objective that needs more will say so
            raise ConfigError(
                f"{error}; `take_apart` says by what `positions` are chosen: lambda batch: "
                "kdlit.batch.Batch(inputs, target)"
            ) from error
        return self._with_rows(known)

    def _with_rows(self, batch: Batch) -> Batch:
        return batch if self._positions is None else self._positions(batch)

    # Training ------------------------------------------------------------------------------

    def _in_training(self, module: pl.LightningModule) -> Callable[..., Any]:
        original = module.training_step

        @_standing_for(original)
        def training_step(batch: Any, *args: Any, **kwargs: Any) -> Any:
            with self._listener.listening(self._known(batch), with_gradients=True) as calls:
                said = original(batch, *args, **kwargs)
            own = said.get("loss") if isinstance(said, Mapping) else said
            if not isinstance(own, Tensor):
                return said  # a step that is left out, or what Lightning will refuse
            total = self._total(module, own, calls)
            return {**said, "loss": total} if isinstance(said, Mapping) else total

        return training_step

    def _total(self, module: pl.LightningModule, own: Tensor, calls: list[Call]) -> Tensor:
        """Return the module's own loss and all terms, weighted and summed."""
        distiller, step = self._distiller, module.global_step
        # Lightning takes a loss of shape (1,) as well.
        own = weight_at(self.own_weight, step) * float32_at_least(own).squeeze()
        if not distiller.names:
            return own
        if len(calls) != 1:
            who = "the module itself" if self.student is None else f"`{self.student}`"
            raise ConfigError(
                f"training_step called the student, {who}, {len(calls)} times, and it must be "
                "once: name with `student` the submodule whose output are the logits, call it as "
                "self.model(x), not by .forward(x), and further calls under torch.no_grad()"
            )
        batch, outputs = calls[0]
        if not len(outputs.logits):
            # No position counts. What the objectives train has gradients all the same: another
            # process may wait for them.
            parts = [] if self._parts is None else self._parts.parameters()
            return torch.stack([own, *(0.0 * part.float().sum() for part in parts)]).sum()
        teacher = distiller.ask(batch, outputs) if distiller.uses_teacher else None
        # Loss mathematics runs in float32 under any precision plugin.
        with torch.autocast(outputs.logits.device.type, enabled=False):
            terms, weights = distiller.terms(outputs, teacher, batch)
            weighted = [weight_at(weights[name], step) * term for name, term in terms.items()]
            total = torch.stack([own, *weighted]).sum()
        logged = {f"train/{name}": term.detach() for name, term in terms.items()}
        logged["train/total"] = total.detach()
        module.log_dict(logged, batch_size=len(outputs.logits))
        return total

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Count the optimizer's steps from where this training begins, perhaps within an epoch."""
        self._distiller.count_from(trainer.global_step)
        show_view(trainer)
        self._distiller.turn_to_training(trainer.current_epoch)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Turn to the epoch's view of the samples, and to what the teacher says of it."""
        show_view(trainer)
        self._distiller.turn_to_training(trainer.current_epoch)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """Let objectives and the teacher act on what was learned."""
        self._distiller.after_step(self._student_of(pl_module), trainer.global_step)

    # Evaluation ----------------------------------------------------------------------------

    def _in_evaluation(self, module: pl.LightningModule, name: str) -> Callable[..., Any]:
        original = getattr(module, name)

        @_standing_for(original)
        def step(batch: Any, *args: Any, **kwargs: Any) -> Any:
            with self._listener.listening(self._known(batch)) as calls:
                said = original(batch, *args, **kwargs)
            for asked, outputs in calls:
                teacher = self._distiller.ask(asked, outputs)
                if teacher is not None:
                    if self._prefix not in self._metrics:
                        self._metrics[self._prefix] = self._distiller.task.metrics()
                    metrics = self._metrics[self._prefix]
                    metrics.update(outputs.logits, None, teacher.logits)
            return said

        return step

    def _begin(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._metrics = {}
        if trainer.state.fn != TrainerFn.FITTING:
            self._place_teacher(trainer, module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin afresh, with the validation set."""
        self._begin(trainer, pl_module)
        self._distiller.turn_to_validation(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Turn back to the training samples."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._distiller.turn_to_training(trainer.current_epoch)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin afresh."""
        self._begin(trainer, pl_module)

    def on_validation_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Note from which loader the batch comes."""
        self._prefix = f"val_{dataloader_idx}/" if dataloader_idx else "val/"

    def on_test_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Note from which loader the batch comes."""
        self._prefix = f"test_{dataloader_idx}/" if dataloader_idx else "test/"

    def _log_metrics(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        for prefix, metrics in self._metrics.items():
            values = {prefix + name: value for name, value in metrics.compute().items()}
            # The values are the same on all processes already; sync_dist says so.
            module.log_dict(values, sync_dist=trainer.world_size > 1, add_dataloader_idx=False)

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log agreement and divergence."""
        self._log_metrics(trainer, pl_module)

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log agreement and divergence."""
        self._log_metrics(trainer, pl_module)

    # Checkpoints ---------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return what the objectives have learned, and a teacher that changes in training."""
        objectives = self._distiller.objectives.items()
        kept: dict[str, Any] = {
            "objectives": {name: dict(objective.state_dict()) for name, objective in objectives}
        }
        teacher = self._distiller.teacher
        state = teacher.state_to_keep() if teacher is not None else None
        return kept if state is None else {**kept, "teacher": dict(state)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with what :meth:`state_dict` returned; evaluation needs nothing of it."""
        if self._parts is None:
            return
        objectives, kept = self._distiller.objectives, state_dict["objectives"]
        if set(kept) != set(objectives):
            raise ConfigError(
                f"the checkpoint is of a training with the objectives {', '.join(kept)}, and this "
                f"one has {', '.join(objectives)}"
            )
        for name, objective in objectives.items():
            try:
                objective.load_state_dict(kept[name])
            except RuntimeError as error:
                raise ConfigError(
                    f"the checkpoint is of another objective `{name}`: {error}"
                ) from error
        if self._distiller.teacher is not None and "teacher" in state_dict:
            self._distiller.teacher.restore(state_dict["teacher"])


def _standing_for(method: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that gives a function the signature of a method.

    Lightning looks through one wrapper alone, and a compiler may have put another around it.
    """
    return functools.wraps(inspect.unwrap(method))


def _without_truth(label: Objective) -> Objective:
    """Return a label strategy without its cross-entropy; both share what they learn."""
    weights = getattr(label, "weights", {})
    if _TRUTH not in weights:
        return label
    kept = copy.copy(label)
    kept.weights = {name: weight for name, weight in weights.items() if name != _TRUTH}
    return kept
