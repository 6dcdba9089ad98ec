"""Networks for the examples; any `torch.nn.Module` serves as well."""

from kdlit.models.article import ArticleCNN
from kdlit.models.convnet import ConvNet
from kdlit.models.generator import ImageGenerator
from kdlit.models.lenet import LeNet5
from kdlit.models.mlp import MLP
from kdlit.models.soft_decision_tree import SoftDecisionTree
from kdlit.models.vision import torchvision_network

__all__ = [
    "MLP",
    "ArticleCNN",
    "ConvNet",
    "ImageGenerator",
    "LeNet5",
    "SoftDecisionTree",
    "torchvision_network",
]
