"""Kernels by name."""

import jax.numpy as jnp
import numpy as np
import pytest

from kipjax import kernels
from kipjax.checks import InputError
from kipjax.kernels import basic, infinite

X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 4, 1)), jnp.float32)


@pytest.mark.parametrize(
    ("config", "kernel_fn"),
    [
        ({"name": "linear"}, basic.linear()),
        ({"name": "rbf", "gamma": 0.3}, basic.rbf(0.3)),
        ({"name": "fc1", "get": "ntk", "b_std": 0.1}, infinite.fc(1)),
        ({"name": "fc04", "get": "nngp"}, infinite.fc(4, get="nngp")),
        ({"name": "conv2", "parameterization": "standard"}, infinite.conv(2, parameterization="standard")),
        ({"name": "conv1", "pool": True}, infinite.conv(1, pool=True)),
        ({"name": "convpool2", "readout": "gap"}, infinite.conv(2, pool=True, readout="gap")),
        ({"name": "convnet2", "w_std": 1.0}, infinite.convnet(2, w_std=1.0)),
        ({"name": "myrtle5", "get": "nngp"}, infinite.myrtle(5, get="nngp")),
    ],
    ids=lambda v: v["name"] if isinstance(v, dict) else "",
)
def test_names_mean_the_factories(config, kernel_fn):
    np.testing.assert_array_equal(kernels.get(**config)(X, X), kernel_fn(X, X))


@pytest.mark.parametrize("name", ["", "fc", "mlp1", "rbf2", "linear1", "fc-1", "fc1 ", "FC1", "1", None, 3, "fc\n1"])
def test_unknown_names_list_the_known_ones(name):
    with pytest.raises(InputError, match=r"kernels.get: name is .*; choose one of linear, rbf, fc<depth>.*myrtle10"):
        kernels.get(name)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"name": "fc1", "gamma": 1.0}, "fc1 has no option 'gamma'; its options are w_std, b_std, get"),
        ({"name": "fc1", "depth": 2}, "fc1 has no option 'depth'"),
        ({"name": "linear", "get": "ntk"}, "linear has no option 'get'; its options are none"),
        ({"name": "convpool2", "pool": False}, "convpool2 has no option 'pool'"),
        ({"name": "fc0"}, "depth is 0"),
        ({"name": "myrtle6"}, "depth is 6; choose one of 5, 7, 10"),
        ({"name": "rbf", "gamma": -1}, "gamma is -1"),
    ],
)
def test_wrong_options_are_named(config, message):
    with pytest.raises(InputError, match=message):
        kernels.get(**config)


def test_every_listed_name_exists():
    for name in kernels.names():
        kernels.get(name.replace("<depth>", "2"))
