"""A teacher for modules that know nothing of it: their step, their optimizer, their metrics."""

import copy
import os
import subprocess
import sys
from functools import partial

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from conftest import REPOSITORY, PlainData, trainer
from foreign import Encoder, Itself, Keeps, Returns, small
from kdlit import Distillation, DistillationModule, EMATeacher, SoftLabels, TruthLabels
from kdlit.batch import Batch
from kdlit.data import Indexed
from kdlit.errors import ConfigError, TeacherError
from kdlit.objectives import DKDLabels, Hint, NoLabels, SimKD
from kdlit.schedules import LinearWarmup
from kdlit.teachers import CachedTeacher

# A module, the name of its student, a teacher that is called alike, and a layer of both.
FOREIGN = [
    (Keeps, "model", partial(small, width=12), ("1", "1")),
    (Itself, None, partial(small, width=12), ("body", "0")),
    (Returns, "net.encoder", Encoder, ("body", "body")),
]


def scaled(batch):
    """Return what `Returns` calls its student with, for the one call before training."""
    x, y = batch
    return Batch({"x": x, "scale": 2.0}, y)


APART = {Returns: {"take_apart": scaled}}
NAMES = [make.__name__ for make, *_ in FOREIGN]


def state_of(net: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in net.state_dict().items()}


def same(one: dict, two: dict) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def fit(module, *callbacks, seed: int = 1, data=None, ckpt_path=None, **options) -> pl.Trainer:
    torch.manual_seed(seed)
    fitting = trainer(callbacks=list(callbacks), **options)
    fitting.fit(module, data or PlainData(), ckpt_path=ckpt_path)
    return fitting


class Spy(pl.Callback):
    """Notes weights, gradients and whatever else at each step of the optimizer."""

    def __init__(self, note):
        self.note, self.found = note, []

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.found.append(self.note(module, optimizer))


class Saves(pl.Callback):
    """Saves a checkpoint at the end of each epoch."""

    def __init__(self, path):
        self.path = path

    def on_train_epoch_end(self, trainer, module):
        trainer.save_checkpoint(self.path)


