"""The recommendation example, on generated histories in MovieLens' format."""

import gzip
import importlib
import json
import math
import re
import shlex
import sys
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torchmetrics.retrieval import RetrievalHitRate, RetrievalNormalizedDCG

from conftest import REPOSITORY
from kdlit.batch import Batch, Outputs
from kdlit.errors import ConfigError, DataError

FOLDER = REPOSITORY / "examples" / "recommendation"
README = (FOLDER / "README.md").read_text(encoding="utf-8")
NAMES = ("movielens", "recommend", "compare")


@pytest.fixture(scope="module")
def example():
    """Import the example's files as its command does, and forget them afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        for name in NAMES:  # another example may have a file of that name
            patch.delitem(sys.modules, name, raising=False)
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in NAMES})
        for name in NAMES:
            del sys.modules[name]


def interactions(users: int = 24, items: int = 40, each: int = 12) -> list[str]:
    """Generate lines of u.data, in no order: users of two tastes, with gaps in the numbers."""
    generator = torch.Generator().manual_seed(3)
    rows = []
    for user in range(users):
        likes = torch.full((items,), 0.1)
        likes[user % 2 :: 2] = 1.0
        chosen = torch.multinomial(likes, each, generator=generator).tolist()
        times = torch.randperm(1000, generator=generator)[:each].tolist()
        rows += [f"{3 * user + 1}\t{2 * i + 5}\t4\t{t}" for i, t in zip(chosen, times, strict=True)]
    return [rows[number] for number in torch.randperm(len(rows), generator=generator)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ml")
    (folder / "u.data").write_text("\n".join(interactions()) + "\n")
    return folder


@pytest.fixture
def data(example, folder):
    return example.movielens.MovieLens(folder, negatives=5, batch_size=16, steps=3)


def test_the_last_two_items_are_held_out(data):
    by_user = {}
    for line in interactions():
        user, item, _, when = map(int, line.split("\t"))
        by_user.setdefault((user - 1) // 3, []).append((when, item))
    known = sorted({item for items in by_user.values() for _, item in items})
    for user, items in by_user.items():
        ordered = [known.index(item) for _, item in sorted(items)]
        assert data.train[data.train[:, 0] == user, 1].tolist() == ordered[:-2]
        assert data.val[user].tolist() == [user, ordered[-2]]
        assert data.test[user].tolist() == [user, ordered[-1]]
        assert data.ages[data.train[:, 0] == user].tolist() == list(range(9, -1, -1))


def test_the_compressed_file_with_names_says_the_same(example, folder, tmp_path):
    lines = [line.replace("\t", "|") for line in interactions()]
    with gzip.open(tmp_path / "u.data.gz", "wt") as file:
        file.write("\n".join(["user|item|rating|timestamp", *lines]))
    read = example.movielens.read_histories
    assert read(tmp_path) == read(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no u.data or u.data.gz"),
        ("", "not MovieLens-100k's"),
        ("1\tfive\t3\t4\n", "not MovieLens-100k's"),
        ("1\t5\t3\t4\n1\t6\t3\t5\n", "user 1 has fewer"),
    ],
)
def test_files_that_cannot_be_used(example, tmp_path, text, message):
    if text is not None:
        (tmp_path / "u.data").write_text(text)
    with pytest.raises(DataError, match=message):
        example.movielens.read_histories(tmp_path)


def test_there_must_be_negatives(example, folder):
    with pytest.raises(ConfigError, match="must be >= 1, got 0"):
        example.movielens.MovieLens(folder, negatives=0)


def test_candidates_are_one_chosen_item_and_unseen_ones(data):
    for batch in data.train_dataloader():
        chosen, others = batch["items"][:, :1], batch["items"][:, 1:]
        assert batch["items"].shape == (16, 6)
        assert data.seen[batch["user"][:, None], chosen].all()
        assert not data.seen[batch["user"][:, None], others].any()
        assert not batch["label"].any()


def test_a_short_half_life_draws_the_latest(example, folder):
    data = example.movielens.MovieLens(folder, half_life=0.01, negatives=1)
    latest = {tuple(pair) for pair in data.train[data.ages == 0].tolist()}
    for batch in data.train_dataloader():
        assert set(zip(*[batch["user"].tolist(), batch["items"][:, 0].tolist()], strict=True)) <= (
            latest
        )
    matrix = data.interactions(half_life=5.0)
    assert matrix.max() == 1
    assert matrix[0].count_nonzero() == 10
    assert matrix[0].min() == 0
    assert math.isclose(matrix[0][matrix[0] > 0].min(), 0.5 ** (9 / 5), rel_tol=1e-6)


@pytest.mark.parametrize("split", ["val", "test"])
def test_the_measures_are_those_over_all_unseen_items(example, data, split):
    scores = torch.rand(data.users, data.items)
    hits, gains = data.rank(example.recommend.Table(scores), split)
    chosen = (data.val if split == "val" else data.test)[:, 1]
    expected_hits, expected_gains = [], []
    for user in range(data.users):
        before = set(data.seen[user].nonzero().flatten().tolist())
        before |= {int(data.val[user, 1])} if split == "test" else set()
        left = [item for item in range(data.items) if item not in before]
        left.sort(key=lambda item: -scores[user, item])
        place = left.index(int(chosen[user]))
        expected_hits.append(float(place < 10))
        expected_gains.append(1 / math.log2(place + 2) if place < 10 else 0.0)
    torch.testing.assert_close(hits, torch.tensor(expected_hits))
    torch.testing.assert_close(gains, torch.tensor(expected_gains))
    # and those that torchmetrics gives when it is handed all items
    hidden = data.seen.clone()
    if split == "test":
        hidden[tuple(data.val.T)] = True
    target = torch.zeros_like(hidden)
    target[torch.arange(data.users), chosen] = True
    query = torch.arange(data.users)[:, None].expand_as(target)
    all_of_them = scores[~hidden], target[~hidden]
    for metric, mine in (
        (RetrievalHitRate(top_k=10), hits),
        (RetrievalNormalizedDCG(top_k=10), gains),
    ):
        torch.testing.assert_close(metric(*all_of_them, indexes=query[~hidden]), mine.mean())


def test_the_item_item_model_solves_its_regression(example, data):
    """B minimises |X - XB|² + ridge |B|² with a zero diagonal: solved here column by column."""
    data.ages = torch.zeros_like(data.ages)  # all interactions alike
    seen, ridge = data.seen.double(), 3.0
    expected = torch.zeros(data.users, data.items, dtype=torch.float64)
    for item in range(data.items):
        others = [other for other in range(data.items) if other != item]
        x = seen[:, others]
        weights = torch.linalg.solve(x.T @ x + ridge * torch.eye(len(others)), x.T @ seen[:, item])
        expected[:, item] = x @ weights
    found = example.recommend.item_item(data, half_life=10.0, ridge=ridge)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-4)


def test_networks_score_the_items_that_are_asked_for(example, data):
    network = example.recommend.Factors(data, 3).eval()
    user, items = torch.tensor([2, 0]), torch.tensor([[4, 1], [7, 7]])
    found = network(user, items)
    for n, c in ((0, 0), (0, 1), (1, 0)):
        item = items[n, c]
        score = (
            network.users.weight[user[n]] @ network.items.weight[item] + network.items.bias[item]
        )
        torch.testing.assert_close(found[n, c], score)


def test_ranking_distillation_by_hand(example):
    objective = example.recommend.RankingDistillation(alpha=0.25, best=2, decay=2.0)
    student, teacher = torch.randn(1, 4), torch.tensor([[9.0, 1.0, 3.0, 2.0]])
    terms = objective(Outputs(student), Outputs(teacher), Batch(None, torch.tensor([0])))
    first, second = math.exp(-1 / 2), math.exp(-2 / 2)
    logistic = [math.log(1 / (1 + math.exp(-float(z)))) for z in student[0]]
    expected = -(first * logistic[2] + second * logistic[3]) / (first + second)
    assert math.isclose(terms["ranking"], expected, rel_tol=1e-5)
    truth = float(torch.logsumexp(student[0], 0) - student[0, 0])
    assert math.isclose(terms["truth"], truth, rel_tol=1e-5)
    assert objective.weights == {"ranking": 0.25, "truth": 0.75}


def test_the_best_epoch_is_kept(example, data, monkeypatch):
    from kdlit import SupervisedModule

    scores = iter([0.1, 0.9, 0.2])
    seen = []

    def measure(network, split):
        seen.append(network.users.weight.clone())
        return torch.zeros(2), torch.full((2,), next(scores))

    monkeypatch.setattr(data, "rank", measure)
    module = SupervisedModule(example.recommend.Factors(data, 3))
    assert math.isclose(example.recommend.fit(module, data, epochs=3), 0.9, rel_tol=1e-6)
    assert torch.equal(module.network.users.weight, seen[1])
    assert not torch.equal(seen[1], seen[2])


def test_the_command_of_the_readme(example, folder, tmp_path, monkeypatch, capsys):
    (line,) = re.findall(r"^python (\S+compare\.py .*)$", README, re.MULTILINE)
    words = shlex.split(line)[1:]
    assert words[:2] == ["--data", "ml-100k"]
    few = ["--seeds", "0,1", "--epochs", "1", "--out", str(tmp_path / "results.json")]
    page = tmp_path / "README.md"
    page.write_text("before\n<!-- results -->\nold\n<!-- end of results -->\nafter\n")
    given = ["--data", str(folder), *few, "--readme", str(page)]
    for name in words[2::2]:
        assert name in given  # every option that the page uses is used here
    few_steps = partial(example.movielens.MovieLens, steps=2, batch_size=16)
    monkeypatch.setattr(example.compare, "MovieLens", few_steps)
    example.compare.main(given)
    found = json.loads((tmp_path / "results.json").read_text())
    printed = example.compare.table(found)
    assert printed in capsys.readouterr().out
    assert page.read_text().startswith("before\n")
    assert page.read_text().endswith("after\n")
    assert printed in page.read_text()
    assert "old" not in page.read_text()
    for row in found["rows"].values():
        assert len(row["ndcg"]) in {1, 2}
        assert all(0 <= value <= 1 for value in row["ndcg"] + row["hit_rate"])


def test_an_error_is_one_line(example, tmp_path, capsys):
    with pytest.raises(SystemExit):
        example.compare.main(["--data", str(tmp_path)])
    assert "no u.data or u.data.gz" in capsys.readouterr().err


def test_the_readme_shows_the_results_that_are_committed(example):
    results = json.loads((FOLDER / "results.json").read_text(encoding="utf-8"))
    assert example.compare.table(results) in README
