"""MLP, LeNet, AlexNet and VGG11 as the code of DC has them for small images (arXiv:2006.05929).

They are what a distilled set is tested on besides the network that made it. Grey images (LeNet: small ones) get two
pixels more padding in the first convolution, which makes 28x28 as large as 32x32 to the rest of the network.
"""

import jax
import jax.numpy as jnp

from kipjax import checks
from kipjax.models import layers
from kipjax.models.classifier import Classifier

__all__ = ["MLP", "VGG11", "AlexCifar", "AlexNet", "LeNet"]


class MLP(Classifier):
    """``depth`` hidden layers of ``width`` units; ``x [n, ...]`` of any shape is flattened.

    Attributes:
      depth: number of hidden layers, from 1 up.
      width: units of each.
    """

    depth: int = 2
    width: int = 128

    _needs_images = False

    def __post_init__(self):
        checks.whole("models.MLP", "depth", self.depth)
        checks.whole("models.MLP", "width", self.width)
        super().__post_init__()

    def body(self, x: jax.Array, train: bool) -> jax.Array:
        """``[n, ...] -> [n, width]``."""
        x = x.reshape(x.shape[0], -1)
        for i in range(self.depth):
            x = self._act(self._norm(self._dense(x, self.width, f"dense{i}"), train, f"norm{i}"))
        return x


class LeNet(Classifier):
    """Two 5x5 convolutions (6 and 16 filters) with max pooling, dense layers of 120 and 84 units.

    The first convolution pads by 2 if the image is below 32 pixels, so that 28x28 gives the same 400 units as 32x32
    (arXiv:1811.10959; the program of DC pads what is grey, which is 28x28 there).

    References:
      LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document recognition, 1998.
    """

    def body(self, x: jax.Array, train: bool) -> jax.Array:
        """``[n, h, w, c] -> [n, 84]``."""
        padding = 2 if min(x.shape[1:3]) < 32 else 0
        for i, (width, pad) in enumerate(((6, padding), (16, 0))):
            x = self._conv(x, width, f"conv{i}", kernel_size=5, padding=pad)
            x = layers.pool(self._act(self._norm(x, train, f"norm{i}")), "max")
        x = x.reshape(x.shape[0], -1)
        for i, width in enumerate((120, 84)):
            x = self._act(self._dense(x, width, f"dense{i}"))
        return x


class AlexNet(Classifier):
    """Five convolutions (128, 192, 256, 192, 192 filters; 5x5 and 3x3) with three max poolings, and one linear layer.

    References:
      Krizhevsky, Sutskever, Hinton, NIPS 2012; the version for small images is arXiv:2006.05929's.
    """

    def body(self, x: jax.Array, train: bool) -> jax.Array:
        """``[n, h, w, c] -> [n, h / 8, w / 8, 192]``."""
        plan = ((128, 5, "max"), (192, 5, "max"), (256, 3, "none"), (192, 3, "none"), (192, 3, "max"))
        for i, (width, size, pool) in enumerate(plan):
            padding = size // 2 + (2 if i == 0 and x.shape[-1] == 1 else 0)
            x = self._conv(x, width, f"conv{i}", kernel_size=size, padding=padding)
            x = layers.pool(self._act(self._norm(x, train, f"norm{i}")), pool)
        return x


class AlexCifar(Classifier):
    """Two 5x5 convolutions of 64 filters with max pooling and local response normalisation, dense layers 384 and 192.

    References:
      Krizhevsky's network for CIFAR-10, as the program of dataset distillation (arXiv:1811.10959) has it.
    """

    initial: str = "xavier"

    def body(self, x: jax.Array, train: bool) -> jax.Array:
        """``[n, h, w, c] -> [n, 192]``."""
        x = _response_norm(layers.max_pool3(self._act(self._conv(x, 64, "conv0", kernel_size=5, padding=2))))
        x = layers.max_pool3(_response_norm(self._act(self._conv(x, 64, "conv1", kernel_size=5, padding=2))))
        x = x.reshape(x.shape[0], -1)
        for i, width in enumerate((384, 192)):
            x = self._act(self._dense(x, width, f"dense{i}"))
        return x


def _response_norm(x):
    """``x / (1 + alpha / 4 sum x_j^2)^0.75`` over the channels ``c - 2 .. c + 1``, ``alpha = 0.001 / 9``."""
    squares = jnp.pad(x**2, ((0, 0), (0, 0), (0, 0), (2, 1)))
    total = sum(squares[..., i : i + x.shape[-1]] for i in range(4))
    return x / (1 + 0.001 / 9 / 4 * total) ** 0.75


class VGG11(Classifier):
    """Eight 3x3 convolutions (64, 128, 256, 256, 512, 512, 512, 512 filters) with five max poolings, one linear layer.

    Attributes:
      width: filters of the first convolution, to which the others are in proportion.

    References:
      arXiv:1409.1556, table 1, configuration A, with a single linear layer.
    """

    norm: str = "instance"
    width: int = 64

    def __post_init__(self):
        checks.whole("models.VGG11", "width", self.width)
        super().__post_init__()

    def body(self, x: jax.Array, train: bool) -> jax.Array:
        """``[n, h, w, c] -> [n, h / 32, w / 32, 512]``."""
        plan = ((1, "max"), (2, "max"), (4, "none"), (4, "max"), (8, "none"), (8, "max"), (8, "none"), (8, "max"))
        for i, (factor, pool) in enumerate(plan):
            x = self._conv(x, factor * self.width, f"conv{i}", padding=3 if i == 0 and x.shape[-1] == 1 else 1)
            x = layers.pool(self._act(self._norm(x, train, f"norm{i}")), pool)
        return x
