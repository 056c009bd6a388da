"""Kernel ridge regression on a small support set, the KIP loss and solved labels (arXiv:2011.00050).

Letters: ``m`` support points, ``n`` target points, ``k`` classes; ``k_ss [m, m]`` kernel of the support with itself,
``k_ts [n, m]`` kernel of the targets with the support, ``y_s [m, k]``, ``y_t [n, k]``.

The field uses two units for the ridge, so it is named wherever one is passed: with ``reg_unit="trace"`` the ridge is
``lambda = reg * trace(k_ss) / m`` (appendix B of the paper: invariant to the scale of the kernel; the gradient flows
through the trace), with ``"absolute"`` it is ``lambda = reg``.

Solves run in float64 by default, whatever the kernels are in: with the usual ``reg = 1e-6`` a float32 Cholesky fails
from a few hundred points on. ``solve_dtype=None`` keeps the precision of the kernels. With ``reg = 0`` the inverse is
the pseudo-inverse, as in the paper (section 2, below equation 5).
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy as jsp
from jax import lax

from kipjax import checks
from kipjax.core import losses, precision

__all__ = [
    "REG_UNITS",
    "SOLVE_DTYPES",
    "Moments",
    "alpha",
    "labels_from_moments",
    "loss",
    "loss_from_moments",
    "moments",
    "predict",
    "ridge",
    "solve_labels",
]

REG_UNITS = ("trace", "absolute")
SOLVE_DTYPES = (None, "float32", "float64")


def ridge(k_ss: jax.Array, *, reg: float | jax.Array, reg_unit: str = "trace") -> jax.Array:
    """The absolute ridge lambda ``[]`` that ``reg`` means for the kernel matrix ``k_ss [m, m]``."""
    (k_ss,) = precision.floats(k_ss)
    _check_ridge("krr.ridge", k_ss, reg, reg_unit)
    reg = jnp.asarray(reg, k_ss.dtype)
    return reg * jnp.trace(k_ss) / k_ss.shape[0] if reg_unit == "trace" else reg


def alpha(
    k_ss: jax.Array,
    y_s: jax.Array,
    *,
    reg: float | jax.Array,
    reg_unit: str = "trace",
    solve_dtype: Any = "float64",
) -> jax.Array:
    """Dual coefficients ``(k_ss + lambda I)^-1 y_s``.

    One factorisation serves the value and its derivatives of every order: they are given by the linear system itself
    (d alpha = A^-1 (d y - dA alpha)), not by differentiating the factorisation.

    Args:
      k_ss: ``[m, m]`` symmetric positive semi-definite.
      y_s: ``[m, k]``.
      reg: ridge, not negative, in ``reg_unit``.
      reg_unit: ``"trace"`` or ``"absolute"`` (module docstring).
      solve_dtype: precision of the factorisation and the triangular solves; ``None`` for that of ``k_ss``.

    Returns:
      ``[m, k]`` in the dtype of the inputs. Under jit, all NaN if the matrix is not positive definite in
      ``solve_dtype``.

    Raises:
      InputError: shapes do not fit, the unit is unknown or the ridge is negative.
      NumericalError: outside jit, the matrix is not positive definite in ``solve_dtype``.
    """
    k_ss, y_s = precision.floats(k_ss, y_s)
    _check_ridge("krr.alpha", k_ss, reg, reg_unit)
    checks.same_length("krr.alpha", "k_ss", k_ss, "y_s", y_s)
    checks.one_of("krr.alpha", "solve_dtype", solve_dtype if solve_dtype is None else _name(solve_dtype), SOLVE_DTYPES)
    wide = y_s.dtype if solve_dtype is None else jnp.dtype(solve_dtype)
    if not checks.is_traced(reg) and reg == 0:
        return _pseudo_solve(wide, k_ss, y_s)
    out = _solve(wide, k_ss, y_s, reg, reg_unit)
    _require_factorised("krr.alpha", out, reg, reg_unit, wide)
    return out


def _solve(wide, k_ss, y_s, reg, reg_unit):
    """``(k_ss + lambda I)^-1 y_s`` with the Cholesky factor in precision ``wide``."""
    lam = ridge(k_ss, reg=reg, reg_unit=reg_unit)

    with precision.mode(wide):
        fixed_k = lax.convert_element_type(lax.stop_gradient(k_ss), wide)
        fixed_reg = lax.convert_element_type(lax.stop_gradient(jnp.asarray(reg)), wide)
        # The ridge is near float32's resolution of the diagonal, so it is added after the cast.
        inverse = _inverse(_regularised(fixed_k, fixed_reg, reg_unit), reg)

    def solve(_, rhs):
        with precision.mode(wide):
            return lax.convert_element_type(inverse(lax.convert_element_type(rhs, wide)), rhs.dtype)

    return lax.custom_linear_solve(lambda v: k_ss @ v + lam * v, y_s, solve, symmetric=True)


def predict(
    k_ss: jax.Array,
    k_ts: jax.Array,
    y_s: jax.Array,
    *,
    reg: float | jax.Array,
    reg_unit: str = "trace",
    solve_dtype: Any = "float64",
) -> jax.Array:
    """Predictions ``k_ts (k_ss + lambda I)^-1 y_s`` of ridge regression trained on the support.

    Args:
      k_ss: ``[m, m]``.
      k_ts: ``[n, m]``.
      y_s: ``[m, k]``.
      reg, reg_unit, solve_dtype: as in ``alpha``.

    Returns:
      ``[n, k]``; the predicted class is the argmax over the last axis.

    Raises:
      InputError: shapes do not fit, the unit is unknown or the ridge is negative.

    References:
      arXiv:2011.00050, section 3, the predictor inside equation (7).

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.eye(3)
      >>> float(predict(x @ x.T, x @ x.T, x, reg=1.0, reg_unit="absolute")[0, 0])
      0.5
    """
    k_ss, k_ts, y_s = precision.floats(k_ss, k_ts, y_s)
    _check_targets("krr.predict", k_ss, k_ts)
    return k_ts @ alpha(k_ss, y_s, reg=reg, reg_unit=reg_unit, solve_dtype=solve_dtype)


def loss(
    k_ss: jax.Array,
    k_ts: jax.Array,
    y_s: jax.Array,
    y_t: jax.Array,
    *,
    reg: float | jax.Array,
    reg_unit: str = "trace",
    solve_dtype: Any = "float64",
) -> jax.Array:
    """The KIP loss ``1/2 mean |y_t - k_ts (k_ss + lambda I)^-1 y_s|^2`` over all ``n k`` entries.

    The paper writes the sum; the mean over entries is what the authors' program uses and what the published step sizes
    belong to.

    Args:
      k_ss: ``[m, m]``.
      k_ts: ``[n, m]``.
      y_s: ``[m, k]``.
      y_t: ``[n, k]``.
      reg, reg_unit, solve_dtype: as in ``alpha``.

    Returns:
      ``[]``.

    Raises:
      InputError: shapes or class counts do not fit, the unit is unknown or the ridge is negative.

    References:
      arXiv:2011.00050, equation (7).
    """
    k_ss, k_ts, y_s, y_t = precision.floats(k_ss, k_ts, y_s, y_t)
    checks.same_classes("krr.loss", "y_s", y_s, "y_t", y_t)
    checks.same_length("krr.loss", "k_ts", k_ts, "y_t", y_t)
    return losses.mse(predict(k_ss, k_ts, y_s, reg=reg, reg_unit=reg_unit, solve_dtype=solve_dtype), y_t)


def solve_labels(
    k_ss: jax.Array,
    k_ts: jax.Array,
    y_t: jax.Array,
    *,
    reg: float | jax.Array,
    reg_unit: str = "trace",
    rcond: float | None = None,
    solve_dtype: Any = "float64",
) -> jax.Array:
    """Solved labels ``pinv(k_ts (k_ss + lambda I)^-1) y_t``: the minimum-norm minimiser of ``loss`` over ``y_s``.

    Args:
      k_ss: ``[m, m]``.
      k_ts: ``[n, m]``, all targets at once; ``moments`` and ``labels_from_moments`` stream over blocks of them.
      y_t: ``[n, k]``.
      reg, reg_unit: as in ``alpha``; use the ridge that the labels will be evaluated with.
      rcond: singular values up to ``rcond`` times the largest count as zero; default ``eps * max(n, m)`` of the solve's
        precision. The paper gives none.
      solve_dtype: precision of the solve; ``None`` for that of the inputs.

    Returns:
      ``[m, k]``. By the envelope theorem the gradient of the loss at solved labels needs none through them, so none is
      given.

    Raises:
      InputError: shapes do not fit, the unit is unknown or the ridge or ``rcond`` is negative.

    References:
      arXiv:2011.00050, equation (8).
    """
    k_ss, k_ts, y_t = precision.floats(k_ss, k_ts, y_t)
    _check_ridge("krr.solve_labels", k_ss, reg, reg_unit)
    _check_targets("krr.solve_labels", k_ss, k_ts)
    checks.same_length("krr.solve_labels", "k_ts", k_ts, "y_t", y_t)
    _check_rcond("krr.solve_labels", rcond)

    def solve(k_ss, k_ts, y_t):
        cutoff = jnp.finfo(k_ts.dtype).eps * max(k_ts.shape) if rcond is None else rcond
        design = _inverse(_regularised(k_ss, reg, reg_unit), reg)(k_ts.T).T
        return jnp.linalg.pinv(design, rtol=cutoff) @ y_t

    out = precision.run_in(solve_dtype, solve, k_ss, k_ts, y_t)
    _require_factorised("krr.solve_labels", out, reg, reg_unit, solve_dtype or k_ts.dtype)
    return out


class Moments(NamedTuple):
    """What solved labels need of the targets; adds up over blocks of them (and over devices).

    Attributes:
      gram: ``[m, m]`` sum of ``k_st k_ts``.
      cross: ``[m, k]`` sum of ``k_st y_t``.
      energy: ``[]`` sum of ``|y_t|^2``.
      count: ``[]`` number of targets.
    """

    gram: jax.Array
    cross: jax.Array
    energy: jax.Array
    count: jax.Array

    def __add__(self, other: "Moments") -> "Moments":  # pyright: ignore[reportIncompatibleMethodOverride]
        return jax.tree.map(jnp.add, self, other)


def moments(k_ts: jax.Array, y_t: jax.Array) -> Moments:
    """The ``Moments`` of one block of targets, ``k_ts [b, m]`` and ``y_t [b, k]``, in their precision."""
    checks.same_length("krr.moments", "k_ts", k_ts, "y_t", y_t)
    count = jnp.asarray(y_t.shape[0], y_t.dtype)
    return Moments(k_ts.T @ k_ts, k_ts.T @ y_t, jnp.sum(y_t**2), count)


def labels_from_moments(
    k_ss: jax.Array,
    stats: Moments,
    *,
    reg: float | jax.Array,
    reg_unit: str = "trace",
    rcond: float | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Solved labels from streamed ``Moments``, equal to ``solve_labels`` on all the targets at once.

    With ``A = k_ts (k_ss + lambda I)^-1`` the labels are ``pinv(A^T A) A^T y_t``, and both products follow from the
    moments. Forming ``A^T A`` squares the condition number, so this wants float64 moments.

    Args:
      k_ss: ``[m, m]``.
      stats: the summed moments, in the precision of ``k_ss``.
      reg, reg_unit: as in ``alpha``.
      rcond: relative cut-off for singular values of ``A``; default ``sqrt(eps * m)``, the smallest that the squared
        form can tell from zero.

    Returns:
      ``(y_s [m, k], loss [])``: the labels and the KIP loss on all the targets at them.
    """
    _check_ridge("krr.labels_from_moments", k_ss, reg, reg_unit)
    _check_rcond("krr.labels_from_moments", rcond)
    m = k_ss.shape[0]
    inverse = _inverse(_regularised(k_ss, reg, reg_unit), reg)
    normal = inverse(inverse(stats.gram).T)
    # The cut-off acts on eigenvalues of A^T A, that is on squared singular values of A.
    cutoff = jnp.finfo(k_ss.dtype).eps * m if rcond is None else rcond**2
    y_s = _pseudo_inverse(0.5 * (normal + normal.T), cutoff)(inverse(stats.cross))
    return y_s, loss_from_moments(inverse(y_s), stats)


