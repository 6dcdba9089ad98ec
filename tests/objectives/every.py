"""All rows of the table, and which there must be."""

import importlib
import pkgutil

import kdlit.objectives
from kdlit import Objective
from objectives import cases
from objectives.table import Case


def _all_cases() -> dict[str, Case]:
    found: dict[str, Case] = {}
    for module in pkgutil.iter_modules(cases.__path__):
        for name, case in importlib.import_module(f"objectives.cases.{module.name}").CASES.items():
            assert name not in found, f"{name} has two rows"
            found[name] = case
    return found


CASES = _all_cases()
PUBLIC = {
    name
    for name in kdlit.objectives.__all__
    if isinstance(getattr(kdlit.objectives, name), type)
    and issubclass(getattr(kdlit.objectives, name), Objective)
    # The base, and the one without terms: every test is of terms.
    and name not in {"Objective", "NoLabels"}
}
