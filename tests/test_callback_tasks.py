"""Around modules of somebody else's that answer tokens, several labels or numbers."""

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from conftest import PlainData, trainer
from foreign import small
from kdlit import Distillation, SoftLabels, Tokens
from kdlit.batch import Batch
from kdlit.errors import ConfigError
from kdlit.objectives import Hint, MultilabelSoftLabels, RegressionLabels
from test_positions import CLASSES, batches, loader, tagger


class Tagger(pl.LightningModule):
    """Labels each token, and divides its loss by the batch's size whatever counts."""

    def __init__(self) -> None:
        super().__init__()
        self.model = tagger()

    def own(self, logits, labels):
        flat = logits.reshape(-1, CLASSES)
        return F.cross_entropy(flat, labels.flatten(), ignore_index=-100, reduction="sum") / 4

    def training_step(self, batch, batch_idx):
        return self.own(self.model(batch["ids"]), batch["labels"])

    def validation_step(self, batch, batch_idx):
        self.model(batch["ids"])

    def configure_optimizers(self):
        return torch.optim.SGD(self.model.parameters(), lr=0.05)


class Steps(pl.Callback):
    """Notes of each step the loss, and every parameter with its gradient."""

    def __init__(self) -> None:
        self.losses, self.found = [], []

    def on_before_backward(self, trainer, module, loss):
        self.losses.append(loss.detach())

    def on_before_optimizer_step(self, trainer, module, optimizer):
        self.found.append(
            {n: (p.detach().clone(), p.grad.clone()) for n, p in module.named_parameters()}
        )


def counted(labels):
    """Return the places of a batch's tokens that count."""
    places = torch.cartesian_prod(*map(torch.arange, labels.shape)).tolist()
    return [tuple(place) for place in places if labels[tuple(place)] != -100]


def divergence(z, t, temperature=1.0):
    """Return KL(teacher || student) of one position."""
    p, q = F.softmax(t / temperature, dim=0), F.softmax(z / temperature, dim=0)
    return (p * (p / q).log()).sum()


def test_the_loss_is_the_sum_over_the_tokens_that_count_written_by_hand():
    module, teacher, hint, steps = Tagger(), tagger(8, seed=1), Hint("2", "2", weight=3.0), Steps()
    label = SoftLabels(temperature=4.0, alpha=0.9)
    callback = Distillation(teacher, label, {"hint": hint}, "model", positions=Tokens())
    data = batches()
    fit = trainer(callbacks=[callback, steps])
    fit.fit(module, loader(data), loader(data))

    net = tagger()
    assert [len(counted(batch["labels"])) > 0 for batch in data] == [True, True, False, True, True]
    for batch, said, found in zip(data, steps.losses, steps.found, strict=True):
        weights = {name: value.requires_grad_() for name, (value, _) in found.items()}
        parts = {n.split("map.")[1]: v for n, v in weights.items() if "projector" in n}
        own = {n.removeprefix("model."): v for n, v in weights.items() if n.startswith("model.")}
        x, places = batch["ids"], counted(batch["labels"])
        hidden, z = None, torch.func.functional_call(net, own, x)
        hidden = F.relu(F.linear(F.embedding(x, own["0.weight"]), own["1.weight"], own["1.bias"]))
        with torch.no_grad():
            theirs, t = teacher[:3](x), teacher(x)
        loss = 0.1 * module.own(z, batch["labels"])
        for place in places:
            mapped = F.linear(hidden[place], parts["weight"], parts["bias"])
            hinted = (mapped - theirs[place]).square().mean()
            soft = 16 * divergence(z[place], t[place], 4.0)
            loss = loss + (0.9 * soft + 3.0 * hinted) / len(places)
        torch.testing.assert_close(said, loss.detach())
        wanted = torch.autograd.grad(loss, list(weights.values()), allow_unused=not places)
        for (name, (_, grad)), expected in zip(found.items(), wanted, strict=True):
            expected = torch.zeros_like(grad) if expected is None else expected
            torch.testing.assert_close(grad, expected, rtol=1e-4, atol=1e-6, msg=name)

    pairs = [
        (module.model(batch["ids"])[place].detach(), teacher(batch["ids"])[place])
        for batch in data
        for place in counted(batch["labels"])
    ]
    alike = torch.stack([(z.argmax() == t.argmax()).float() for z, t in pairs]).mean()
    apart = torch.stack([divergence(z, t) for z, t in pairs]).mean()
    assert fit.callback_metrics["val/agreement"].item() == pytest.approx(alike.item())
    assert fit.callback_metrics["val/kl_from_teacher"].item() == pytest.approx(apart.item(), 1e-4)


