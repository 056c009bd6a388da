"""Sums over blocks of rows: the values and derivatives of all rows at once, in the memory of one block."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kipjax.core import loop
from kipjax.kernels import basic, infinite
from kipjax.methods import kip, label_solve
from kipjax.types import Batch, Distilled


@pytest.mark.parametrize("size", [1, 4, 5, 12, 20])
def test_blocks_add_up_to_all_rows_with_the_same_derivative(size, x64):
    rng = np.random.default_rng(0)
    x, y, w = (jnp.asarray(rng.normal(size=shape)) for shape in ((12, 3), (12, 2), (3, 2)))

    def fn(w):
        return lambda x, y: {"loss": jnp.sum((x @ w - y) ** 2), "gram": x.T @ x}

    def total(w, size):
        found = loop.sum_over_blocks(fn(w), (x, y), size)
        return found["loss"] + jnp.sum(found["gram"] ** 2), found

    (expected, parts), slope = jax.value_and_grad(total, has_aux=True)(w, 12)
    (found, others), other_slope = jax.jit(jax.value_and_grad(lambda w: total(w, size), has_aux=True))(w)
    for a, b in ((found, expected), (others, parts), (other_slope, slope)):
        jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, rtol=1e-12), a, b)


def plan(method, targets, support, features, classes=10):
    def shapes(n):
        return [jax.ShapeDtypeStruct(shape, "float32") for shape in ((n, features), (n, classes))]

    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(method.init, key, Distilled(*shapes(support)))
    program = jax.jit(method.step, donate_argnums=1).lower(key, state, Batch(*shapes(targets))).compile()
    return program.memory_analysis()


@pytest.mark.parametrize("make", [kip.make, label_solve.make])
@pytest.mark.parametrize("rest", [0, 7])
def test_what_a_step_works_with_does_not_grow_with_the_targets(make, rest):
    method = make(basic.rbf(), block_size=50)
    few, many = (plan(method, n + rest, 20, 64).temp_size_in_bytes for n in (500, 50_000))
    assert many < few + 20_000 < 400_000  # the targets are 12.8 MB


@pytest.mark.slow
@pytest.mark.parametrize(("make", "most"), [(kip.make, 2.2e9), (label_solve.make, 4.5e9)])
def test_ten_thousand_images_and_sixty_thousand_targets_fit(make, most):
    """Their kernel would take 2.4 GB in float32, its derivative as much again; the support's in float64 is 0.8 GB."""
    assert plan(make(infinite.fc(1), block_size=1000), 60_000, 10_000, 784).temp_size_in_bytes < most
