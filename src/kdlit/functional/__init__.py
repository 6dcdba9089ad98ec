"""Pure functions on tensors, one per formula: the mathematics of distillation, with its sources."""

from kdlit.functional.attention import attention_loss
from kdlit.functional.correlation import correlation_loss
from kdlit.functional.crd import crd_log_mean, crd_loss, crd_scores
from kdlit.functional.data_free import (
    activation_loss,
    agreement_loss,
    information_entropy_loss,
    one_hot_loss,
)
from kdlit.functional.dist import dist_losses
from kdlit.functional.divergence import jensen_shannon_divergence, kl_divergence
from kdlit.functional.dkd import dkd_losses
from kdlit.functional.factor import factor_loss
from kdlit.functional.hint import hint_loss
from kdlit.functional.labels import (
    hard_label_loss,
    jensen_shannon_loss,
    logit_mse_loss,
    reverse_kl_loss,
    soft_label_loss,
    truth_loss,
)
from kdlit.functional.mlkd import batch_correlation_loss, class_correlation_loss
from kdlit.functional.multilabel import (
    binary_kl_divergence,
    multilabel_soft_loss,
    multilabel_truth_loss,
)
from kdlit.functional.mutual import mutual_loss
from kdlit.functional.nkd import nkd_losses
from kdlit.functional.nst import nst_loss
from kdlit.functional.ofa import ofa_loss
from kdlit.functional.pkt import pkt_loss
from kdlit.functional.regression import bounded_regression_loss, regression_truth_loss
from kdlit.functional.review import hierarchical_context_loss
from kdlit.functional.rkd import rkd_angle_loss, rkd_distance_loss
from kdlit.functional.similarity import similarity_loss
from kdlit.functional.soft_tree import leaf_loss, path_balance_loss, path_visits
from kdlit.functional.teacher_free import virtual_teacher_loss
from kdlit.functional.transforms import keep_top_k, standardize
from kdlit.functional.vid import vid_loss
from kdlit.functional.wsld import wsld_loss, wsld_weights

__all__ = [
    "activation_loss",
    "agreement_loss",
    "attention_loss",
    "batch_correlation_loss",
    "binary_kl_divergence",
    "bounded_regression_loss",
    "class_correlation_loss",
    "correlation_loss",
    "crd_log_mean",
    "crd_loss",
    "crd_scores",
    "dist_losses",
    "dkd_losses",
    "factor_loss",
    "hard_label_loss",
    "hierarchical_context_loss",
    "hint_loss",
    "information_entropy_loss",
    "jensen_shannon_divergence",
    "jensen_shannon_loss",
    "keep_top_k",
    "kl_divergence",
    "leaf_loss",
    "logit_mse_loss",
    "multilabel_soft_loss",
    "multilabel_truth_loss",
    "mutual_loss",
    "nkd_losses",
    "nst_loss",
    "ofa_loss",
    "one_hot_loss",
    "path_balance_loss",
    "path_visits",
    "pkt_loss",
    "regression_truth_loss",
    "reverse_kl_loss",
    "rkd_angle_loss",
    "rkd_distance_loss",
    "similarity_loss",
    "soft_label_loss",
    "standardize",
    "truth_loss",
    "vid_loss",
    "virtual_teacher_loss",
    "wsld_loss",
    "wsld_weights",
]