def test_a_mask_tells_which_tokens_count_where_there_are_no_labels():
    class Masked(nn.Module):
        def __init__(self, net):
            super().__init__()
            self.net = net

        def forward(self, ids, attention_mask):
            return self.net(ids)

    class Unlabelled(Tagger):
        def __init__(self):
            super().__init__()
            self.model = Masked(self.model)

        def training_step(self, batch, batch_idx):
            inputs = {name: value for name, value in batch.items() if name != "labels"}
            return 0.0 * self.model(**inputs).sum()

    def student(data):
        module = Unlabelled()
        callback = Distillation(Masked(tagger(8, seed=1)), SoftLabels(alpha=1.0), None, "model",
                                positions=Tokens())  # fmt: skip
        trainer(callbacks=[callback], limit_val_batches=0).fit(module, loader(data), loader(data))
        return module.model.state_dict()

    masked = [{"ids": b["ids"], "attention_mask": (b["labels"] != -100).int()} for b in batches()]
    labelled = [{**one, "labels": b["labels"]} for one, b in zip(masked, batches(), strict=True)]
    one, two = student(masked), student(labelled)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["net.3.weight"], tagger()[3].weight)


def test_a_batch_of_which_the_positions_are_unknown_is_refused():
    class Odd(Tagger):
        def training_step(self, batch, batch_idx):
            return self.own(self.model(batch[0]), batch[1])

    data = loader([(b["ids"], b["labels"], "more", "and more") for b in batches()])

    def fit(**options):
        callback = Distillation(tagger(8, seed=1), student="model", positions=Tokens(), **options)
        trainer(callbacks=[callback], limit_val_batches=0).fit(Odd(), data, data)

    with pytest.raises(ConfigError, match=r"got list of 4.*`take_apart` says"):
        fit()
    fit(take_apart=lambda batch: Batch(*batch[:2]))


# Several labels, numbers ------------------------------------------------------------------------


class Fits(pl.LightningModule):
    """Has outputs of its own kind, and a loss for them."""

    def __init__(self, loss) -> None:
        super().__init__()
        self.model, self.loss = small(), loss

    def training_step(self, batch, batch_idx):
        return self.loss(self.model(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.model(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05)


def bernoulli(z, t):
    """Return KL(teacher || student) of labels that are each there or not."""
    p, q = t.sigmoid(), z.sigmoid()
    return (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).mean()


@pytest.mark.parametrize(
    ("label", "own", "term", "beside"),
    [
        (
            MultilabelSoftLabels(alpha=0.75),
            F.binary_cross_entropy_with_logits,
            ("soft", bernoulli),
            {
                "agreement": lambda z, t: ((z > 0) == (t > 0)).float().mean(),
                "kl_from_teacher": bernoulli,
            },
        ),
        (
            RegressionLabels(alpha=0.75),
            F.mse_loss,
            ("mse", lambda z, t: (z - t).square().mean()),
            {"mse_from_teacher": lambda z, t: (z - t).square().mean()},
        ),
    ],
    ids=["labels", "numbers"],
)
def test_another_task_has_its_own_loss_and_measures_its_own_agreement(label, own, term, beside):
    x, _ = PlainData().data.tensors
    data = TensorDataset(x, (x[:, :3] > 0).float())
    module, teacher, steps = Fits(own), small(width=12), Steps()
    fit = trainer(callbacks=[Distillation(teacher, label, student="model"), steps])
    fit.fit(module, DataLoader(data, 64), DataLoader(data, 10))

    net, t = small(), teacher(x)
    z = torch.func.functional_call(
        net, {n.removeprefix("model."): p for n, (p, _) in steps.found[0].items()}, x
    )
    name, between = term
    expected = 0.25 * own(z, data.tensors[1]) + 0.75 * between(z, t)
    torch.testing.assert_close(steps.losses, [expected])
    found = {n: float(v) for n, v in fit.callback_metrics.items()}
    assert set(found) == {f"train/{name}", "train/total", *(f"val/{n}" for n in beside)}
    with torch.no_grad():
        measured = {f"val/{n}": float(f(module.model(x), t)) for n, f in beside.items()}
    assert {n: found[n] for n in measured} == pytest.approx(measured, rel=1e-4)
