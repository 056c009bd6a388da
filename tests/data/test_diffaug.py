"""Differentiable augmentation against PyTorch's formulas written out, and what its users rely on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from kipjax import checks
from kipjax.data import diffaug
from tests.reference import augment as reference

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
OPERATIONS = ("color", "crop", "cutout", "flip", "scale", "rotate")
ALL, DIGITS = "color_crop_cutout_flip_scale_rotate", "color_crop_cutout_scale_rotate"
SIDE = 8


def _x(b, c=3, side=SIDE):
    return RNG.normal(size=(b, side, side, c)).astype(np.float32)


def _ramp(side=SIDE):
    """An image whose channels are the row and the column (plus 20) and a constant: it shows what was done to it."""
    rows, columns = np.mgrid[20.0 : 20 + side, 20.0 : 20 + side]
    return np.stack([rows, columns, np.full((side, side), 5.0)], -1).astype(np.float32)


def _affine(out):
    """Matrix and shift that ``out``, made of ``_ramp``, shows in its middle."""
    middle = np.asarray(out, np.float64)[SIDE // 2 - 1 : SIDE // 2 + 1, SIDE // 2 - 1 : SIDE // 2 + 1, :2]
    matrix = np.stack([np.diff(middle, axis=0).mean((0, 1)), np.diff(middle, axis=1).mean((0, 1))], -1)
    return matrix, middle.mean((0, 1)) - 20 - (SIDE - 1) / 2


@functools.cache
def _calls(name, calls=400, independent=False):
    """What many calls make of one batch, ``[calls, b, h, w, c]``: a ramp and random images, or ramps only."""
    augment = (diffaug.independent if independent else diffaug.siamese)(name)
    x = np.stack([_ramp()] * 4) if independent else np.concatenate([_ramp()[None], _x(2)])
    return x, np.asarray(_map(augment, jax.random.split(KEY, calls), x))


def _map(augment, keys, x):
    """One call after the other, compiled once."""
    return jax.lax.map(lambda key: augment(key, x), keys)


def _operation(out):
    """Which operation made the image ``out`` of the ramp."""
    x = _ramp()
    if np.array_equal(out, x):
        return "crop or flip"  # by nothing
    if np.array_equal(out, x[:, ::-1]):
        return "flip"
    if abs(out[3, 3, 2] - 5) > 1e-3 and out[3, 3, 2] != 0:
        return "color"
    kept = out[..., 2] == 5
    if np.array_equal(out[kept], x[kept]) and np.all(out[~kept] == 0):
        return "cutout"
    matrix, shift = _affine(out)
    if np.array_equal(matrix, np.eye(2)) and np.array_equal(shift, shift.round()):
        return "crop"
    assert np.abs(shift).max() < 1e-4
    return "scale" if np.abs(matrix - np.diag(np.diag(matrix))).max() < 1e-4 else "rotate"


def test_crop_moves_by_whole_pixels_and_fills_with_zeros():
    x, out = _calls("crop")
    options = {
        (i, j): np.stack([reference.diff_crop(image, i, j) for image in x]) for i in (-1, 0, 1) for j in (-1, 0, 1)
    }
    shifts = [[shift for shift, expected in options.items() if np.array_equal(images, expected)] for images in out]
    assert all(len(matches) == 1 for matches in shifts) and len({matches[0] for matches in shifts}) == 9
    assert np.abs(np.mean(shifts, axis=(0, 1))).max() < 0.13


@pytest.mark.parametrize(("side", "most"), [(28, 4), (32, 4), (12, 2)])
def test_crop_reaches_an_eighth_of_the_side(side, most):
    ramp = np.arange(1.0, side + 1, dtype=np.float32)[None, :, None, None] * np.ones((300, 1, side, 1), np.float32)
    moved = np.asarray(diffaug.independent("crop")(KEY, ramp))[:, side // 2, side // 2, 0] - (side // 2 + 1)
    np.testing.assert_array_equal(np.unique(moved), np.arange(-most, most + 1))


def test_scale_and_rotate_are_torch_grid_samples_with_aligned_corners():
    x, out = _calls("scale")
    factors = []
    for i in range(400):
        matrix, shift = _affine(out[i, 0])
        assert np.abs(shift).max() < 1e-4 and np.abs(matrix - np.diag(np.diag(matrix))).max() < 1e-4
        factors.append(np.diag(matrix))
        if i < 8:
            for image, changed in zip(x[1:], out[i, 1:]):
                np.testing.assert_allclose(changed, reference.grid_sample(image, matrix[::-1, ::-1]), atol=2e-4)
    low, high = np.min(factors, 0), np.max(factors, 0)
    np.testing.assert_allclose(low, 1 / 1.2, atol=0.005)
    np.testing.assert_allclose(high, 1.2, atol=0.005)
    np.testing.assert_allclose(np.mean(factors, 0), (1.2 + 1 / 1.2) / 2, atol=0.02)  # uniform, not log-uniform
    assert abs(np.corrcoef(np.transpose(factors))[0, 1]) < 0.15

    x, out = _calls("rotate")
    angles = []
    for i in range(400):
        matrix, shift = _affine(out[i, 0])
        angle = np.arctan2(matrix[1, 0], matrix[0, 0])
        angles.append(np.rad2deg(angle))
        if i < 8:
            theta = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
            for image, changed in zip(x[1:], out[i, 1:]):
                np.testing.assert_allclose(changed, reference.grid_sample(image, theta), atol=2e-4)
    assert 14.8 < np.max(angles) < 15.01 and -15.01 < np.min(angles) < -14.8 and abs(np.mean(angles)) < 1.5
    assert np.std(angles) == pytest.approx(15 / 3**0.5, rel=0.1)


@pytest.mark.parametrize("name", ["rotate", "scale"])
def test_images_that_are_not_square_turn_in_the_grid_of_both_sides(name):
    """A 5 x 9 image against ``grid_sample`` by the very matrix: pixels by hand, corners of the grid at -1 and 1."""
    x = np.random.default_rng(0).normal(size=(3, 5, 9, 2)).astype(np.float32)
    out, key = np.asarray(diffaug.independent(name)(KEY, x)), jax.random.fold_in(KEY, 0)
    first, second = np.asarray(jax.random.uniform(key, (4, 3), jnp.float32))[:2]
    for i in range(3):
        if name == "rotate":
            angle = np.pi / 12 * (2 * first[i] - 1)
            theta = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        else:
            down, across = 1 / 1.2 + (1.2 - 1 / 1.2) * np.array([first[i], second[i]])
            theta = np.diag([across, down])
        np.testing.assert_allclose(out[i], reference.grid_sample(x[i], theta), atol=1e-4)


@pytest.mark.parametrize("side", [8, 9, 10])  # windows of 4, 5 (rounded up) and 5 pixels
def test_cutout_clears_a_window_around_any_pixel_cut_at_the_border(side):
    x = _x(1500, 1, side)
    out = np.asarray(diffaug.independent("cutout")(KEY, x))[..., 0]
    np.testing.assert_array_equal(out[out != 0], x[..., 0][out != 0])
    size = int(side * 0.5 + 0.5)
    centres = range(side + 1 - size % 2)
    masks = np.array([reference.diff_cutout(side, centre) for centre in centres])
    for seen in ((out == 0).any(2), (out == 0).any(1)):
        matches = (seen[:, None] == masks).all(2)
        assert np.all(matches.sum(1) == 1)
        assert np.abs(matches.mean(0) - 1 / len(centres)).max() < 0.04
    np.testing.assert_array_equal((out == 0).sum((1, 2)), (out == 0).any(2).sum(1) * (out == 0).any(1).sum(1))


def test_flip_mirrors_half_the_time():
    x, out = _calls("flip")
    mirrored = np.all(out == x[:, :, ::-1], axis=(1, 2, 3, 4))
    assert np.all(mirrored | np.all(out == x, axis=(1, 2, 3, 4)))
    assert mirrored.mean() == pytest.approx(0.5, abs=0.08)


def test_color_is_brightness_then_saturation_then_contrast():
    x, out = _calls("color")
    drawn = []
    for images in out.astype(np.float64):
        pixel = x[1].mean(2, keepdims=True) * np.ones(3)
        design = np.stack([np.ones(x[1].size), (pixel - x[1].mean()).ravel(), (x[1] - pixel).ravel()], 1)
        mean, contrast, both = np.linalg.lstsq(design, images[1].ravel(), rcond=None)[0]
        drawn.append((mean - x[1].mean(), both / contrast, contrast))
        if len(drawn) <= 10:
            for image, changed in zip(x.astype(np.float64), images):
                expected = reference.saturation(reference.brightness(image, drawn[-1][0]), drawn[-1][1])
                np.testing.assert_allclose(changed, reference.contrast(expected, drawn[-1][2]), atol=2e-4)
    np.testing.assert_allclose(np.min(drawn, 0), [-0.5, 0.0, 0.5], atol=0.02)
    np.testing.assert_allclose(np.max(drawn, 0), [0.5, 2.0, 1.5], atol=0.02)
    np.testing.assert_allclose(np.mean(drawn, 0), [0.0, 1.0, 1.0], atol=0.09)
    assert np.abs(np.corrcoef(np.transpose(drawn)) - np.eye(3)).max() < 0.15


@pytest.mark.parametrize(("name", "mode"), [(ALL, "single"), ("scale_color_cutout", "multiple")])
def test_real_and_synthetic_batches_share_one_transformation(name, mode):
    augment, keys = diffaug.siamese(name, mode=mode), jax.random.split(KEY, 40)
    real, synthetic = jax.jit(lambda x: (_map(augment, keys, x), _map(augment, keys, x[4:])))(_x(5))
    np.testing.assert_allclose(real[:, 4:], synthetic, atol=1e-5)
    for first, second in ((real[:, 0], real[:, 1]), (real[0], real[1])):
        assert np.abs(first - second).max() > 0.1


def test_the_dtype_of_the_images_does_not_change_the_draw(x64):
    augment, x = diffaug.siamese(ALL), _x(3)
    for key in jax.random.split(KEY, 6):
        out = augment(key, x.astype(np.float64))
        assert out.dtype == jnp.float64
        np.testing.assert_allclose(augment(key, x), out, atol=1e-5)


@pytest.mark.parametrize("name", [ALL, DIGITS])
def test_a_call_draws_one_operation_of_the_list(name):
    _, out = _calls(name)
    seen = [_operation(images[0]) for images in out]
    operations = name.split("_")
    assert {one for one in seen if one != "crop or flip"} == set(operations)
    for operation in set(operations) - {"crop", "flip"}:
        assert np.mean(np.array(seen) == operation) == pytest.approx(1 / len(operations), abs=0.07)
    assert seen.count("flip") == pytest.approx(400 / 12 if "flip" in operations else 0, abs=14)


def test_independent_images_share_the_operation_and_nothing_else():
    _, out = _calls(ALL, independent=True)
    seen = np.array([[_operation(image) for image in images] for images in out])
    for operation in OPERATIONS:
        drawn = np.any(seen == operation, axis=1)
        allowed = [operation, "crop or flip"] if operation in ("crop", "flip") else [operation]
        assert np.all(np.isin(seen[drawn], allowed))
        assert drawn.mean() == pytest.approx(1 / 6, abs=0.07)
        unlike = np.abs(out[drawn][:, :1] - out[drawn][:, 1:]).max((2, 3, 4)) > 0
        assert 0.35 < unlike.mean() < 0.65 if operation == "flip" else unlike.mean() > 0.8


def test_multiple_applies_all_operations_in_their_order():
    x = np.stack([_ramp()] * 50)
    for name, hollow in (("color_cutout", True), ("cutout_color", False)):
        out = np.asarray(diffaug.independent(name, mode="multiple")(KEY, x))
        assert np.all((out == 0).any((1, 2, 3)) == hollow)
        assert np.all(np.abs(out[..., 2] - 5).min((1, 2)) > 0)
    twice = np.asarray(diffaug.independent("flip_flip", mode="multiple")(KEY, x))  # each with its own draw
    assert 0.25 < np.mean(np.all(twice == x, axis=(1, 2, 3))) < 0.75


@pytest.mark.parametrize("make", [diffaug.siamese, diffaug.independent])
def test_gradients_in_the_images_agree_with_finite_differences(make, x64):
    x, direction = RNG.normal(size=(2, 3, SIDE, SIDE, 3))
    augment, step = make(ALL), 1e-5 * direction

    def slopes(key):
        def score(x):
            return jnp.sum(jnp.sin(augment(key, x)))

        return jnp.vdot(jax.grad(score)(x), direction), (score(x + step) - score(x - step)) / 2e-5

    exact, numeric = jax.jit(lambda: jax.lax.map(slopes, jax.random.split(KEY, 40)))()
    np.testing.assert_allclose(exact, numeric, rtol=1e-5, atol=1e-5)
    assert len(np.unique(exact)) > 15


@pytest.mark.parametrize("augment", [diffaug.siamese(ALL), diffaug.plain("crop_scale_rotate")])
def test_a_loop_over_classes_is_the_vmap_over_classes(augment):
    x, keys = _x(20).reshape(10, 2, SIDE, SIDE, 3), jax.random.split(KEY, 10)
    together = jax.jit(jax.vmap(augment))(keys, x)
    one_by_one = jax.lax.map(lambda pair: augment(*pair), (keys, x))
    np.testing.assert_allclose(together, one_by_one, atol=1e-4)
    assert len({float(value) for value in jnp.ptp(together - x, axis=(1, 2, 3, 4))}) > 5


@pytest.mark.parametrize("make", [diffaug.siamese, diffaug.independent, diffaug.plain])
@pytest.mark.parametrize("name", ["none", "None", "", None])
def test_no_strategy_changes_nothing(make, name):
    x = _x(2)
    np.testing.assert_array_equal(make(name)(KEY, x), x)


def test_a_strategy_is_a_string():
    with pytest.raises(
        checks.InputError, match=r"the operations are \['crop'\]; expected a string of .*crop.* joined by _"
    ):
        diffaug.siamese(["crop"])


def test_plain_crop_shows_the_mean_of_the_batch_around_the_image():
    x = np.concatenate([_x(1)[[0] * 300], _x(1) + 50])
    out = np.asarray(diffaug.plain("crop")(KEY, x))[:300]
    options = np.array([reference.dc_crop(x[0], i, j, x.mean((0, 1, 2))) for i in range(8) for j in range(8)])
    matches = np.abs(out[:, None] - options).max((2, 3, 4)) < 1e-4
    assert np.all(matches.sum(1) == 1)
    for axis in (1, 2):
        share = matches.reshape(300, 8, 8).any(3 - axis).mean(0)
        assert np.abs(share - 1 / 8).max() < 0.08


@pytest.mark.parametrize(("side", "sizes"), [(8, range(6, 10)), (11, range(8, 14))])
def test_plain_scale_resizes_to_nearest_pixels_on_zeros(side, sizes):
    x = _x(1, 1, side)[[0] * 500]
    out = np.asarray(diffaug.plain("scale")(KEY, x))
    options = np.array([reference.dc_scale(x[0], rows, columns) for rows in sizes for columns in sizes])
    matches = np.all(out[:, None] == options, axis=(2, 3, 4))
    assert np.all(matches.any(1))
    if side == 8:  # of 11, two sizes can look alike
        widths = np.diff([6.4, 7, 8, 9, 9.6]) / 3.2
        np.testing.assert_allclose(matches.mean(0).reshape(4, 4), widths[:, None] * widths, atol=0.05)


def test_plain_rotate_is_scipys_spline_of_whole_degrees():
    x = np.concatenate([_x(1, 2)[[0] * 1000], _x(1, 2) + 50])
    out = np.asarray(diffaug.plain("rotate")(KEY, x))[:1000]
    angles = np.arange(-50, 51)
    options = np.array([ndimage.rotate(x[0], angle, reshape=False, order=3, cval=x.mean()) for angle in angles])
    error = np.abs(out[:, None] - options).max((2, 3, 4))
    assert error.min(1).max() < 1e-3
    found = angles[error.argmin(1)]
    assert found.min() == -45 and found.max() == 44 and len(np.unique(found)) == 90


def test_plain_noise_is_normal():
    x = _x(64)
    noise = np.asarray(diffaug.plain("noise")(KEY, x) - x) / 0.001
    assert abs(noise.mean()) < 0.05 and noise.std() == pytest.approx(1, abs=0.03)
    assert np.mean(np.abs(noise) < 1) == pytest.approx(0.683, abs=0.02)
    assert len(np.unique(noise.round(2))) > 300


def test_plain_draws_one_operation_for_each_image():
    x = np.stack([_ramp()] * 900)
    out = np.asarray(diffaug.plain("crop_scale_noise")(KEY, x))
    rows, columns = out[:, :, 4, 0], out[:, 4, :, 1]
    framed = np.any(np.isclose(rows, 23.5) | np.isclose(columns, 23.5), axis=1)  # by the mean
    repeats = np.any((np.diff(rows) == 0) | (np.diff(columns) == 0), axis=1)
    scaled = np.any(out == 0, axis=(1, 2, 3)) | (repeats & ~framed)
    noisy = (np.abs(out - x).max((1, 2, 3)) < 0.01) & np.any(out != x, axis=(1, 2, 3))
    assert np.all(framed.astype(int) + scaled + noisy <= 1)
    assert noisy.mean() == pytest.approx(1 / 3, abs=0.05)
    assert framed.mean() == pytest.approx((1 - 1 / 64) / 3, abs=0.05)  # the others do not move
    assert scaled.mean() == pytest.approx((1 - (1 / 3.2) ** 2) / 3, abs=0.05)  # the others keep their size


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (
            lambda: diffaug.siamese("color_blur"),
            "diffaug.siamese: an operation of 'color_blur' is 'blur'; choose one of color, crop, cutout, flip, scale, "
            "rotate",
        ),
        (lambda: diffaug.independent("translate"), "diffaug.independent: an operation of 'translate' is 'translate'"),
        (lambda: diffaug.siamese("crop", mode="M"), "diffaug.siamese: mode is 'M'; choose one of single, multiple"),
        (lambda: diffaug.plain("crop_flip"), "'flip'; choose one of crop, scale, rotate, noise"),
        (lambda: diffaug.siamese("flip")(KEY, jnp.zeros((4, 9))), "diffaug.siamese: x has shape (4, 9)"),
        (lambda: diffaug.plain("crop")(KEY, jnp.zeros((1, 4, 4, 1), jnp.uint8)), "diffaug.plain: x has dtype uint8"),
    ],
)
def test_what_does_not_fit_is_refused(call, words):
    with pytest.raises(checks.InputError) as caught:
        call()
    assert words in str(caught.value)
