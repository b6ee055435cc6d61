from ._base import AbstractArchitecture as AbstractArchitecture
from ._convnet import ConvNet as ConvNet
from ._mlp import MLP as MLP
from ._norm import (
    AbstractNorm as AbstractNorm,
    LayerNorm as LayerNorm,
    MinibatchNorm as MinibatchNorm,
    NoNorm as NoNorm,
)
from ._resnet import ResNet as ResNet
from ._vision_transformer import VisionTransformer as VisionTransformer
