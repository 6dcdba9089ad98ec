"""Models of Hugging Face's transformers as student and teacher, made from configurations.

Their own losses are the independent reference: of labels that they are never given here.
"""

from functools import partial

import pytest
import torch
import transformers
from torch.utils.data import DataLoader

from conftest import trainer
from kdlit import DistillationModule, SoftLabels, SupervisedModule, Tokens
from kdlit.errors import TeacherError
from kdlit.objectives import Hint, MultilabelSoftLabels, RegressionLabels
from kdlit.tasks import Multilabel, Regression

VOCABULARY, LENGTH = 20, 7
STILL = partial(torch.optim.SGD, lr=0.0)
ADAM = partial(torch.optim.Adam, lr=0.01)


def bert(kind: str, width: int = 4, labels: int = 3, **options):
    config = transformers.BertConfig(
        vocab_size=VOCABULARY, hidden_size=width, intermediate_size=8, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=16, num_labels=labels,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **options,
    )  # fmt: skip
    return getattr(transformers, f"BertFor{kind}Classification")(config)


def gpt2(width: int = 4, vocabulary: int = VOCABULARY):
    config = transformers.GPT2Config(
        vocab_size=vocabulary, n_positions=16, n_embd=width, n_layer=1, n_head=2, bos_token_id=0,
        eos_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def llama(width: int = 4, vocabulary: int = VOCABULARY):
    config = transformers.LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=16,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def batches(labels, count: int = 3) -> list[dict]:
    """Return padded batches as a collator gives them; the last is smaller."""
    generator, found = torch.Generator().manual_seed(1), []
    for size in [4] * (count - 1) + [3]:
        ids = torch.randint(1, VOCABULARY, (size, LENGTH), generator=generator)
        lengths = torch.randint(2, LENGTH + 1, (size, 1), generator=generator)
        mask = (torch.arange(LENGTH) < lengths).long()
        batch = {"input_ids": ids * mask, "attention_mask": mask}
        found.append({**batch, "labels": labels(ids, mask)})
    return found


def loader(data: list[dict]) -> DataLoader:
    """Return a loader of what a tokenizer returns."""
    return DataLoader([transformers.BatchEncoding(batch) for batch in data], batch_size=None)


def tags(ids, mask):
    return torch.where(mask.bool() & (ids % 7 > 0), ids % 3, -100)


def words(ids, mask):
    return torch.where(mask.bool(), ids, -100)


def kinds(ids, mask):
    return ids[:, 0] % 3


def several(ids, mask):
    return torch.stack([(ids % 3 == label).any(dim=1) for label in range(3)], dim=1).float()


def number(ids, mask):
    return (ids * mask).float().sum(dim=1)


CASES = {
    "sequences": (partial(bert, "Sequence"), kinds, {}, "nll"),
    "tags": (partial(bert, "Token"), tags, {"positions": Tokens()}, "nll"),
    "gpt2": (gpt2, words, {"positions": Tokens(shift=True)}, "nll"),
    "llama": (llama, words, {"positions": Tokens(shift=True)}, "nll"),
    "several": (
        partial(bert, "Sequence", problem_type="multi_label_classification"),
        several,
        {"task": Multilabel()},
        "bce",
    ),
    "numbers": (partial(bert, "Sequence", labels=1), number, {"task": Regression()}, "mse"),
}
ALL = pytest.mark.parametrize(("make", "labels", "options", "loss"), CASES.values(), ids=CASES)


@ALL
def test_what_is_learned_and_measured_is_the_models_own_loss(make, labels, options, loss):
    """Of each batch its mean over positions, and over all of the data."""
    model, data = make(), batches(labels)
    given, said = set(), []
    model.register_forward_pre_hook(lambda _, args, kw: given.update(kw), with_kwargs=True)
    model.register_forward_hook(lambda *found: said.append(found[-1].loss))
    module = SupervisedModule(model, STILL, **options)
    fit = trainer()
    fit.fit(module, loader(data), loader(data))
    assert given == {"input_ids", "attention_mask"}
    assert all(loss is None for loss in said)

    total, count = 0.0, 0
    for batch in data:
        target = batch["labels"]
        if module.positions is not None and module.positions.shift:
            target = target[:, 1:]
        rows = int((target != -100).sum()) if module.positions is not None else len(target)
        with torch.no_grad():
            total, count = total + rows * model(**batch).loss.item(), count + rows
    found = fit.callback_metrics
    assert found["train/truth_epoch"].item() == pytest.approx(total / count, rel=1e-5)
    assert found[f"val/{loss}"].item() == pytest.approx(total / count, rel=1e-5)


@ALL
def test_distils_and_predicts_and_leaves_a_model_behind(make, labels, options, loss, tmp_path):
    torch.manual_seed(0)
    student, teacher, data = make(), make(8), batches(labels)
    label = {"bce": MultilabelSoftLabels(), "mse": RegressionLabels()}.get(loss, SoftLabels())
    positions = options.get("positions")
    fit, still = trainer(max_epochs=3), trainer()
    module = DistillationModule(student, teacher, label, ADAM, positions=positions)
    before = still.validate(module, loader(data), verbose=False)[0]
    fit.fit(module, loader(data), loader(data))
    own = {"mse": "val/mse_from_teacher"}.get(loss, "val/kl_from_teacher")
    assert fit.callback_metrics[own] != before[own]
    predicted = fit.predict(module, loader(data))
    outputs = student.eval()(**{k: v for k, v in data[0].items() if k != "labels"}).logits
    assert predicted[0].shape == outputs.shape

    fit.save_checkpoint(tmp_path / "run.ckpt")
    restored = DistillationModule.load_from_checkpoint(
        tmp_path / "run.ckpt", student=make(), teacher=teacher, label=label, weights_only=True
    ).student
    restored.save_pretrained(tmp_path / "model")
    again = type(student).from_pretrained(tmp_path / "model").eval()
    found = again(data[0]["input_ids"], attention_mask=data[0]["attention_mask"]).logits
    assert torch.allclose(found, outputs, atol=1e-6)


def test_soft_labels_of_a_language_model_are_those_of_a_loop_over_positions():
    student, teacher, data = gpt2(), gpt2(8), batches(words)
    label = SoftLabels(temperature=2.0, alpha=1.0)
    module = DistillationModule(student, teacher, label, STILL, positions=Tokens(shift=True))
    fit = trainer()
    fit.fit(module, loader(data), loader(data))
    losses, agreed = [], []
    for batch in data:
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            z, t = (net(**inputs).logits.double() for net in (student.eval(), teacher))
        for sample in range(len(z)):
            for place in range(LENGTH - 1):
                if batch["labels"][sample, place + 1] != -100:
                    q, p = ((said[sample, place] / 2).softmax(dim=0) for said in (z, t))
                    losses.append(4 * float((p * (p / q).log()).sum()))
                    agreed.append(float(q.argmax() == p.argmax()))
    found = fit.callback_metrics
    assert found["train/soft_epoch"].item() == pytest.approx(sum(losses) / len(losses), rel=1e-4)
    assert found["val/agreement"].item() == pytest.approx(sum(agreed) / len(agreed))


def test_hidden_states_of_the_positions_that_count_are_hints():
    data = batches(tags)
    hint = Hint("bert.encoder.layer.0", "bert.encoder.layer.1", weight=1.0)
    module = DistillationModule(
        bert("Token"), bert("Token", 8), SoftLabels(), STILL, features={"hint": hint},
        positions=Tokens(),
    )  # fmt: skip
    fit = trainer()
    fit.fit(module, loader(data), loader(data))
    gaps, count = 0.0, 0
    for batch in data:
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            ours, theirs = (
                net(**inputs, output_hidden_states=True).hidden_states[layer]
                for net, layer in ((module.student.eval(), 1), (module.teacher.network, 2))
            )
            gap = hint.projector.map(ours) - theirs
        rows = batch["labels"] != -100
        gaps, count = gaps + gap[rows].square().mean(dim=-1).sum().item(), count + int(rows.sum())
    found = fit.callback_metrics["train/hint_epoch"].item()
    assert found == pytest.approx(gaps / count, rel=1e-4)


def test_other_vocabularies_or_classes_are_named():
    def fitted(student, teacher, labels, **options):
        data = loader(batches(labels))
        trainer().fit(DistillationModule(student, teacher, **options), data, data)

    with pytest.raises(TeacherError, match=r"student has 20 classes and the teacher 23: .* vocabu"):
        fitted(gpt2(), gpt2(vocabulary=23), words, positions=Tokens(shift=True))
    with pytest.raises(TeacherError, match="student has 3 classes and the teacher 4"):
        fitted(bert("Sequence"), bert("Sequence", labels=4), kinds)
