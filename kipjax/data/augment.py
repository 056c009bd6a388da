"""Random changes of images inside jit: ``augment(key, x [b, h, w, c]) -> x``.

Two published sets share this form, bilinear interpolation, and pixels outside the image that repeat its edge:

- that of Keras's ImageDataGenerator, which the KIP notebook uses on target images (arXiv:2011.00050, section 3.1):
  ``warp``, ``rotate``, ``shift``, ``flip``, ``channel_shift``, one after the other by ``compose``;
- that with which FRePo (arXiv:2206.00719) and RCIG train networks on a distilled set: ``color``, ``crop``, ``cutout``,
  ``flip``, ``rotate`` and ``translate``, of which ``strategy`` draws one.

Rotations, shifts, crops and flips mix pixels with weights that sum to one, so they commute with channel standardisation
and act directly in preprocessed space; for ZCA, and for pixel units, wrap with ``in_pixel_space``. The colour changes
and the cutouts of the second set are meant for preprocessed space. DSA's own set is in ``diffaug``.
"""

import functools
import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from kipjax import checks
from kipjax.data import _transform, draw, preprocess
from kipjax.data._transform import Recipe, Transform, below, between
from kipjax.types import Preprocess

__all__ = [
    "Augment",
    "channel_shift",
    "color",
    "compose",
    "crop",
    "cutout",
    "flip",
    "in_pixel_space",
    "on_fraction",
    "pad_crop",
    "rotate",
    "shift",
    "strategy",
    "translate",
    "warp",
]

Augment = Callable[[jax.Array, jax.Array], jax.Array]
"""``augment(key, x [b, h, w, c]) -> x [b, h, w, c]``, every image changed on its own."""


def warp(*, max_degrees: float = 0.0, height: float = 0.0, width: float = 0.0) -> Augment:
    """Rotates about the image centre and shifts, in one interpolation.

    Each image draws its angle from ``U(-max_degrees, max_degrees)`` and its shifts from ``U(-height, height) * h`` and
    ``U(-width, width) * w``. The result at ``p`` is the image at ``R (p - centre) + shift + centre``.

    Args:
      max_degrees: largest rotation either way, in 0..180 degrees (the paper: 10).
      height, width: largest shifts, in 0..1 of the image size.

    Returns:
      ``augment(key, x [b, h, w, c]) -> x``.

    Raises:
      InputError: a range is outside its bounds, or (at the call) ``x`` is not a batch of images.

    Example:
      >>> warp(max_degrees=10)(jax.random.key(0), jnp.ones((2, 8, 8, 1))).shape
      (2, 8, 8, 1)
    """
    checks.within("augment.warp", "max_degrees", max_degrees, 0.0, 180.0)
    checks.within("augment.warp", "height", height, 0.0, 1.0)
    checks.within("augment.warp", "width", width, 0.0, 1.0)

    return _augment("augment.warp", functools.partial(_warp, max_degrees=max_degrees, height=height, width=width))


def rotate(max_degrees: float = 10.0) -> Augment:
    """Rotates each image by ``U(-max_degrees, max_degrees)``; see ``warp``."""
    return warp(max_degrees=max_degrees)


def shift(height: float, width: float | None = None) -> Augment:
    """Shifts each image by ``U(-height, height)`` of its height and ``U(-width, width)`` of its width; see ``warp``.

    ``width`` is ``height`` unless given; both in 0..1.
    """
    return warp(height=height, width=height if width is None else width)


def flip(probability: float = 0.5) -> Augment:
    """Mirrors each image left to right with that probability (0..1).

    Returns:
      ``augment(key, x [b, h, w, c]) -> x``.
    """
    checks.within("augment.flip", "probability", probability, 0.0, 1.0)

    return _augment("augment.flip", functools.partial(_flip, probability=probability))


def channel_shift(max_shift: float | jax.Array) -> Augment:
    """Adds one value from ``U(-max_shift, max_shift)`` to all channels of an image, clipped to the image's own range.

    The unit is that of ``x``. Keras's unit is pixels: ``in_pixel_space(pre, channel_shift(pixels))`` does that. In
    standardised space ``channel_shift(pixels / pre.std)`` adds the same, and is the same for one channel; with several,
    Keras clips to the range that all channels share in pixels, this one to that in standardised space.

    Args:
      max_shift: at least 0; ``[]``, or ``[c]`` where one random number is to be scaled for each channel.

    Returns:
      ``augment(key, x [b, h, w, c]) -> x``.
    """
    checks.at_least("augment.channel_shift", "max_shift", max_shift, 0.0)

    def augment(key: jax.Array, x: jax.Array) -> jax.Array:
        x = _transform.images("augment.channel_shift", x)
        value = jax.random.uniform(key, (x.shape[0], 1, 1, 1), x.dtype, -1.0, 1.0) * jnp.asarray(max_shift, x.dtype)
        low, high = _range(x)
        return jnp.clip(x + value, low[:, None, None, None], high[:, None, None, None])

    return augment


