"""What a trained network is worth: statistics of its answers, its cost, and tables of both."""

from kdlit.evaluation.answers import ask
from kdlit.evaluation.comparison import compare, mcnemar
from kdlit.evaluation.cost import multiply_adds, parameters, tensor_bytes
from kdlit.evaluation.statistics import describe_answers, reliability, wilson_interval

__all__ = [
    "ask",
    "compare",
    "describe_answers",
    "mcnemar",
    "multiply_adds",
    "parameters",
    "reliability",
    "tensor_bytes",
    "wilson_interval",
]
