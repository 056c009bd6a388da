"""KIP with the settings of the authors' notebook against a plain float64 loop written out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kipjax import data
from kipjax.core import labels
from kipjax.kernels import infinite
from kipjax.methods import kip
from kipjax.types import Batch, Distilled

STEPS, LR, REG, B_STD = 20, 0.04, 1e-6, 0.1


def fc1_ntk(a, b):
    """Dense, ReLU, dense in the NTK parametrisation with sigma_w^2 = 2, from the recursion in float64."""
    a, b = (z.reshape(len(z), -1) for z in (a, b))
    bias, d = B_STD**2, a.shape[1]
    cov = 2 * (a @ b.T) / d + bias
    var_a, var_b = 2 * (a**2).sum(1) / d + bias, 2 * (b**2).sum(1) / d + bias
    product = jnp.sqrt(jnp.outer(var_a, var_b))
    cosine = jnp.clip(cov / product, -1, 1)
    inside = cosine**2 < 1 - 1e-14
    sine = jnp.where(inside, jnp.sqrt(jnp.where(inside, 1 - cosine**2, 1.0)), 0.0)
    angle = jnp.arctan2(sine, jnp.where(inside, cosine, 1.0))
    slope = 0.5 - angle / (2 * jnp.pi)
    nngp = product * sine / (2 * jnp.pi) + cov * slope
    return 2 * nngp + bias + 2 * cov * slope


def plain_loop(x, y, batches):
    """Notebook: Cholesky solve, 0.5 * mean, Adam with its published update, all in float64."""

    def loss(x, batch):
        k_ss, k_ts = fc1_ntk(x, x), fc1_ntk(batch.x, x)
        system = k_ss + REG * jnp.trace(k_ss) / len(x) * jnp.eye(len(x))
        return 0.5 * jnp.mean((batch.y - k_ts @ jnp.linalg.solve(system, y)) ** 2)

    gradient = jax.jit(jax.value_and_grad(loss))
    first, second, losses = np.zeros(x.shape), np.zeros(x.shape), []
    for t, batch in enumerate(batches, start=1):
        value, g = (np.asarray(a) for a in gradient(x, batch))
        losses.append(float(value))
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g**2
        x = x - LR * (first / (1 - 0.9**t)) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
    return losses, x


def compare(dataset, per_class, batch_size):
    task = data.preprocess.apply(data.preprocess.standardize(dataset.x_train), dataset.x_train)
    start = data.initial.real(jax.random.key(0), task, dataset.y_train, ipc=per_class, num_classes=10)
    sample = data.samplers.class_balanced(
        task, labels.one_hot(dataset.y_train, 10), dataset.y_train, batch_size=batch_size, num_classes=10
    )
    batches = [sample(jax.random.key(i)) for i in range(STEPS)]
    with jax.enable_x64(True):
        start, batches = jax.tree.map(
            lambda a: jnp.asarray(np.asarray(a), jnp.float64), (Distilled(*start[:2]), batches)
        )
        method = kip.make(infinite.fc(1, b_std=B_STD), learning_rate=LR, reg=REG)
        state, step, ours = method.init(jax.random.key(0), start), jax.jit(method.step), []
        for batch in batches:
            state, info = step(jax.random.key(0), state, Batch(*batch))
            ours.append(float(info.loss))
        theirs, x = plain_loop(start.x, start.y, batches)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    np.testing.assert_allclose(state.x, x, atol=1e-6)
    assert ours[-1] < 0.9 * ours[0]


@pytest.mark.slow
def test_digits_agree_with_a_plain_float64_loop_over_20_steps():
    compare(data.load("digits"), 10, 1000)


@pytest.mark.slow
def test_fashion_mnist_agrees_with_a_plain_float64_loop_over_20_steps(fashion_mnist):
    compare(fashion_mnist, 10, 5000)
