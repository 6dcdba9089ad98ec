"""The log of a run."""

import logging
from contextlib import suppress


class LogFile(logging.FileHandler):
    """A log that ends where the disk is full: whatever stands in it was shown on the terminal."""

    def flush(self) -> None:
        """Write what there is room for."""
        with suppress(OSError):
            super().flush()

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Say nothing: the run itself fails with an error that says it."""

    def close(self) -> None:
        """Close the file, whole or not."""
        with suppress(OSError):
            super().close()
