"""How good a distilled set is, in the words of the papers. Accuracies and losses are fractions, not percent."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kipjax import checks

__all__ = [
    "Summary",
    "compression_ratio",
    "distillation_ratio",
    "distillation_size",
    "squared",
    "strong_epsilon",
    "summarize",
    "weak_epsilon",
    "zero_one",
]

ExampleLoss = Callable[[jax.Array, jax.Array], jax.Array]
"""``loss(z [n, k], y [n, k]) -> [n]``, nonnegative and zero at ``z = y``."""


class Summary(NamedTuple):
    """Mean and sample standard deviation (``n - 1`` in the denominator; NaN for one value) of ``n`` repetitions."""

    mean: float
    std: float
    n: int

    def percent(self, digits: int = 2) -> str:
        """The summary in percent, with n always shown, such as ``82.06 ± 0.11 % (n=5)``."""
        spread = f" ± {100 * self.std:.{digits}f}" if self.n > 1 else ""
        return f"{100 * self.mean:.{digits}f}{spread} % (n={self.n})"


def summarize(values: Iterable[float]) -> Summary:
    """The ``Summary`` of the results of repeated runs.

    Example:
      >>> summarize([0.5, 0.7]).percent(1)
      '60.0 ± 14.1 % (n=2)'
    """
    values = np.asarray(list(values), dtype=np.float64)
    checks.require(values.size > 0, "metrics.summarize", "values is empty; at least one run is needed")
    std = float(values.std(ddof=1)) if values.size > 1 else math.nan
    return Summary(float(values.mean()), std, int(values.size))


def zero_one(z: jax.Array, y: jax.Array) -> jax.Array:
    """1 where the largest entries of ``z [n, k]`` and ``y [n, k]`` differ in place, else 0: ``[n]``."""
    return (jnp.argmax(z, axis=-1) != jnp.argmax(y, axis=-1)).astype(jnp.result_type(float))


def squared(z: jax.Array, y: jax.Array) -> jax.Array:
    """Squared distance ``|z - y|^2`` of each row: ``[n]``."""
    return jnp.sum((z - y) ** 2, axis=-1)


def weak_epsilon(
    predictions: jax.Array, other_predictions: jax.Array, y: jax.Array, loss: ExampleLoss = zero_one
) -> float:
    """Smallest epsilon for which two models are weakly close: ``|E loss(f(x), y) - E loss(g(x), y)|``.

    Args:
      predictions, other_predictions: ``[n, k]`` of the two models on the same test points; the one trained on the full
        set and the one trained on the distilled set make the distilled set a weak epsilon-approximation.
      y: ``[n, k]`` targets, one column per class.
      loss: zero-one by default, which makes this the gap in accuracy.

    Returns:
      epsilon, estimated on the ``n`` points.

    References:
      arXiv:2011.00050, definitions 2.1 and 3, equation (1).
    """
    checks.same_classes("metrics.weak_epsilon", "predictions", predictions, "other_predictions", other_predictions)
    checks.same_classes("metrics.weak_epsilon", "predictions", predictions, "y", y)
    checks.same_length("metrics.weak_epsilon", "predictions", predictions, "other_predictions", other_predictions)
    checks.same_length("metrics.weak_epsilon", "predictions", predictions, "y", y)
    return float(jnp.abs(jnp.mean(loss(predictions, y)) - jnp.mean(loss(other_predictions, y))))


def strong_epsilon(predictions: jax.Array, other_predictions: jax.Array, loss: ExampleLoss = zero_one) -> float:
    """Smallest epsilon for which two models are strongly close: ``E loss(f(x), g(x))``, no targets involved.

    Args:
      predictions, other_predictions: ``[n, k]`` of the two models on the same points.
      loss: zero-one by default, which makes this the rate of disagreement.

    References:
      arXiv:2011.00050, definitions 2.2 and 3, equation (2).
    """
    checks.same_classes("metrics.strong_epsilon", "predictions", predictions, "other_predictions", other_predictions)
    checks.same_length("metrics.strong_epsilon", "predictions", predictions, "other_predictions", other_predictions)
    return float(jnp.mean(loss(predictions, other_predictions)))


def compression_ratio(full_size: int, distilled_size: int) -> float:
    """``|D| / |D~|`` for a weak epsilon-approximation ``D~`` of ``D`` (arXiv:2011.00050, definition 4)."""
    checks.at_least("metrics.compression_ratio", "distilled_size", distilled_size, 1)
    checks.at_least("metrics.compression_ratio", "full_size", full_size, distilled_size)
    return full_size / distilled_size


def distillation_ratio(distilled_accuracy: float, full_accuracy: float) -> float:
    """``r_M``: accuracy with ``M`` distilled examples in percent of the accuracy with the full set, same model.

    References:
      Sucholutsky and Schonlau, arXiv:1910.02551, section 3.1.
    """
    checks.within("metrics.distillation_ratio", "distilled_accuracy", distilled_accuracy, 0.0, 1.0)
    checks.at_least("metrics.distillation_ratio", "full_accuracy", full_accuracy, 0.0, strict=True)
    return 100.0 * distilled_accuracy / full_accuracy


def distillation_size(sizes: Sequence[int], ratios: Sequence[float], percent: float) -> int | None:
    """``d_A``, the A% distillation size: the fewest distilled examples that reach ``A`` percent of full accuracy.

    Args:
      sizes: numbers of distilled examples ``M`` that were tried.
      ratios: ``r_M`` of each, in percent.
      percent: ``A``.

    Returns:
      The smallest size that reaches it, or ``None`` if none does.

    References:
      Sucholutsky and Schonlau, arXiv:1910.02551, section 3.1.
    """
    checks.same_length("metrics.distillation_size", "sizes", sizes, "ratios", ratios)
    return min((size for size, ratio in zip(sizes, ratios) if ratio >= percent), default=None)
