"""Sets whose ridge regressor is a given one, in closed form (Chen, Huang, Weng, NeurIPS 2024).

Examples are rows here and columns in the paper: ``h [m, p]`` is its transposed ``Phi_S``, ``y [m, k]`` its ``Y_S``,
``w [p, k]`` its ``W``; ``d [m, p]`` is as there. The ridge ``reg`` is absolute, there is no bias:

    w_S = h_reg^+ y,    h_reg^+ = (h^T h + reg I)^-1 h^T = d^T,

so a set ``(h, y)`` has the weights ``w`` exactly if ``d^T y = w``. ``prescribed`` gives the ``d`` that do, ``features``
the ``h`` behind a ``d``. A matrix and what is made of it share their singular vectors: a singular value ``s`` of ``h``
is ``s / (s^2 + reg)`` of ``d``. Singular values up to ``rcond`` times the largest count as zero; by default that is
``eps * max(shape)``.
"""

from typing import Any

import jax
import jax.numpy as jnp

from kipjax import checks
from kipjax.core import precision

__all__ = [
    "ROOTS",
    "features",
    "from_regularized",
    "inverse",
    "labels",
    "prescribed",
    "prescribed_regularized",
    "rank",
    "reg_limit",
    "regularized",
    "weights",
]

ROOTS = ("larger", "smaller")


def inverse(h: jax.Array, reg: float | jax.Array = 0.0, *, rcond: float | None = None) -> jax.Array:
    """``d [m, p]``, the transposed ridge pseudo-inverse of features ``h [m, p]``; the pseudo-inverse for ``reg = 0``.

    The paper's ``phi_reg(X)^+``.
    """
    (h,) = _matrices("exact.inverse", reg, h=h)
    return _with_singular_values(h, lambda s: s / (s**2 + reg), rcond)


def weights(h: jax.Array, y: jax.Array, reg: float | jax.Array = 0.0, *, rcond: float | None = None) -> jax.Array:
    """Ridge regression ``w = argmin |h w - y|^2 + reg |w|^2``, the one of least norm for ``reg = 0``.

    Args:
      h: ``[m, p]`` features.
      y: ``[m, k]`` targets.
      reg: absolute ridge, not negative.
      rcond: relative cut-off for singular values.

    Returns:
      ``[p, k]``; predictions are ``h w``.

    Raises:
      InputError: shapes do not fit, or the ridge is negative.

    References:
      NeurIPS 2024 (WI2VpcBdnd), section 3: ``W = Y phi_lambda(X)^+``.

    Example:
      >>> weights(jnp.eye(2), jnp.eye(2), 1.0).tolist()
      [[0.5, 0.0], [0.0, 0.5]]
    """
    h, y = _matrices("exact.weights", reg, h=h, y=y)
    checks.same_length("exact.weights", "h", h, "y", y)
    return inverse(h, reg, rcond=rcond).T @ y


def prescribed(y: jax.Array, w: jax.Array, free: jax.Array | None = None, *, rcond: float | None = None) -> jax.Array:
    """Every ``d`` with ``d^T y = w``: ``d = (y^+)^T w^T + (I - y y^+) free``.

    Solutions exist if the rows of ``w`` lie in the row space of ``y``: always for labels of rank ``k``, and for centred
    labels (rank ``k - 1``) if the teacher's were centred too. The ``d`` closest to some ``d_0`` has ``free = d_0``
    (corollary 4.1.1).

    Args:
      y: ``[m, k]`` labels.
      w: ``[p, k]`` weights to reach.
      free: ``[m, p]``, any; none is zero, the ``d`` of least norm. It has no effect where ``m`` is the rank of ``y``.
      rcond: relative cut-off for singular values of ``y``.

    Returns:
      ``[m, p]``.

    References:
      NeurIPS 2024 (WI2VpcBdnd), theorems 4.1 and 5.1.
    """
    y, w = _matrices("exact.prescribed", y=y, w=w)
    checks.same_classes("exact.prescribed", "y", y, "w", w)
    pseudo = jnp.linalg.pinv(y, rtol=_cutoff(y, rcond))
    least = pseudo.T @ w.T
    if free is None:
        return least
    checks.require(
        jnp.shape(free) == least.shape, "exact.prescribed", f"free has shape {jnp.shape(free)}; expected {least.shape}"
    )
    (free,) = _matrices("exact.prescribed", free=free)
    return least + free - y @ (pseudo @ free)


