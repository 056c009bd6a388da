"""How good a distilled set is, in the words of the papers. Accuracies and losses are fractions, not percent.

Closeness of models as in arXiv:2011.00050, section 2; ratios and sizes as each docstring says.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kipjax import checks

__all__ = [
    "Interval",
    "Summary",
    "Worth",
    "compression_ratio",
    "distillation_ratio",
    "distillation_size",
    "squared",
    "strong_epsilon",
    "strong_interval",
    "summarize",
    "weak_epsilon",
    "weak_interval",
    "worth",
    "zero_one",
]

ExampleLoss = Callable[[jax.Array, jax.Array], jax.Array]
"""``loss(z [n, k], y [n, k]) -> [n]``, nonnegative and zero at ``z = y``."""


class Interval(NamedTuple):
    """An estimate ``value`` and its confidence interval ``low .. high``."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} ({self.low:.4f}..{self.high:.4f})"


class Worth(NamedTuple):
    """How many random real images do as well as a distilled set.

    Attributes:
      natural: their number; the end of the curve where the set is beyond it.
      ratio: ``natural`` over the size of the set, the compression ratio of definition 4 in arXiv:2011.00050.
      bound: ``""``, or ``"at least"`` and ``"at most"`` where the set is above or below all of the curve.
    """

    natural: float
    ratio: float
    bound: str

    def __str__(self) -> str:
        text = f"worth {self.natural:.0f} random real images, compression ratio {self.ratio:.3g}"
        return f"{text} ({self.bound})" if self.bound else text


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


def weak_interval(
    predictions: jax.Array,
    other_predictions: jax.Array,
    y: jax.Array,
    loss: ExampleLoss = zero_one,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """``weak_epsilon`` with a bootstrap interval over the test points, the two models' losses resampled in pairs.

    The percentile interval; an epsilon cannot be negative, so for two equally good models it reaches from about zero
    upwards.

    Args:
      predictions, other_predictions, y: ``[n, k]``, as in ``weak_epsilon``.
      loss: as there.
      level: coverage, between 0 and 1.
      resamples: bootstrap samples.
      seed: draws them.
    """
    value = weak_epsilon(predictions, other_predictions, y, loss)
    differences = loss(predictions, y) - loss(other_predictions, y)
    low, high = _bootstrap("metrics.weak_interval", differences, level, resamples, seed)
    return Interval(value, min(low, value), max(high, value))


def strong_interval(
    predictions: jax.Array,
    other_predictions: jax.Array,
    loss: ExampleLoss = zero_one,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """``strong_epsilon`` of ``[n, k]`` predictions, with a bootstrap interval over points; see ``weak_interval``."""
    value = strong_epsilon(predictions, other_predictions, loss)
    return Interval(
        value, *_bootstrap("metrics.strong_interval", loss(predictions, other_predictions), level, resamples, seed)
    )


def _bootstrap(where: str, values: jax.Array, level: float, resamples: int, seed: int) -> tuple[float, float]:
    """Percentile interval of ``|mean values|``."""
    from scipy import stats

    checks.within(where, "level", level, 0.0, 1.0)
    checks.whole(where, "resamples", resamples)
    sample = np.asarray(values, np.float64)
    checks.require(sample.size > 1, where, f"there are {sample.size} points; a bootstrap needs two or more")
    seeded: Any = {"random_state": np.random.default_rng(seed)}  # by this name on every version of SciPy
    found = stats.bootstrap(
        (sample,),
        lambda x, axis: np.abs(np.mean(x, axis=axis)),
        n_resamples=resamples,
        batch=max(1, 10**7 // sample.size),
        confidence_level=level,
        method="percentile",
        **seeded,
    ).confidence_interval
    return float(found.low), float(found.high)


def worth(accuracy: float, size: int, sizes: Sequence[int], accuracies: Sequence[float]) -> Worth:
    """How many random real images a distilled set is worth: where its accuracy lies on the curve of random subsets.

    The curve is made monotone (isotonic regression) and read off linearly in the logarithm of the size. Of a flat part
    the first size counts: the fewest images that do as well.

    Args:
      accuracy: of the distilled set, in 0..1.
      size: of the distilled set.
      sizes: of the random subsets, ascending.
      accuracies: of each, mean over subsets.

    Raises:
      InputError: fewer than two sizes, not ascending, or of another number than accuracies.

    References:
      arXiv:2011.00050, definition 4 with epsilon = 0; tables A1 and A2 read this way.

    Example:
      >>> str(worth(0.75, 10, [10, 100, 1000], [0.5, 0.7, 0.8]))
      'worth 316 random real images, compression ratio 31.6'
    """
    where = "metrics.worth"
    checks.same_length(where, "sizes", sizes, "accuracies", accuracies)
    checks.whole(where, "size", size)
    checks.within(where, "accuracy", accuracy, 0.0, 1.0)
    ascending = len(sizes) > 1 and all(0 < a < b for a, b in itertools.pairwise(sizes))
    checks.require(ascending, where, f"sizes are {list(sizes)}; give two or more in ascending order")
    from sklearn.isotonic import isotonic_regression

    accuracy = round(accuracy, 12)  # as the curve, so that rounding does not make steps of what is flat
    curve = np.round(isotonic_regression(np.asarray(accuracies, np.float64)), 12)
    logs = np.log(np.asarray(sizes, np.float64))
    if accuracy > curve[-1] or accuracy < curve[0]:
        end, bound = (sizes[-1], "at least") if accuracy > curve[-1] else (sizes[0], "at most")
        return Worth(float(end), end / size, bound)
    upper = int(np.searchsorted(curve, accuracy))
    if curve[upper] == accuracy:
        natural = float(sizes[upper])
    else:
        natural = float(np.exp(np.interp(accuracy, curve[upper - 1 : upper + 1], logs[upper - 1 : upper + 1])))
    return Worth(natural, natural / size, "")


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
