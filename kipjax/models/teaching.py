"""Networks of generative teaching: a generator of images, the learners that it teaches, both with weight normalisation.

Such, Rawal, Lehman, Stanley, Clune, "Generative Teaching Networks", arXiv:1912.07768; its layers are

- weight normalisation (arXiv:1602.07868): ``y = (x V + b) g / |V|`` for each output unit, with ``g = |V|`` at first,
  so that it changes nothing there. Both ``g`` and ``V`` are trained. (That the bias is scaled too is as in the authors'
  program; the formula that is usually written leaves it out.)
- mean-only batch norm: ``x + (beta - mean)``, the mean over examples and pixels; for prediction that of the last batch.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from kipjax import checks
from kipjax.models import layers
from kipjax.models.classifier import Classifier
from kipjax.models.initializers import INITS

__all__ = ["Generator", "Learner", "MeanOnlyNorm", "NormedConv", "NormedDense"]

_SLOPE = 0.1


class NormedDense(nn.Module):
    """``(x V + b) g / |V|``: ``x [n, d] -> [n, features]``, ``kernel`` ``V [d, features]``, ``scale`` ``g [features]``.

    Attributes:
      features: outputs.
      use_bias: whether there is a bias.
      weight_norm: false leaves ``g`` out: a plain layer.
    """

    features: int
    use_bias: bool = True
    weight_norm: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """``[n, d] -> [n, features]``."""
        kernel = self.param("kernel", INITS["he"].kernel, (x.shape[-1], self.features), x.dtype)
        return _normed(self, x @ kernel, kernel)


class NormedConv(nn.Module):
    """A 3x3 convolution ``x [n, h, w, c] -> [n, oh, ow, features]`` with ``|V|`` for each filter, as ``NormedDense``.

    Attributes:
      features, use_bias, weight_norm: as there.
      stride, padding: as in ``layers.Conv``.
      lowering: as in ``layers.Conv``.
    """

    features: int
    use_bias: bool = False
    weight_norm: bool = True
    stride: int = 1
    padding: str | int = 1
    lowering: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """``[n, h, w, c] -> [n, oh, ow, features]``."""
        kernel = self.param("kernel", INITS["he"].kernel, (3, 3, x.shape[-1], self.features), x.dtype)
        y = layers.convolve(x, kernel, stride=self.stride, padding=self.padding, lowering=self.lowering)
        return _normed(self, y, kernel)


def _normed(layer, y, kernel):
    """``(y + b) g / |V|``."""
    norm = jnp.sqrt(jnp.sum(kernel**2, axis=range(kernel.ndim - 1)) + 1e-12)
    if layer.use_bias:
        fan_in = kernel.size // layer.features
        y = y + layer.param("bias", INITS["torch"].bias(fan_in), (layer.features,), y.dtype)
    return y * (layer.param("scale", lambda key: norm) / norm) if layer.weight_norm else y


class MeanOnlyNorm(nn.Module):
    """``x + (beta - mean)`` for ``x [n, ..., c]``; keeps the mean of the last batch (collection ``batch_stats``)."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """``train``: use and keep the mean of ``x``; else use the one that was kept."""
        kept = self.variable("batch_stats", "mean", jnp.zeros, x.shape[-1:], x.dtype)
        mean = jnp.mean(x, axis=range(x.ndim - 1)) if train else kept.value
        if train and not self.is_initializing():
            kept.value = mean
        return x + (self.param("bias", nn.initializers.zeros_init(), x.shape[-1:], x.dtype) - mean)


class Generator(nn.Module):
    """``(z [n, d], y [n, k]) -> images [n, h, w, c]`` in (-2, 2): two dense layers, two doublings, ``2 tanh``.

    Batch norm always uses the statistics of the batch, so an image depends on the others of its batch.

    Attributes:
      shape: ``(h, w, c)`` of an image, ``h`` and ``w`` multiples of 4.
      hidden: units of the first layer.
      filters: channels of the smallest map; half as many before the last convolution.
      weight_norm: whether layers have it.
      lowering: of the convolutions, as in ``layers.Conv``.
    """

    shape: tuple[int, int, int]
    hidden: int = 1024
    filters: int = 128
    weight_norm: bool = True
    lowering: str | None = None

    @nn.compact
    def __call__(self, z: jax.Array, y: jax.Array) -> jax.Array:
        """``([n, d], [n, k]) -> [n, h, w, c]``."""
        height, width, channels = self.shape
        checks.divides("models.Generator", "image height", height, "two doublings", 4)
        checks.divides("models.Generator", "image width", width, "two doublings", 4)
        checks.same_length("models.Generator", "z", z, "y", y)
        x = jnp.concatenate([z, y.astype(z.dtype)], axis=1)
        for i, size in enumerate((self.hidden, self.filters * height * width // 16)):
            x = NormedDense(size, use_bias=False, weight_norm=self.weight_norm, name=f"dense{i}")(x)
            x = nn.leaky_relu(_BatchNorm(name=f"norm{i}")(x), _SLOPE)
        x = x.reshape(-1, height // 4, width // 4, self.filters)
        x = self._conv(_doubled(x), max(self.filters // 2, 1), "conv0", use_bias=False)
        x = nn.leaky_relu(_BatchNorm(name="norm2")(x), _SLOPE)
        return 2 * jnp.tanh(self._conv(_doubled(x), channels, "conv1", use_bias=True))

    def _conv(self, x, features, name, use_bias):
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
        options = {"weight_norm": self.weight_norm, "padding": 0, "lowering": self.lowering}
        return NormedConv(features, use_bias=use_bias, name=name, **options)(x)


class _BatchNorm(nn.Module):
    """Batch norm by the batch's own statistics, with the variance that is a plain mean of squares."""

    @nn.compact
    def __call__(self, x):
        axes = tuple(range(x.ndim - 1))
        mean = jnp.mean(x, axes)
        variance = jnp.mean((x - mean) ** 2, axes)
        scale = self.param("scale", nn.initializers.ones_init(), x.shape[-1:], x.dtype)
        bias = self.param("bias", nn.initializers.zeros_init(), x.shape[-1:], x.dtype)
        return (x - mean) * jax.lax.rsqrt(variance + 1e-5) * scale + bias


