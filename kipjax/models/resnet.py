"""Residual networks for small images: ResNet18 as in the code of DC and DSA, wide ones, and those of CIFAR."""

import jax
import jax.numpy as jnp

from kipjax import checks
from kipjax.models import layers
from kipjax.models.classifier import Classifier

__all__ = ["DOWNSAMPLES", "CifarResNet", "ResNet18", "WideResNet"]

DOWNSAMPLES = ("stride", "pool")


class ResNet18(Classifier):
    """A 3x3 stem and four stages of two basic blocks; the norm that is asked for follows every convolution.

    Attributes:
      width: filters of the first stage; the others have 2, 4 and 8 times as many.
      downsample: how stages 2 to 4 halve the map. ``"stride"``: convolutions of stride 2, and the global average at
        the end. ``"pool"``: convolutions of stride 1 and average pooling, and no global average, the variant that DC
        and DM call ResNet18_AP and recommend for condensing, because strided convolutions do badly at it.

    References:
      arXiv:1512.03385; for small images arXiv:2006.05929 (PyTorch's initial values, instance norm unless told).
    """

    norm: str = "instance"
    width: int = 64
    downsample: str = "stride"

    def __post_init__(self):
        checks.whole("models.ResNet18", "width", self.width)
        checks.one_of("models.ResNet18", "downsample", self.downsample, DOWNSAMPLES)
        super().__post_init__()

    def body(self, x: jax.Array, train: bool) -> jax.Array:
        """``[n, h, w, c] -> [n, 8 width]``, or ``[n, h / 8, w / 8, 8 width]`` with pooling."""
        x = self._act(self._norm(self._conv(x, self.width, "stem_conv", use_bias=False), train, "stem_norm"))
        for stage in range(4):
            for block in range(2):
                halve = stage > 0 and block == 0
                x = self._block(x, self.width * 2**stage, halve, train, f"stage{stage}_block{block}")
        return x if self.downsample == "pool" else jnp.mean(x, axis=(1, 2))

    def _block(self, x, width, halve, train, name):
        """``act(x + norm(conv(act(norm(conv(x))))))``, with a 1x1 convolution on ``x`` where the shape changes."""
        h = self._halving_conv(x, width, halve, f"{name}_conv0")
        h = self._act(self._norm(h, train, f"{name}_norm0"))
        if halve and self.downsample == "pool":
            h = layers.pool(h)
        h = self._norm(self._conv(h, width, f"{name}_conv1", use_bias=False), train, f"{name}_norm1")
        return self._act(h + self._shortcut(x, width, halve, train, f"{name}_shortcut"))

    def _shortcut(self, x, width, halve, train, name):
        if not halve and x.shape[-1] == width:
            return x
        x = self._halving_conv(x, width, halve, f"{name}_conv", kernel_size=1, padding=0)
        if halve and self.downsample == "pool":
            x = layers.pool(x)
        return self._norm(x, train, f"{name}_norm")

    def _halving_conv(self, x, width, halve, name, **options):
        stride = 2 if halve and self.downsample == "stride" else 1
        return self._conv(x, width, name, stride=stride, use_bias=False, **options)


