from functools import partial

import pytest
import torch

from conftest import PlainData, network, trainer
from kdlit import SupervisedModule
from kdlit.errors import ConfigError


def test_learns_and_reports():
    fit = trainer(max_epochs=30)
    module = SupervisedModule(network(), partial(torch.optim.Adam, lr=0.02))
    fit.fit(module, PlainData(256))
    found = fit.callback_metrics
    assert found["val/accuracy"] > 0.9
    assert {
        "train/loss",
        "train/truth_epoch",
        "train/loss_epoch",
        "train/accuracy",
        "val/ece",
        "val/nll",
    } <= set(found)
    assert "val/agreement" not in found


def test_epoch_means_are_over_all_samples():
    class Means(SupervisedModule):
        def on_train_epoch_end(self):
            super().on_train_epoch_end()
            # Learning rate 0 and no dropout: the mean over the epoch is that over the data.
            self.train()
            with torch.no_grad():
                self.expected = torch.cat([self(x) for x, _ in self.trainer.train_dataloader])

    module = Means(network(), partial(torch.optim.SGD, lr=0.0))
    data = PlainData(samples=40, batch_size=16)  # the last batch is smaller
    fit = trainer()
    fit.fit(module, data)
    expected = torch.nn.functional.cross_entropy(module.expected, data.data.tensors[1])
    assert fit.callback_metrics["train/loss_epoch"] == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        (partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1), 12),
        (partial(torch.optim.lr_scheduler.StepLR, step_size=1), 3),
        (partial(torch.optim.lr_scheduler.ReduceLROnPlateau, patience=0), 3),
    ],
)
def test_a_schedule_of_steps_advances_every_step_and_any_other_every_epoch(scheduler, expected):
    fit = trainer(max_epochs=3)
    module = SupervisedModule(network(), partial(torch.optim.SGD, lr=0.1), scheduler)
    fit.fit(module, PlainData(samples=64, batch_size=16))
    schedule = module.lr_schedulers()
    assert schedule.last_epoch == expected
    if expected == 12:
        assert schedule.total_steps == 12


def test_predicts_probabilities():
    fit = trainer()
    found = torch.cat(fit.predict(SupervisedModule(network()), PlainData()))
    assert found.shape == (64, 3)
    assert found.dtype == torch.float32
    assert torch.allclose(found.sum(dim=1), torch.ones(64))


def test_refuses_an_optimizer_where_a_factory_is_needed():
    net = network()
    with pytest.raises(ConfigError, match=r"`optimizer` must be a function .* got Adam"):
        SupervisedModule(net, torch.optim.Adam(net.parameters()))
    with pytest.raises(ConfigError, match="`label_smoothing`"):
        SupervisedModule(net, label_smoothing=1.0)
