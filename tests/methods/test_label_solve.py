"""Label Solve: equal to the dense oracle whatever the blocks, and the minimiser of the loss that is evaluated."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kipjax import checks
from kipjax.core import krr
from kipjax.kernels import basic
from kipjax.methods import label_solve
from kipjax.types import Batch, Distilled
from tests.reference import krr as reference


def problem(m=8, n=37, d=5, k=3):
    rng = np.random.default_rng(0)
    start = Distilled(
        jnp.asarray(rng.normal(size=(m, d)), jnp.float32), jnp.asarray(rng.normal(size=(m, k)), jnp.float32)
    )
    return start, Batch(
        jnp.asarray(rng.normal(size=(n, d)), jnp.float32), jnp.asarray(rng.normal(size=(n, k)), jnp.float32)
    )


@pytest.mark.parametrize("block_size", [1, 10, 37, 4096])
def test_streamed_labels_equal_the_dense_oracle(block_size):
    """In a float32 process: kernels and solve run in float64 inside the step."""
    start, batch = problem()
    method = label_solve.make(basic.rbf(), block_size=block_size)
    state, info = jax.jit(method.step)(jax.random.key(0), method.init(jax.random.key(0), start), batch)
    x_s, x_t, y_t = (np.asarray(a, np.float64) for a in (start.x, batch.x, batch.y))
    k_ss, k_ts = reference.rbf(x_s, x_s), reference.rbf(x_t, x_s)
    expected = reference.solve_labels(k_ss, k_ts, y_t, 1e-6)
    np.testing.assert_allclose(state.y, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(state.x, start.x)
    assert state.y.dtype == jnp.float32
    np.testing.assert_allclose(info.loss, reference.loss(k_ss, k_ts, expected, y_t, 1e-6), rtol=1e-5)
    before = reference.loss(k_ss, k_ts, np.asarray(start.y, np.float64), y_t, 1e-6)
    np.testing.assert_allclose(info.start_loss, before, rtol=1e-5)
    assert info.loss < info.start_loss


def test_the_gradient_in_the_labels_is_zero(x64):
    start, batch = jax.tree.map(lambda a: a.astype(jnp.float64), problem())
    method = label_solve.make(basic.rbf(), reg=1e-3)
    solved = method.distilled(method.step(jax.random.key(0), method.init(jax.random.key(0), start), batch)[0])
    k = basic.rbf()
    gradient = jax.grad(lambda y: krr.loss(k(solved.x, solved.x), k(batch.x, solved.x), y, batch.y, reg=1e-3))(solved.y)
    assert float(jnp.abs(gradient).max()) < 1e-12


def test_bad_input():
    start, batch = problem()
    for options, words in [
        ({"reg": -1.0}, "reg is -1.0"),
        ({"block_size": 0}, "block_size is 0"),
        ({"reg_unit": "?"}, "choose"),
        ({"dtype": "float16"}, "dtype is 'float16'; choose"),
    ]:
        with pytest.raises(checks.InputError, match=words):
            label_solve.make(basic.rbf(), **options)
    method = label_solve.make(basic.rbf())
    with pytest.raises(checks.InputError, match="y_s has 3 columns and y_t has 2"):
        method.step(jax.random.key(0), method.init(jax.random.key(0), start), batch._replace(y=jnp.zeros((37, 2))))
