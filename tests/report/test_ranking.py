import pytest

from kdlit.errors import ConfigError
from kdlit.report.groups import group_summaries, names
from kdlit.report.ranking import rank
from report.made import summary

TRUTH = [0.950, 0.960, 0.955, 0.957]


def runs(target: str, values: list[float], **label) -> list[dict]:
    return [summary(seed, value, target, **label) for seed, value in enumerate(values)]


def verdicts(found: list[dict], baseline: str | None = None) -> dict:
    return {entry.setting.name: entry for entry in rank(group_summaries(found), baseline)}


def test_a_difference_is_claimed_with_its_interval_where_the_interval_excludes_zero():
    found = verdicts(runs("Truth", TRUTH) + runs("Soft", [v + 0.02 + 0.001 * (v > 0.956)
                                                          for v in TRUTH]))  # fmt: skip
    assert found["truth"].verdict == "the baseline"
    soft = found["soft"]
    assert soft.claim
    # Differences 2.0, 2.1, 2.0, 2.1: mean 2.05, sd .0577, t(3) = 3.182: 3.182 * .0577 / 2 = .0919.
    assert soft.verdict == (
        "soft beats truth by 2.05 ± 0.09 points (95 % interval 1.96 to 2.14, 4 seeds)"
    )


def test_no_claim_within_the_noise_or_from_one_seed():
    noisy = [v + d for v, d in zip(TRUTH, (0.01, -0.01, 0.008, -0.006), strict=True)]
    found = verdicts(runs("Truth", TRUTH) + runs("Soft", noisy) + runs("Hard", [0.99]))
    assert found["soft"].verdict == "no difference beyond the noise"
    assert found["hard"].verdict == "too few seeds"
    assert found["hard"].accuracy.half is None
    assert not any(entry.claim for entry in found.values())


def test_what_does_not_survive_the_number_of_comparisons_is_not_claimed():
    shifted = [v + d for v, d in zip(TRUTH, (0.004, 0.008, 0.012, 0.004), strict=True)]
    alone = verdicts(runs("Truth", TRUTH) + runs("Soft", shifted, temperature=1.0))
    assert alone["soft"].claim
    many = runs("Truth", TRUTH)
    for temperature in range(1, 9):
        many += runs("Soft", shifted, temperature=float(temperature))
    found = verdicts(many)
    assert not any(entry.claim for entry in found.values())
    entry = found["soft, temperature 3"]
    assert entry.paired.difference.excludes_zero
    assert entry.p == pytest.approx(8 * alone["soft"].p)
    assert "once all 8 comparisons are accounted for" in entry.verdict


def test_the_baseline_is_the_one_most_alike():
    found = []
    for size, shift in ((600, 0.0), (1000, 0.01)):
        for target in ("Truth", "Soft"):
            for run in runs(target, [value + shift for value in TRUTH]):
                run["config"]["data"]["train_size"] = size
                found.append(run)
    ranked = verdicts(found)
    assert ranked["soft, train_size 600"].baseline.name == "truth, train_size 600"
    assert ranked["soft, train_size 1000"].baseline.name == "truth, train_size 1000"
    assert ranked["soft, train_size 1000"].verdict == "the same in every seed"
    exact = verdicts(found, "truth, train_size 600")["soft, train_size 1000"]
    assert exact.baseline.name == "truth, train_size 600"
    assert exact.apart == ["data.train_size"]


def test_a_claim_names_what_else_is_different():
    found = runs("Truth", TRUTH) + runs("Soft", [v + 0.02 + 0.001 * (v > 0.956) for v in TRUTH])
    for run in found[: len(TRUTH)]:
        run["config"]["data"]["train_size"] = 300
        run["config"]["teacher"] = {"_target_": "x.NoTeacher"}
    for run in found[len(TRUTH) :]:
        run["config"]["teacher"] = {"_target_": "x.Auto", "network": {"_target_": "x.M", "a": 1}}
    soft = next(entry for entry in verdicts(found).values() if entry.claim)
    assert soft.apart == ["data.train_size", "teacher"]
    assert soft.verdict.endswith("4 seeds); the two differ in data.train_size, teacher, too")


def test_the_truth_beside_a_feature_objective_is_no_baseline():
    beside = runs("Truth", TRUTH)
    for run in beside:
        run["config"]["feature"] = {"hint": {"_target_": "kdlit.objectives.Hint", "weight": 1.0}}
    ranked = verdicts(beside + runs("Truth", TRUTH))
    assert ranked["Hint"].baseline.name == "plain"


def test_another_baseline_and_one_that_is_not_there():
    found = runs("Truth", TRUTH) + runs("Soft", [value + 0.02 for value in TRUTH])
    assert verdicts(found, "soft")["truth"].baseline.name == "soft"
    with pytest.raises(ConfigError, match=r"--baseline sofd: .* did you mean soft\?"):
        verdicts(found, "sofd")
    without = verdicts(runs("Soft", TRUTH, temperature=1) + runs("Soft", TRUTH, temperature=4))
    assert {entry.verdict for entry in without.values()} == {"no baseline to compare with"}


def test_names_are_short_and_no_two_the_same():
    assert names([{"label._target_": "x.SoftLabels", "label.temperature": t} for t in (1, 4)] + [
        {"label._target_": "x.TruthLabels"}]) == [
        "soft, temperature 1", "soft, temperature 4", "truth"]  # fmt: skip
    assert names([{"data.train_size": 600}, {"data.train_size": None}]) == [
        "train_size 600", "train_size null"]  # fmt: skip
    assert names([{"teacher.seed": 0}, {"teacher.seed": 1}]) == ["teacher seed 0", "teacher seed 1"]
    assert len(set(names([{"a.lr": 1, "b.lr": 2}, {"a.lr": 2, "b.lr": 1}, {"a.lr": 1}]))) == 3
    assert len(set(names([{"a.x": "1"}, {"b.x": "1"}]))) == 2


def test_a_run_that_was_repeated_counts_once():
    (setting,) = group_summaries([*runs("Soft", TRUTH), summary(0, 0.99)])
    assert setting.seeds == [0, 1, 2, 3]
    assert setting.repeated == 1


def test_a_whole_number_is_the_same_with_and_without_a_point():
    (setting,) = group_summaries([summary(0, 0.9, temperature=4), summary(1, 0.9, temperature=4.0)])
    assert setting.seeds == [0, 1]