def loss_from_moments(dual: jax.Array, stats: Moments) -> jax.Array:
    """The KIP loss ``[]`` of dual coefficients ``[m, k]`` on the targets behind ``stats``."""
    squares = stats.energy - 2 * jnp.vdot(dual, stats.cross) + jnp.vdot(dual, stats.gram @ dual)
    return 0.5 * squares / (stats.count * dual.shape[1])


def _regularised(k_ss, reg, reg_unit):
    return k_ss + ridge(k_ss, reg=reg, reg_unit=reg_unit) * jnp.eye(k_ss.shape[0], dtype=k_ss.dtype)


def _inverse(system, reg):
    """``rhs -> system^-1 rhs`` for a symmetric matrix: Cholesky, or the pseudo-inverse where ``reg`` is exactly 0."""
    if not checks.is_traced(reg) and reg == 0:
        return _pseudo_inverse(system, jnp.finfo(system.dtype).eps * system.shape[0])
    factor = jnp.linalg.cholesky(system)
    return lambda rhs: jsp.linalg.cho_solve((factor, True), rhs)


def _pseudo_inverse(system, cutoff):
    """``rhs -> pinv(system) rhs`` for a symmetric positive semi-definite matrix, by its eigenvalues."""
    values, vectors = jnp.linalg.eigh(system)
    kept = values > cutoff * values[-1]
    reciprocal = jnp.where(kept, 1.0 / jnp.where(kept, values, 1.0), 0.0)
    return lambda rhs: vectors @ (reciprocal[:, None] * (vectors.T @ rhs))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _pseudo_solve(wide, k, y):
    """``pinv(k) y`` for symmetric ``k [m, m]`` in precision ``wide``."""

    def solve(k, y):
        return _pseudo_inverse(k, jnp.finfo(k.dtype).eps * k.shape[0])(y)

    return precision.run_in(wide, solve, k, y)


