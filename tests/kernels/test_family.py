"""Random kernel families."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kipjax.checks import InputError
from kipjax.kernels import basic, family, infinite

KERNELS = [basic.linear(), basic.rbf(), infinite.fc(1)]


def points(n, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(n, 5)), jnp.float32)


def member(key):
    """Which of ``KERNELS`` a key draws."""
    x = points(1)
    values = np.array([kernel_fn(x, x)[0, 0] for kernel_fn in KERNELS])
    return int(np.argmin(np.abs(values - family.draw(key, KERNELS)(x, x)[0, 0])))


def test_members_are_drawn_equally_often():
    x = points(1)
    keys = jax.random.split(jax.random.key(0), 3000)
    drawn = jax.jit(jax.vmap(lambda key: family.draw(key, KERNELS)(x, x)[0, 0]))(keys)
    values = [float(kernel_fn(x, x)[0, 0]) for kernel_fn in KERNELS]
    counts = [int(jnp.isclose(drawn, value, rtol=1e-4).sum()) for value in values]
    assert sum(counts) == 3000
    assert min(counts) > 1000 - 5 * (3000 * 2 / 9) ** 0.5


@pytest.mark.parametrize("seed", range(4))
def test_value_and_gradient_are_those_of_the_drawn_member(seed):
    key, x1, x2 = jax.random.key(seed), points(4), points(3, 1)
    expected = KERNELS[member(key)]

    def value(kernel_fn, a):
        return (kernel_fn(a, x2) ** 2).sum() + (kernel_fn(a, a) ** 2).sum()

    drawn = jax.jit(jax.value_and_grad(lambda a, key: value(family.draw(key, KERNELS), a)))(x1, key)
    for got, want in zip(drawn, jax.value_and_grad(lambda a: value(expected, a))(x1)):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_a_drawn_kernel_keeps_the_exact_diagonal_of_a_square_matrix():
    x, kernel_fn = points(6), infinite.fc(3)
    drawn = family.draw(jax.random.key(0), [kernel_fn, kernel_fn])
    np.testing.assert_allclose(np.diag(drawn(x, x)), np.diag(kernel_fn(x, x)), rtol=1e-6)


def test_drawing_inside_scan_changes_the_member_from_step_to_step():
    x = points(1)
    keys = jax.random.split(jax.random.key(1), 20)
    _, values = jax.lax.scan(lambda carry, key: (carry, family.draw(key, KERNELS)(x, x)[0, 0]), 0, keys)
    assert len(np.unique(np.round(values, 4))) == 3


@pytest.mark.parametrize(("name", "count"), [("fc1-3+conv1-3", 6), ("fc1-3+conv1-2", 5)])
def test_families_of_the_paper(name, count):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 4, 1)), jnp.float32)
    kernels = family.members(name, b_std=0.05)
    assert len(kernels) == count
    np.testing.assert_array_equal(
        kernels[1](x, x), infinite.fc(2, b_std=0.05, parameterization="standard", width=1024)(x, x)
    )
    np.testing.assert_array_equal(
        kernels[4](x, x), infinite.conv(2, b_std=0.05, parameterization="standard", width=128)(x, x)
    )


def test_wrong_families_are_named():
    with pytest.raises(InputError, match="draw: kernels is empty"):
        family.draw(jax.random.key(0), [])
    with pytest.raises(InputError, match="members: name is 'fc'; choose one of fc1-3"):
        family.members("fc")