def translate(fraction: float = 0.125) -> Augment:
    """The papers' name for ``shift`` by up to that fraction (0..1) of height and width."""
    return shift(fraction)


def crop(low: float = 0.8, high: float = 1.25) -> Augment:
    """Zooms each image by a factor from ``low`` to ``high`` (log-uniform) about a random point.

    A magnified image is cropped: the window lies anywhere inside it. A shrunk one lies anywhere inside the frame, the
    rest of which repeats its edge.

    Args:
      low, high: smallest and largest zoom, above 0.

    Returns:
      ``augment(key, x [b, h, w, c]) -> x``.
    """
    checks.at_least("augment.crop", "low", low, 0.0, strict=True)
    checks.at_least("augment.crop", "high", high, low)
    return _augment("augment.crop", functools.partial(_crop, low=low, high=high))


def pad_crop(pixels: int = 4, *, mode: Literal["reflect", "constant"] = "reflect") -> Augment:
    """Pads each image by that many pixels on every side and cuts a window of its size out at a random place.

    Args:
      pixels: of padding, at least 1; less than the sides, for ``"reflect"``.
      mode: what is padded with: the image mirrored at its edge pixels, or zeros (in the unit of ``x``).

    Returns:
      ``augment(key, x [b, h, w, c]) -> x``.

    References:
      The training images of CIFAR-10 in arXiv:1811.10959 (reflected) and arXiv:1912.07768 (black), 4 pixels.

    Example:
      >>> pad_crop(2)(jax.random.key(0), jnp.ones((2, 8, 8, 1))).shape
      (2, 8, 8, 1)
    """
    checks.whole("augment.pad_crop", "pixels", pixels)
    checks.one_of("augment.pad_crop", "mode", mode, ("reflect", "constant"))

    def augment(key: jax.Array, x: jax.Array) -> jax.Array:
        x = _transform.images("augment.pad_crop", x)
        padded = jnp.pad(x, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)), mode=mode)
        at = jax.random.randint(key, (x.shape[0], 2), 0, 2 * pixels + 1)
        return jax.vmap(lambda image, corner: jax.lax.dynamic_slice(image, (*corner, 0), x.shape[1:]))(padded, at)

    return augment


def cutout(size: float = 0.25) -> Augment:
    """Sets one square in each image to zero, uniformly placed inside it.

    Args:
      size: its side, as a fraction (0..1) of the shorter side of the image, rounded down.

    Returns:
      ``augment(key, x [b, h, w, c]) -> x``.
    """
    checks.within("augment.cutout", "size", size, 0.0, 1.0)
    return _augment("augment.cutout", functools.partial(_cutout, size=size))


def color(brightness: float = 0.25, contrast: float = 0.25, saturation: float = 0.25) -> Augment:
    """Changes brightness, contrast and saturation of each image, in the units of preprocessed space.

    Adds ``U(-brightness, brightness)``, scales the distance to the mean of the image by ``exp(U(-contrast, contrast))``
    and the distance to the mean over the channels of each pixel by ``exp(U(-saturation, saturation))``. Unlike
    photographs, preprocessed images have no range to be clipped to; an image of one channel has no saturation.

    Args:
      brightness, contrast, saturation: at least 0.

    Returns:
      ``augment(key, x [b, h, w, c]) -> x``.
    """
    for name, value in (("brightness", brightness), ("contrast", contrast), ("saturation", saturation)):
        checks.at_least("augment.color", name, value, 0.0)
    recipe = functools.partial(_color, brightness=brightness, contrast=contrast, saturation=saturation)
    return _augment("augment.color", recipe)


def strategy(name: str, *, per: Literal["image", "batch"] = "image") -> Augment:
    """One operation out of the list, drawn anew at each call, with the papers' ranges.

    Whatever is drawn, the images are interpolated at most once.

    Args:
      name: operations of equal probability joined by underscores, such as ``"crop_rotate_translate_cutout"`` (RCIG,
        one channel), ``"color_crop_rotate_translate_cutout"`` (FRePo, one channel) or
        ``"flip_color_crop_rotate_translate_cutout"`` (both, three channels): ``color()``, ``crop()``, ``cutout()``,
        ``flip()``, ``rotate(15)`` and ``translate()`` of this module. ``"none"`` or nothing leaves images as they are.
      per: what draws its own operation, each ``"image"`` (RCIG) or each ``"batch"`` (FRePo); the angles, factors and
        positions are drawn for each image in both.

    Returns:
      ``augment(key, x [b, h, w, c]) -> x``.

    Raises:
      InputError: the name has an operation that is not in the list above.

    Example:
      >>> strategy("crop_rotate_translate_cutout")(jax.random.key(0), jnp.ones((2, 8, 8, 1))).shape
      (2, 8, 8, 1)
    """
    checks.one_of("augment.strategy", "per", per, ("image", "batch"))
    recipes = _transform.parse("augment.strategy", name, _PUBLISHED)
    return _augment("augment.strategy", *recipes, same=per == "batch")


def compose(*augments: Augment) -> Augment:
    """One after the other, first to last, each with its own key."""

    def augment(key: jax.Array, x: jax.Array) -> jax.Array:
        for i, one in enumerate(augments):
            x = one(jax.random.fold_in(key, i), x)
        return x

    return augment


