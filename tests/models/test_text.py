"""Networks for sentences: against NumPy and as modules of the contract."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kipjax import checks, models
from kipjax.methods import dd
from kipjax.models import network
from kipjax.types import Batch

X = np.random.default_rng(0).normal(size=(2, 6, 3, 1)).astype(np.float32)


def built(name, **options):
    model = models.get(name, num_classes=4, **options)
    return model, jax.jit(lambda: network.init(model, jax.random.key(0), jnp.asarray(X)))()


def test_convolutions_over_words_are_numpys():
    model, variables = built("text_convnet", width=5)
    features = []
    for words in (3, 4, 5):
        p = variables["params"][f"conv{words}"]
        kernel = np.asarray(p["kernel"])[:, 0]
        at = [np.einsum("nwd,wdf->nf", X[:, i : i + words, :, 0], kernel) + p["bias"] for i in range(6 - words + 1)]
        features.append(np.maximum(np.stack(at), 0).max(axis=0))
    logits, found = model.apply(variables, X, features=True)
    np.testing.assert_allclose(found, np.concatenate(features, axis=1), rtol=1e-4, atol=1e-5)
    assert logits.shape == (2, 4)
    dropped, _ = network.train_forward(model, variables, X, dropout=jax.random.key(1))
    assert not np.allclose(dropped, logits)


def run(cell, x, w, u, b):
    h = c = np.zeros((len(x), u.shape[0]))
    for t in range(x.shape[1]):
        a = x[:, t] @ w + h @ u + b
        if cell == "rnn":
            h = np.tanh(a)
            continue
        i, f, g, o = np.split(a, 4, axis=1)
        c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
        h = np.tanh(c) / (1 + np.exp(-o))
    return h


def both(p, name):
    return p[f"{name}_input_bias"] + p[f"{name}_state_bias"]


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_recurrent_networks_are_numpys(cell):
    model, variables = built(f"bi_{cell}", width=2, depth=1)
    variables["params"]["layer0_forward_state_bias"] += 0.3
    variables["params"]["layer0_forward_input_bias"] -= 0.1
    p = {name: np.asarray(value) for name, value in variables["params"].items() if name != "head"}
    ends = [
        run(cell, x, p[f"layer0_{way}_input"], p[f"layer0_{way}_state"], both(p, f"layer0_{way}"))
        for way, x in (("forward", X[..., 0]), ("backward", X[:, ::-1, :, 0]))
    ]
    found = model.apply(variables, X, features=True)[1]
    np.testing.assert_allclose(found, np.concatenate(ends, axis=1), rtol=1e-4, atol=1e-5)
    deeper, variables = built(f"bi_{cell}", width=2)
    assert deeper.apply(variables, X).shape == (2, 4) and "layer1_backward_state" in variables["params"]


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_two_biases_move_their_sum_twice_as_far_as_one(cell):
    model, variables = built(f"bi_{cell}", width=2, depth=1)
    gradient = jax.grad(lambda params: jnp.sum(model.apply({"params": params}, X) ** 2))(variables["params"])
    for way in ("forward", "backward"):
        one, other = (gradient[f"layer0_{way}_{part}_bias"] for part in ("input", "state"))
        assert np.any(one) and not np.any(variables["params"][f"layer0_{way}_state_bias"])
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_a_training_goes_through_dropout_and_recurrence():
    for name, options in (("text_convnet", {"width": 2}), ("bi_lstm", {"width": 2, "depth": 1})):
        model, variables = built(name, **options)
        y = jnp.eye(4)[jnp.asarray([0, 1])]

        def end(x, key, model=model, variables=variables, y=y):
            made = dd.train(key, model, variables, Batch(x[None], y[None]), jnp.asarray([0.3, 0.3]))
            return jnp.sum(network.forward(model, made, x)[0] ** 2)

        slope = jax.jit(jax.grad(end))
        found = slope(jnp.asarray(X), jax.random.key(1))
        assert np.all(np.isfinite(found)) and np.any(found)
        other = slope(jnp.asarray(X), jax.random.key(2))
        assert np.array_equal(found, other) == (name == "bi_lstm")


def test_bad_input():
    with pytest.raises(checks.InputError, match="expected sentences"):
        built("bi_rnn")[0].apply({"params": {}}, np.zeros((1, 6, 3, 2)))
    with pytest.raises(checks.InputError, match="expected sentences"):
        built("bi_lstm")[0].apply({"params": {}}, np.zeros((1, 0, 3, 1)))
    with pytest.raises(checks.InputError, match="smaller than the kernel"):
        models.get("text_convnet", num_classes=2).init(jax.random.key(0), X[:, :4])
    with pytest.raises(checks.InputError, match="cell is 'gru'"):
        models.get("bi_rnn", num_classes=2, cell="gru")


def test_filters_start_like_those_of_one_channel():
    """Glorot's variance with the area of a kernel of (words, dimension) in both fans, as torch draws it."""
    model = models.get("text_convnet", num_classes=2, width=60)
    params = model.init(jax.random.key(0), jnp.ones((1, 8, 80, 1)))["params"]
    for words in (3, 4, 5):
        kernel = params[f"conv{words}"]["kernel"]
        assert kernel.shape == (words, 1, 80, 60)
        np.testing.assert_allclose(kernel.std(), (2 / (words * 80 * 61)) ** 0.5, rtol=0.05)
