"""The lines of an experiment's picture."""

from kdlit.report.papers_picture import lines_of


def test_a_row_of_zero_is_drawn_and_one_without_a_number_is_not():
    result = {
        "picture": {"x": "rows", "name": "wrong labels"},
        "rows": {"none": [], "0": [], "40": []},
        "columns": {"truth": []},
        "cells": [
            {"row": row, "column": "truth", "values": {"accuracy": [value]}}
            for row, value in (("none", 7.0), ("0", 9.0), ("40", 8.0))
        ],
    }
    ((name, line),) = lines_of(result, {"value": "accuracy"})
    assert name == "truth"
    assert list(line.xs) == [0.0, 40.0]
    assert list(line.ys) == [9.0, 8.0]
