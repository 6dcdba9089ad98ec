"""LightningModules of somebody else's, written without a thought of kdlit."""

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import nn
from torchmetrics.classification import MulticlassAccuracy


def small(classes: int = 3, width: int = 8) -> nn.Module:
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, classes))


class Keeps(pl.LightningModule):
    """Keeps its network in `self.model`, and a schedule over steps."""

    def __init__(self, model: nn.Module | None = None, lr: float = 0.05) -> None:
        super().__init__()
        self.save_hyperparameters(ignore="model")
        self.model = small() if model is None else model
        self.accuracy = MulticlassAccuracy(3)

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self.model(x), y)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        x, y = batch
        self.accuracy(self.model(x), y)
        self.log("accuracy", self.accuracy)

    def test_step(self, batch, batch_idx):
        self.validation_step(batch, batch_idx)

    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.model.parameters(), self.hparams.lr, momentum=0.9)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=100)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Itself(pl.LightningModule):
    """Is the network, and leaves out the logging."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(F.relu(self.body(x)))

    def training_step(self, batch):
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch):
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


class Encoder(nn.Module):
    """Has a call of its own kind, and an output with `.logits`."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x, *, scale):
        return type("Output", (), {"logits": self.head(F.relu(self.body(x * scale)))})()


class Returns(pl.LightningModule):
    """Returns a mapping, has two groups of parameters, and makes its network when it is fitted."""

    def configure_model(self):
        if not hasattr(self, "net"):
            self.net = nn.ModuleDict({"encoder": Encoder()})

    def training_step(self, batch, batch_idx):
        x, y = batch
        noisy = x + 0.1 * torch.randn_like(x)
        logits = self.net["encoder"](noisy, scale=2.0).logits
        return {"loss": F.cross_entropy(logits, y, label_smoothing=0.1), "logits": logits.detach()}

    def validation_step(self, batch, batch_idx):
        return {"logits": self.net["encoder"](batch[0], scale=2.0).logits}

    def configure_optimizers(self):
        encoder = self.net["encoder"]
        groups = [{"params": encoder.body.parameters(), "lr": 0.001},
                  {"params": encoder.head.parameters()}]  # fmt: skip
        optimizer = torch.optim.SGD(groups, lr=0.1)
        return [optimizer], [torch.optim.lr_scheduler.LambdaLR(optimizer, [lambda e: 0.5**e] * 2)]
