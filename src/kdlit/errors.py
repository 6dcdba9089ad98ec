"""One small exception tree: everything that kdlit raises on purpose is a `KdlitError`.

Each class also inherits the built-in exception of its kind, so that `except ValueError` keeps
working for those who do not know kdlit.
"""


class KdlitError(Exception):
    """Base of all errors that kdlit raises on purpose; the message names the way out."""


class ConfigError(KdlitError, ValueError):
    """An argument or a configuration value that cannot work."""


class DataError(KdlitError, RuntimeError):
    """Data that is missing, damaged, or does not fit what was asked of it."""


class StorageError(KdlitError, OSError):
    """A file or a folder that cannot be written: no room, no permission, something in its place."""


class TeacherError(KdlitError, RuntimeError):
    """A teacher that cannot be found, read, or used with this student."""


class NonFiniteError(KdlitError, ArithmeticError):
    """A loss or a metric that became NaN or infinite."""


class ExportError(KdlitError, RuntimeError):
    """An exported file that cannot be made, or does not answer as the student does."""
