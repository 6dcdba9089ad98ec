"""A page on which one draws a digit and sees what teacher and student say of it."""

from kdlit.demo.drawing import digit_of
from kdlit.demo.server import Judge, application

__all__ = ["Judge", "application", "digit_of"]
