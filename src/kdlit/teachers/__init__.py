"""Where teaching comes from: networks, alone, averaged or trained along, and a store of them."""

from kdlit.teachers.cached import CachedTeacher
from kdlit.teachers.ema import EMATeacher
from kdlit.teachers.ensemble import EnsembleTeacher
from kdlit.teachers.frozen import FrozenTeacher, TeacherSource, as_source
from kdlit.teachers.store import StoredTeacher, TeacherStore

__all__ = [
    "CachedTeacher",
    "EMATeacher",
    "EnsembleTeacher",
    "FrozenTeacher",
    "StoredTeacher",
    "TeacherSource",
    "TeacherStore",
    "as_source",
]
