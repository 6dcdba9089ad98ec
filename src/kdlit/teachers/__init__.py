"""Where teaching comes from: frozen networks, and a store of trained ones."""

from kdlit.teachers.frozen import FrozenTeacher, TeacherSource, as_source
from kdlit.teachers.store import StoredTeacher, TeacherStore

__all__ = ["FrozenTeacher", "StoredTeacher", "TeacherSource", "TeacherStore", "as_source"]
