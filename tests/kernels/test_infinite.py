"""Infinite-width kernels against recursions in NumPy, finite differences and a wide finite network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kipjax.checks import InputError
from kipjax.kernels import infinite
from tests.reference import kernels as reference


def images(n, height=4, width=4, channels=2, seed=0):
    return np.random.default_rng(seed).normal(size=(n, height, width, channels))


NT = {"backend": "neural_tangents"}  # the tiled engine has tests of its own

ARCHITECTURES = {
    "fc1": (lambda **o: infinite.fc(1, **o), ["dense"], (4, 4)),
    "fc3": (lambda **o: infinite.fc(3, **o), ["dense"] * 3, (4, 4)),
    "conv1": (lambda **o: infinite.conv(1, **NT, **o), ["conv", "flatten"], (4, 3)),
    "conv2": (lambda **o: infinite.conv(2, **NT, **o), ["conv", "conv", "flatten"], (4, 3)),
    "conv2 gap": (lambda **o: infinite.conv(2, readout="gap", **NT, **o), ["conv", "conv", "gap"], (4, 3)),
    "conv2 pool": (lambda **o: infinite.conv(2, pool=True, **NT, **o), ["conv", "pool"] * 2 + ["flatten"], (5, 4)),
    "conv1 pool gap": (
        lambda **o: infinite.conv(1, pool=True, readout="gap", **NT, **o),
        ["conv", "pool", "gap"],
        (4, 4),
    ),
    "convnet2": (lambda **o: infinite.convnet(2, **NT, **o), ["conv"] + ["conv", "pool"] * 2 + ["flatten"], (4, 4)),
    "myrtle5": (
        lambda **o: infinite.myrtle(5, **NT, **o),
        ["conv", "conv", "pool", "conv", "pool", "conv", "gap"],
        (8, 8),
    ),
    "myrtle7": (
        lambda **o: infinite.myrtle(7, **NT, **o),
        ["conv", "conv", "pool", "conv", "conv", "pool", "conv", "conv", "gap"],
        (4, 4),
    ),
    "myrtle10": (
        lambda **o: infinite.myrtle(10, **NT, **o),
        ["conv"] * 3 + ["pool"] + ["conv"] * 3 + ["pool"] + ["conv"] * 3 + ["gap"],
        (4, 4),
    ),
}

OPTIONS = [
    {"get": "ntk"},
    {"get": "nngp", "b_std": 0.01},
    {"get": "ntk", "b_std": None, "parameterization": "standard", "width": 64},
    {"get": "ntk", "w_std": 1.2, "parameterization": "standard", "readout_parameterization": "standard", "width": 32},
]


CASES = [(name, options) for name in ("fc1", "fc3", "conv2", "conv1 pool gap") for options in OPTIONS]
CASES += [(name, OPTIONS[-1]) for name in ARCHITECTURES if (name, OPTIONS[-1]) not in CASES]


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_kernels_equal_the_recursions(name, options, x64):
    make, architecture, size = ARCHITECTURES[name]
    x1, x2 = images(3, *size), images(2, *size, seed=1)
    kernel_fn = make(**options)
    options = {key.replace("readout_parameterization", "readout"): value for key, value in options.items()}
    options.setdefault("width", 1)
    np.testing.assert_allclose(kernel_fn(x1, x2), reference.kernel(architecture, x1, x2, **options), rtol=1e-12)
    np.testing.assert_allclose(kernel_fn(x1, x1), reference.kernel(architecture, x1, x1, **options), rtol=1e-12)


def double(kernel_fn, *inputs):
    """The same kernel in float64; one input stands for the same array twice."""
    with jax.enable_x64(True):
        inputs = [np.asarray(x, np.float64) for x in inputs]
        return np.asarray(kernel_fn(inputs[0], inputs[-1]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "kernel_fn", [infinite.fc(6), infinite.conv(2, **NT), infinite.convnet(1, **NT)], ids=["fc6", "conv2", "convnet1"]
)
def test_float32_is_accurate_and_its_square_matrices_have_an_exact_diagonal(kernel_fn):
    x = images(6, 8, 8, 1).astype(np.float32)
    square = kernel_fn(x, x)
    assert square.dtype == jnp.float32
    np.testing.assert_allclose(square, double(kernel_fn, x), rtol=3e-6)
    np.testing.assert_allclose(jax.jit(lambda a: kernel_fn(a, a))(x), square, rtol=1e-6)
    np.testing.assert_allclose(kernel_fn(x, x[:4] + 1), double(kernel_fn, x, x[:4] + 1), rtol=3e-6)


def test_variance_recursion_for_critical_weights(x64):
    """With w_std**2 = 2 every (dense, ReLU) adds b_std**2 / 2, and the readout doubles and adds b_std**2."""
    x = images(4)
    variance = (x.reshape(4, -1) ** 2).mean(1)
    for depth in (1, 3):
        diagonal = np.diag(infinite.fc(depth, get="nngp", b_std=0.3)(x, x))
        np.testing.assert_allclose(diagonal, 2 * variance + (depth + 1) * 0.09, rtol=1e-12)


@pytest.mark.parametrize(
    ("name", "get"), [("fc3", "ntk"), ("conv2", "nngp"), ("conv2 pool", "ntk"), ("conv2 gap", "nngp")]
)
def test_square_matrices_are_symmetric_and_positive_semidefinite(name, get, x64):
    make, _, size = ARCHITECTURES[name]
    x = images(5, *size)
    k = np.asarray(make(get=get)(x, x))
    np.testing.assert_allclose(k, k.T, rtol=1e-12)
    assert np.linalg.eigvalsh(k).min() > -1e-10 * np.trace(k)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fc2", "conv2", "convnet1"])
def test_gradients_equal_finite_differences(name, x64):
    kernel_fn = {"fc2": infinite.fc(2), "conv2": infinite.conv(2, **NT), "convnet1": infinite.convnet(1, **NT)}[name]
    x1, x2, direction = images(3, 4, 4, 1), images(2, 4, 4, 1, seed=1), images(3, 4, 4, 1, seed=2)
    weights = np.random.default_rng(3).normal(size=(3, 2))

    for value in (
        lambda step: (kernel_fn(x1 + step * direction, x2) * weights).sum(),
        lambda step: (kernel_fn(x2, x1 + step * direction).T * weights).sum(),
        lambda step: (lambda x: (kernel_fn(x, x)[:, :2] * weights).sum())(x1 + step * direction),
    ):
        numeric = (value(1e-5) - value(-1e-5)) / 2e-5
        np.testing.assert_allclose(jax.grad(value)(0.0), numeric, rtol=1e-7)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("name", "b_std"), [("fc3", 0.1), ("fc3", 0.0), ("conv2", 0.0), ("conv1 pool gap", 0.0)])
def test_gradients_are_finite_at_identical_and_zero_inputs(name, b_std, dtype):
    make, _, size = ARCHITECTURES[name]
    kernel_fn = make(b_std=b_std)

    @jax.grad
    def gradient(a, x):
        return kernel_fn(a, a).sum() + kernel_fn(a, x).sum() + kernel_fn(x, a).sum()

    with jax.enable_x64(dtype == np.float64):
        one = images(2, *size, 1)
        x = jnp.asarray(np.concatenate([one, one, 0 * one]), dtype)
        out = jax.jit(gradient)(x, x)
        assert out.dtype == dtype
        assert np.isfinite(out).all()


def test_diagonal_gradient_is_that_of_the_variance(x64):
    """At identical points the NNGP of the paper's FC1 is 2 |x|^2 / d + const, so its gradient is 4 x / d."""
    x = images(1)
    gradient = jax.grad(lambda a: infinite.fc(1, get="nngp")(a, a)[0, 0])(x)
    np.testing.assert_allclose(gradient, 4 * x / x.size, rtol=1e-12)