def on_fraction(augment: Augment, fraction: float) -> Augment:
    """Changes only ``round(fraction * b)`` images of a batch, drawn anew each time, and keeps the order.

    Args:
      augment: what to do with them.
      fraction: in 0..1.

    Returns:
      ``augment(key, x [b, ...]) -> x``.

    References:
      ``augmentation_frac`` of the KIP notebook.
    """
    checks.within("augment.on_fraction", "fraction", fraction, 0.0, 1.0)

    def some(key: jax.Array, x: jax.Array) -> jax.Array:
        x = jnp.asarray(x)
        count = round(fraction * x.shape[0])
        choice_key, augment_key = jax.random.split(key)
        if count == x.shape[0]:
            return augment(augment_key, x)
        rows = draw.without_replacement(choice_key, count, x.shape[0])
        return _replace(x, rows, augment(augment_key, x[rows])) if count else x

    return some


def in_pixel_space(pre: Preprocess, augment: Augment) -> Augment:
    """Inverts the preprocessing, augments pixels, applies the preprocessing again: needed for whitened images.

    Args:
      pre: the map that ``x`` went through; without a per-image stage, which cannot be inverted.
      augment: acts on pixels, in the unit that ``pre`` was fitted in.

    Returns:
      ``augment(key, x [b, h, w, c]) -> x`` in preprocessed space.

    Raises:
      InputError: ``pre`` has a per-image stage.
    """
    checks.require(
        not pre.per_image,
        "augment.in_pixel_space",
        "the preprocessing has a per-image stage, which has no inverse; use a preprocessing without it",
    )
    return lambda key, x: preprocess.apply(pre, augment(key, preprocess.invert(pre, x)))


def _augment(where: str, *recipes: Recipe, same: bool = False) -> Augment:
    """Draws a transform for each image and applies it."""

    def augment(key: jax.Array, x: jax.Array) -> jax.Array:
        x = _transform.images(where, x)
        return _transform.apply(_transform.draw(key, recipes, *x.shape[:3], same=same), x, zero_outside=False)

    return jax.jit(augment)


def _warp(unit: jax.Array, h: int, w: int, *, max_degrees: float, height: float, width: float) -> Transform:
    angle, down, right = between(unit, -1.0, 1.0)
    matrix = _transform.rotation(angle * (max_degrees * math.pi / 180))
    return Transform(_transform.affine(matrix, jnp.stack([down * height * h, right * width * w], -1)))


def _crop(unit: jax.Array, h: int, w: int, *, low: float = 0.8, high: float = 1.25) -> Transform:
    scale = jnp.exp(-between(unit[0], math.log(low), math.log(high)))[:, None]
    room = jnp.abs(1 - scale) / 2 * jnp.array([h, w])  # how far the window can go within the image, or around it
    return Transform(_transform.affine(scale[..., None] * jnp.eye(2), room * between(unit[1:].T, -1.0, 1.0)))


def _cutout(unit: jax.Array, h: int, w: int, *, size: float = 0.25) -> Transform:
    side = int(size * min(h, w))
    start = below(unit[:2].T, np.array([h, w]) - side + 1)
    return Transform(hole=jnp.stack([start, start + side], -1))


def _flip(unit: jax.Array, h: int, w: int, *, probability: float = 0.5) -> Transform:
    return Transform(mirror=unit[0] < probability)


def _color(
    unit: jax.Array, h: int, w: int, *, brightness: float = 0.25, contrast: float = 0.25, saturation: float = 0.25
) -> Transform:
    added, *logs = between(unit, -1.0, 1.0) * jnp.array([[brightness], [saturation], [contrast]])
    return Transform(colour=jnp.stack([added, *map(jnp.exp, logs)], -1))


_PUBLISHED: dict[str, Recipe] = {
    "color": _color,
    "crop": _crop,
    "cutout": _cutout,
    "flip": _flip,
    "rotate": functools.partial(_warp, max_degrees=15.0, height=0.0, width=0.0),
    "translate": functools.partial(_warp, max_degrees=0.0, height=0.125, width=0.125),
}


def _range(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Smallest and largest value ``[b]`` of each image in one pass: a quarter of the time of two on CPU."""
    flat = jax.lax.stop_gradient(x).reshape(x.shape[0], -1)
    start = (jnp.array(jnp.inf, x.dtype), jnp.array(-jnp.inf, x.dtype))
    return jax.lax.reduce((flat, flat), start, lambda a, b: (jnp.minimum(a[0], b[0]), jnp.maximum(a[1], b[1])), (1,))


def _replace(x: jax.Array, rows: jax.Array, new: jax.Array) -> jax.Array:
    """``x`` with ``new`` at ``rows``, as a gather: on CPU half the time of scattering whole images."""
    n, count = x.shape[0], rows.shape[0]
    source = jnp.arange(n).at[rows].set(n + jnp.arange(count), unique_indices=True)
    return jnp.concatenate([x, new])[source]
