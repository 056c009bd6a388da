"""Differentiable augmentation of DSA, arXiv:2102.08259, and the plain one with which DC trains networks.

``siamese`` is for matching, where real and synthetic images must go through one and the same transformation;
``independent`` is for training networks. Both are differentiable in the images, act in preprocessed space and take the
names of the papers: ``"color_crop_cutout_flip_scale_rotate"`` for photographs and clothes,
``"color_crop_cutout_scale_rotate"`` for digits, ``"none"`` or nothing to leave images as they are. The ranges, those of
DSA, DM and MTT:

- ``color``: adds ``U(-0.5, 0.5)``; scales the distance to the mean over the channels by ``U(0, 2)``, and the distance
  to the mean of the image by ``U(0.5, 1.5)``;
- ``crop``: moves by whole pixels, up to an eighth of the side either way;
- ``cutout``: a square of half the side around any pixel, cut at the border;
- ``flip``: left to right, half the time;
- ``scale``: divides the sizes of the content, down and across, by ``U(1 / 1.2, 1.2)`` each;
- ``rotate``: by ``U(-15, 15)`` degrees, in the grid where both sides are 2 long, as ``grid_sample`` has it.

Interpolation is bilinear, and everything outside an image is zero.

References:
  arXiv:2102.08259; github.com/VICO-UoE/DatasetCondensation, utils.py (``DiffAugment``, ``ParamDiffAug``, ``augment``).
"""

import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from kipjax import checks
from kipjax.data import _transform
from kipjax.data._transform import Recipe, Transform, below, between
from kipjax.data.augment import Augment

__all__ = ["Mode", "independent", "plain", "siamese"]

Mode = Literal["single", "multiple"]
"""One operation of the list at each call, or all of them in their order; the code's ``aug_mode`` S and M."""


def siamese(name: str, *, mode: Mode = "single") -> Augment:
    """One draw at each call, for all images of it, that depends on nothing but the key.

    So a real and a synthetic batch of any two sizes, given one key, go through the same transformation. DC-like methods
    call it with a fresh key per class and matching step.

    Args:
      name: operations joined by underscores; see the module.
      mode: ``"single"`` draws one of them, each with equal probability; ``"multiple"`` applies all in their order.

    Returns:
      ``augment(key, x [b, h, w, c]) -> x``, differentiable in ``x``.

    Raises:
      InputError: an operation or the mode does not exist, or (at the call) ``x`` is not a batch of images.

    References:
      arXiv:2102.08259, section 3.2.

    Example:
      >>> augment, key = siamese("color_crop_cutout_flip_scale_rotate"), jax.random.key(0)
      >>> real, synthetic = augment(key, jnp.ones((256, 8, 8, 3))), augment(key, jnp.ones((10, 8, 8, 3)))
      >>> bool(jnp.all(real[0] == synthetic[-1]))
      True
    """
    return _augment("diffaug.siamese", name, mode, shared=True)


def independent(name: str, *, mode: Mode = "single") -> Augment:
    """As ``siamese``, but each image of the call draws its own parameters; the operation is still one for all.

    Upstream trains networks with this: those of the inner loop, of the evaluation, the experts and students of MTT.
    """
    return _augment("diffaug.independent", name, mode, shared=False)


def plain(name: str) -> Augment:
    """The augmentation of DC's evaluation: one operation for each image, drawn from the list with equal probability.

    - ``crop``: moves by -4 to 3 pixels in rows and columns; what was outside is the batch's mean, by channel;
    - ``scale``: resizes rows and columns by ``U(0.8, 1.2)`` each, nearest pixel, centred on zeros;
    - ``rotate``: by -45 to 44 whole degrees, cubic splines; what was outside is the batch's mean over all channels;
    - ``noise``: adds ``N(0, 0.001^2)``.

    DC uses ``"crop_scale_rotate"`` on MNIST, ``"crop_noise"`` for networks with batch normalisation, else ``"none"``.

    Args:
      name: operations joined by underscores.

    Returns:
      ``augment(key, x [b, h, w, c]) -> x``.

    Raises:
      InputError: an operation does not exist, or (at the call) ``x`` is not a batch of images.

    References:
      arXiv:2006.05929; ``augment`` and ``get_daparam`` of the official code, where at some angles a rotated image lies
      half a pixel off centre; here the centre stays.
    """
    operations = _transform.parse("diffaug.plain", name, _PLAIN)

    def augment(key: jax.Array, x: jax.Array) -> jax.Array:
        x = _transform.images("diffaug.plain", x)
        if not operations:
            return x
        unit_key, key = jax.random.split(key)
        *unit, choice = jax.random.uniform(unit_key, (3, len(x)), jnp.float32)
        choice = below(choice, len(operations))[:, None, None, None]
        changed = [operation(key, jnp.stack(unit), x) for operation in operations]
        return jnp.select([choice == i for i in range(len(operations))], changed)

    return jax.jit(augment)