# The loss ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "student", "teacher", "layers"), FOREIGN, ids=NAMES)
def test_gradients_are_those_of_the_sum_written_by_hand(make, student, teacher, layers):
    module, network, hint = make(), teacher(), Hint(*layers, weight=3.0)
    seen, teachers = [], []

    def note(net, args, kwargs, output):
        if torch.is_grad_enabled():
            seen.append((args, kwargs))

    def gradients(module, optimizer):
        return {n: (p.detach().clone(), p.grad.clone()) for n, p in module.named_parameters()}

    network.register_forward_hook(lambda net, args, *_: teachers.extend(args))
    spy = Spy(gradients)
    callback = Distillation(
        network, SoftLabels(4.0, alpha=0.9), {"hint": hint}, student, **APART.get(make, {})
    )
    attach = type(
        "Attach",
        (pl.Callback,),
        {
            "on_train_start": lambda self, t, m: (
                m.get_submodule(student) if student else m
            ).register_forward_hook(note, with_kwargs=True)
        },
    )
    fit(module, callback, spy, attach(), data=PlainData(48), limit_val_batches=0)
    assert len(spy.found) == len(seen) == 3
    # The module's own call is the only one; the one around the whole step is DDP's alone.
    assert all(torch.equal(args[0], x) for (args, _), x in zip(seen, teachers[-3:], strict=True))

    net = module.get_submodule(student) if student else Itself()
    net._forward_hooks.clear()
    smoothing = 0.1 if make is Returns else 0.0
    for found, (args, kwargs), (_, y) in zip(
        spy.found, seen, PlainData(48).train_dataloader(), strict=True
    ):
        weights = {n: value.requires_grad_() for n, (value, _) in found.items()}
        inner = "" if student is None else f"{student}."
        own = {
            n.removeprefix(inner): v
            for n, v in weights.items()
            if n.startswith(inner) and "projector" not in n
        }
        features = {}
        hooks = [
            part.get_submodule(layer).register_forward_hook(
                lambda _, __, out, key=key, kept=features: kept.__setitem__(key, out)
            )
            for key, part, layer in (("s", net, layers[0]), ("t", network, layers[1]))
        ]
        z = torch.func.functional_call(net, own, args, kwargs)
        with torch.no_grad():
            t = network(*args, **kwargs)
        for hook in hooks:
            hook.remove()
        z, t = getattr(z, "logits", z), getattr(t, "logits", t)
        soft = (F.softmax(t / 4, 1) * (F.log_softmax(t / 4, 1) - F.log_softmax(z / 4, 1))).sum(1)
        parts = {n.split("projector.map.")[1]: v for n, v in weights.items() if "projector" in n}
        mapped = F.linear(features["s"], parts["weight"], parts["bias"])
        loss = (
            0.1 * F.cross_entropy(z, y, label_smoothing=smoothing)
            + 0.9 * 16 * soft.mean()
            + 3.0 * (mapped - features["t"]).square().mean()
        )
        expected = torch.autograd.grad(loss, list(weights.values()))
        for (name, (_, grad)), wanted in zip(found.items(), expected, strict=True):
            torch.testing.assert_close(grad, wanted, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize(("make", "student", "teacher", "_"), FOREIGN, ids=NAMES)
def test_alpha_zero_trains_as_if_there_were_no_callback(make, student, teacher, _):
    states, network = [], teacher()
    calls = []
    network.register_forward_hook(lambda *_: calls.append(1))
    callback = Distillation(network, SoftLabels(alpha=0.0), student=student)
    for callbacks in ([], [callback], [Distillation(network, TruthLabels(), student=student)]):
        torch.manual_seed(3)
        module = make()
        fit(module, *callbacks, max_epochs=2, limit_val_batches=0)
        states.append(state_of(module))
    assert same(states[0], states[1])
    assert same(states[0], states[2])
    assert not calls


def test_a_module_of_cross_entropy_is_trained_as_our_module_trains():
    class Plain(Keeps):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    network, found = small(width=12), []
    for ours in (True, False):
        torch.manual_seed(3)
        student, hint = small(), Hint("1", "1", weight=2.0)
        if ours:
            optimizer = partial(torch.optim.SGD, lr=0.1)
            features = {"hint": hint}
            module = DistillationModule(student, network, SoftLabels(), optimizer, None, features)
            fitting = fit(module, max_epochs=2)
        else:
            callback = Distillation(network, SoftLabels(), {"hint": hint}, "model")
            fitting = fit(Plain(student), callback, max_epochs=2)
        metrics = {name: float(fitting.callback_metrics[f"val/{name}"])
                   for name in ("agreement", "kl_from_teacher")}  # fmt: skip
        found.append((state_of(student), state_of(hint), metrics))
    for name, value in {**found[0][0], **found[0][1]}.items():
        torch.testing.assert_close({**found[1][0], **found[1][1]}[name], value)
    assert found[0][2] == pytest.approx(found[1][2], rel=1e-5)


@pytest.mark.parametrize(
    ("label", "own_weight", "expected"),
    [
        (SoftLabels(alpha=0.75), None, 0.25),
        (SoftLabels(alpha=1.0), None, 0.0),
        (SoftLabels(alpha=0.75), 2.0, 2.0),
        (NoLabels(), None, 1.0),
        (TruthLabels(), None, 1.0),
        (None, None, pytest.approx(0.1)),
    ],
)
def test_the_own_loss_takes_the_place_and_the_weight_of_the_truth(label, own_weight, expected):
    callback = Distillation(small(), label, {"hint": Hint()}, "model", own_weight)
    assert callback.own_weight == expected
    assert "truth" not in callback.label.weights
    fitting = fit(module := Keeps(), callback, limit_train_batches=1)
    terms = {name: float(value) for name, value in fitting.callback_metrics.items()}
    told = expected if isinstance(expected, float) else 0.1
    total = told * terms["loss"] + 100 * terms["train/hint"]
    total += callback.label.weights.get("soft", 0.0) * terms.get("train/soft", 0.0)
    assert terms["train/total"] == pytest.approx(total, rel=1e-5)
    assert "train/truth" not in terms
    assert "accuracy" in terms, "the module's own metrics stay"
    assert module.global_step == 1


def test_a_schedule_may_weigh_the_own_loss():
    callback = Distillation(small(), NoLabels(), {"hint": Hint(weight=0.0)}, "model",
                            own_weight=LinearWarmup(4.0, steps=4))  # fmt: skip
    found = []
    spy = type(
        "Steps",
        (pl.Callback,),
        {
            "on_train_batch_end": lambda self, t, m, out, *_: found.append(
                float(t.callback_metrics["train/total"] / t.callback_metrics["loss"])
            )
        },
    )
    fit(Keeps(), callback, spy())
    assert found == pytest.approx([1, 2, 3, 4])


def test_ground_truth_for_other_strategies_comes_from_the_batch():
    module, label = Keeps(), DKDLabels()
    fit(module, Distillation(small(), label, student="model"))
    odd = PlainData(
        collate=lambda samples: (
            torch.stack([x for x, _ in samples]),
            torch.stack([y for _, y in samples]),
            1,
            "more",
        )
    )

    class Odd(Keeps):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch[:2], batch_idx)

    options = {"data": odd, "limit_val_batches": 0}
    fit(Odd(), Distillation(small(), SoftLabels(), student="model"), **options)
    with pytest.raises(ConfigError, match="no target"):
        fit(Odd(), Distillation(small(), label, student="model"), **options)
    apart = Distillation(small(), label, student="model",
                         take_apart=lambda batch: Batch(*batch[:2]))  # fmt: skip
    one = Odd()
    one.load_state_dict(Keeps().state_dict())
    two = Keeps()
    two.load_state_dict(one.state_dict())
    network = small()
    apart = Distillation(network, label, student="model",
                         take_apart=lambda batch: Batch(*batch[:2]))  # fmt: skip
    fit(one, apart, **options)
    fit(two, Distillation(network, label, student="model"), limit_val_batches=0)
    assert same(state_of(one), state_of(two))