class WideResNet(Classifier):
    """WRN-depth-widen: a 3x3 stem of 16 filters, then three stages of ``(depth - 4) / 6`` pre-activation blocks.

    Attributes:
      depth: number of layers, 6 n + 4.
      widen: k; the stages have 16 k, 32 k and 64 k filters.

    References:
      arXiv:1605.07146, table 1, blocks of two 3x3 convolutions.
    """

    norm: str = "batch"
    initial: str = "he"
    depth: int = 16
    widen: int = 4

    def __post_init__(self):
        where = "models.WideResNet"
        _check_depth(where, self.depth, 4)
        checks.whole(where, "widen", self.widen)
        super().__post_init__()

    def body(self, x: jax.Array, train: bool) -> jax.Array:
        """``[n, h, w, c] -> [n, 64 widen]``."""
        x = self._conv(x, 16, "stem_conv", use_bias=False)
        for stage in range(3):
            for block in range((self.depth - 4) // 6):
                stride = 2 if stage and not block else 1
                x = self._block(x, 16 * self.widen * 2**stage, stride, train, f"stage{stage}_block{block}")
        return jnp.mean(self._act(self._norm(x, train, "last_norm")), axis=(1, 2))

    def _block(self, x, width, stride, train, name):
        """``x + conv(act(norm(conv(h))))``, ``h = act(norm(x))``; ``conv1x1(h)`` for ``x`` where the shape changes."""
        h = self._act(self._norm(x, train, f"{name}_norm0"))
        if stride > 1 or x.shape[-1] != width:
            options = {"kernel_size": 1, "stride": stride, "padding": 0, "use_bias": False}
            x = self._conv(h, width, f"{name}_shortcut_conv", **options)
        h = self._conv(h, width, f"{name}_conv0", stride=stride, use_bias=False)
        h = self._act(self._norm(h, train, f"{name}_norm1"))
        return x + self._conv(h, width, f"{name}_conv1", use_bias=False)


class CifarResNet(Classifier):
    """ResNet-depth for CIFAR: a 3x3 stem of 16 filters, three stages of ``(depth - 2) / 6`` basic blocks, an average.

    Where the shape changes, the shortcut is a 1x1 convolution with norm. As in LUCIR the sum that ends the last block
    has no activation, so that features may be negative, as the cosine classifier likes them.

    Attributes:
      depth: number of layers, 6 n + 2.
      width: filters of the first stage; the others have 2 and 4 times as many.
      last_activation: whether the last block ends with one too, as in the paper of residual networks.

    References:
      arXiv:1512.03385, section 4.2; Hou et al., CVPR 2019; arXiv:2002.10211, section 5.1.
    """

    norm: str = "batch"
    initial: str = "he_out"
    depth: int = 32
    width: int = 16
    last_activation: bool = False

    def __post_init__(self):
        where = "models.CifarResNet"
        _check_depth(where, self.depth, 2)
        checks.whole(where, "width", self.width)
        super().__post_init__()

    def body(self, x: jax.Array, train: bool) -> jax.Array:
        """``[n, h, w, c] -> [n, 4 width]``."""
        x = self._act(self._norm(self._conv(x, self.width, "stem_conv", use_bias=False), train, "stem_norm"))
        blocks = (self.depth - 2) // 6
        for stage in range(3):
            for block in range(blocks):
                x = self._sum(
                    x, self.width * 2**stage, 2 if stage and not block else 1, train, f"stage{stage}_block{block}"
                )
                if self.last_activation or (stage, block) != (2, blocks - 1):
                    x = self._act(x)
        return jnp.mean(x, axis=(1, 2))

    def _sum(self, x, width, stride, train, name):
        """``shortcut(x) + norm(conv(act(norm(conv(x)))))``."""
        h = self._conv(x, width, f"{name}_conv0", stride=stride, use_bias=False)
        h = self._act(self._norm(h, train, f"{name}_norm0"))
        h = self._norm(self._conv(h, width, f"{name}_conv1", use_bias=False), train, f"{name}_norm1")
        if stride > 1 or x.shape[-1] != width:
            options = {"kernel_size": 1, "stride": stride, "padding": 0, "use_bias": False}
            x = self._conv(x, width, f"{name}_shortcut_conv", **options)
            x = self._norm(x, train, f"{name}_shortcut_norm")
        return x + h


def _check_depth(where, depth, rest):
    """Three stages of blocks of two layers have ``6 n``, and ``rest`` layers are outside them."""
    checks.whole(where, "depth", depth, 6 + rest)
    some = ", ".join(str(6 * n + rest) for n in range(1, 7))
    checks.require(depth % 6 == rest, where, f"depth is {depth}; it must be 6 n + {rest}: {some}")
