"""What a network's outputs mean: classes, several labels, or numbers; and what is measured."""

from kdlit.tasks.base import Task
from kdlit.tasks.multiclass import MULTICLASS, Multiclass
from kdlit.tasks.multilabel import Multilabel
from kdlit.tasks.regression import Regression

__all__ = ["MULTICLASS", "Multiclass", "Multilabel", "Regression", "Task"]
