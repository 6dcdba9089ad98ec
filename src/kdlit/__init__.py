"""kdlit: knowledge distillation for PyTorch Lightning, configured with Hydra.

A frozen teacher, a trainable student, and a label strategy that says what the student imitates:

>>> from functools import partial
>>> import torch
>>> from kdlit import DistillationModule, SoftLabels
>>> module = DistillationModule(
...     student=torch.nn.Linear(784, 10),
...     teacher=torch.nn.Linear(784, 10),
...     label=SoftLabels(temperature=4.0, alpha=0.9),
...     optimizer=partial(torch.optim.Adam, lr=1e-3),
... )

and then `lightning.Trainer().fit(module, datamodule)` with any datamodule.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from kdlit.callback import Distillation
    from kdlit.distillation import DistillationModule
    from kdlit.errors import (
        ConfigError,
        DataError,
        ExportError,
        KdlitError,
        NonFiniteError,
        StorageError,
        TeacherError,
    )
    from kdlit.loading import Preprocessing, StudentCard, load_student, read_card
    from kdlit.mixup import Mixup
    from kdlit.objectives import (
        BlendedLabels,
        HardLabels,
        Objective,
        SmoothLabels,
        SoftLabels,
        TruthLabels,
    )
    from kdlit.positions import Tokens
    from kdlit.supervised import SupervisedModule
    from kdlit.teachers import (
        CachedTeacher,
        EMATeacher,
        EnsembleTeacher,
        FrozenTeacher,
        TeacherSource,
    )
    from kdlit.weights import load_weights, save_weights

# Imported on first use, so that `import kdlit` costs nothing.
_HOMES = {
    "kdlit.callback": ("Distillation",),
    "kdlit.distillation": ("DistillationModule",),
    "kdlit.errors": (
        "ConfigError",
        "DataError",
        "ExportError",
        "KdlitError",
        "NonFiniteError",
        "StorageError",
        "TeacherError",
    ),
    "kdlit.loading": ("Preprocessing", "StudentCard", "load_student", "read_card"),
    "kdlit.objectives": (
        "BlendedLabels",
        "HardLabels",
        "Objective",
        "SmoothLabels",
        "SoftLabels",
        "TruthLabels",
    ),
    "kdlit.mixup": ("Mixup",),
    "kdlit.positions": ("Tokens",),
    "kdlit.supervised": ("SupervisedModule",),
    "kdlit.teachers": (
        "CachedTeacher",
        "EMATeacher",
        "EnsembleTeacher",
        "FrozenTeacher",
        "TeacherSource",
    ),
    "kdlit.weights": ("load_weights", "save_weights"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "BlendedLabels",
    "CachedTeacher",
    "ConfigError",
    "DataError",
    "Distillation",
    "DistillationModule",
    "EMATeacher",
    "EnsembleTeacher",
    "ExportError",
    "FrozenTeacher",
    "HardLabels",
    "KdlitError",
    "Mixup",
    "NonFiniteError",
    "Objective",
    "Preprocessing",
    "SmoothLabels",
    "SoftLabels",
    "StorageError",
    "StudentCard",
    "SupervisedModule",
    "TeacherError",
    "TeacherSource",
    "Tokens",
    "TruthLabels",
    "load_student",
    "load_weights",
    "read_card",
    "save_weights",
]


def __getattr__(name: str) -> Any:
    """Import a public name from its home when it is first asked for."""
    if name not in _HOME_OF:
        raise AttributeError(f"module 'kdlit' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)