def _doubled(x):
    """Nearest neighbours, twice as high and wide."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


class Learner(Classifier):
    """A small ConvNet with mean-only batch norm, leaky ReLU (slope 0.1) and, on demand, weight normalisation.

    Attributes:
      widths: filters of the convolutions; without ``strides`` each is followed by 3x3 max pooling with stride 2.
      strides: of the convolutions, none of which is followed by pooling then.
      hidden: units of a dense layer before the last; 0 takes the average over pixels instead.
      weight_norm: whether layers have it.
    """

    widths: tuple[int, ...] = (64, 128)
    strides: tuple[int, ...] = ()
    hidden: int = 256
    weight_norm: bool = True

    def __post_init__(self):
        where = "models.Learner"
        for width in self.widths:
            checks.whole(where, "each of widths", width)
        checks.whole(where, "hidden", self.hidden, 0)
        checks.require(
            len(self.strides) in (0, len(self.widths)),
            where,
            f"strides has {len(self.strides)} entries and widths {len(self.widths)}; give one for each, or none",
        )
        checks.one_of(where, "classifier", self.classifier, ("linear",))
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, features: bool = False
    ) -> jax.Array | tuple[jax.Array, jax.Array]:
        """As ``Classifier.__call__``; the last layer, ``head``, is weight-normalised too."""
        self._require_batch("models.Learner", x)
        h = jnp.asarray(x, jnp.result_type(x, jnp.float32))
        for i, width in enumerate(self.widths):
            stride = self.strides[i] if self.strides else 1
            options = {"weight_norm": self.weight_norm, "lowering": self.lowering}
            h = NormedConv(width, stride=stride, name=f"conv{i}", **options)(h)
            h = h if self.strides else layers.max_pool3(h)
            h = nn.leaky_relu(MeanOnlyNorm(name=f"norm{i}")(h, train=train), _SLOPE)
        if self.hidden:
            h = NormedDense(self.hidden, weight_norm=self.weight_norm, name="dense")(h.reshape(h.shape[0], -1))
            h = nn.leaky_relu(MeanOnlyNorm(name="norm_dense")(h, train=train), _SLOPE)
        else:
            h = jnp.mean(h, axis=(1, 2))
        logits = NormedDense(self.num_classes, weight_norm=self.weight_norm, name="head")(h)
        return (logits, h) if features else logits
