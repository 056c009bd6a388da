"""Preprocessing against NumPy written from the papers' definitions, inverses, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kipjax import checks
from kipjax.data import channels, preprocess


def _images(n=200, shape=(4, 4, 3), seed=0):
    """Smooth, correlated uint8 images."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, *shape)).cumsum(axis=1).cumsum(axis=2) * 12 + 110 + np.arange(shape[-1]) * 9
    return np.clip(x, 0, 255).astype(np.uint8)


def _oracle(x, variant):
    """Whitened images ``[n, d]`` as the paper says it, term by term, in float64."""
    n = len(x)
    unit = x / 255.0
    standard = (x - x.mean((0, 1, 2), dtype=float)) / x.std((0, 1, 2), dtype=float)
    flat = (standard if variant in ("frepo", "rcig", "rfad", "rfad_svhn", "kip_released") else unit).reshape(n, -1)
    if variant in ("kip", "kip_convnet", "kip_released", "rfad_svhn"):
        flat = flat - flat.mean(1, keepdims=True)
        flat = flat / np.sqrt((flat**2).sum(1, keepdims=True))
    if variant in ("mtt", "frepo", "rcig"):
        flat = flat - flat.mean(0)
    c = flat.T @ flat / (n - 1 if variant == "mtt" else n)
    eps = {"kip": 1e-5, "mtt": 0.1}.get(variant, 0.1 * np.trace(c) / len(c))
    u, s, _ = np.linalg.svd(c + eps * np.eye(len(c)))
    return flat @ (u @ np.diag(s**-0.5) @ u.T)


