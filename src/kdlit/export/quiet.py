"""Silence for what exporters tell their own developers."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# They tell each pass over a graph as news; what fails is raised as well.
_TALKATIVE = ("onnx_ir", "onnxruntime", "onnxscript", "torch.export")


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back what concerns nobody who exports a student; other warnings pass."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # torch.export.save copies weights in channels_last, which is right on the CPU.
            warnings.filterwarnings("ignore", "No complete tensor found in the group!")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
