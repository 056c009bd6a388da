"""Feature maps: their formulas, the way back, the same weights in every precision, and what cannot be inverted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kipjax import kernels
from kipjax.checks import InputError
from kipjax.kernels import basic, feature_maps

SHAPE = (4, 4, 1)
X = np.random.default_rng(0).normal(size=(5, *SHAPE))
SPECS = [
    {"name": "linear"},
    {"name": "leaky_net"},
    {"name": "leaky_net", "widths": (12, 9), "slope": 0.3},
    {"name": "linear_net", "widths": (9, 16)},
    {"name": "convolution", "layers": 2},
    {"name": "convolution", "channels": (3,), "size": 2},
]


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_the_way_back_leads_to_examples_with_the_features(spec, x64):
    feature_map = kernels.get(**spec)
    h = feature_map.features(jnp.asarray(X))
    back = feature_map.pull_back(h, jnp.zeros((0, *SHAPE)))
    assert back.shape == X.shape
    np.testing.assert_allclose(feature_map.features(back), h, atol=1e-10)
    np.testing.assert_allclose(feature_map(X, X[:2]), h @ h[:2].T, atol=1e-12)
    if spec["name"] != "linear_net":
        asked = h + 0.1 * np.random.default_rng(1).normal(size=h.shape)
        np.testing.assert_allclose(feature_map.features(feature_map.pull_back(asked, X)), asked, atol=1e-9)
        assert feature_map.obstacle(SHAPE) == ""


def test_a_network_is_its_formula(x64):
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(16, 8)), rng.normal(size=(8, 6))]
    h = X.reshape(5, 16)
    for w in weights:
        h = h @ w
        h = np.where(h > 0, h, 0.2 * h)
    np.testing.assert_allclose(feature_maps.network(weights, slope=0.2).features(jnp.asarray(X)), h, rtol=1e-12)


def test_a_convolution_is_the_sum_over_its_window(x64):
    feature_map = feature_maps.convolution(stride=2, channels=(3,), slope=1.0, seed=4)
    matrix = np.asarray(feature_map.features(jnp.eye(16).reshape(16, *SHAPE))).reshape(4, 4, 2, 2, 3)
    window = matrix[0:3, 0:3, 0, 0]  # SAME padding of 4 at stride 2 puts one row and column after the image
    np.testing.assert_allclose(matrix[2:4, 2:4, 1, 1], window[:2, :2], atol=1e-12)
    np.testing.assert_allclose(matrix[2:4, 0:3, 1, 0], window[:2], atol=1e-12)
    assert np.count_nonzero(matrix[:, :, 0, 0]) == 27
    np.testing.assert_allclose(
        feature_map.features(jnp.asarray(X)), X.reshape(5, 16) @ matrix.reshape(16, 12), atol=1e-12
    )


def test_fourier_features_approach_the_rbf_kernel(x64):
    feature_map = feature_maps.fourier(width=40_000, bandwidth=3.0)
    distances = ((X[:, None] - X[None]) ** 2).sum((2, 3, 4))
    np.testing.assert_allclose(feature_map(X, X), np.exp(-distances / 18), atol=0.03)


def test_the_way_back_from_cosines_keeps_the_direction(x64):
    feature_map = feature_maps.fourier(width=10, bandwidth=4.0)
    asked = jnp.asarray(3 * np.random.default_rng(1).normal(size=(4, 10)))
    found = feature_map.features(feature_map.pull_back(asked, X))
    scale = np.sqrt(2 / 10) / np.abs(asked).max()
    np.testing.assert_allclose(found, scale * asked, atol=1e-9)
    assert "cosine" in feature_map.obstacle(SHAPE)
    assert feature_maps.fourier(width=17).obstacle(SHAPE).startswith("layer 1 maps 16 entries to 17")


@pytest.mark.parametrize("spec", [*SPECS[1:], {"name": "fourier"}], ids=str)
def test_weights_are_the_same_in_both_precisions_and_inside_jit(spec):
    feature_map = kernels.get(**spec)
    narrow = jax.jit(feature_map.features)(jnp.asarray(X, jnp.float32))
    with jax.enable_x64(True):
        wide = feature_map.features(jnp.asarray(X))
        assert wide.dtype == jnp.float64
    assert narrow.dtype == jnp.float32
    np.testing.assert_allclose(narrow, wide, atol=1e-4)
    other = kernels.get(**spec, seed=1).features(jnp.asarray(X, jnp.float32))
    assert np.abs(other - narrow).max() > 0.1


def test_a_layer_that_widens_is_named():
    assert feature_maps.leaky_net(widths=(8, 12)).obstacle(SHAPE).startswith("layer 2 maps 8 entries to 12")
    assert feature_maps.convolution(stride=1, channels=(2,)).obstacle(SHAPE).startswith("layer 1 maps 16 entries to 32")
    assert basic.linear().obstacle(SHAPE) == ""


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: feature_maps.network([]), "weights is empty"),
        (
            lambda: feature_maps.network([np.eye(3), np.ones((4, 2))]),
            r"layer 2 has shape \(4, 2\); expected \[3, d_out\]",
        ),
        (lambda: feature_maps.network([np.eye(3), np.ones((3, 2))]), r"layer 2 of shape \(3, 2\) has rank 1"),
        (lambda: feature_maps.leaky_net(slope=0.0), "layer 1 would be a ReLU, which cannot be inverted"),
        (lambda: feature_maps.leaky_net(slope=-0.1), "slope is -0.1"),
        (lambda: feature_maps.leaky_net(widths=(8, 0)), "width of layer 2 is 0"),
        (lambda: feature_maps.fourier(bandwidth=0.0), "bandwidth is 0.0"),
        (lambda: feature_maps.fourier(width=-1), "width is -1"),
        (lambda: feature_maps.convolution(stride=0), "stride is 0"),
        (lambda: feature_maps.convolution(channels=(4, 0)), "channels of layer 2 is 0"),
        (lambda: feature_maps.convolution().features(jnp.ones((2, 16))), r"expected images \[h, w, channels\]"),
    ],
)
def test_what_does_not_fit_is_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()