def test_standardize_gives_each_channel_mean_zero_and_deviation_one():
    x = _images()
    pre = preprocess.standardize(x)
    np.testing.assert_allclose(pre.mean, x.mean((0, 1, 2), dtype=float), rtol=1e-6)
    np.testing.assert_allclose(pre.std, x.std((0, 1, 2), dtype=float), rtol=1e-6)
    z = preprocess.apply(pre, x)
    assert z.dtype == jnp.float32 and z.shape == x.shape
    np.testing.assert_allclose(np.mean(z, (0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(np.std(z, (0, 1, 2)), 1, atol=1e-6)
    assert (float(pre.low), float(pre.high)) == (x.min(), x.max())


def test_statistics_over_blocks_do_not_cancel(monkeypatch):
    monkeypatch.setattr(channels, "BLOCK", 7)
    x = np.full((50, 64, 64, 1), 10000.0, np.float32)
    x[::2] += 0.25
    pre = preprocess.standardize(x)
    assert float(pre.mean[0]) == np.float32(10000.125) and float(pre.std[0]) == pytest.approx(0.125, rel=1e-5)


def test_a_constant_channel_is_centred_and_not_blown_up():
    x = _images()
    x[..., 1] = 77
    z = np.asarray(preprocess.apply(preprocess.standardize(x), x))
    assert np.all(z[..., 1] == 0) and np.isfinite(z).all()


def test_vectors_are_standardised_per_feature():
    x = np.random.default_rng(0).normal(size=(50, 4)) * [1, 10, 100, 0] + [5, 6, 7, 8]
    z = np.asarray(preprocess.apply(preprocess.fit(x), x))
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(z.std(0), [1, 1, 1, 0], atol=1e-5)


@pytest.mark.parametrize("name", preprocess.CONSTANTS)
def test_fixed_is_pixels_by_255_minus_mean_over_std(name):
    mean, std = preprocess.CONSTANTS[name]
    x = _images(shape=(4, 4, len(mean)))
    pre = preprocess.fit(x, "fixed", constants=name)
    np.testing.assert_allclose(preprocess.apply(pre, x), (x / 255 - np.array(mean)) / np.array(std), atol=2e-6)
    assert (float(pre.low), float(pre.high)) == (0, 255)


def test_the_two_cifar10_deviations_are_named_apart():
    assert preprocess.CONSTANTS["cifar10"].std == (0.2023, 0.1994, 0.2010)
    assert preprocess.CONSTANTS["cifar10_rcig"].std == (0.2470, 0.2435, 0.2616)


@pytest.mark.parametrize("variant", preprocess.ZCA_VARIANTS)
def test_zca_is_what_the_paper_defines(variant):
    x = _images()
    z = preprocess.apply(preprocess.zca(x, variant), x)
    expected = _oracle(x, variant)
    np.testing.assert_allclose(np.asarray(z).reshape(len(x), -1), expected, atol=2e-4 * np.abs(expected).max())


@pytest.mark.parametrize("variant", preprocess.ZCA_VARIANTS)
def test_zca_matrix_is_symmetric_and_has_its_inverse(variant):
    pre = preprocess.zca(_images(), variant)
    np.testing.assert_allclose(pre.zca, pre.zca.T, atol=1e-5 * float(jnp.abs(pre.zca).max()))
    np.testing.assert_allclose(np.float64(pre.zca) @ np.float64(pre.zca_inverse), np.eye(48), atol=2e-4)


@pytest.mark.parametrize("variant", ["mtt", "rcig", "rfad"])
def test_invert_undoes_apply(variant):
    x = _images()
    pre = preprocess.zca(x, variant)
    z = preprocess.apply(pre, x)
    np.testing.assert_allclose(preprocess.invert(pre, z), x, atol=0.02)
    np.testing.assert_array_equal(preprocess.to_pixels(pre._replace(low=0.0, high=255.0), z), x)
    if pre.centre is not None:  # the mean training image maps to zero
        mean = x.mean(0, keepdims=True, dtype=float)
        np.testing.assert_allclose(preprocess.apply(pre, mean), 0, atol=1e-3)


def test_whitened_training_set_has_eigenvalues_below_one():
    x = _images()
    flat = np.asarray(preprocess.apply(preprocess.zca(x, "rcig"), x), float).reshape(200, -1)
    eigenvalues = np.linalg.eigvalsh(flat.T @ flat / 200)
    assert eigenvalues.max() < 1 and eigenvalues.max() > 0.9 and eigenvalues.min() > 0


def test_with_fewer_images_than_pixels_unseen_directions_pass_unchanged():
    x = _images(n=20)
    pre = preprocess.zca(x, "rcig")
    factors = np.linalg.eigvalsh(np.asarray(pre.zca, float))
    assert np.sum(np.abs(factors - 1) < 1e-4) == 29  # 48 pixels; 20 images about their mean span 19
    np.testing.assert_allclose(np.float64(pre.zca) @ np.float64(pre.zca_inverse), np.eye(48), atol=1e-3)
    flat = (x - np.asarray(pre.mean, float)) / np.asarray(pre.std, float)
    unseen = np.linalg.svd((flat - flat.mean(0)).reshape(20, -1))[2][19:]
    np.testing.assert_allclose(unseen @ np.asarray(pre.zca), unseen, atol=1e-3)


def test_large_images_are_whitened_as_a_checkerboard():
    """Against the four phases taken by hand: one covariance, their mean, about one mean image."""
    x = _images()
    pre = preprocess.zca(x, "rcig", stride=2)
    scaled = (x - np.asarray(pre.mean, float)) / np.asarray(pre.std, float)
    centred = scaled - scaled.mean(0)
    corners = [centred[:, i::2, j::2].reshape(len(x), -1) for i in (0, 1) for j in (0, 1)]
    covariance = sum(part.T @ part for part in corners) / (4 * len(x))
    s, u = np.linalg.eigh(covariance + 0.1 * np.trace(covariance) / 12 * np.eye(12))
    expected = np.empty_like(centred)
    for part, (i, j) in zip(corners, [(0, 0), (0, 1), (1, 0), (1, 1)]):
        expected[:, i::2, j::2] = (part @ (u * s**-0.5) @ u.T).reshape(len(x), 2, 2, 3)
    z = preprocess.apply(pre, x)
    np.testing.assert_allclose(z, expected, atol=1e-4)
    np.testing.assert_allclose(preprocess.invert(pre, z), x, atol=0.05)
    assert pre.zca.shape == (12, 12)
    with pytest.raises(checks.InputError, match=r"stride is 3 .*multiples"):
        preprocess.zca(x, "rcig", stride=3)


def test_a_matrix_for_small_images_is_not_applied_to_larger_ones():
    x = _images()
    for variant, stride in (("kip", 1), ("rfad", 2)):
        pre = preprocess.zca(x, variant, stride=stride)
        with pytest.raises(checks.InputError, match="fitted on"):
            preprocess.apply(pre, np.repeat(np.repeat(x, 2, 1), 2, 2))


def test_zca_options():
    x = _images()
    weak, strong = (preprocess.fit(x, "zca", variant="mtt", reg=reg) for reg in (0.01, 10.0))
    assert np.linalg.eigvalsh(np.asarray(weak.zca)).max() > np.linalg.eigvalsh(np.asarray(strong.zca)).max()
    pre = preprocess.zca(x, "rcig", constants="cifar10_rcig")
    np.testing.assert_allclose(pre.std, 255 * np.array(preprocess.CONSTANTS["cifar10_rcig"].std), rtol=1e-6)
    floats = preprocess.zca(x / 255.0, "mtt", scale=1.0)
    np.testing.assert_allclose(floats.zca, preprocess.zca(x, "mtt").zca, atol=1e-3)
    vectors = preprocess.zca(x.reshape(200, -1)[:, :9], "mtt")
    assert vectors.zca.shape == (9, 9) and vectors.centre.shape == (9,)


def test_the_per_image_stage_centres_and_normalises_and_survives_a_black_image():
    x = _images()
    x[3] = 0
    pre = preprocess.zca(x, "kip_convnet")
    z = np.asarray(preprocess.apply(pre._replace(zca=None), x)).reshape(200, -1)
    np.testing.assert_allclose(z.sum(1), 0, atol=1e-4)
    norms = np.linalg.norm(z, axis=1)
    assert norms[3] == 0 and np.allclose(np.delete(norms, 3), 1, atol=1e-5)
    assert np.isfinite(preprocess.apply(pre, x)).all()
    gradient = jax.grad(lambda v: preprocess.apply(pre, v).sum())(jnp.asarray(x[2:5], jnp.float32))
    assert np.isfinite(gradient).all()


def test_to_pixels_stretches_each_image_where_brightness_is_lost():
    x = _images()
    pre = preprocess.zca(x, "kip_convnet")
    shown = preprocess.to_pixels(pre, preprocess.apply(pre, x))
    assert shown.dtype == np.uint8
    assert np.all(shown.min((1, 2, 3)) == 0) and np.all(shown.max((1, 2, 3)) == 255)
    stretched = x[0] * 1.0 - x[0].min()
    np.testing.assert_allclose(shown[0], 255 * stretched / stretched.max(), atol=2)


def test_to_pixels_clips_to_the_training_range_and_rescales():
    x = np.array([0, 8, 16], np.uint8).reshape(3, 1, 1, 1)
    pre = preprocess.standardize(x)
    shown = preprocess.to_pixels(pre, (np.array([-5.0, 0, 4, 16, 40]).reshape(5, 1, 1, 1) - pre.mean) / pre.std)
    assert shown.ravel().tolist() == [0, 0, 64, 255, 255]


@pytest.mark.parametrize("stage", [preprocess.apply, preprocess.invert])
def test_blocks_jit_and_plain_calls_agree(stage, monkeypatch):
    x = _images()
    for pre in (preprocess.standardize(x), preprocess.zca(x, "rcig"), preprocess.zca(x, "kip")):
        whole = stage(pre, x)
        closed = jax.jit(lambda v, pre=pre: stage(pre, v))(x)
        passed = jax.jit(stage)(pre, x)
        monkeypatch.setattr(channels, "BLOCK", 64)
        blocks = stage(pre, x)
        monkeypatch.undo()
        for other in (closed, passed, blocks):
            np.testing.assert_allclose(other, whole, rtol=1e-4, atol=5e-4)  # whitening multiplies rounding


def test_none_keeps_pixels():
    x = _images()
    np.testing.assert_array_equal(preprocess.apply(preprocess.fit(x, "none"), x), x.astype(np.float32))


NAN = np.full((3, 2, 2, 1), np.nan)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: preprocess.fit(_images(), "zac"), "kind is 'zac'; choose one of none, standardize, fixed, zca"),
        (lambda: preprocess.fit(_images(), "zca", variant="kipp"), "variant is 'kipp'; choose one of kip, kip_convnet"),
        (
            lambda: preprocess.fit(_images(), "zca", strength=1.0),
            "kind 'zca' does not take strength; it takes constants, reg, scale, stride, variant",
        ),
        (lambda: preprocess.fit(_images(), "none", reg=1.0), "does not take reg; it takes no options"),
        (lambda: preprocess.fit(_images(), "fixed"), "constants is None; choose one of mnist"),
        (
            lambda: preprocess.fit(_images(), "fixed", constants="mnist"),
            "constants 'mnist' are for 1 channels and x_train has 3",
        ),
        (lambda: preprocess.zca(_images(), "mtt", constants="cifar10"), "this variant does not standardise channels"),
        (lambda: preprocess.zca(_images(), reg=0.0), "reg is 0.0; it must be above 0.0"),
        (lambda: preprocess.zca(_images(), scale=0.0), "scale is 0.0; it must be above 0.0"),
        (
            lambda: preprocess.zca(np.zeros((1, 128, 128, 3), np.uint8)),
            "x_train has 49152 pixels an image and its covariance 49152 x 49152 entries; the limit is 16384",
        ),
        (lambda: preprocess.standardize(NAN), "preprocess.standardize: x_train has NaN or infinite entries in 3 of 3"),
        (lambda: preprocess.identity(NAN), "preprocess.identity: x_train has NaN"),
        (lambda: preprocess.zca(NAN), "preprocess.zca: x_train has NaN"),
        (
            lambda: preprocess.standardize(np.zeros((0, 2, 2, 1))),
            "x_train has shape (0, 2, 2, 1); expected at least one",
        ),
        (lambda: preprocess.standardize(np.zeros(4)), "x_train has shape (4,)"),
        (lambda: preprocess.fixed([0.5], [0.5, 0.5]), "mean has shape (1,) and std has shape (2,)"),
        (lambda: preprocess.fixed([0.5], [0.0]), "std is [0.]; it must be above 0.0"),
        (lambda: preprocess.apply(preprocess.standardize(_images()), NAN), "x has shape (3, 2, 2, 1) and the preproc"),
        (lambda: preprocess.apply(preprocess.standardize(_images(shape=(4, 4, 1))), NAN), "x has NaN"),
        (
            lambda: preprocess.invert(preprocess.zca(_images(), "mtt"), np.zeros((2, 5, 5, 3))),
            "preprocess.invert: x has 75 pixels an image and the preprocessing was fitted on 48",
        ),
    ],
)
def test_what_does_not_fit_is_refused(call, words):
    with pytest.raises(checks.InputError) as caught:
        call()
    assert words in str(caught.value)


def test_fashion_mnist_statistics_are_the_published_ones(fashion_mnist):
    pre = preprocess.standardize(fashion_mnist.x_train)
    published = preprocess.CONSTANTS["fashion_mnist"]
    assert float(pre.mean[0]) / 255 == pytest.approx(published.mean[0], abs=1e-4)
    assert float(pre.std[0]) / 255 == pytest.approx(published.std[0], abs=1e-4)
