"""The ConvNet of the field: blocks of convolution, normalisation, activation and 2x2 pooling, and a linear layer.

One class, of which each paper has its own variant (``registry`` holds the options of each):

| name | paper | width | first padding | init | norm |
|---|---|---|---|---|---|
| convnet | FRePo arXiv:2206.00719, RCIG arXiv:2302.06755 | 128, 256, 512 | 3 if grey | LeCun | none, batch |
| dc_convnet | DC arXiv:2006.05929, DSA, DM, MTT | 128 | 3 if grey | PyTorch | instance |
| kip_convnet | KIP arXiv:2107.13034 as FRePo evaluates it | 128, one more layer first | 1 | LeCun | none |
| rfad_convnet | RFAD arXiv:2210.12067 | 256 | 1 | N(0, 2 / fan_in), biases N(0, 0.1^2) | none |

Padding a grey image by 3 turns 28x28 into 32x32, so its features are those of a CIFAR image: 4x4 pixels at depth 3.
"""

import math

import jax

from kipjax import checks
from kipjax.models import layers
from kipjax.models.classifier import Classifier

__all__ = ["NORM_PLACEMENTS", "ConvNet", "depth_for"]

NORM_PLACEMENTS = ("after_conv", "before_conv")


class ConvNet(Classifier):
    """``depth`` blocks of 3x3 convolution, activation and 2x2 pooling, flattened.

    Attributes:
      depth: number of blocks, from 1 up; ``depth_for`` gives the customary one.
      width: filters of the first block.
      doubling: whether each block has twice the filters of the one before.
      pool: one of ``layers.POOLS``.
      norm_placement: ``"after_conv"`` of every block (DC, RCIG), or ``"before_conv"`` of all but the network's first
        convolution (FRePo).
      pad_grey: whether the first convolution pads images of one channel by 3 pixels instead of 1.
      stem: whether a convolution and activation without pooling come first (KIP).

    References:
      arXiv:2006.05929; arXiv:2206.00719; arXiv:2302.06755.
    """

    initial: str = "lecun"
    momentum: float = 0.1  # both papers pass PyTorch's number to flax, so a running average is 0.9 of the last batch
    depth: int = 3
    width: int = 128
    doubling: bool = True
    pool: str = "avg"
    norm_placement: str = "after_conv"
    pad_grey: bool = True
    stem: bool = False

    def __post_init__(self):
        where = "models.ConvNet"
        checks.whole(where, "depth", self.depth)
        checks.whole(where, "width", self.width)
        checks.one_of(where, "pool", self.pool, layers.POOLS)
        checks.one_of(where, "norm_placement", self.norm_placement, NORM_PLACEMENTS)
        super().__post_init__()

    def body(self, x: jax.Array, train: bool) -> jax.Array:
        """``[n, h, w, c] -> [n, h', w', p']``."""
        padding = 3 if self.pad_grey and x.shape[-1] == 1 else 1
        if self.stem:
            x, padding = self._act(self._conv(x, self.width, "stem", padding=padding)), 1
        for i in range(self.depth):
            if self.norm_placement == "before_conv" and (i or self.stem):
                x = self._norm(x, train, f"norm{i}")
            width = self.width * 2**i if self.doubling else self.width
            x = self._conv(x, width, f"conv{i}", padding=1 if i else padding)
            if self.norm_placement == "after_conv":
                x = self._norm(x, train, f"norm{i}")
            x = self._pool(self._act(x))
        return x

    def _pool(self, x):
        return layers.pool(x, self.pool)


def depth_for(side: int) -> int:
    """The customary depth of a ConvNet for images of ``side`` pixels: 3 for 28 and 32, 4 for 64, 5 for 128.

    In general the depth that leaves a map of 4 to 7 pixels, but at least 3, as far as the pooling leaves a pixel.

    Args:
      side: the shorter side of the images in pixels, at least 2.

    Raises:
      InputError: the side is no whole number or below 2, where there is nothing to pool.

    >>> [depth_for(side) for side in (8, 28, 32, 64, 128, 224)]
    [3, 3, 3, 4, 5, 5]
    """
    checks.whole("models.depth_for", "side", side, 2)
    halvings = math.floor(math.log2(side))
    return min(halvings, max(3, halvings - 2))