def _augment(where: str, name: str, mode: Mode, *, shared: bool) -> Augment:
    """Stages, each of which draws one of its recipes: a single stage with all of them, or one stage for each."""
    checks.one_of(where, "mode", mode, ("single", "multiple"))
    recipes = _transform.parse(where, name, _PUBLISHED)
    stages = [[recipe] for recipe in recipes] if mode == "multiple" else [recipes]

    def augment(key: jax.Array, x: jax.Array) -> jax.Array:
        x = _transform.images(where, x)
        b, h, w, _ = x.shape
        for i, stage in enumerate(stages):
            drawn = _transform.draw(jax.random.fold_in(key, i), stage, 1 if shared else b, h, w, same=True)
            x = _transform.apply(drawn, x, zero_outside=True)
        return x

    return jax.jit(augment)


def _color(unit: jax.Array, h: int, w: int) -> Transform:
    return Transform(colour=jnp.stack([unit[0] - 0.5, 2 * unit[1], unit[2] + 0.5], -1))


def _crop(unit: jax.Array, h: int, w: int) -> Transform:
    most = np.array([int(0.125 * h + 0.5), int(0.125 * w + 0.5)])
    shift = below(unit[:2].T, 2 * most + 1) - most
    return Transform(_transform.affine(jnp.broadcast_to(jnp.eye(2), (len(shift), 2, 2)), shift))


def _cutout(unit: jax.Array, h: int, w: int) -> Transform:
    size = np.array([int(0.5 * h + 0.5), int(0.5 * w + 0.5)])
    start = below(unit[:2].T, np.array([h, w]) + 1 - size % 2) - size // 2
    return Transform(hole=jnp.stack([start, start + size], -1))


def _flip(unit: jax.Array, h: int, w: int) -> Transform:
    return Transform(mirror=unit[0] < 0.5)


def _scale(unit: jax.Array, h: int, w: int) -> Transform:
    return Transform(_transform.affine(between(unit[:2].T, 1 / 1.2, 1.2)[..., None] * jnp.eye(2)))


def _rotate(unit: jax.Array, h: int, w: int) -> Transform:
    """In the grid that is -1 .. 1 down as well as across, so that what is not square is sheared along."""
    across = max(h - 1, 1) / max(w - 1, 1)
    turn = _transform.rotation(between(unit[0], -math.pi / 12, math.pi / 12))
    return Transform(_transform.affine(turn * jnp.array([[1.0, across], [1 / across, 1.0]])))


_PUBLISHED: dict[str, Recipe] = {
    "color": _color,
    "crop": _crop,
    "cutout": _cutout,
    "flip": _flip,
    "scale": _scale,
    "rotate": _rotate,
}


def _plain_crop(key: jax.Array, unit: jax.Array, x: jax.Array) -> jax.Array:
    _, h, w, _ = x.shape
    down, right = below(unit[..., None], 8) - 4
    return _pick(x, jnp.arange(h) + down, jnp.arange(w) + right, jnp.mean(x, axis=(0, 1, 2)))


def _plain_scale(key: jax.Array, unit: jax.Array, x: jax.Array) -> jax.Array:
    _, h, w, _ = x.shape
    factors = between(unit[..., None], 0.8, 1.2)
    rows, columns = (factors[0] * h).astype(jnp.int32), (factors[1] * w).astype(jnp.int32)
    canvas = jnp.maximum(jnp.maximum(rows, columns), max(h, w))

    def source(side: int, resized: jax.Array) -> jax.Array:
        """The pixel that each position along one axis shows; the offsets of pasting and cropping round down."""
        position = jnp.arange(side) + (canvas - side) // 2 - (canvas - resized) // 2
        return position * side // resized

    return _pick(x, source(h, rows), source(w, columns), jnp.zeros((), x.dtype))