# The module stays as it is -------------------------------------------------------------------


def traces(module: pl.LightningModule) -> tuple:
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in module.modules()]
    return {k for k, v in vars(module).items() if callable(v)}, hooks, list(module._modules)


@pytest.mark.parametrize(("make", "student", "teacher", "layers"), FOREIGN, ids=NAMES)
def test_nothing_is_left_behind(make, student, teacher, layers):
    module, network = make(), teacher()
    module.configure_model()
    before, theirs = traces(module), state_of(network)
    names = list(module.state_dict())
    options = APART.get(make, {})
    callback = Distillation(network, None, {"hint": Hint(*layers)}, student, **options)
    inside = Spy(lambda module, _: (traces(module), list(module.state_dict())))
    fitting = fit(module, callback, inside)
    fitting.validate(module, PlainData(), verbose=False)
    assert traces(module) == before
    assert inside.found[0][0] != before
    assert inside.found[0][1] == names, "the parts are in no state_dict, even while they train"
    assert same(theirs, state_of(network))
    assert not any(part.training for part in network.modules())
    assert sum(len(part._forward_hooks) for part in network.modules()) == 0

    class Stops(pl.Callback):
        def on_train_batch_end(self, *_):
            raise RuntimeError("stop here")

    with pytest.raises(RuntimeError, match="stop here"):
        fit(module, callback, Stops())
    assert traces(module) == before
    fit(module, callback)  # and it can be fitted again


def test_the_teacher_is_no_part_of_the_module():
    module, network = Keeps(), small(width=12)
    spy = Spy(lambda module, optimizer: (
        {id(p) for p in module.parameters()} | {id(p) for g in optimizer.param_groups
                                                for p in g["params"]},
        [part for part in module.modules() if part is network],
        network.training, network[0].weight.requires_grad,
    ))  # fmt: skip
    fit(module, Distillation(network, student="model"), spy)
    held, parts, training, requires_grad = spy.found[0]
    assert not held & {id(p) for p in network.parameters()}
    assert (parts, training, requires_grad) == ([], False, False)