def reg_limit(d: jax.Array) -> jax.Array:
    """The largest ridge ``[]`` at which ``d`` can be reached, ``1 / (4 s_1^2)`` with its largest singular value."""
    (d,) = _matrices("exact.reg_limit", d=d)
    largest = jnp.linalg.norm(d, ord=2)
    top = jnp.finfo(d.dtype).max
    return jnp.where(largest > 0, 0.25 / jnp.where(largest > 0, largest, 1.0) ** 2, top)


def features(
    d: jax.Array, reg: float | jax.Array = 0.0, *, root: str = "larger", rcond: float | None = None
) -> tuple[jax.Array, jax.Array]:
    """Features ``h`` with ``inverse(h, reg) = d``.

    A singular value ``s'`` of ``d`` comes from two of ``h``: ``(1 +- sqrt(1 - 4 reg s'^2)) / (2 s')``, or from
    ``1 / s'`` alone for ``reg = 0``.

    Args:
      d: ``[m, p]``.
      reg: absolute ridge; above ``reg_limit(d)``, where there is no such ``h``, that limit is taken in its place.
      root: ``"larger"`` or ``"smaller"``. With the smaller one the ridge must be positive.
      rcond: relative cut-off for singular values of ``d``.

    Returns:
      ``(h [m, p], reg [])``: the features and the ridge that they belong to.

    Raises:
      InputError: the ridge is negative, or zero with the smaller root.

    References:
      NeurIPS 2024 (WI2VpcBdnd), theorem 4.1, cases ``lambda_S = 0`` and ``lambda_S > 0``.
    """
    (d,) = _matrices("exact.features", reg, d=d)
    checks.one_of("exact.features", "root", root, ROOTS)
    if root == "smaller":
        checks.at_least("exact.features", "reg, for the smaller root,", reg, 0.0, strict=True)
    used = jnp.minimum(jnp.asarray(reg, d.dtype), reg_limit(d))

    def values(s):
        half = 1 + jnp.sqrt(jnp.maximum(1 - 4 * used * s**2, 0.0))
        return half / (2 * s) if root == "larger" else 2 * used * s / half

    return _with_singular_values(d, values, rcond), used


def regularized(h: jax.Array, reg: float | jax.Array = 0.0, *, rcond: float | None = None) -> jax.Array:
    """``h_reg [m, p]``, of which ``inverse(h, reg)`` is the transposed pseudo-inverse: values ``(s^2 + reg) / s``."""
    (h,) = _matrices("exact.regularized", reg, h=h)
    return _with_singular_values(h, lambda s: s + reg / s, rcond)


def labels(h: jax.Array, w: jax.Array, reg: float | jax.Array = 0.0, *, rcond: float | None = None) -> jax.Array:
    """Labels ``y = h_reg w`` of given features; for ``reg = 0`` the teacher's predictions.

    The student's weights are then ``w`` projected on the row space of ``h``: exactly ``w`` if that contains it, as it
    does for any ``p`` independent points, and the closest to it otherwise.

    Args:
      h: ``[m, p]``.
      w: ``[p, k]``.
      reg: absolute ridge of the student.
      rcond: relative cut-off for singular values of ``h``.

    Returns:
      ``[m, k]``.

    References:
      NeurIPS 2024 (WI2VpcBdnd), theorem 4.2 and the remark under corollary 4.1.1.
    """
    h, w = _matrices("exact.labels", reg, h=h, w=w)
    checks.require(
        h.shape[1] == w.shape[0],
        "exact.labels",
        f"h has shape {h.shape} and w {w.shape}; w needs one row for each feature",
    )
    return regularized(h, reg, rcond=rcond) @ w


