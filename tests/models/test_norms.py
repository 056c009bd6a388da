"""Normalisation against NumPy, running averages, and what would erase the signal."""

import jax
import numpy as np
import pytest
from flax import errors

from kipjax.checks import InputError
from kipjax.models.norms import NORMS, Norm
from tests.models.common import images, random_variables
from tests.reference import models as reference

X = 3.0 + 2.0 * images(5, 3, 4, 8)


@pytest.mark.parametrize("kind", ["instance", "layer", "group"])
@pytest.mark.parametrize("train", [False, True])
def test_per_example_norms_match_numpy(kind, train):
    layer = Norm(kind)
    variables = random_variables(layer, X.shape)
    y = layer.apply(variables, X, train=train)
    params = variables["params"]
    assert params["scale"].shape == params["bias"].shape == ((3, 4, 8) if kind == "layer" else (8,))
    expected = reference.standardise(X, kind) * params["scale"] + params["bias"]
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def test_number_of_groups():
    layer = Norm("group", groups=2)
    variables = {"params": {"scale": np.ones(8), "bias": np.zeros(8)}}
    np.testing.assert_allclose(layer.apply(variables, X), reference.standardise(X, "group", 2), rtol=1e-4, atol=1e-5)
    per_channel = Norm("group", groups=8).apply(variables, X)
    np.testing.assert_allclose(per_channel, Norm("instance").apply(variables, X), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(5, 3, 4, 8), (5, 8)])
def test_batch_norm_in_training_uses_the_batch_and_moves_the_averages(shape):
    layer, x = Norm("batch", momentum=0.1), 3.0 + 2.0 * images(*shape)
    variables = random_variables(layer, shape)
    old = variables["batch_stats"]
    y, new = layer.apply(variables, x, train=True, mutable=["batch_stats"])
    expected = reference.standardise(x, "batch") * variables["params"]["scale"] + variables["params"]["bias"]
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    flat = x.reshape(-1, 8)
    np.testing.assert_allclose(new["batch_stats"]["mean"], 0.1 * old["mean"] + 0.9 * flat.mean(0), rtol=1e-5)
    np.testing.assert_allclose(new["batch_stats"]["var"], 0.1 * old["var"] + 0.9 * flat.var(0), rtol=1e-5)


def test_batch_norm_in_prediction_uses_the_averages():
    layer = Norm("batch")
    variables = random_variables(layer, X.shape)
    expected = reference.Network(
        {"params": {"a": variables["params"]}, "batch_stats": {"a": variables["batch_stats"]}}, "batch"
    )
    np.testing.assert_allclose(layer.apply(variables, X), expected.norm(X, "a"), rtol=1e-5, atol=1e-5)


def test_batch_norm_starts_as_the_identity_and_initialising_moves_nothing():
    variables = Norm("batch").init(jax.random.key(0), X, train=True)
    np.testing.assert_array_equal(variables["batch_stats"]["mean"], np.zeros(8))
    np.testing.assert_array_equal(variables["batch_stats"]["var"], np.ones(8))
    np.testing.assert_allclose(Norm("batch").apply(variables, X), X, rtol=1e-4)


def test_batch_norm_in_training_does_not_forget_silently():
    with pytest.raises(errors.ModifyScopeVariableError, match="batch_stats"):
        Norm("batch").apply(random_variables(Norm("batch"), X.shape), X, train=True)


def test_a_large_mean_costs_no_precision():
    x = 1e4 + images(4, 8, 8, 4)
    variables = {"params": {"scale": np.ones(4), "bias": np.zeros(4)}}
    np.testing.assert_allclose(np.std(Norm("instance").apply(variables, x), axis=(1, 2)), 1.0, atol=1e-3)


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (Norm("instance"), (2, 1, 1, 8), "every mean of instance norm would be of a single value.*'layer'"),
        (Norm("instance"), (2, 8), "every mean of instance norm"),
        (Norm("group", groups=8), (2, 1, 1, 8), "every mean of group norm"),
        (Norm("layer"), (2, 1, 1, 1), "every mean of layer norm"),
        (Norm("batch"), (1, 1, 1, 8), "every mean of batch norm"),
        (Norm("group", groups=3), (2, 4, 4, 8), r"channels is 8, which is not divisible by groups \(3\)"),
        (Norm("none"), (2, 4, 4, 8), "norm is 'none'; choose one of batch"),
    ],
)
def test_refusals(layer, shape, message):
    variables = {"params": {}, "batch_stats": {"mean": np.zeros(8), "var": np.ones(8)}}
    with pytest.raises(InputError, match=message):
        layer.apply(variables, images(*shape), train=True, mutable=["batch_stats"])


def test_layer_and_group_norm_need_no_space():
    for kind in ("layer", "group"):
        variables = {"params": {"scale": np.ones(8), "bias": np.zeros(8)}}
        y = Norm(kind).apply(variables, images(3, 8))
        np.testing.assert_allclose(y, reference.standardise(images(3, 8), kind), rtol=1e-3, atol=1e-4)


def test_every_norm_is_tested_here():
    assert set(NORMS) == {"none", "batch", "instance", "layer", "group"}
