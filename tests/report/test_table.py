import json

import pytest

from kdlit.errors import ConfigError
from kdlit.report import compare, find_summaries, markdown
from report.made import summary

RUNS = [summary(seed, 0.9 + 0.01 * seed, temperature=4) for seed in (2, 0, 1, 1)] + [
    summary(0, 0.95, temperature=8)
]


def test_groups_by_what_differs_but_the_seed_and_ranks_by_the_mean():
    rows = compare(RUNS)
    assert [row["settings"] for row in rows] == [{"label.temperature": 8}, {"label.temperature": 4}]
    assert rows[1]["seeds"] == [0, 1, 2]
    assert rows[1]["values"]["accuracy"] == pytest.approx([0.90, 0.91, 0.92])


def test_the_table_has_mean_and_sample_standard_deviation():
    table = markdown(compare(RUNS))
    assert "| temperature 4 | 3 | 91.00 ± 1.00 | 1.00 ± 0.00 |" in table
    assert "| temperature 8 | 1 | 95.00 |" in table


def test_reads_folders_and_says_where_nothing_is(tmp_path):
    for number, run in enumerate(RUNS):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "summary.json").write_text(json.dumps(run))
    assert len(find_summaries([tmp_path])) == 5
    (tmp_path / "0" / "summary.json").write_text("{")
    with pytest.raises(ConfigError, match=r"0/summary\.json cannot be read"):
        find_summaries([tmp_path])
    with pytest.raises(ConfigError, match=r"no folder .*none, and so no summary\.json below it"):
        find_summaries([tmp_path / "none"])
