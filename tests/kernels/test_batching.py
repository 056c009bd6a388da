"""Block-wise evaluation equals plain evaluation, in less memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kipjax.checks import InputError
from kipjax.kernels import basic, batching, infinite


def points(n, seed=0):
    return np.random.default_rng(seed).normal(size=(n, 6))


@pytest.mark.parametrize(("n1", "n2", "size"), [(7, 3, 1), (7, 3, 4), (8, 9, 3), (8, 9, 4), (1, 5, 2), (5, 5, 9)])
@pytest.mark.parametrize("kernel_fn", [basic.rbf(), infinite.fc(1)], ids=["rbf", "fc1"])
def test_values_and_gradients_are_those_of_the_plain_kernel(kernel_fn, n1, n2, size, x64):
    x1, x2, weights = points(n1), points(n2, 1), np.random.default_rng(2).normal(size=(n1, n2))

    def value(kernel_fn):
        return jax.jit(jax.value_and_grad(lambda a, b: (kernel_fn(a, b) * weights).sum(), (0, 1)))(x1, x2)

    plain, blocks = value(kernel_fn), value(batching.batch(kernel_fn, size))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12), plain, blocks)


def test_square_matrices_keep_their_exact_diagonal():
    x, kernel_fn = jnp.asarray(points(7), jnp.float32), infinite.fc(1)
    blocks = batching.batch(kernel_fn, 4)
    np.testing.assert_allclose(blocks(x, x), kernel_fn(x, x), rtol=3e-6)
    gradients = [jax.jit(jax.grad(lambda a, k=k: (k(a, a) ** 2).sum()))(x) for k in (kernel_fn, blocks)]
    np.testing.assert_allclose(*gradients, rtol=1e-4)


def test_images_in_blocks_without_jit():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 4, 4, 1)), jnp.float32)
    kernel_fn = infinite.conv(1, pool=True)
    np.testing.assert_allclose(batching.batch(kernel_fn, 2)(x, x + 1), kernel_fn(x, x + 1), rtol=3e-6)


def test_the_backward_pass_holds_few_blocks():
    x1, x2 = jnp.zeros((512, 4)), jnp.zeros((512, 4))

    def temporary_bytes(kernel_fn):
        gradient = jax.jit(jax.grad(lambda a, b: (kernel_fn(a, b) ** 2).sum()))
        return gradient.lower(x1, x2).compile().memory_analysis().temp_size_in_bytes

    assert temporary_bytes(batching.batch(infinite.fc(3), 64)) < temporary_bytes(infinite.fc(3)) / 4


@pytest.mark.parametrize("size", [0, -1, 2.5, "all"])
def test_a_wrong_size_is_named(size):
    with pytest.raises(InputError, match=r"batch: size is .*; it must be a whole number, at least 1"):
        batching.batch(basic.linear(), size)