def _plain_rotate(key: jax.Array, unit: jax.Array, x: jax.Array) -> jax.Array:
    _, h, w, _ = x.shape
    angle = (below(unit[0], 90) - 45) * (math.pi / 180)
    v, u = _transform.sources(_transform.affine(_transform.rotation(-angle)), h, w)
    inside = (v >= 0) & (v <= h - 1) & (u >= 0) & (u <= w - 1)
    return jnp.where(inside[..., None], _spline(x, v, u), jnp.mean(x))


def _plain_noise(key: jax.Array, unit: jax.Array, x: jax.Array) -> jax.Array:
    return x + 0.001 * jax.random.normal(key, x.shape, x.dtype)


_PLAIN: dict[str, Callable[[jax.Array, jax.Array, jax.Array], jax.Array]] = {
    "crop": _plain_crop,
    "scale": _plain_scale,
    "rotate": _plain_rotate,
    "noise": _plain_noise,
}
"""``operation(key, unit [2, b], x [b, h, w, c]) -> x``, with ``unit`` from ``U(0, 1)``."""


def _pick(x: jax.Array, rows: jax.Array, columns: jax.Array, outside: jax.Array) -> jax.Array:
    """The pixels of ``x [b, h, w, c]`` at ``rows [b, h]`` and ``columns [b, w]``, or ``outside [c]``."""
    b, h, w, _ = x.shape
    inside = ((rows >= 0) & (rows < h))[:, :, None] & ((columns >= 0) & (columns < w))[:, None, :]
    picked = x[jnp.arange(b)[:, None, None], rows[:, :, None] % h, columns[:, None, :] % w]
    return jnp.where(inside[..., None], picked, outside)


def _spline(x: jax.Array, v: jax.Array, u: jax.Array) -> jax.Array:
    """Cubic B-spline through the pixels of ``x [b, h, w, c]``, mirrored at the edges, at ``v`` and ``u [b, h, w]``."""
    b, h, w, c = x.shape
    to_rows, to_columns = (jnp.asarray(np.linalg.inv(_spline_matrix(side)), x.dtype) for side in (h, w))
    coefficients = jnp.einsum("ij,kl,bjlc->bikc", to_rows, to_columns, x, precision="highest")
    flat, first = coefficients.reshape(b * h * w, c), jnp.arange(b)[:, None, None] * (h * w)
    out = jnp.zeros_like(x)
    for top, row_weight in _taps(v, h):
        for left, column_weight in _taps(u, w):
            weight = (row_weight * column_weight)[..., None].astype(x.dtype)
            out += weight * flat.at[first + top * w + left].get(mode="promise_in_bounds")
    return out


def _spline_matrix(side: int) -> np.ndarray:
    """``[side, side]``: from coefficients to the values of a cubic B-spline at the pixels."""
    matrix = np.zeros((side, side))
    for offset, weight in ((-1, 1 / 6), (0, 4 / 6), (1, 1 / 6)):
        np.add.at(matrix, (np.arange(side), _mirrored(np.arange(side) + offset, side)), weight)
    return matrix


def _taps(at: jax.Array, side: int) -> list[tuple[jax.Array, jax.Array]]:
    """Index and weight of each of the four coefficients that make up a cubic B-spline at the coordinates."""
    first = jnp.floor(at).astype(jnp.int32)
    t = at - first
    weights = (1 - t) ** 3, 4 - 6 * t**2 + 3 * t**3, 1 + 3 * t + 3 * t**2 - 3 * t**3, t**3
    return [(jnp.clip(_mirrored(first + k, side), 0, side - 1), weight / 6) for k, weight in zip(range(-1, 3), weights)]


def _mirrored(index, side: int):
    """Indices up to one side away from ``0 .. side - 1``, reflected at the first and the last."""
    return side - 1 - abs(side - 1 - abs(index))