@pytest.mark.parametrize(("make", "student", "teacher", "layers"), FOREIGN, ids=NAMES)
def test_a_resumed_run_ends_at_the_same_bits(make, student, teacher, layers, tmp_path):
    network, options = teacher(), APART.get(make, {})

    def run(epochs, path=None, save=None):
        torch.manual_seed(3)
        hint = Hint(*layers, weight=1.0)
        module = make()
        callback = Distillation(network, SoftLabels(), {"hint": hint}, student, **options)
        savers = [Saves(tmp_path / "last.ckpt")] if save else []
        fit(module, callback, *savers, max_epochs=epochs, ckpt_path=path)
        return state_of(module), state_of(hint)

    if make is Returns:  # draws noise in its step, so that the second epoch must be seeded

        class Seeded(Returns):
            def training_step(self, batch, batch_idx):
                torch.manual_seed(self.global_step)
                return super().training_step(batch, batch_idx)

        make = Seeded
    one = run(1, save=True)
    resumed, whole = run(2, tmp_path / "last.ckpt"), run(2)
    for part in (0, 1):
        assert same(resumed[part], whole[part])
        assert not same(resumed[part], one[part])

    kept = torch.load(tmp_path / "last.ckpt", weights_only=True)
    plain = make()
    plain.configure_model()
    assert list(kept["state_dict"]) == list(plain.state_dict())
    plain.load_state_dict(kept["state_dict"])
    assert same(state_of(plain), one[0])
    if make is Keeps:
        restored = Keeps.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True)
        assert same(state_of(restored), one[0])


def test_a_teacher_that_follows_the_student_is_kept_too(tmp_path):
    def run(epochs, *callbacks, path=None):
        torch.manual_seed(3)
        module, teacher = Itself(), EMATeacher(0.9)
        callback = Distillation(teacher, SoftLabels(1.0, 0.5), {"hint": Hint()})
        fitting = fit(module, callback, *callbacks, max_epochs=epochs, ckpt_path=path)
        return fitting, module, teacher

    run(1, Saves(tmp_path / "last.ckpt"))
    _, resumed, first = run(2, path=tmp_path / "last.ckpt")
    fitting, whole, second = run(2)
    assert same(state_of(resumed), state_of(whole))
    assert same(first.state_to_keep(), second.state_to_keep())
    assert second.state_to_keep()["steps"] == 8
    assert "val/agreement" in fitting.callback_metrics
    assert "val/agreement" not in fitting.validate(whole, PlainData(), verbose=False)[0]


def test_a_checkpoint_of_other_objectives_is_refused(tmp_path):
    saver = Saves(tmp_path / "last.ckpt")
    fit(Keeps(), Distillation(small(), student="model"), saver)
    other = Distillation(small(), features={"more": Hint()}, student="model")
    with pytest.raises(ConfigError, match="the objectives label, and this one has label, more"):
        fit(Keeps(), other, max_epochs=2, ckpt_path=tmp_path / "last.ckpt")


# Optimizers ----------------------------------------------------------------------------------


def test_parts_that_no_optimizer_has_join_the_group_with_the_largest_rate():
    hint = Hint("body", "body", weight=1.0)
    spy = Spy(lambda _, optimizer: [len(g["params"]) for g in optimizer.param_groups])
    module = Returns()
    options = {"student": "net.encoder", "take_apart": scaled}
    fit(module, Distillation(Encoder(), features={"hint": hint}, **options), spy)
    assert spy.found[0] == [2, 4]

    class Takes(Keeps):
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.05)

    class Leaves(Keeps):
        def configure_optimizers(self):
            return torch.optim.SGD(self.model.parameters(), 0.05)

    states = []
    network = small()
    for make in (Takes, Leaves):
        torch.manual_seed(3)
        module, hint = make(), Hint(weight=1.0)
        fit(module, Distillation(network, features={"hint": hint}, student="model"))
        states.append({**state_of(module), **state_of(hint)})
    assert same(*states)


def test_a_schedule_moves_the_rate_of_the_parts():
    def moved(gamma):
        class Scheduled(Keeps):
            def configure_optimizers(self):
                optimizer = torch.optim.SGD(self.model.parameters(), 0.05)
                schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma)
                return [optimizer], [{"scheduler": schedule, "interval": "step"}]

        torch.manual_seed(3)
        hint = Hint(weight=1.0)
        callback = Distillation(small(), features={"hint": hint}, student="model")
        spy = Spy(lambda *_: state_of(hint))
        fit(Scheduled(), callback, spy)
        return spy.found

    still, free = moved(0.0), moved(1.0)
    assert same(still[1], still[3])
    assert not same(free[1], free[3])


