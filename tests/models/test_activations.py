"""Activations: values, derivatives where a naive formula overflows, and refusals. Initial parameters: moments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kipjax.checks import InputError
from kipjax.models import activations
from kipjax.models.initializers import INITS

X = np.array([-1e38, -1e4, -20.0, -0.3, -1e-3, 0.0, 1e-3, 0.3, 20.0, 1e4, 1e38], np.float32)


@pytest.mark.parametrize("beta", [1.0, 60.0])
def test_softplus_formula(beta):
    x = X.astype(np.float64)
    np.testing.assert_allclose(
        activations.softplus(jnp.asarray(X), beta), np.logaddexp(0, beta * x) / beta, rtol=1e-6, atol=1e-9
    )


def test_softplus_derivatives_are_exact_and_finite():
    beta = 60.0
    first = jax.grad(lambda x: activations.softplus(x, beta))
    with np.errstate(over="ignore"):
        sigmoid = 1 / (1 + np.exp(-beta * X.astype(np.float64)))
    np.testing.assert_allclose(jax.vmap(first)(X), sigmoid, rtol=1e-5, atol=1e-30)
    np.testing.assert_allclose(jax.vmap(jax.grad(first))(X), beta * sigmoid * (1 - sigmoid), rtol=1e-4, atol=1e-6)
    assert float(jax.grad(first)(0.0)) == pytest.approx(beta / 4)


def test_softplus_tends_to_relu():
    x = np.linspace(-1, 1, 41, dtype=np.float32)
    gap = [float(jnp.max(activations.activation("softplus", sharpness=beta)(x) - nn_relu(x))) for beta in (1, 60, 600)]
    np.testing.assert_allclose(gap, np.log(2) / np.array([1, 60, 600]), rtol=1e-4)


def nn_relu(x):
    return np.maximum(x, 0)


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("relu", nn_relu),
        ("softplus", lambda x: np.log1p(np.exp(60 * x)) / 60),
        ("leaky", lambda x: np.where(x > 0, x, 0.01 * x)),
        ("sigmoid", lambda x: 1 / (1 + np.exp(-x))),
        ("swish", lambda x: x / (1 + np.exp(-x))),
        ("tanh", np.tanh),
    ],
)
def test_every_activation_is_its_formula(name, formula):
    x = np.linspace(-2, 2, 9)
    np.testing.assert_allclose(activations.activation(name)(jnp.float32(x)), formula(x), rtol=1e-5, atol=1e-6)


def test_the_formulas_above_are_all():
    assert set(activations.ACTIVATIONS) == {"relu", "softplus", "leaky", "sigmoid", "swish", "tanh"}


def test_refusals():
    with pytest.raises(InputError, match="activation is 'elu'; choose one of relu, softplus, leaky, sigmoid"):
        activations.activation("elu")
    with pytest.raises(InputError, match="sharpness is 0; it must be above 0"):
        activations.activation("softplus", sharpness=0)


FAN_IN, FAN_OUT = 3 * 3 * 32, 3 * 3 * 128


@pytest.mark.parametrize(
    ("name", "variance", "largest", "bias", "head_bias"),
    [  # largest: None where the distribution has no bound; a truncated normal ends at two standard deviations
        ("lecun", 1 / FAN_IN, 2 / 0.87962566 * FAN_IN**-0.5, 0.0, 0.0),
        ("torch", 1 / (3 * FAN_IN), FAN_IN**-0.5, (3 * FAN_IN) ** -0.5, (3 * FAN_IN) ** -0.5),
        ("he", 2 / FAN_IN, None, 0.0, 0.0),
        ("he_out", 2 / FAN_OUT, None, 0.0, (3 * FAN_IN) ** -0.5),
        ("rfad", 2 / FAN_IN, None, 0.1, 0.1),
        ("kip", 1 / FAN_IN, 2 / 0.87962566 * FAN_IN**-0.5, 0.0, 0.1),
        ("xavier", 2 / (FAN_IN + FAN_OUT), None, 0.0, 0.0),
    ],
)
def test_moments_of_initial_parameters(name, variance, largest, bias, head_bias):
    init, key = INITS[name], jax.random.key(0)
    kernel = init.kernel(key, (3, 3, 32, 128), jnp.float32)
    np.testing.assert_allclose(jnp.var(kernel), variance, rtol=0.03)
    deviation = np.sqrt(variance)
    assert abs(jnp.mean(kernel)) < 4 * deviation / np.sqrt(kernel.size)
    if largest is None:
        assert jnp.max(jnp.abs(kernel)) > 3.5 * deviation
    else:
        assert 0.99 * largest < jnp.max(jnp.abs(kernel)) <= largest * 1.0001
    for draw, expected in ((init.bias, bias), (init.head_bias, head_bias)):
        np.testing.assert_allclose(jnp.std(draw(FAN_IN)(key, (20000,), jnp.float32)), expected, rtol=0.03)


def test_the_initialisations_above_are_all():
    assert set(INITS) == {"lecun", "torch", "he", "he_out", "rfad", "kip", "xavier"}