@_pseudo_solve.defjvp
def _pseudo_solve_jvp(wide, primals, tangents):
    """The derivative of a pseudo-inverse of constant rank (Golub and Pereyra, SINUM 10(2), 1973, theorem 4.3).

    ``d(P y) = P dy - P dK a + P P dK (y - K a) + (I - P K) dK P a`` with ``P = pinv(K)`` and ``a = P y``.
    """
    (k, y), (dk, dy) = primals, tangents
    p = lax.stop_gradient(_pseudo_solve(wide, k, jnp.eye(k.shape[0], dtype=k.dtype)))
    a = _pseudo_solve(wide, k, y)
    outside = dk @ (p @ a)
    return a, p @ dy - p @ (dk @ a) + p @ (p @ (dk @ (y - k @ a))) + outside - p @ (k @ outside)


def _name(dtype):
    return dtype if isinstance(dtype, str) else jnp.dtype(dtype).name


def _require_factorised(where, out, reg, reg_unit, dtype):
    """Outside jit, where there are values to look at, a failed factorisation is an error."""
    if not checks.is_traced(out) and not bool(jnp.all(jnp.isfinite(out))):
        raise checks.NumericalError(
            f"{where}: the kernel matrix does not factorise in {jnp.dtype(dtype)} with reg = {reg} ({reg_unit}); "
            "raise reg, use solve_dtype='float64', and look for NaN or repeated examples"
        )


def _check_ridge(where, k_ss, reg, reg_unit):
    checks.one_of(where, "reg_unit", reg_unit, REG_UNITS)
    checks.at_least(where, "reg", reg, 0.0)
    shape = jnp.shape(k_ss)
    checks.require(len(shape) == 2 and shape[0] == shape[1], where, f"k_ss has shape {shape}; expected [m, m]")


def _check_targets(where, k_ss, k_ts):
    checks.require(
        jnp.ndim(k_ts) == 2 and k_ts.shape[1] == k_ss.shape[0],
        where,
        f"k_ts has shape {jnp.shape(k_ts)} and k_ss {k_ss.shape}; k_ts needs one column per support point",
    )


def _check_rcond(where, rcond):
    if rcond is not None:
        checks.at_least(where, "rcond", rcond, 0.0)
