"""Augmentation against SciPy's interpolation, and its invariants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from kipjax import checks
from kipjax.data import augment, preprocess

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)


def _x(b=8, h=9, w=12, c=2):
    return RNG.normal(size=(b, h, w, c)).astype(np.float32)


def _scipy_warp(image, degrees, down, right):
    """The affine map of Keras: about the centre, bilinear, edge repeated."""
    angle = np.deg2rad(degrees)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = (np.array(image.shape[:2]) - 1) / 2
    offset = centre + np.array([down, right]) - matrix @ centre
    warped = [
        ndimage.affine_transform(image[..., c], matrix, offset, order=1, mode="nearest") for c in range(image.shape[-1])
    ]
    return np.stack(warped, -1)


def _drawn(x, max_degrees, height, width):
    """What ``warp`` draws for each image, from its documented ranges and the order of its draws."""
    unit = np.asarray(jax.random.uniform(KEY, (3, len(x)), jnp.float32, -1.0, 1.0))
    return zip(*(unit * np.array([[max_degrees], [height * x.shape[1]], [width * x.shape[2]]])))


@pytest.mark.parametrize("shape", [(8, 9, 12, 2), (5, 28, 28, 1), (3, 1, 6, 1)])
@pytest.mark.parametrize("ranges", [(10.0, 0.0, 0.0), (0.0, 0.2, 0.1), (170.0, 0.3, 0.4)])
def test_warp_is_bilinear_with_the_edge_repeated(shape, ranges):
    x = _x(*shape)
    out = jax.jit(augment.warp(max_degrees=ranges[0], height=ranges[1], width=ranges[2]))(KEY, x)
    expected = np.stack([_scipy_warp(image, *drawn) for image, drawn in zip(x, _drawn(x, *ranges))])
    assert out.dtype == x.dtype
    np.testing.assert_allclose(out, expected, atol=2e-4)
    assert np.abs(np.asarray(out) - x).max() > 0.01


def test_rotate_and_shift_are_warps():
    x = _x()
    np.testing.assert_array_equal(augment.rotate(20.0)(KEY, x), augment.warp(max_degrees=20.0)(KEY, x))
    np.testing.assert_array_equal(augment.shift(0.1, 0.2)(KEY, x), augment.warp(height=0.1, width=0.2)(KEY, x))
    np.testing.assert_array_equal(augment.shift(0.2)(KEY, x), augment.warp(height=0.2, width=0.2)(KEY, x))
    np.testing.assert_array_equal(augment.warp()(KEY, x), x)


def test_shift_moves_rows_by_height_and_columns_by_width():
    rows = np.broadcast_to(np.arange(10.0, dtype=np.float32)[None, :, None, None], (4, 10, 6, 1))
    moved = np.asarray(augment.shift(0.3, 0.0)(KEY, rows))
    assert np.ptp(moved, axis=2).max() < 1e-5  # still constant along each row
    steps = moved[:, 4:6, 0, 0] - rows[:, 4:6, 0, 0]
    assert np.abs(steps).max() <= 3 and np.abs(steps).max() > 0.2 and len(np.unique(steps.round(3))) > 3
    np.testing.assert_allclose(augment.shift(0.0, 0.3)(KEY, rows), rows, atol=1e-5)


def test_draws_fill_their_ranges():
    ramp = np.broadcast_to(np.linspace(-1, 1, 21, dtype=np.float32)[None, :, None, None], (2000, 21, 21, 1))
    x = augment.rotate(10.0)(KEY, ramp)  # a ramp turned by t has slope sin(t) across
    angles = np.rad2deg(np.arcsin(np.clip(np.asarray(x[:, 10, 5, 0] - x[:, 10, 15, 0]), -1, 1)))
    assert 9.7 < angles.max() <= 10.01 and -10.01 <= angles.min() < -9.7 and abs(angles.mean()) < 0.5


def test_flip_mirrors_left_to_right_that_often():
    x = _x(1)[[0] * 4000]
    out = np.asarray(augment.flip(0.25)(KEY, x))
    mirrored = np.all(out == x[:, :, ::-1], axis=(1, 2, 3))
    assert np.all(mirrored | np.all(out == x, axis=(1, 2, 3)))
    assert mirrored.mean() == pytest.approx(0.25, abs=0.03)
    np.testing.assert_array_equal(augment.flip(1.0)(KEY, x[:2]), x[:2, :, ::-1])


def test_channel_shift_adds_one_value_per_image_within_its_range():
    x = _x()
    out = np.asarray(augment.channel_shift(0.5)(KEY, x))
    values = np.asarray(jax.random.uniform(KEY, (8, 1, 1, 1), jnp.float32, -0.5, 0.5))
    low, high = (f(x, axis=(1, 2, 3), keepdims=True) for f in (np.min, np.max))
    np.testing.assert_allclose(out, np.clip(x + values, low, high), rtol=1e-6)
    assert np.abs(values).max() > 0.3 and len(np.unique(values)) == 8
    assert np.isfinite(jax.grad(lambda v: augment.channel_shift(0.5)(KEY, v).sum())(jnp.asarray(x))).all()


def test_channel_shift_in_standardised_units_is_the_shift_in_pixels():
    pixels = RNG.integers(0, 255, (6, 8, 8, 3)).astype(np.float32)
    pixels[:, 0, 0], pixels[:, 0, 1] = -100, 400  # so that nothing is clipped
    pre = preprocess.standardize(pixels)
    x = preprocess.apply(pre, pixels)
    out = augment.channel_shift(np.asarray(20.0 / pre.std))(KEY, x)[:, 1:]
    np.testing.assert_allclose(out, augment.in_pixel_space(pre, augment.channel_shift(20.0))(KEY, x)[:, 1:], atol=1e-5)


def test_compose_applies_in_order_with_different_keys():
    x = _x()
    double, add = (lambda key, x: 2 * x), (lambda key, x: x + jax.random.uniform(key))
    out = augment.compose(double, add, add)(KEY, x)
    added = np.asarray(out - 2 * x)
    assert np.ptp(added) < 1e-5
    draws = [float(jax.random.uniform(jax.random.fold_in(KEY, i))) for i in range(3)]
    assert added.mean() == pytest.approx(draws[1] + draws[2], abs=1e-5)
    np.testing.assert_array_equal(augment.compose()(KEY, x), x)


@pytest.mark.parametrize(("fraction", "count"), [(0.0, 0), (0.25, 10), (0.5, 20), (1.0, 40)])
def test_on_fraction_changes_that_many_and_keeps_the_order(fraction, count):
    x = _x(40)
    out = np.asarray(jax.jit(augment.on_fraction(lambda key, x: -x, fraction))(KEY, x))
    changed = np.all(out == -x, axis=(1, 2, 3))
    assert changed.sum() == count
    np.testing.assert_array_equal(out[~changed], x[~changed])


def test_on_fraction_chooses_anew_each_time_and_each_image_equally_often():
    x = np.ones((20, 1, 1, 1), np.float32)
    some = augment.on_fraction(lambda key, x: -x, 0.25)
    keys = jax.random.split(KEY, 2000)
    share = np.asarray(jax.jit(jax.vmap(some, (0, None)))(keys, x) < 0).reshape(2000, 20)
    assert np.all(share.sum(1) == 5) and np.abs(share.mean(0) - 0.25).max() < 0.05


def test_in_pixel_space_augments_pixels():
    pixels = RNG.integers(20, 230, (30, 4, 4, 3)).astype(np.uint8)
    pre = preprocess.zca(pixels, "mtt")
    out = augment.in_pixel_space(pre, augment.channel_shift(15.0))(KEY, preprocess.apply(pre, pixels))
    expected = augment.channel_shift(15.0)(KEY, jnp.asarray(pixels, jnp.float32))
    np.testing.assert_allclose(preprocess.invert(pre, out), expected, atol=0.05)


def test_geometry_commutes_with_standardisation():
    pixels = RNG.integers(0, 255, (5, 8, 8, 3)).astype(np.float32)
    pre = preprocess.standardize(pixels)
    turn = augment.compose(augment.warp(max_degrees=10, height=0.1, width=0.1), augment.flip())
    x = preprocess.apply(pre, pixels)
    np.testing.assert_allclose(turn(KEY, x), augment.in_pixel_space(pre, turn)(KEY, x), atol=1e-4)


def test_everything_runs_under_vmap_over_seeds():
    full = augment.on_fraction(augment.compose(augment.rotate(), augment.flip(), augment.channel_shift(0.1)), 0.5)
    full = jax.jit(full)
    x, keys = _x(), jax.random.split(KEY, 3)
    together = jax.jit(jax.vmap(full, (0, None)))(keys, x)
    np.testing.assert_allclose(together, jnp.stack([full(key, x) for key in keys]), atol=1e-5)


def test_on_classwise_batches_each_block_can_be_augmented_by_vmap():
    x = _x(6).reshape(2, 3, 9, 12, 2)
    turn = jax.jit(augment.rotate())
    out = jax.vmap(turn)(jax.random.split(KEY, 2), x)
    np.testing.assert_allclose(out[1], turn(jax.random.split(KEY, 2)[1], x[1]), atol=1e-5)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: augment.rotate(-1.0), "max_degrees is -1.0; it must lie between 0.0 and 180.0"),
        (lambda: augment.shift(1.5), "height is 1.5; it must lie between 0.0 and 1.0"),
        (lambda: augment.shift(0.1, -0.1), "width is -0.1; it must lie between 0.0 and 1.0"),
        (lambda: augment.flip(2.0), "probability is 2.0; it must lie between 0.0 and 1.0"),
        (lambda: augment.channel_shift(-1.0), "max_shift is -1.0; it must be at least 0.0"),
        (lambda: augment.on_fraction(augment.flip(), 1.5), "fraction is 1.5; it must lie between 0.0 and 1.0"),
        (
            lambda: augment.rotate()(KEY, jnp.zeros((4, 9))),
            "augment.warp: x has shape (4, 9); expected a batch of images, [b, height, width, channels]",
        ),
        (lambda: augment.warp()(KEY, jnp.zeros((1, 4, 4, 1), jnp.uint8)), "augment.warp: x has dtype uint8"),
        (lambda: augment.flip()(KEY, jnp.zeros((4, 9))), "augment.flip: x has shape (4, 9)"),
        (lambda: augment.channel_shift(1.0)(KEY, jnp.zeros((4, 9))), "augment.channel_shift: x has shape (4, 9)"),
        (
            lambda: augment.in_pixel_space(preprocess.zca(np.eye(4) * 9, "kip"), augment.flip()),
            "the preprocessing has a per-image stage, which has no inverse",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, words):
    with pytest.raises(checks.InputError) as caught:
        call()
    assert words in str(caught.value)
