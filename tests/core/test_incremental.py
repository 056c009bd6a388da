"""Losses against forgetting: loops in NumPy, and what their papers say of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kipjax import checks, models
from kipjax.core import incremental
from tests.models.common import shapes
from tests.reference import incremental as reference

N, K, P = 7, 6, 4
KNOWN, SEEN = np.array([1, 1, 0, 0, 1, 0.0]), np.array([1, 1, 1, 0, 1, 1.0])
OLD, NEW = [0, 1, 4], [2, 5]


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_distillation(temperature, x64):
    logits, before = normal(N, K), 3 * normal(N, K, seed=1)
    found = incremental.distillation(logits, before, KNOWN, temperature=temperature)
    np.testing.assert_allclose(found, reference.distillation(logits, before, OLD, temperature), rtol=1e-12)
    changed = np.where(KNOWN > 0, logits, 100.0)
    assert incremental.distillation(changed, before, KNOWN, temperature=temperature) == found
    shifted = before + normal(N, 1)
    assert abs(incremental.distillation(shifted, before, KNOWN, temperature=temperature)) < 1e-14
    slope = jax.grad(lambda z: incremental.distillation(z, before, KNOWN, temperature=temperature))(logits)
    assert np.all(np.isfinite(slope)) and not np.any(slope[:, KNOWN == 0])


def test_cosines_and_the_features_direction(x64):
    h, before, kernel = normal(N, P), normal(N, P, seed=1), normal(P, K, seed=2)
    found = incremental.cosine(h, kernel)
    expected = [[reference.angle(a, b) for b in kernel.T] for a in h]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(incremental.cosine(3 * h, kernel * np.arange(1, K + 1)), expected, rtol=1e-12)
    assert np.abs(incremental.cosine(np.zeros((1, P)), kernel)).max() == 0
    lost = np.mean([1 - reference.angle(a, b) for a, b in zip(h, before)])
    np.testing.assert_allclose(incremental.less_forget(h, before), lost, rtol=1e-12)
    assert abs(incremental.less_forget(h, 2 * h)) < 1e-15
    assert incremental.less_forget(h, -h) == pytest.approx(2)
    gradient = jax.grad(lambda h: incremental.less_forget(h, before))(jnp.zeros((N, P)))
    assert np.all(np.isfinite(gradient))


def test_the_weight_of_the_features():
    seen, known = np.ones(60), np.arange(60) < 50
    assert incremental.less_forget_weight(known, seen) == pytest.approx(5 * 5**0.5)
    assert incremental.less_forget_weight(known, seen, 10) == pytest.approx(10 * 5**0.5)
    assert incremental.less_forget_weight(0 * seen, seen) == 0


@pytest.mark.parametrize("top", [1, 2, 5])
def test_margin_ranking(top, x64):
    scores, classes = np.tanh(normal(N, K)), np.array([0, 2, 4, 1, 5, 5, 0])
    found = incremental.margin_ranking(scores, classes, KNOWN, SEEN, top=top)
    expected = reference.margin_ranking(scores, classes, OLD, NEW, 0.5, top)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    apart = np.where(np.arange(K) == classes[:, None], 1.0, 0.5)
    assert incremental.margin_ranking(apart, classes, KNOWN, SEEN, top=top) == 0
    assert incremental.margin_ranking(scores, np.full(N, 2), KNOWN, SEEN, top=top) == 0
    assert incremental.margin_ranking(scores, classes, SEEN, SEEN, top=top) == 0


def test_imprinted_columns(x64):
    kernel, h, classes = normal(P, K), normal(N, P, seed=1), np.array([2, 5, 2, 5, 2, 2, 5])
    made = np.asarray(incremental.imprint(kernel, h, classes, KNOWN, SEEN))
    norm = np.mean([np.linalg.norm(kernel[:, c]) for c in OLD])
    for c in NEW:
        mean = np.mean([x / np.linalg.norm(x) for x in h[classes == c]], axis=0)
        np.testing.assert_allclose(made[:, c], norm * mean / np.linalg.norm(mean), rtol=1e-12)
    np.testing.assert_array_equal(made[:, [0, 1, 3, 4]], kernel[:, [0, 1, 3, 4]])
    np.testing.assert_array_equal(incremental.imprint(kernel, h, classes, 0 * KNOWN, SEEN), kernel)


def test_weight_transfer_counts_and_changes_nothing_at_first():
    """arXiv:2002.10211: 53,808 scales for the 463,792 weights of the convolutions of ResNet-32."""
    params = shapes(models.get("resnet32", num_classes=100), (1, 32, 32, 3))["params"]
    factors = jax.eval_shape(incremental.scales, params)
    assert sum(leaf.size for leaf in jax.tree.leaves(factors)) == 53_808
    assert sum(leaf.size for leaf in jax.tree.leaves(params) if leaf.ndim == 4) == 463_792

    model = models.get("convnet:batch", num_classes=3, depth=1, width=2)
    params = model.init(jax.random.key(0), jnp.ones((1, 8, 8, 1)))["params"]
    factors = incremental.scales(params)
    jax.tree.map(np.testing.assert_array_equal, incremental.fold(params, factors), params)
    doubled = incremental.fold(params, jax.tree.map(lambda a: 2 * a, factors))
    np.testing.assert_array_equal(doubled["conv0"]["kernel"], 2 * params["conv0"]["kernel"])
    np.testing.assert_array_equal(doubled["head"]["kernel"], params["head"]["kernel"])


def test_bad_input():
    with pytest.raises(checks.InputError, match="temperature is 0"):
        incremental.distillation(np.ones((2, 3)), np.ones((2, 3)), np.ones(3), temperature=0)
    with pytest.raises(checks.InputError, match="logits has 3 columns and before has 2"):
        incremental.distillation(np.ones((2, 3)), np.ones((2, 2)), np.ones(3))
    with pytest.raises(checks.InputError, match="top is 0"):
        incremental.margin_ranking(np.ones((2, 3)), np.zeros(2, int), np.ones(3), np.ones(3), top=0)
