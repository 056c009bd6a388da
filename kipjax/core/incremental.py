"""What a network that learns class after class adds to its loss, so that it does not forget: formulas.

- distillation of what it said before (LwF, arXiv:1606.09282; as Mnemonics, arXiv:2002.10211, equation (5), uses it);
- LUCIR (Hou, Pan, Loy, Wang, Lin, "Learning a Unified Classifier Incrementally via Rebalancing", CVPR 2019): features
  that keep their direction, a margin between old classes and new ones, weights of new classes imprinted from features;
- weight transfer (Sun, Liu, Chua, Schiele, "Meta-Transfer Learning", arXiv:1812.02391): a frozen kernel times a scale.

Classes are given as a mask ``[k]`` over all that will ever come: ``known`` before the phase, ``seen`` with it.
"""

import jax
import jax.numpy as jnp
import optax

from kipjax import checks
from kipjax.types import PyTree

__all__ = [
    "cosine",
    "distillation",
    "fold",
    "imprint",
    "less_forget",
    "less_forget_weight",
    "margin_ranking",
    "restrict",
    "scales",
]

_NEVER = -1e30


def restrict(logits: jax.Array, seen: jax.Array) -> jax.Array:
    """``logits [n, k]`` so low outside the classes ``seen [k]`` that a softmax gives them nothing."""
    return jnp.where(seen > 0, logits, jnp.asarray(_NEVER, logits.dtype))


def distillation(logits: jax.Array, before: jax.Array, known: jax.Array, *, temperature: float = 2.0) -> jax.Array:
    """``T^2 mean_i KL(softmax(before_i / T) || softmax(logits_i / T))`` over the classes that were known before.

    Args:
      logits: ``[n, k]`` of the network.
      before: ``[n, k]`` of the network before the phase.
      known: ``[k]`` mask of its classes, at least one.
      temperature: ``T``, above 0; LwF takes 2.

    Returns:
      ``[]`` in nats, not negative, and zero where both say the same.

    References:
      arXiv:1606.09282, equation (2), less the entropy of ``before``, which has no gradient; arXiv:2002.10211, eq. (5).
    """
    checks.same_classes("incremental.distillation", "logits", logits, "before", before)
    checks.at_least("incremental.distillation", "temperature", temperature, 0.0, strict=True)
    log_q = jax.nn.log_softmax(restrict(logits / temperature, known))
    log_p = jax.nn.log_softmax(restrict(before / temperature, known))
    terms = jnp.where(known > 0, jnp.exp(log_p) * (log_p - log_q), 0.0)
    return temperature**2 * jnp.mean(jnp.sum(terms, axis=1))


def cosine(a: jax.Array, b: jax.Array) -> jax.Array:
    """Cosines ``[n, k]`` of rows ``a [n, p]`` with columns ``b [p, k]``; zero where one of them is zero."""
    return _normalised(a, 1) @ _normalised(b, 0)


def less_forget(h: jax.Array, before: jax.Array) -> jax.Array:
    """``mean_i (1 - cos(h_i, before_i))`` in 0..2 of features ``[n, p]`` now and before (LUCIR, equation (6))."""
    checks.same_length("incremental.less_forget", "h", h, "before", before)
    return jnp.mean(1.0 - jnp.sum(_normalised(h, 1) * _normalised(before, 1), axis=1))


def less_forget_weight(known: jax.Array, seen: jax.Array, base: float = 5.0) -> jax.Array:
    """``base sqrt(old classes / new classes)`` ``[]`` (LUCIR, section 3.3; base 5 on CIFAR-100, 10 on ImageNet).

    Example:
      >>> seen, known = jnp.ones(60), jnp.arange(60) < 50
      >>> float(less_forget_weight(known, seen) ** 2)
      125.0
    """
    old = jnp.sum(known)
    return base * jnp.sqrt(old / jnp.maximum(jnp.sum(seen) - old, 1))


def margin_ranking(
    scores: jax.Array, classes: jax.Array, known: jax.Array, seen: jax.Array, *, margin: float = 0.5, top: int = 2
) -> jax.Array:
    """``mean max(0, margin - s_i,y + s_i,c)`` over examples of old classes and the ``top`` new classes of each.

    Args:
      scores: ``[n, k]`` cosines.
      classes: ``[n]`` true classes.
      known, seen: ``[k]`` masks; new classes are those seen and not known.
      margin: ``m``.
      top: ``K``, hard negatives of an example: the new classes of highest score, all of them if there are fewer.

    Returns:
      ``[]``, zero without an example of an old class or without a new class.

    References:
      LUCIR, equation (8).
    """
    checks.whole("incremental.margin_ranking", "top", top)
    new = (seen > 0) & (known <= 0)
    own = jnp.take_along_axis(scores, classes[:, None], axis=1)
    hardest = jax.lax.top_k(restrict(scores, new), min(top, scores.shape[1]))[0]
    counts = (hardest > _NEVER / 2) & (known[classes] > 0)[:, None]
    lost = jnp.where(counts, jax.nn.relu(margin - own + hardest), 0.0)
    return jnp.sum(lost) / jnp.maximum(jnp.sum(counts), 1)


def imprint(kernel: jax.Array, h: jax.Array, classes: jax.Array, known: jax.Array, seen: jax.Array) -> jax.Array:
    """The weights of a classifier with the columns of new classes set by their features.

    ``w_c = n mean_i(h_i / |h_i|) / |mean_i(h_i / |h_i|)|`` over the examples of class ``c``, with the mean norm ``n``
    of the columns of old classes. Nothing is changed if there is no old class.

    Args:
      kernel: ``[p, k]``.
      h: ``[n, p]`` features of examples of the new classes.
      classes: ``[n]``.
      known, seen: ``[k]`` masks.

    Returns:
      ``[p, k]``.

    References:
      Qi, Brown, Lowe, arXiv:1712.07136; as LUCIR starts a phase.
    """
    own = jax.nn.one_hot(classes, kernel.shape[1], dtype=h.dtype)
    directions = _normalised(_normalised(h, 1).T @ own, 0)
    old = known > 0
    norm = jnp.sum(jnp.linalg.norm(kernel, axis=0) * old) / jnp.maximum(jnp.sum(old), 1)
    new = (seen > 0) & ~old & (jnp.sum(own, axis=0) > 0) & jnp.any(old)
    return jnp.where(new, norm * directions, kernel)


def scales(params: PyTree) -> PyTree:
    """Ones ``[in, out]`` for each convolution kernel ``[kh, kw, in, out]``, ``None`` elsewhere."""
    return jax.tree.map(lambda leaf: jnp.ones(leaf.shape[2:], leaf.dtype) if leaf.ndim == 4 else None, params)


def fold(params: PyTree, factors: PyTree) -> PyTree:
    """The parameters of a network whose convolution kernels are each multiplied by a scale for every pair of channels.

    Args:
      params: of a network.
      factors: as ``scales`` makes them.

    References:
      arXiv:1812.02391, section 4.2; arXiv:2002.10211, section 5.1 ("weight transfer operations").
    """
    return jax.tree.map(lambda leaf, factor: leaf if factor is None else leaf * factor, params, factors)


def _normalised(a, axis):
    norm = optax.safe_norm(a, 1e-12, axis=axis, keepdims=True)
    return a / norm