def prescribed_regularized(
    y: jax.Array, w: jax.Array, free: jax.Array, *, null: bool = True, rcond: float | None = None
) -> jax.Array:
    """``h_reg = y w^+ + N free (I - w w^+)``, without inverting what is made: ``N = I - y y^+``, or ``I``.

    With ``null`` this is enough for any ``m >= k`` (theorem C.2). Without, it is necessary for ``m <= p`` and enough
    for ``m >= p``, each with ``h_reg`` of full rank (theorem C.1).

    Args:
      y: ``[m, k]`` labels of rank ``k``.
      w: ``[p, k]`` weights of rank ``k``.
      free: ``[m, p]``, any.
      null: put ``free`` into the null space of the labels.
      rcond: relative cut-off for singular values of both.

    Returns:
      ``[m, p]``, for ``from_regularized``.

    References:
      NeurIPS 2024 (WI2VpcBdnd), theorems C.1 and C.2.
    """
    y, w, free = _matrices("exact.prescribed_regularized", y=y, w=w, free=free)
    checks.same_classes("exact.prescribed_regularized", "y", y, "w", w)
    checks.require(
        free.shape == (len(y), len(w)),
        "exact.prescribed_regularized",
        f"free has shape {free.shape}; expected {(len(y), len(w))}",
    )
    back = jnp.linalg.pinv(w, rtol=_cutoff(w, rcond))
    free = free - y @ (jnp.linalg.pinv(y, rtol=_cutoff(y, rcond)) @ free) if null else free
    return y @ back + free - (free @ w) @ back


def from_regularized(
    h_reg: jax.Array, reg: float | jax.Array, *, root: str = "larger", rcond: float | None = None
) -> jax.Array:
    """Features ``h`` with ``regularized(h, reg) = h_reg``: values ``(s' +- sqrt(s'^2 - 4 reg)) / 2``.

    Args:
      h_reg: ``[m, p]``; its singular values must be zero or at least ``2 sqrt(reg)``.
      reg: absolute ridge.
      root: ``"larger"`` or ``"smaller"``; the smaller one needs a positive ridge.
      rcond: relative cut-off for singular values.

    Raises:
      InputError: outside jit, a singular value is below ``2 sqrt(reg)``.

    References:
      NeurIPS 2024 (WI2VpcBdnd), below theorem C.2.
    """
    where = "exact.from_regularized"
    (h_reg,) = _matrices(where, reg, h_reg=h_reg)
    checks.one_of(where, "root", root, ROOTS)
    if not checks.is_traced(reg):
        name = "reg, for the smaller root," if root == "smaller" else "reg"
        checks.at_least(where, name, float(reg), 0.0, strict=root == "smaller")
    if not checks.is_traced(h_reg, reg):
        values = jnp.linalg.svd(h_reg, compute_uv=False)
        kept = values[values > _cutoff(h_reg, rcond) * values[0]]
        smallest = float(kept.min(initial=jnp.inf))
        slack = 1 - jnp.sqrt(jnp.finfo(h_reg.dtype).eps)
        checks.require(
            bool(jnp.all(kept >= slack * 2 * jnp.sqrt(jnp.asarray(reg)))),
            where,
            f"reg is {reg}, and the smallest singular value of h_reg {smallest:.3g} must be at least "
            "2 sqrt(reg); lower reg",
        )

    def values_of(s):
        twice = s + jnp.sqrt(jnp.maximum(s**2 - 4 * reg, 0.0))
        return twice / 2 if root == "larger" else 2 * reg / twice

    return _with_singular_values(h_reg, values_of, rcond)


def rank(a: jax.Array, *, rcond: float | None = None) -> jax.Array:
    """The number ``[]`` of singular values of ``a [m, p]`` above the cut-off."""
    (a,) = _matrices("exact.rank", a=a)
    s = jnp.linalg.svd(a, compute_uv=False)
    return jnp.sum((s > _cutoff(a, rcond) * s[0]) & (s > 0))


def _with_singular_values(a, change, rcond):
    """``a`` with ``change`` applied to the singular values that are not zero."""
    u, s, vt = jnp.linalg.svd(a, full_matrices=False)
    kept = (s > _cutoff(a, rcond) * s[0]) & (s > 0)
    return (u * jnp.where(kept, change(jnp.where(kept, s, 1.0)), 0.0)) @ vt


def _cutoff(a, rcond):
    return jnp.finfo(a.dtype).eps * max(a.shape) if rcond is None else rcond


def _matrices(where: str, reg: float | jax.Array = 0.0, **given: Any) -> tuple[jax.Array, ...]:
    """The matrices in one floating-point type."""
    checks.at_least(where, "reg", reg, 0.0)
    arrays = precision.floats(*given.values())
    for name, a in zip(given, arrays):
        checks.require(a.ndim == 2 and a.size > 0, where, f"{name} has shape {a.shape}; expected a matrix with entries")
    return arrays
