"""CRD against torchdistill, with our memories, our negatives and our embeddings in it."""

import torch

from kdlit.objectives import CRD
from objectives.table import Case


def torchdistill_crd(objective, student, teacher, batch):
    """Return what torchdistill's loss says of memories to which this batch's pairs are added.

    It takes a positive from memory where we take it from the batch: here each sample's positive is
    an entry of its own behind the others, so that column 0 of its negatives can name it.
    """
    from torchdistill.losses.mid_level import CRDLoss

    ours = objective.student_embedding(student.features[objective.student_layers[0]])
    theirs = objective.teacher_embedding(teacher.features[objective.teacher_layers[0]])
    positives = objective.samples + torch.arange(len(ours))
    loss = CRDLoss(
        "student",
        "empty",
        "teacher",
        input_size=objective.feature_dim,
        output_size=objective.samples + len(ours),
        num_negative_samples=objective.negatives,
        # It cancels with the constants Z, which are proportional to `output_size`.
        num_samples=objective.samples + len(ours),
        temperature=objective.temperature,
        momentum=objective.momentum,
        eps=0.0,
    )
    loss.memory_v1 = torch.cat([objective.student_memory, ours.detach()])
    loss.memory_v2 = torch.cat([objective.teacher_memory, theirs.detach()])
    if objective.steps > 0:
        loss.params[2:4] = loss.memory_v1.shape[0] * objective.log_means.exp()
    contrast = torch.cat([positives[:, None], objective.negatives_of(batch.index)], dim=1)
    found = loss(
        {
            "student": {"output": ours},
            "empty": {"input": {"pos_idx": positives, "contrast_idx": contrast}},
        },
        {"teacher": {"output": theirs}},
    )
    return {"crd": found.squeeze()}


CASES = {
    "CRD": Case(
        # A higher temperature than the paper's: twenty steps are few.
        lambda: CRD(300, negatives=64, feature_dim=64, temperature=0.2, student_layer="hidden"),
        torchdistill_crd,
        learns="readout",
        learning_rate=0.01,
        gain=0.1,
        # An embedding gets its gradient as an anchor, and none as the other one's positive.
        gradcheck=False,
    ),
}
