"""First-order models and products with the tangent kernel, against dense Jacobians."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kipjax.checks import InputError
from kipjax.core import linearize, pool

pytestmark = pytest.mark.usefixtures("x64")


def apply(params, x):
    return jnp.tanh(x @ params["a"]) @ params["b"]


def setting():
    rng = np.random.default_rng(0)
    params = {"a": jnp.asarray(rng.normal(size=(3, 4))), "b": jnp.asarray(rng.normal(size=(4, 2)))}
    tau = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape)), params)
    return params, tau, jnp.asarray(rng.normal(size=(5, 3)))


def rows(params, x):
    """The Jacobian ``[n k, parameters]`` by brute force, column after column."""
    flat, unflatten = jax.flatten_util.ravel_pytree(params)
    columns = []
    for i in range(flat.size):
        up, down = (apply(unflatten(flat.at[i].add(s)), x) for s in (1e-6, -1e-6))
        columns.append((up - down).ravel() / 2e-6)
    return np.stack(columns, 1), jax.flatten_util.ravel_pytree


def test_the_model_is_first_order_and_centred_it_is_linear():
    params, tau, x = setting()
    matrix, ravel = rows(params, x)
    centred = linearize.linearize(apply, params, centered=True)
    expected = (matrix @ ravel(tau)[0]).reshape(5, 2)
    np.testing.assert_allclose(centred(tau, x), expected, rtol=1e-6)
    np.testing.assert_allclose(linearize.linearize(apply, params)(tau, x), apply(params, x) + expected, rtol=1e-6)
    double = jax.tree.map(lambda t: 2 * t, tau)
    np.testing.assert_allclose(centred(double, x), 2 * centred(tau, x), rtol=1e-12)
    assert not np.any(centred(jax.tree.map(jnp.zeros_like, tau), x))


def test_kernel_products_and_jacobian_agree():
    params, tau, x = setting()
    matrix, ravel = rows(params, x)
    kernel = linearize.ntk(linearize.jacobian(apply, params, x))
    np.testing.assert_allclose(kernel, matrix @ matrix.T, rtol=1e-5, atol=1e-8)
    u = jnp.asarray(np.random.default_rng(1).normal(size=(5, 2)))
    product = linearize.ntk_vector_product(apply, params, x[:2], x, u)
    np.testing.assert_allclose(product.ravel(), kernel[:4] @ u.ravel(), rtol=1e-9)
    both = linearize.products(apply, params, x)
    np.testing.assert_allclose(both.value, apply(params, x))
    np.testing.assert_allclose(both.jvp(tau).ravel(), matrix @ ravel(tau)[0], rtol=1e-6)
    np.testing.assert_allclose(ravel(both.vjp(u))[0], matrix.T @ u.ravel(), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("size", [0, 1, 2, 5, 9])
def test_blocks_change_neither_values_nor_derivatives(size):
    params, _, x = setting()

    def total(params, x, size):
        out = linearize.in_blocks(lambda x, y: apply(params, x) * y, x, x[:, :1], size=size)
        return jnp.sum(out**2)

    for argument in (0, 1):
        got, expected = (jax.grad(total, argument)(params, x, s) for s in (size, 0))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10), got, expected)


def test_a_pool_draws_members_alike_and_changes_one_alone():
    made = pool.init(jax.random.key(0), lambda key: {"w": jax.random.normal(key, (3,))}, 4)
    assert made.members["w"].shape == (4, 3)
    assert len(np.unique(made.members["w"])) == 12
    assert made.ages.tolist() == [0] * 4
    assert pool.init(jax.random.key(0), lambda key: jnp.zeros(()), 10, stagger_to=100).ages.tolist() == list(
        range(0, 100, 10)
    )
    picks = [int(pool.pick(jax.random.key(i), made)) for i in range(400)]
    assert min(np.bincount(picks, minlength=4)) > 60
    member, age = pool.get(made, jnp.asarray(2))
    changed = pool.put(made, jnp.asarray(2), {"w": member["w"] + 1}, age + 7)
    assert changed.ages.tolist() == [0, 0, 7, 0]
    np.testing.assert_array_equal(
        changed.members["w"][jnp.asarray([0, 1, 3])], made.members["w"][jnp.asarray([0, 1, 3])]
    )
    with pytest.raises(InputError, match="size is 0"):
        pool.init(jax.random.key(0), lambda key: jnp.zeros(()), 0)
