"""Feature objectives with trained parts: VID, factor transfer, knowledge review, one-for-all.

The reference takes the trained parts' weights from the objective and the loss, and where there is
one the part's own forward pass, from torchdistill, or from a loop written from the paper.
"""

import math

import torch
import torch.nn.functional as F

from kdlit.objectives import OFA, VID, FactorTransfer, ReviewKD
from objectives.table import Case


def torchdistill_vid(objective, student, teacher, batch):
    from torchdistill.losses.mid_level import VIDLoss
    from torchdistill.models.wrapper import Regressor4VID

    theirs = teacher.features["block2"]
    own, mean = objective.regressor, student.features["block2"]
    for number in (0, 2, 4):
        mean = mean.clamp_min(0) if number else mean
        mean = F.conv2d(mean, own[number].map.weight, own[number].map.bias)
    # Of torchdistill's regressor only the variance: its mean has no biases.
    regressor = Regressor4VID(mean.shape[1], 1, mean.shape[1], eps=1e-5, init_pred_var=5.0)
    pair = {"student": {"path": "s", "io": "output"}, "teacher": {"path": "t", "io": "output"}}
    said = {"s": {"output": (mean, regressor(mean)[1])}}
    return {"vid": VIDLoss({"one": pair})(said, {"t": {"output": theirs}})}


def torchdistill_factor(objective, student, teacher, batch):
    from torchdistill.losses.mid_level import FTLoss
    from torchdistill.models.wrapper import Paraphraser4FactorTransfer, Translator4FactorTransfer

    ours, theirs = student.features["block2"], teacher.features["block2"]
    channels = theirs.shape[1]
    paraphraser = Paraphraser4FactorTransfer(objective.rate, channels)
    translator = Translator4FactorTransfer(ours.shape[1], int(objective.rate * channels))
    paraphraser.encoder.load_state_dict(objective.encoder.state_dict())
    paraphraser.decoder.load_state_dict(objective.decoder.state_dict())
    translator.load_state_dict(objective.translator.state_dict())
    factor = FTLoss()(
        {"translator": {"output": translator(ours)}},
        {"paraphraser": {"output": paraphraser.encoder(theirs)}},
    )
    return {"factor": factor, "reconstruction": ((paraphraser(theirs) - theirs) ** 2).mean()}


def torchdistill_review(objective, student, teacher, batch):
    from torchdistill.losses.mid_level import HierarchicalContextLoss
    from torchdistill.models.wrapper import AttentionBasedFusion

    total, residual = torch.zeros(()), None
    for fusion, name in reversed(
        list(zip(objective.fusions, objective.student_layers, strict=True))
    ):
        ours, theirs = (
            maps if maps.ndim == 4 else maps[:, :, None, None]
            for maps in (student.features[name], teacher.features[name])
        )
        width = fusion.inner[0].out_channels
        fuse = AttentionBasedFusion(ours.shape[1], width, theirs.shape[1], residual is not None)
        fuse.conv1.load_state_dict(fusion.inner.state_dict())
        fuse.conv2.load_state_dict(fusion.outer.state_dict())
        if residual is not None:
            fuse.attention_conv[0].load_state_dict(fusion.attention.state_dict())
        output = fuse(ours, residual, ours.shape[-1])
        residual = output[1]
        loss = HierarchicalContextLoss("s", "output", "t", "output")
        total = total + loss({"s": {"output": output}}, {"t": {"output": theirs}})
    return {"review": total}


def naive_ofa(objective, student, teacher, batch):
    def softmax(row):
        powers = [math.exp(value / objective.temperature) for value in row]
        return [power / sum(powers) for power in powers]

    def loss(logits):
        losses = []
        for z, t, y in zip(
            logits.tolist(), teacher.logits.tolist(), batch.target.tolist(), strict=True
        ):
            q, p = softmax(z), softmax(t)
            losses.append(-((1 + p[y]) ** objective.gamma) * math.log(q[y]))
            losses[-1] -= sum(p[c] * math.log(q[c]) for c in range(len(p)) if c != y)
        return torch.tensor(sum(losses) / len(losses))

    def separable(layers, maps):
        for first in (0, 4):
            depthwise, pointwise, norm = layers[first : first + 3]
            maps = F.conv2d(
                maps, depthwise.weight, None, 2 - first // 4, padding=1, groups=maps.shape[1]
            )
            maps = F.conv2d(maps, pointwise.weight)
            centred = maps - maps.mean(dim=(0, 2, 3), keepdim=True)
            spread = (centred.square().mean(dim=(0, 2, 3), keepdim=True) + norm.eps).sqrt()
            maps = (centred / spread).clamp_min(0)
        return maps

    branches = []
    for layers, name in zip(objective.branches, objective.student_layers, strict=True):
        maps = student.features[name]
        for first in range(0, len(layers) - 2, 8):
            maps = separable(layers[first : first + 8], maps)
        branches.append(maps.mean(dim=(2, 3)) @ layers[-1].weight.T + layers[-1].bias)
    return {"logits": loss(student.logits), "branches": sum(loss(said) for said in branches)}


STAGES = ("block1", "block2", "hidden")

CASES = {
    "VID": Case(
        lambda: VID("block2", "block2"),
        torchdistill_vid,
        signed=("vid",),
        learns="readout",
        learning_rate=0.03,
        gain=0.1,
    ),
    "FactorTransfer": Case(
        lambda: FactorTransfer("block2", "block2"),
        torchdistill_factor,
        learns="readout",
        # Paraphraser and translator, of six layers, must learn before the student can.
        learning_rate=0.05,
        steps=200,
        gain=0.1,
    ),
    "ReviewKD": Case(
        lambda: ReviewKD(STAGES, STAGES),
        torchdistill_review,
        learns="readout",
        learning_rate=0.03,
        gain=0.1,
    ),
    "OFA": Case(lambda: OFA(["block1", "block2"], gamma=1.5, temperature=2.0), naive_ofa),
}
