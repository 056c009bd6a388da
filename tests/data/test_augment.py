"""Augmentation against SciPy's interpolation and slow definitions, and its invariants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from kipjax import checks
from kipjax.data import augment, preprocess
from tests.reference import augment as reference

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
    unit = 2 * np.asarray(jax.random.uniform(KEY, (4, len(x)), jnp.float32))[:3] - 1
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


OPERATIONS = ("color", "crop", "cutout", "flip", "rotate", "translate")
GREY, RGB = "crop_rotate_translate_cutout", "flip_color_crop_rotate_translate_cutout"


def _ramps(b, h=8, w=8):
    """Images whose channels are the row, the column (both plus 20) and a constant: they show what was done to them."""
    rows, columns = np.mgrid[20.0 : 20 + h, 20.0 : 20 + w]
    return np.broadcast_to(np.stack([rows, columns, np.full((h, w), 5.0)], -1).astype(np.float32), (b, h, w, 3))


def _affine(out):
    """Matrix ``[b, 2, 2]`` and shift ``[b, 2]`` that ``out``, made of ``_ramps``, shows in its middle."""
    _, h, w, _ = out.shape
    middle = np.asarray(out, np.float64)[:, h // 2 - 1 : h // 2 + 1, w // 2 - 1 : w // 2 + 1, :2]
    matrix = np.stack([np.diff(middle, axis=1).mean((1, 2)), np.diff(middle, axis=2).mean((1, 2))], -1)
    return matrix, middle.mean((1, 2)) - 20 - (np.array([h, w]) - 1) / 2


def _operation(x, out):
    """Which operation made the image ``out`` of the ramps ``x``; an error if it was more than one."""
    if np.any(out[..., 2] == 0):
        np.testing.assert_array_equal(out[out[..., 2] != 0], x[out[..., 2] != 0])
        return "cutout"
    if np.abs(out[..., 2] - 5).max() > 1e-3:
        return "color"
    if np.array_equal(out, x) or np.array_equal(out, x[:, ::-1]):
        return "flip"
    matrix, shift = (values[0] for values in _affine(out[None]))
    np.testing.assert_allclose(out, reference.warp(x, matrix, shift, "edge"), atol=2e-4)
    if np.abs(matrix - np.eye(2)).max() < 1e-5:
        return "translate"
    assert np.abs(matrix @ matrix.T - np.eye(2) * np.linalg.det(matrix)).max() < 1e-4
    return "rotate" if abs(np.linalg.det(matrix) - 1) < 1e-4 and abs(shift).max() < 1e-4 else "crop"


def test_crop_zooms_and_puts_the_window_inside_the_image_or_around_it():
    content = RNG.normal(size=(2000, 8, 8, 1)).astype(np.float32)
    x = np.concatenate([_ramps(2000), content], -1)
    out = np.asarray(jax.jit(augment.crop())(KEY, x))
    matrix, shift = _affine(out)
    for i in range(10):
        np.testing.assert_allclose(out[i], reference.warp(x[i], matrix[i], shift[i], "edge"), atol=2e-4)
    zoom = -np.log(matrix[:, 0, 0])
    np.testing.assert_allclose(matrix, np.exp(-zoom)[:, None, None] * np.eye(2), atol=1e-4)
    assert abs(zoom).max() == pytest.approx(np.log(1.25), abs=2e-3) and abs(zoom.mean()) < 0.01
    assert np.std(zoom) == pytest.approx(np.log(1.25) / 3**0.5, rel=0.04)  # log-uniform
    room = np.abs(1 - np.exp(-zoom))[:, None] * 4
    used = (shift / room)[np.abs(zoom) > 0.05]
    assert np.abs(used).max() == pytest.approx(1, abs=0.01) and np.abs(used.mean(0)).max() < 0.05
    assert abs(np.corrcoef(used.T)[0, 1]) < 0.1


def test_translate_is_a_shift_by_an_eighth():
    x = _x()
    np.testing.assert_array_equal(augment.translate()(KEY, x), augment.shift(0.125)(KEY, x))


@pytest.mark.parametrize(("h", "w", "side"), [(8, 8, 2), (12, 9, 2)])
def test_cutout_clears_one_square_anywhere_inside(h, w, side):
    x = _x(1000, h, w)
    out = np.asarray(jax.jit(augment.cutout())(KEY, x))
    hole = np.all(out == 0, axis=3)
    np.testing.assert_array_equal(out[~hole], x[~hole])
    tops, lefts = hole.any(2).argmax(1), hole.any(1).argmax(1)
    for i in range(1000):
        assert hole[i, tops[i] : tops[i] + side, lefts[i] : lefts[i] + side].all() and hole[i].sum() == side**2
    for starts, count in ((tops, h - side + 1), (lefts, w - side + 1)):
        share = np.bincount(starts, minlength=count) / 1000
        assert len(share) == count and np.abs(share - 1 / count).max() < 0.05
    assert abs(np.corrcoef(tops, lefts)[0, 1]) < 0.12


def test_cutout_sides_are_a_fraction_of_the_shorter_side():
    for fraction, side in ((0.5, 4), (1.0, 9)):
        out = np.asarray(augment.cutout(fraction)(KEY, np.ones((3, 9, 12, 1), np.float32)))
        np.testing.assert_array_equal((out == 0).sum((1, 2, 3)), side**2)


def _colour_of(x, out):
    """Brightness, contrast and saturation by least squares; 3 unknowns, one equation per value."""
    pixel = x.mean(2, keepdims=True) * np.ones(x.shape[2])
    design = np.stack([np.ones(x.size), (pixel - x.mean()).ravel(), (x - pixel).ravel()], 1)
    mean, contrast, both = np.linalg.lstsq(design, out.ravel(), rcond=None)[0]
    return mean - x.mean(), contrast, both / contrast


def test_color_is_brightness_contrast_and_saturation_within_their_ranges():
    x = _x(1000, 4, 5, 3).astype(np.float64)
    out = np.asarray(jax.jit(augment.color())(KEY, x.astype(np.float32)), np.float64)
    drawn = np.array([_colour_of(image, changed) for image, changed in zip(x, out)])
    for i in range(20):
        expected = reference.contrast(reference.brightness(x[i], drawn[i, 0]), drawn[i, 1])
        np.testing.assert_allclose(out[i], reference.saturation(expected, drawn[i, 2]), atol=1e-5)
    unit = np.stack([drawn[:, 0], np.log(drawn[:, 1]), np.log(drawn[:, 2])]) / 0.25
    np.testing.assert_allclose(np.abs(unit).max(1), 1, atol=0.02)
    np.testing.assert_allclose(unit.std(1), 3**-0.5, rtol=0.06)  # uniform
    assert np.abs(unit.mean(1)).max() < 0.06 and np.abs(np.corrcoef(unit) - np.eye(3)).max() < 0.12


def test_color_of_one_channel_has_no_saturation():
    x = _x(1, 4, 5, 1)[[0] * 50]
    np.testing.assert_allclose(augment.color(0.0, 0.0, 2.0)(KEY, x), x, atol=1e-6)
    np.testing.assert_array_equal(augment.color(0.0, 0.0, 0.0)(KEY, x), x)
    spread = np.asarray(augment.color(0.0, 0.3, 2.0)(KEY, x)).std((1, 2, 3)) / x[0].std()
    assert np.ptp(spread) > 0.3 and np.abs(np.log(spread)).max() < 0.3001


def _seen(name, per, calls, b):
    """The operation of each image ``[calls, b]`` when ``strategy`` acts on ramps."""
    x, change = _ramps(b), augment.strategy(name, per=per)
    out = jax.jit(lambda x: jax.lax.map(lambda key: change(key, x), jax.random.split(KEY, calls)))(x)
    return np.array([[_operation(x[0], image) for image in images] for images in np.asarray(out)])


@pytest.mark.parametrize("name", [GREY, RGB])
def test_strategy_draws_one_operation_for_each_image(name):
    seen = _seen(name, "image", 2, 300)
    share = {operation: np.mean(seen == operation) for operation in name.split("_")}
    assert sum(share.values()) == pytest.approx(1)
    assert all(abs(value - 1 / len(share)) < 0.06 for value in share.values()), share
    assert np.mean(seen[0] == seen[1]) < 0.4  # drawn anew at each call


def test_strategy_draws_one_operation_for_each_batch():
    seen = _seen(RGB, "batch", 200, 3)
    assert np.all(seen == seen[:, :1])
    share = {operation: np.mean(seen[:, 0] == operation) for operation in RGB.split("_")}
    assert all(abs(value - 1 / 6) < 0.09 for value in share.values()), share


@pytest.mark.parametrize("name", OPERATIONS)
def test_strategy_has_the_published_ranges(name):
    x = _ramps(500)
    out = np.asarray(augment.strategy(name)(KEY, x))
    matrix, shift = _affine(out)
    largest = {
        "crop": lambda: np.abs(np.log(matrix[:, 0, 0])).max() / np.log(1.25),
        "rotate": lambda: np.rad2deg(np.abs(np.arcsin(matrix[:, 0, 1])).max()) / 15,
        "translate": lambda: np.abs(shift).max() / (8 * 0.125),
        "cutout": lambda: (out[..., 2] == 0).sum((1, 2)).max() / (8 // 4) ** 2,
        "flip": lambda: np.mean(matrix[:, 1, 1] < 0) / 0.5,
        "color": lambda: np.log(np.ptp(out.mean(3), axis=(1, 2)) / np.ptp(x[0].mean(2))).max() / 0.25,
    }[name]()
    assert (0.85 if name == "flip" else 0.97) < largest < (1.15 if name == "flip" else 1.0001)
    assert len(np.unique(out.reshape(500, -1).round(4), axis=0)) > (1 if name == "flip" else 40)  # for each image


def test_a_loop_over_seeds_is_the_vmap_over_seeds():
    x, keys, change = _x(6, 8, 8, 3), jax.random.split(KEY, 20), augment.strategy(RGB, per="batch")
    one_by_one = jax.jit(lambda x: jax.lax.map(lambda key: change(key, x), keys))(x)
    np.testing.assert_allclose(jax.jit(jax.vmap(change, (0, None)))(keys, x), one_by_one, atol=1e-5)
    assert len(np.unique(np.asarray(one_by_one).reshape(20, -1), axis=0)) >= 15


@pytest.mark.parametrize("name", ["none", "None", ""])
def test_no_strategy_changes_nothing(name):
    x = _x()
    np.testing.assert_array_equal(augment.strategy(name)(KEY, x), x)


def test_low_precision_images_are_moved_as_precisely_as_they_can_be():
    x, change = jnp.asarray(_x(), jnp.bfloat16), augment.strategy("crop_rotate_translate")
    out = change(KEY, x)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(jnp.float32), change(KEY, x.astype(jnp.float32)), atol=8 * 2**-8)


def test_what_a_strategy_does_is_differentiable_in_the_images(x64):
    x, direction = RNG.normal(size=(2, 12, 4, 4, 3))
    change = augment.strategy(RGB)

    @jax.jit
    def score(x):
        return jnp.sum(jnp.sin(change(KEY, x)))

    numeric = (score(x + 1e-5 * direction) - score(x - 1e-5 * direction)) / 2e-5
    assert float(jnp.vdot(jax.grad(score)(x), direction)) == pytest.approx(float(numeric), rel=1e-6)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: augment.rotate(-1.0), "max_degrees is -1.0; it must lie between 0.0 and 180.0"),
        (lambda: augment.shift(1.5), "height is 1.5; it must lie between 0.0 and 1.0"),
        (lambda: augment.shift(0.1, -0.1), "width is -0.1; it must lie between 0.0 and 1.0"),
        (lambda: augment.flip(2.0), "probability is 2.0; it must lie between 0.0 and 1.0"),
        (lambda: augment.translate(1.5), "height is 1.5; it must lie between 0.0 and 1.0"),
        (lambda: augment.crop(0.0), "augment.crop: low is 0.0; it must be above 0.0"),
        (lambda: augment.crop(1.2, 1.1), "augment.crop: high is 1.1; it must be at least 1.2"),
        (lambda: augment.cutout(-0.5), "augment.cutout: size is -0.5; it must lie between 0.0 and 1.0"),
        (lambda: augment.color(contrast=-1.0), "augment.color: contrast is -1.0; it must be at least 0.0"),
        (
            lambda: augment.strategy("crop_blur"),
            "augment.strategy: an operation of 'crop_blur' is 'blur'; choose one of color, crop, cutout, flip, rotate, "
            "translate",
        ),
        (lambda: augment.strategy("crop__flip"), "an operation of 'crop__flip' is ''; choose one of color, crop"),
        (lambda: augment.strategy("crop", per="pixel"), "per is 'pixel'; choose one of image, batch"),
        (lambda: augment.strategy("flip")(KEY, jnp.zeros((4, 9))), "augment.strategy: x has shape (4, 9)"),
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


@pytest.mark.parametrize("mode", ["reflect", "constant"])
def test_pad_crop_cuts_every_window_of_the_padded_image(mode):
    x = np.random.default_rng(0).normal(size=(400, 5, 6, 2)).astype(np.float32)
    x[:] = x[0]
    padded = np.pad(x[0], ((2, 2), (2, 2), (0, 0)), mode=mode)
    windows = np.stack([padded[i : i + 5, j : j + 6] for i in range(5) for j in range(5)])
    out = np.asarray(augment.pad_crop(2, mode=mode)(jax.random.key(0), jnp.asarray(x)))
    same = (out[:, None] == windows).all(axis=(2, 3, 4))
    assert np.all(same.sum(axis=1) == 1) and np.all(same.any(axis=0)), "each is one of the 25, all 25 come up"
    with pytest.raises(checks.InputError, match="pixels is 0"):
        augment.pad_crop(0)
