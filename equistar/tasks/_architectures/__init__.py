from ._base import AbstractArchitecture as AbstractArchitecture, BATCH as BATCH
from ._convnet import ConvNet as ConvNet
from ._fourier import FourierMLP as FourierMLP
from ._mlp import MLP as MLP
from ._norm import (
    AbstractNorm as AbstractNorm,
    LayerNorm as LayerNorm,
    MinibatchNorm as MinibatchNorm,
    NoNorm as NoNorm,
)
from ._recurrent import (
    AbstractCell as AbstractCell,
    GRU as GRU,
    LSTM as LSTM,
    Recurrent as Recurrent,
    VanillaRNN as VanillaRNN,
)
from ._resnet import ResNet as ResNet
from ._transformer import Transformer as Transformer
from ._vision_transformer import VisionTransformer as VisionTransformer