def test_runs_under_jit_grad_vmap_and_scan():
    kernel_fn = infinite.conv(1, pool=True, **NT)
    x1, x2 = (jnp.asarray(images(n, seed=n), jnp.float32) for n in (3, 2))
    expected = kernel_fn(x1, x2)
    np.testing.assert_allclose(jax.jit(kernel_fn)(x1, x2), expected, rtol=1e-6)
    stacked = jax.vmap(kernel_fn, (None, 0))(x1, jnp.stack([x2, x2 + 1]))
    np.testing.assert_allclose(stacked[0], expected, rtol=1e-5)
    grad = jax.grad(lambda a: kernel_fn(x1, a).sum())
    _, scanned = jax.lax.scan(lambda carry, _: (carry, grad(carry)), x2, None, length=2)
    np.testing.assert_allclose(scanned[1], grad(x2), rtol=1e-5)


def test_scales_may_be_learned(x64):
    """w_std and b_std may be traced, and the gradient with respect to them is right."""
    x1, x2 = images(3), images(2, seed=1)

    def value(scales):
        return infinite.fc(2, w_std=scales[0], b_std=scales[1])(x1, x2).sum()

    scales = jnp.array([1.3, 0.2])
    numeric = [(value(scales + step) - value(scales - step)) / 2e-6 for step in 1e-6 * jnp.eye(2)]
    np.testing.assert_allclose(jax.jit(jax.grad(value))(scales), numeric, rtol=1e-7)