def test_accumulated_gradients_are_those_of_the_larger_batch():
    states, network = [], small()
    for size, count in ((16, 1), (8, 2)):
        torch.manual_seed(3)
        module, hint = Itself(), Hint(weight=1.0)
        fit(module, Distillation(network, features={"hint": hint}),
            data=PlainData(batch_size=size), accumulate_grad_batches=count)  # fmt: skip
        states.append({**state_of(module), **state_of(hint)})
    for name, value in states[0].items():
        torch.testing.assert_close(states[1][name], value, rtol=1e-4, atol=1e-5)


# Precision, compilers, other surroundings ----------------------------------------------------


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("bf16-mixed", torch.bfloat16), ("bf16-true", torch.bfloat16), ("64-true", torch.float64)],
)
@pytest.mark.parametrize(("make", "student"), [(Keeps, "model"), (Itself, None)])
def test_the_teacher_runs_in_the_precision_of_the_student(precision, dtype, make, student):
    class Watch(SoftLabels):
        def forward(self, student, teacher, batch):
            self.types = (student.logits.dtype, teacher.logits.dtype)
            self.autocast = torch.is_autocast_enabled("cpu")
            terms = super().forward(student, teacher, batch)
            self.loss = terms["soft"].dtype
            return terms

    callback = Distillation(small(), Watch(), {"hint": Hint()}, student)
    fitting = fit(make(), callback, precision=precision)
    wanted = torch.float64 if precision == "64-true" else torch.float32
    assert callback.label.types == (dtype, dtype)
    assert callback.label.loss == wanted
    assert not callback.label.autocast
    assert 0 <= float(fitting.callback_metrics["val/agreement"]) <= 1


def test_the_call_before_training_draws_its_batch_as_training_does():
    """Lightning makes modules under another default type, which data must not see."""
    types = []

    def collate(samples):
        types.append(torch.zeros(1).dtype)
        return torch.stack([x for x, _ in samples]), torch.stack([y for _, y in samples])

    callback = Distillation(small(), features={"hint": Hint()}, student="model")
    fit(Keeps(), callback, data=PlainData(collate=collate), precision="bf16-true",
        limit_val_batches=0)  # fmt: skip
    assert types == [torch.float32] * 5


@pytest.mark.parametrize("way", ["submodule", "in place", "module"])
def test_a_compiled_student_is_trained_alike(way):
    def run(way, make, student, layer):
        torch.compiler.reset()
        torch.manual_seed(3)
        module, network = make(), small()
        names = list(module.state_dict())
        if way == "submodule":
            module.model = torch.compile(module.model, backend="eager")
        elif way == "in place":
            module.model.compile(backend="eager")
        callback = Distillation(network, features={"hint": Hint(layer, "1")}, student=student)
        fitted = torch.compile(module, backend="eager") if way == "module" else module
        fit(fitted, callback, limit_val_batches=0)
        return names, module.state_dict().values()

    case = (Itself, None, "body") if way == "module" else (Keeps, "model", "1")
    names, found = run(way, *case)
    for name, one, two in zip(names, found, run("plain", *case)[1], strict=True):
        torch.testing.assert_close(one, two, msg=name)


class Noisy(TensorDataset):
    def __getitem__(self, place):
        x, y = super().__getitem__(place)
        return x + torch.randn(6), y


@pytest.mark.parametrize("views", [None, 2])
def test_kept_outputs_teach_as_the_teacher_does(views, tmp_path):
    class Loaders(pl.LightningDataModule):
        def train_dataloader(self):
            data = PlainData().data
            return DataLoader(Indexed(Noisy(*data.tensors) if views else data, views), 16)

        def val_dataloader(self):
            return DataLoader(Indexed(PlainData().data), batch_size=16)

    class Numbered(Keeps):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch[:2], batch_idx)

        def validation_step(self, batch, batch_idx):
            return super().validation_step(batch[:2], batch_idx)

    states, network, metrics = [], small(), []
    for teacher in (network, CachedTeacher(copy.deepcopy(network), tmp_path)):
        torch.manual_seed(3)
        module = Numbered()
        callback = Distillation(teacher, student="model")
        fitting = fit(module, callback, data=Loaders(), max_epochs=3)
        states.append(state_of(module))
        metrics.append(float(fitting.callback_metrics["val/kl_from_teacher"]))
    assert len(list(tmp_path.glob("train-*"))) >= 1
    assert same(*states)
    assert metrics[0] == metrics[1]


