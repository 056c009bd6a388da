"""What a ReLU does to covariances: the arc-cosine kernels of degree 1 and 0 (Cho and Saul, NIPS 2009, section 2).

For jointly Gaussian ``u, v`` with covariance ``c``, product of variances ``q`` and angle ``phi = atan2(s, c)``,
``s = sqrt(q - c**2)``:

    E relu(u) relu(v)   = s / (2 pi) + c (pi - phi) / (2 pi)        degree 1, the next NNGP
    E relu'(u) relu'(v) = (pi - phi) / (2 pi)                       degree 0, the factor of the NTK

The angle is nearly the whole cost of an infinite-width kernel on a CPU: XLA calls the C library for every ``atan2``
(11 ms for 600,000 float32 pairs on two cores), while a polynomial is vectorised (0.8 ms). The derivatives are written
out, which saves differentiating through the angle, and keeps them finite where ``s`` is zero.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["angle", "moments"]

_TINY = 1e-30


@jax.custom_jvp
def moments(c: jax.Array, q: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The covariance after a ReLU and the expected product of its slopes.

    Args:
      c: covariances, any shape.
      q: products of the two variances, not negative, of the same shape. Where rounding makes ``c**2 > q``, the angle is
        0 or pi.

    Returns:
      ``(degree 1, degree 0)``, each of the shape of ``c``; (0, 0) has angle pi / 2.
    """
    s = _sine(c, q)
    slope = 0.5 - angle(s, c) / (2 * np.pi)
    return s / (2 * np.pi) + c * slope, slope


@moments.defjvp
def _moments_jvp(primals, tangents):
    """d degree1 = slope dc + s / (4 pi q) dq;  d degree0 = (dc - c / (2 q) dq) / (2 pi s), zero where s is.

    Where ``s**2`` is no more than rounding leaves of ``q - c**2``, as for parallel inputs, it counts as zero. There the
    two terms of d degree0 cancel in exact arithmetic, and ``1 / s`` of a rounding error would be all that is left.
    """
    (c, q), (dc, dq) = primals, tangents
    s = _sine(c, q)
    out = moments(c, q)
    per_q = jnp.where(q > _TINY, 0.5 / jnp.maximum(q, _TINY), 0.0)
    least = jnp.maximum(16 * jnp.finfo(q.dtype).eps * q, _TINY)
    left = q - c * c
    # Bounded on both sides of the test: XLA may round ``left`` differently in its two uses.
    per_s = jnp.where(left > least, 0.5 / np.pi / jnp.sqrt(jnp.maximum(left, least)), 0.0)
    return out, (out[1] * dc + s * per_q / (2 * np.pi) * dq, (dc - c * per_q * dq) * per_s)


def angle(s: jax.Array, c: jax.Array) -> jax.Array:
    """``atan2(s, c)`` in 0..pi for ``s [...] >= 0``, ``c [...]``, to a few roundings; (0, 0) gives pi / 2.

    ``atan(t) / t`` on 0..1 is a Chebyshev series in ``t**2`` whose terms fall by a factor of 5.8 each.
    """
    size = jnp.abs(c)
    low, high = jnp.minimum(s, size), jnp.maximum(s, size)
    high = jnp.maximum(high, _TINY)
    t = low / high
    atan = low * _series(t * t) / high  # division last: XLA repeats in every later layer what looks cheap to it
    atan = jnp.where(s >= size, np.pi / 2 - atan, atan)  # now in 0..pi/2, and pi/2 at (0, 0)
    return jnp.where(c < 0, np.pi - atan, atan)


def _sine(c, q):
    """``sqrt(q - c**2)``, with the root last.

    A select behind it would be repeated by XLA in every use, each with its own rounding of ``q - c**2``. Where nothing
    but rounding is left of that, the two terms of degree 1 would no longer cancel.
    """
    return jnp.sqrt(jnp.maximum(q - c * c, 0.0))


def _series(u: jax.Array) -> jax.Array:
    """``atan(sqrt(u)) / sqrt(u)`` for ``u`` in 0..1, by Clenshaw's recurrence."""
    coefficients = _coefficients(np.dtype(u.dtype))
    z = 4 * u - 2  # twice the Chebyshev variable
    b1 = b2 = jnp.zeros_like(u)
    for a in coefficients[:0:-1]:
        b1, b2 = a + z * b1 - b2, b1
    return coefficients[0] + 0.5 * z * b1 - b2


@functools.cache
def _coefficients(dtype: Any) -> list[float]:
    """Chebyshev coefficients on 0..1, as many as the precision can tell."""

    def f(u):
        t = np.sqrt(np.maximum(u, 1e-300))
        return np.arctan(t) / t

    degree = 10 if dtype.itemsize <= 4 else 22
    return [float(a) for a in np.polynomial.Chebyshev.interpolate(f, degree, domain=(0, 1)).coef]
