"""What all networks share: their options, and features followed by a dense head.

The head on cosines is that of LUCIR (Hou et al., CVPR 2019).
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from kipjax import checks
from kipjax.models import activations, layers, norms
from kipjax.models.initializers import INITS

__all__ = ["CLASSIFIERS", "Classifier"]

CLASSIFIERS = ("linear", "cosine")


class Classifier(nn.Module):
    """A network ``x [n, h, w, c] -> logits [n, k]``; a subclass says in ``body`` what comes before the last layer.

    Attributes:
      num_classes: k.
      norm: normalisation layers, one of ``norms.NORMS``.
      activation: one of ``activations.ACTIVATIONS``.
      sharpness: that of softplus.
      initial: how parameters are drawn, one of ``initializers.INITS``.
      momentum: of batch norm's running averages, flax's convention.
      groups: of group norm.
      lowering: of the convolutions, one of ``layers.LOWERINGS``.
      classifier: the last layer, one of ``CLASSIFIERS``; ``"cosine"`` (``layers.CosineHead``) is for networks that go
        on to new classes, not for methods that solve for the last layer.
    """

    num_classes: int
    norm: str = "none"
    activation: str = "relu"
    sharpness: float = 60.0
    initial: str = "torch"
    momentum: float = 0.9
    groups: int = 4
    lowering: str | None = None
    classifier: str = "linear"

    _needs_images = True  # no annotation: not a field

    def __post_init__(self):
        where = f"models.{type(self).__name__}"
        checks.whole(where, "num_classes", self.num_classes)
        checks.one_of(where, "norm", self.norm, norms.NORMS)
        checks.one_of(where, "activation", self.activation, activations.ACTIVATIONS)
        checks.at_least(where, "sharpness", self.sharpness, 0.0, strict=True)
        checks.one_of(where, "initial", self.initial, INITS)
        checks.within(where, "momentum", self.momentum, 0.0, 1.0)
        checks.whole(where, "groups", self.groups)
        checks.one_of(where, "lowering", self.lowering, layers.LOWERINGS)
        checks.one_of(where, "classifier", self.classifier, CLASSIFIERS)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, features: bool = False
    ) -> jax.Array | tuple[jax.Array, jax.Array]:
        """Logits, and the features that the last layer reads if asked for.

        Args:
          x: ``[n, h, w, c]``.
          train: whether batch norm uses and records the statistics of ``x`` (collection ``batch_stats``).
          features: whether to return ``(logits, features)``.

        Returns:
          ``logits [n, k]``, or ``(logits [n, k], features [n, p])`` with ``logits = head(features)``.

        Raises:
          InputError: ``x`` is no batch of images, or the images are too small for the architecture.
        """
        where = f"models.{type(self).__name__}"
        self._require_batch(where, x)
        x = jnp.asarray(x, jnp.result_type(x, jnp.float32))
        try:
            h = self.body(x, train)
        except checks.InputError as error:  # a layer knows its map, not the image that led to it
            raise checks.InputError(f"{where}: for examples of shape {x.shape[1:]}: {error}") from None
        h = h.reshape(h.shape[0], -1)
        if self.classifier == "cosine":
            logits = layers.CosineHead(self.num_classes, self.initial, name="head")(h)
        else:
            logits = layers.dense(self.num_classes, h.shape[-1], initial=self.initial, name="head")(h)
        return (logits, h) if features else logits

    def body(self, x: jax.Array, train: bool) -> jax.Array:
        """``[n, h, w, c] -> [n, ...]``, the features before they are flattened."""
        # Abstract: the base class has no network of its own, and flax makes its modules without abc's metaclass.
        raise NotImplementedError(f"{type(self).__name__} does not define body")

    def _require_batch(self, where, x):
        expected = "[n, h, w, c]" if self._needs_images else "[n, ...]"
        checks.require(
            x.ndim == 4 if self._needs_images else x.ndim >= 2,
            where,
            f"x has shape {x.shape}; expected {expected} (one image is x[None])",
        )

    def _conv(self, x, width, name, *, kernel_size=3, stride=1, padding=1, use_bias=True):
        return layers.Conv(
            width, kernel_size, stride, padding, use_bias, initial=self.initial, lowering=self.lowering, name=name
        )(x)

    def _dense(self, x, width, name):
        return layers.dense(width, x.shape[-1], initial=self.initial, name=name)(x)

    def _norm(self, x, train, name):
        if self.norm == "none":
            return x
        return norms.Norm(self.norm, momentum=self.momentum, groups=self.groups, name=name)(x, train=train)

    def _act(self, x):
        return activations.activation(self.activation, sharpness=self.sharpness)(x)