# Evaluation ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "student"), [(Keeps, "model"), (Itself, None)])
def test_evaluation_compares_with_the_teacher(make, student):
    module, network = make(), small()
    callback = Distillation(network, student=student)
    fitting = fit(module, callback)
    x, _ = PlainData().data.tensors
    net = module.model if student else module
    with torch.no_grad():
        z, t = net(x), network(x)
    agreement = float((z.argmax(1) == t.argmax(1)).float().mean())
    kl = float(F.kl_div(F.log_softmax(z, 1), F.log_softmax(t, 1), log_target=True,
                        reduction="batchmean"))  # fmt: skip
    found = fitting.validate(module, PlainData(), verbose=False)[0]
    for values in (fitting.callback_metrics, found):
        assert float(values["val/agreement"]) == pytest.approx(agreement)
        assert float(values["val/kl_from_teacher"]) == pytest.approx(kl, rel=1e-4)
    if make is Keeps:
        assert "accuracy" in found
        tested = fitting.test(module, PlainData(), verbose=False)[0]
        assert tested["test/agreement"] == pytest.approx(agreement)
        loaders = [PlainData().val_dataloader(), PlainData(32).val_dataloader()]
        names = {n for row in fitting.validate(module, loaders, verbose=False) for n in row}
        assert {"val/agreement", "val_1/agreement"} <= names


# Errors --------------------------------------------------------------------------------------


class Manual(Keeps):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False


class Forward(Keeps):
    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.model.forward(batch[0]), batch[1])


class Twice(Keeps):
    def training_step(self, batch, batch_idx):
        self.model(batch[0])
        return super().training_step(batch, batch_idx)


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (Manual, {}, "Manual optimises by hand"),
        (Keeps, {"student": "modle"}, r"Keeps has no submodule 'modle'; the nearest are model"),
        (Keeps, {"student": None}, "called the student, the module itself, 0 times"),
        (Forward, {}, r"called the student, `model`, 0 times.*not by .forward"),
        (Twice, {}, "called the student, `model`, 2 times"),
        (Keeps, {"features": {"hint": Hint("layr", "0")}}, "no layer 'layr'"),
        (
            Returns,
            {"student": "net.encoder", "features": {"hint": Hint()}},
            "inputs of a batch, of type Tensor: .*'scale'.*`take_apart` says",
        ),
    ],
)
def test_what_cannot_work_is_refused(make, arguments, message):
    module = make()
    module.configure_model()
    before = traces(module)
    with pytest.raises(ConfigError, match=message):
        fit(module, Distillation(small(), **{"student": "model", **arguments}))
    assert traces(module) == before


def test_bad_arguments_are_refused():
    with pytest.raises(ConfigError, match="`simkd`: SimKD replaces layers"):
        Distillation(small(), features={"simkd": SimKD()})
    with pytest.raises(TeacherError, match="SoftLabels needs a teacher"):
        Distillation(None)
    with pytest.raises(ConfigError, match=r"`label` must be an objective .* got str"):
        Distillation(small(), "soft")
    with pytest.raises(ConfigError, match="`own_weight` must be finite and >= 0, got -1"):
        Distillation(small(), own_weight=-1)
    module = Keeps()
    with pytest.raises(ConfigError, match="share parameters"):
        fit(module, Distillation(module.model, student="model"))
    with pytest.raises(TeacherError, match="student has 3 classes and the teacher 4"):
        fit(Keeps(), Distillation(small(classes=4), student="model"))


def test_calls_without_gradients_do_not_count():
    class Watches(Keeps):
        def training_step(self, batch, batch_idx):
            with torch.no_grad():
                self.model(batch[0])
            return super().training_step(batch, batch_idx)

    states, network = [], small()
    for make in (Keeps, Watches):
        torch.manual_seed(3)
        module = make()
        fit(module, Distillation(network, student="model"))
        states.append(state_of(module))
    assert same(*states)


