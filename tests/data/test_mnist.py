from types import SimpleNamespace

import pytest
import torch
from torch import nn

from conftest import trainer
from kdlit import SupervisedModule
from kdlit.data import FashionMNISTDataModule, MNISTDataModule, RandomShift
from kdlit.errors import ConfigError
from kdlit.models import MLP


def module(**options) -> MNISTDataModule:
    from conftest import REPOSITORY

    data = MNISTDataModule(root=REPOSITORY / "data", **options)
    data.setup()
    return data


def test_the_validation_split_is_stratified_disjoint_and_independent_of_the_seed():
    data, other = module(), module(seed=7)
    assert (len(data.train_data), len(data.val_data), len(data.test_data)) == (
        55_000,
        5_000,
        10_000,
    )
    both = torch.cat([data.train_data.index, data.val_data.index])
    assert torch.equal(both.sort().values, torch.arange(60_000))
    assert torch.equal(data.val_data.index, other.val_data.index)
    assert not torch.equal(data.val_data.index, module(split_seed=1).val_data.index)
    share = torch.bincount(data.val_data.labels) / 5_000
    assert torch.allclose(share, torch.bincount(data.train_data.labels) / 55_000, atol=2e-4)


def test_subsets():
    data = module(train_size=600, classes=[3, 1])
    assert torch.bincount(data.train_data.labels, minlength=10).nonzero().flatten().tolist() == [
        1,
        3,
    ]
    assert len(data.train_data) == 600
    assert set(data.val_data.labels.tolist()) == {1, 3}
    assert len(data.test_data.labels.unique()) == 10
    other = module(train_size=600, classes=[1, 3], seed=1)
    assert not torch.equal(data.train_data.index, other.train_data.index)


def test_label_noise_is_in_the_training_labels_alone():
    clean, noisy = module(train_size=6000), module(train_size=6000, label_noise=0.4)
    assert torch.equal(clean.train_data.index, noisy.train_data.index)
    assert torch.equal(clean.train_data.images, noisy.train_data.images)
    wrong = clean.train_data.labels != noisy.train_data.labels
    assert abs(float(wrong.double().mean()) - 0.4) < 0.02
    for name in ("val_data", "test_data", "train_eval_data"):
        assert torch.equal(getattr(clean, name).labels, getattr(noisy, name).labels)

    # An image's label is the same in every training set that has it, and another seed's is not.
    whole = module(label_noise=0.4)
    assert torch.equal(
        whole.train_data.labels[torch.isin(whole.train_data.index, noisy.train_data.index)],
        noisy.train_data.labels,
    )
    other = module(label_noise=0.4, seed=1).train_data.labels
    # Both true, or both wrong in the same way.
    agreement = float((other == whole.train_data.labels).double().mean())
    assert abs(agreement - (0.6**2 + 0.4**2 / 9)) < 0.01


def test_label_noise_stays_among_the_classes_that_are_trained_on():
    data, clean = module(classes=[7, 2], label_noise=0.3), module(classes=[2, 7])
    assert set(data.train_data.labels.tolist()) == {2, 7}
    wrong = data.train_data.labels != clean.train_data.labels
    assert abs(float(wrong.double().mean()) - 0.3) < 0.02
    assert len(module(classes=[7]).train_data) > 5000


def test_images_are_normalised():
    data = module()
    images = data.normalize(data.train_data.images)
    assert images.dtype == torch.float32
    assert images.shape[1:] == (1, 28, 28)
    assert abs(float(images.mean())) < 0.01
    assert abs(float(images.std()) - 1) < 0.01


class Recorder(nn.Module):
    """A network that remembers what it saw in training."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.seen = nn.Linear(784, 10), []

    def forward(self, images):
        if self.training:
            self.seen.append(images.detach().clone())
        return self.linear(images.flatten(1))


def seen(epochs: int = 2, **options) -> torch.Tensor:
    network = Recorder()
    data = module(train_size=32, batch_size=16, **options)
    trainer(max_epochs=epochs).fit(SupervisedModule(network), data)
    return torch.stack(network.seen)


def test_views_and_order_depend_on_the_seed_and_the_epoch():
    first, again, other = (seen(seed=seed, augment=RandomShift(2)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first[:2], first[2:])


def test_augmentation_belongs_to_training_alone():
    plain, shifted = seen(epochs=1), seen(epochs=1, augment=RandomShift(2))
    assert not torch.equal(plain, shifted)
    network = MLP(widths=[])
    scores = [
        trainer().validate(
            SupervisedModule(network), module(augment=augment, val_size=500), verbose=False
        )
        for augment in (None, RandomShift(2))
    ]
    assert scores[0] == scores[1]


def test_workers_and_transforms_see_single_images():
    plain = seen(epochs=1)
    inverted = seen(epochs=1, transform=Invert(), num_workers=1, persistent_workers=True)
    assert torch.allclose(plain + inverted, plain[0, 0, 0, 0, 0] * 2 + 1 / 0.3081, atol=1e-4)


class Invert:
    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        assert image.shape == (1, 28, 28)
        return 255 - image


def test_batches_carry_the_index_on_request():
    data = module(train_size=10)
    raw = next(iter(data.train_dataloader()))
    assert len(data.on_after_batch_transfer(raw, 0)) == 2
    data.index = True
    images, labels, index = data.on_after_batch_transfer(raw, 0)
    everything = module()
    for image, label, position in zip(images, labels, index, strict=True):
        at = everything.train_data.index.tolist().index(int(position))
        assert torch.equal(everything.normalize(everything.train_data.images[at]), image)
        assert everything.train_data.labels[at] == label


def test_on_device_moves_everything_to_the_trainers_device():
    data = module(train_size=32, on_device=True)
    strategy = SimpleNamespace(root_device=torch.device("meta"))
    data.trainer = SimpleNamespace(strategy=strategy, world_size=1)
    assert data.train_dataloader().dataset.images.is_meta
    assert data.val_dataloader().dataset.labels.is_meta
    plain = module(train_size=32)
    plain.trainer = data.trainer
    assert not plain.train_dataloader().dataset.images.is_meta


def test_fashion_differs_in_what_it_reads_and_how_it_is_normalised(tmp_path):
    data = FashionMNISTDataModule(root=tmp_path)
    assert data.source.__name__ == "FashionMNIST"
    assert data.mean != MNISTDataModule.mean


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_size": 0}, "`train_size` must be an integer >= 1, got 0"),
        ({"train_size": 55_001}, "`train_size` must be at most 55000.*got 55001"),
        ({"val_size": 60_000}, "`val_size` must leave some of the 60000"),
        ({"batch_size": -1}, "`batch_size`"),
        ({"batch_size": 1.5}, "`batch_size` must be an integer >= 1, got 1.5"),
        ({"classes": [3, 10]}, r"`classes` must name classes from 0 to 9, got \[3, 10\]"),
        ({"classes": []}, "`classes`"),
        ({"label_noise": 1.0}, r"`label_noise` must lie in \[0, 1\), got 1.0"),
        ({"label_noise": -0.1}, "`label_noise` must lie in"),
        ({"label_noise": 0.1, "classes": [4]}, r"`classes` \[4\] has no other.*got 0.1"),
        ({"seed": -1}, "`seed` must be an integer >= 0, got -1"),
        ({"persistent_workers": True}, "`persistent_workers` needs `num_workers` >= 1"),
        ({"on_device": True, "num_workers": 2}, "`on_device`"),
    ],
)
def test_refuses_bad_arguments(options, message):
    with pytest.raises(ConfigError, match=message):
        module(**options)