def test_nngp_does_not_compute_the_ntk():
    """The compiled NNGP takes fewer operations."""
    x1, x2 = jnp.zeros((64, 3)), jnp.zeros((32, 3))
    flops = {
        get: jax.jit(infinite.fc(3, get=get)).lower(x1, x2).compile().cost_analysis()["flops"]
        for get in ("ntk", "nngp")
    }
    assert flops["nngp"] < 0.99 * flops["ntk"]


def test_width_matters_in_the_standard_parameterization_only():
    x = images(3).astype(np.float32)
    ntk = [infinite.fc(2, width=w)(x, x) for w in (8, 64)]
    standard = [infinite.fc(2, width=w, parameterization="standard")(x, x) for w in (8, 64)]
    np.testing.assert_array_equal(*ntk)
    assert np.abs(standard[1] / standard[0] - 1).min() > 0.5


@pytest.mark.theory
def test_a_wide_finite_network_has_nearly_this_ntk():
    """Gradients of a fully connected network in NTK parameterization, width 65536 (arXiv:1806.07572)."""
    x, width = jnp.asarray(images(4).reshape(4, -1), jnp.float32), 65536
    keys = jax.random.split(jax.random.key(0), 4)
    shapes = ((x.shape[1], width), (width,), (width,), ())
    params = [jax.random.normal(key, shape) for key, shape in zip(keys, shapes)]

    def network(params, x):
        w1, b1, w2, b2 = params
        hidden = jax.nn.relu(2**0.5 * x @ w1 / x.shape[0] ** 0.5 + 0.1 * b1)
        return 2**0.5 * hidden @ w2 / width**0.5 + 0.1 * b2

    gradients = [jax.grad(network)(params, row) for row in x]
    empirical = [[sum(jnp.vdot(a, b) for a, b in zip(g, h)) for h in gradients] for g in gradients]
    np.testing.assert_allclose(np.array(empirical), infinite.fc(1)(x, x), atol=0.1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: infinite.fc(0), "fc: depth is 0; it must be a whole number"),
        (lambda: infinite.conv(1.5), "conv: depth is 1.5; it must be a whole number"),
        (lambda: infinite.myrtle(6), "myrtle: depth is 6; choose one of 5, 7, 10"),
        (lambda: infinite.fc(1, get="cov"), "get is 'cov'; choose one of ntk, nngp"),
        (lambda: infinite.fc(1, w_std=0.0), "w_std is 0.0; it must be above 0"),
        (lambda: infinite.fc(1, w_std="wide"), "w_std is 'wide'; it must be a number"),
        (lambda: infinite.fc(1, b_std=-0.1), "b_std is -0.1; it must be at least 0"),
        (lambda: infinite.fc(1, width=0), "width is 0"),
        (lambda: infinite.fc(1, parameterization="mup"), "parameterization is 'mup'; choose one of ntk, standard"),
        (lambda: infinite.conv(1, readout="mean"), "readout is 'mean'; choose one of flatten, gap"),
        (lambda: infinite.fc(1, backend="tiled"), "backend is 'tiled'; choose one of auto, neural_tangents"),
    ],
)
def test_wrong_options_are_named(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize(
    ("kernel_fn", "shape1", "shape2", "message"),
    [
        (infinite.conv(1), (2, 5), (2, 5), r"conv: x1 has shape \(2, 5\); expected images"),
        (infinite.fc(1), (5,), (2, 5), r"fc: x1 has shape \(5,\); expected \[n, ...\]"),
        (
            infinite.fc(1),
            (2, 5),
            (2, 4),
            r"fc: x1 has examples of shape \(5,\) and x2 of shape \(4,\); they must agree",
        ),
        (infinite.fc(1), (0, 5), (2, 5), r"x1 has shape \(0, 5\); expected .*, none of them empty"),
        (infinite.conv(1), (2, 4, 4, 3), (2, 4, 4, 1), "they must agree"),
        (infinite.convnet(3), (2, 8, 7, 1), (2, 8, 7, 1), "8 x 7 pixels; 3 poolings need at least 8 x 8"),
    ],
)
def test_wrong_inputs_are_named(kernel_fn, shape1, shape2, message):
    with pytest.raises(InputError, match=message):
        kernel_fn(jnp.ones(shape1), jnp.ones(shape2))
