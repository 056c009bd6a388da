"""Networks for sentences as one-channel images ``[n, length, dimension, 1]`` of word vectors (arXiv:1910.02551).

They read vectors and not words, so a sentence that was learned goes in like a real one. Padding words have a vector as
all others have; recurrent networks run over it.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from kipjax import checks
from kipjax.models import layers
from kipjax.models.classifier import Classifier
from kipjax.models.initializers import INITS

__all__ = ["CELLS", "Recurrent", "TextConvNet"]

CELLS = ("rnn", "lstm")


class TextConvNet(Classifier):
    """Convolutions over 3, 4 and 5 words, ReLU, the maximum over positions, dropout, one linear layer.

    Attributes:
      width: filters of each length.
      dropout: fraction of features dropped in training mode (PRNG collection ``dropout``).

    References:
      Kim, arXiv:1408.5882; arXiv:1910.02551, section 4.
    """

    initial: str = "xavier"
    width: int = 100
    dropout: float = 0.5

    def __post_init__(self):
        checks.whole("models.TextConvNet", "width", self.width)
        checks.within("models.TextConvNet", "dropout", self.dropout, 0.0, 1.0)
        super().__post_init__()

    def body(self, x: jax.Array, train: bool) -> jax.Array:
        """``[n, length, dimension, 1] -> [n, 3 width]``."""
        x = _sentences(x)
        found = []
        for words in (3, 4, 5):
            # A kernel as wide as a vector: words are positions, the vector's entries are channels.
            convolve = _WordConv(words, self.width, self.initial, self.lowering, name=f"conv{words}")
            y = convolve(x[:, :, None, :])
            found.append(jnp.max(self._act(y), axis=(1, 2)))
        x = jnp.concatenate(found, axis=1)
        return nn.Dropout(self.dropout, deterministic=not train)(x) if self.dropout else x


class _WordConv(nn.Module):
    """Filters over so many words; drawn as in the paper, for one channel in and kernels as wide as a vector."""

    words: int
    features: int
    initial: str
    lowering: str | None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """``[n, length, 1, d] -> [n, length - words + 1, 1, features]``."""
        d, draw = x.shape[-1], INITS[self.initial]

        def kernel(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.Array:
            return draw.kernel(key, (self.words, d, 1, self.features), dtype).reshape(shape)

        weights = self.param("kernel", kernel, (self.words, 1, d, self.features), jnp.float32)
        bias = self.param("bias", draw.bias(self.words * d), (self.features,), jnp.float32)
        return layers.convolve(x, weights, padding="VALID", lowering=self.lowering) + bias


class Recurrent(Classifier):
    """A bidirectional recurrent network of ``depth`` layers; the last states of both directions, one linear layer.

    Attributes:
      cell: ``"rnn"`` (tanh) or ``"lstm"``. All biases start at zero. There are two of each, one with the input and one
        with the state, as in the paper's program: their sum moves twice as far in a gradient step as one would.
      width: hidden units of a direction.
      depth: number of layers.

    References:
      arXiv:1910.02551, section 4: Bi-RNN and Bi-LSTM.
    """

    initial: str = "xavier"
    cell: str = "rnn"
    width: int = 100
    depth: int = 2

    def __post_init__(self):
        checks.one_of("models.Recurrent", "cell", self.cell, CELLS)
        checks.whole("models.Recurrent", "width", self.width)
        checks.whole("models.Recurrent", "depth", self.depth)
        super().__post_init__()

    def body(self, x: jax.Array, train: bool) -> jax.Array:
        """``[n, length, dimension, 1] -> [n, 2 width]``."""
        x, last = _sentences(x), []
        for i in range(self.depth):
            both = [self._run(x, f"layer{i}_{way}", way == "backward") for way in ("forward", "backward")]
            x = jnp.concatenate(both, axis=-1)
            last = [both[0][:, -1], both[1][:, 0]]
        return jnp.concatenate(last, axis=-1)

    def _run(self, x, name, reverse):
        """Hidden states ``[n, length, width]`` of one direction, in the order of ``x``."""
        gates = 4 if self.cell == "lstm" else 1
        draw = INITS[self.initial].kernel
        of_input = self.param(f"{name}_input", draw, (x.shape[-1], gates * self.width), x.dtype)
        of_state = self.param(f"{name}_state", draw, (self.width, gates * self.width), x.dtype)
        zeros, size = nn.initializers.zeros_init(), (gates * self.width,)
        bias = self.param(f"{name}_input_bias", zeros, size, x.dtype) + self.param(
            f"{name}_state_bias", zeros, size, x.dtype
        )
        seen = jnp.swapaxes(x @ of_input + bias, 0, 1)

        def rnn(h, a):
            h = jnp.tanh(a + h @ of_state)
            return h, h

        def lstm(carry, a):
            h, c = carry
            i, f, g, o = jnp.split(a + h @ of_state, 4, axis=-1)
            c = nn.sigmoid(f) * c + nn.sigmoid(i) * jnp.tanh(g)
            h = nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        zero = jnp.zeros((x.shape[0], self.width), x.dtype)
        step, start = (lstm, (zero, zero)) if self.cell == "lstm" else (rnn, zero)
        return jnp.swapaxes(jax.lax.scan(step, start, seen, reverse=reverse)[1], 0, 1)


def _sentences(x):
    """``[n, length, dimension]`` of ``[n, length, dimension, 1]``."""
    checks.require(
        x.ndim == 4 and x.shape[-1] == 1 and x.shape[1] > 0,
        "models.text",
        f"x has shape {x.shape}; expected sentences [n, length, dimension, 1]",
    )
    return x[..., 0]