def test_a_loss_of_one_element_is_the_loss():
    class Column(Keeps):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx)[None]

    states, network = [], small()
    for make in (Keeps, Column):
        torch.manual_seed(3)
        module = make()
        fit(module, Distillation(network, student="model"))
        states.append(state_of(module))
    assert same(*states)


def test_a_step_that_is_left_out_stays_left_out():
    class Skips(Keeps):
        def training_step(self, batch, batch_idx):
            return None if batch_idx else super().training_step(batch, batch_idx)

    before = Skips()
    with pytest.warns(UserWarning, match="returned `None`"):
        fit(before, Distillation(small(), student="model"))


# Two processes -------------------------------------------------------------------------------

SCRIPT = """
import sys
import lightning.pytorch as pl
import torch
from torch.nn.parallel import DistributedDataParallel
from conftest import PlainData, trainer
from foreign import Itself, Keeps, small
from kdlit import Distillation, SoftLabels
from kdlit.objectives import Hint

make, student, folder = {"Keeps": Keeps, "Itself": Itself}[sys.argv[1]], sys.argv[2], sys.argv[3]
torch.manual_seed(3)
module, teacher, hint = make(), small(width=12), Hint(weight=1.0)
callback = Distillation(teacher, SoftLabels(), {"hint": hint}, student or None)
found = {}

class Watch(pl.Callback):
    def on_train_batch_start(self, trainer, module, *_):
        wrapper = trainer.strategy.model
        assert isinstance(wrapper, DistributedDataParallel)
        held = {id(p) for p in wrapper.parameters()}
        found["parts"] = all(id(p) in held for p in hint.parameters())
        found["teacher"] = any(id(p) in held for p in teacher.parameters())

    def on_train_batch_end(self, trainer, module, *_):
        for mine in module.parameters():
            both = trainer.strategy.all_gather(mine.detach())
            assert torch.equal(both[0], both[1])

fit = trainer(strategy="ddp", devices=2, callbacks=[callback, Watch()], max_epochs=2)
fit.fit(module, PlainData(batch_size=8))
metrics = {name: float(v) for name, v in fit.callback_metrics.items()}
if fit.is_global_zero:
    torch.save({**found, "metrics": metrics, "state": module.state_dict(),
                "hint": hint.state_dict()}, folder)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("make", "student"), [(Keeps, "model"), (Itself, None)])
def test_two_processes_train_as_one(make, student, tmp_path):
    """With batches of half the size; the samples of a step are then the same."""
    (tmp_path / "script.py").write_text(SCRIPT)
    out = tmp_path / "found.pt"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "tests")}
    environment.pop("PL_GLOBAL_SEED", None)  # of another test: Lightning would seed with it
    done = subprocess.run(
        [sys.executable, "script.py", make.__name__, student or "", str(out)],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
        env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = torch.load(out, weights_only=True)
    assert found["parts"]
    assert not found["teacher"]
    torch.manual_seed(3)
    module, teacher, hint = make(), small(width=12), Hint(weight=1.0)
    callback = Distillation(teacher, SoftLabels(), {"hint": hint}, student)

    class Interleaved(PlainData):
        """The samples of both processes' steps: shuffled as Lightning's sampler does."""

        def train_dataloader(self):
            from torch.utils.data import DistributedSampler

            samplers = [DistributedSampler(self.data, 2, rank, shuffle=True, seed=0)
                        for rank in (0, 1)]  # fmt: skip
            for sampler in samplers:
                sampler.set_epoch(self.trainer.current_epoch)
            pairs = zip(*(list(sampler) for sampler in samplers), strict=True)
            order = [index for pair in pairs for index in pair]
            return DataLoader(self.data, batch_size=16, sampler=order)

    fitting = trainer(callbacks=[callback], max_epochs=2, reload_dataloaders_every_n_epochs=1)
    fitting.fit(module, Interleaved())
    for name, value in module.state_dict().items():
        torch.testing.assert_close(found["state"][name], value, rtol=1e-3, atol=1e-5)
    for name in ("val/agreement", "val/kl_from_teacher"):
        value = float(fitting.callback_metrics[name])
        assert found["metrics"][name] == pytest.approx(value, rel=1e-3), name
