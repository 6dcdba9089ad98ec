"""Pure functions on tensors, one per formula: the mathematics of distillation, with its sources."""

from kdlit.functional.divergence import kl_divergence
from kdlit.functional.labels import hard_label_loss, soft_label_loss, truth_loss

__all__ = ["hard_label_loss", "kl_divergence", "soft_label_loss", "truth_loss"]
