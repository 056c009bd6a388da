"""The distances of matching methods against NumPy, finite differences and what the papers say of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kipjax import checks, models
from kipjax.core import matching
from kipjax.models import network
from tests.reference import matching as reference

SHAPES = {
    "conv0": {"kernel": (3, 3, 2, 4), "bias": (4,)},
    "norm0": {"scale": (2, 2, 4), "bias": (2, 2, 4)},
    "norm1": {"scale": (4,), "bias": (4,)},
    "head": {"kernel": (6, 3), "bias": (3,)},
}
ROWS = 4 + 4 + 4 + 3
KINDS = {"dc": reference.dc, "mse": reference.mse, "cosine": reference.cosine}


def tree(seed, scale=1.0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda s: scale * rng.normal(size=s), SHAPES, is_leaf=lambda s: isinstance(s, tuple))


def torch_tensors(g):
    return [reference.torch_layout(leaf) for leaf in jax.tree.leaves(g)]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", matching.KINDS)
@given(seed=st.integers(0, 1000), scale=st.sampled_from([1e-4, 1.0, 30.0]))
@settings(max_examples=10, deadline=None)
def test_gradient_distance_is_that_of_numpy_in_the_layout_of_pytorch(kind, seed, scale):
    g_s, g_t = tree(seed, scale), tree(seed + 1)
    ours = matching.gradient_distance(g_s, g_t, kind=kind)
    np.testing.assert_allclose(ours, KINDS[kind](torch_tensors(g_s), torch_tensors(g_t)), rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_dc_distance_of_a_gradient_to_itself_its_negative_a_multiple_and_zero():
    g, h = tree(0), tree(1)
    np.testing.assert_allclose(matching.gradient_distance(g, g), 0.0, atol=1e-5)
    np.testing.assert_allclose(matching.gradient_distance(g, jax.tree.map(np.negative, g)), 2 * ROWS, atol=1e-5)
    scales = jax.tree.map(lambda a: 1 + np.random.default_rng(2).random(a.shape[-1]), h)  # another for each row
    scaled = jax.tree.map(lambda a, c: a * c, h, scales)
    np.testing.assert_allclose(matching.gradient_distance(g, scaled), matching.gradient_distance(g, h), rtol=1e-6)
    assert matching.gradient_distance(jax.tree.map(np.zeros_like, g), h) == ROWS


@pytest.mark.usefixtures("x64")
def test_which_tensors_count():
    g, h = tree(0), tree(1)
    for layer, name, counts in (
        ("conv0", "bias", False),
        ("head", "bias", False),
        ("norm1", "scale", False),
        ("norm0", "scale", True),
        ("norm0", "bias", True),
        ("conv0", "kernel", True),
    ):
        other = {**g, layer: {**g[layer], name: tree(5)[layer][name]}}
        for kind in matching.KINDS:
            differs = matching.gradient_distance(other, h, kind=kind) != matching.gradient_distance(g, h, kind=kind)
            assert bool(differs) == (counts or kind != "dc"), (layer, name, kind)


@pytest.mark.usefixtures("x64")
def test_order_within_a_row_does_not_matter():
    g, h = tree(0), tree(1)
    order = np.random.default_rng(3).permutation(18)

    def shuffled(t):
        kernel = t["conv0"]["kernel"].reshape(18, 4)[order].reshape(3, 3, 2, 4)
        return {**t, "conv0": {**t["conv0"], "kernel": kernel}}

    ours = matching.gradient_distance(shuffled(g), shuffled(h))
    np.testing.assert_allclose(ours, matching.gradient_distance(g, h), rtol=1e-12)


def test_number_of_rows_of_the_default_network():
    model = models.get("dc_convnet", num_classes=10)
    params = jax.eval_shape(lambda: network.init(model, jax.random.key(0), jnp.ones((1, 28, 28, 1))))["params"]
    zeros = jax.tree.map(lambda s: np.zeros(s.shape, np.float32), params)
    ones = jax.tree.map(np.ones_like, zeros)
    assert matching.gradient_distance(zeros, ones) == 128 * 3 + 10


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", matching.KINDS)
def test_derivative_by_finite_differences(kind):
    g, h, direction = tree(0), tree(1), tree(2)
    slope = jax.grad(lambda g: matching.gradient_distance(g, h, kind=kind))(g)
    ours = sum(np.vdot(a, b) for a, b in zip(jax.tree.leaves(slope), jax.tree.leaves(direction)))

    def at(step):
        return matching.gradient_distance(jax.tree.map(lambda a, d: a + step * d, g, direction), h, kind=kind)

    np.testing.assert_allclose(ours, (at(1e-5) - at(-1e-5)) / 2e-5, rtol=1e-7)


@pytest.mark.parametrize("kind", ["dc", "cosine"])
def test_zero_rows_have_zero_derivatives_and_no_nan(kind):
    zeros, h = jax.tree.map(np.zeros_like, tree(0)), tree(1)
    for g_s, g_t in ((zeros, h), (h, zeros), (zeros, zeros)):
        slopes = jax.grad(lambda a, b: matching.gradient_distance(a, b, kind=kind), (0, 1))(g_s, g_t)
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(slopes))
    slope = jax.grad(lambda a: matching.gradient_distance(a, zeros, kind=kind))(h)
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(slope))


def test_epsilon_is_on_the_product_of_the_norms():
    a = {"kernel": jnp.full((1, 1), 1e-3)}
    assert float(matching.gradient_distance(a, a)) == pytest.approx(0.5, rel=1e-5)


@pytest.mark.usefixtures("x64")
def test_feature_distance():
    h_s, h_t = np.random.default_rng(0).normal(size=(3, 5)), np.random.default_rng(1).normal(size=(7, 5))
    ours = matching.feature_distance(h_s, h_t)
    np.testing.assert_allclose(ours, sum((h_s[:, j].mean() - h_t[:, j].mean()) ** 2 for j in range(5)), rtol=1e-12)
    np.testing.assert_allclose(matching.feature_distance(h_s[::-1], h_t), ours, rtol=1e-12)
    np.testing.assert_allclose(matching.feature_distance(np.tile(h_s, (4, 1)), h_t), ours, rtol=1e-12)
    value, slope = jax.value_and_grad(matching.feature_distance)(h_t, h_t)
    assert value == 0 and np.all(slope == 0)


@pytest.mark.usefixtures("x64")
def test_trajectory_distance():
    start, target, student = (tree(seed) for seed in range(3))
    assert matching.trajectory_distance(start, target, start) == 1.0
    assert matching.trajectory_distance(target, target, start) == 0.0
    flat = [reference.everything(jax.tree.leaves(t)) for t in (student, target, start)]
    expected = np.sum((flat[0] - flat[1]) ** 2) / np.sum((flat[2] - flat[1]) ** 2)
    ours = matching.trajectory_distance(student, target, start)
    np.testing.assert_allclose(ours, expected, rtol=1e-12)
    scaled = [jax.tree.map(lambda a, b: b + 7.0 * (a - b), t, target) for t in (student, start)]
    np.testing.assert_allclose(matching.trajectory_distance(scaled[0], target, scaled[1]), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: matching.gradient_distance(tree(0), tree(1), kind="ours"), "choose one of dc, mse, cosine"),
        (lambda: matching.gradient_distance({"a": np.ones((2, 3))}, {"b": np.ones((2, 3))}), "must be of one network"),
        (lambda: matching.gradient_distance({"a": np.ones((2, 3))}, {"a": np.ones((3, 2))}), r"g_s\['a'\] has shape"),
        (lambda: matching.gradient_distance({}, {}), "g_s has no tensors"),
        (lambda: matching.feature_distance(np.ones((2, 3)), np.ones((2, 4))), "they must agree"),
        (lambda: matching.feature_distance(np.ones(3), np.ones((2, 3))), r"expected \[n, p\] and \[b, p\]"),
        (lambda: matching.trajectory_distance(np.ones(3), np.ones(4), np.ones(4)), "both must be of one network"),
    ],
)
def test_bad_input(call, words):
    with pytest.raises(checks.InputError, match=words):
        call()


def test_distances_that_would_be_nan_are_refused():
    h = np.ones((2, 3))
    for pair, name in (((h[:0], h), "h_s"), ((h, h[:0]), "h_t")):
        with pytest.raises(checks.InputError, match=f"{name} has no rows"):
            matching.feature_distance(*pair)
    a, b = np.zeros(3), np.ones(3)
    with pytest.raises(checks.InputError, match="start and target are the same"):
        matching.trajectory_distance(a, b, b)
    assert matching.trajectory_distance(a, b, a) == 1
