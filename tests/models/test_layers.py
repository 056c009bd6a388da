"""Convolution in both lowerings against NumPy and each other, pooling, derivatives, control flow and refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from kipjax.checks import InputError
from kipjax.models import layers
from tests.models.common import images, run
from tests.reference import models as reference

CASES = {  # kernel, stride, padding, and what that padding is in pixels for a map of 7x6
    "3x3 same": ((3, 3), 1, "SAME", ((1, 1), (1, 1))),
    "3x3 same, stride 2": ((3, 3), 2, "SAME", ((1, 1), (0, 1))),
    "3x3 padded by 3": ((3, 3), 1, 3, ((3, 3), (3, 3))),
    "3x3, stride 2, padded": ((3, 3), 2, 1, ((1, 1), (1, 1))),
    "1x1": ((1, 1), 1, 0, ((0, 0), (0, 0))),
    "1x1, stride 2": ((1, 1), 2, 0, ((0, 0), (0, 0))),
    "2x3 valid, stride 3": ((2, 3), 3, "VALID", ((0, 0), (0, 0))),
    "5x5 valid": ((5, 5), 1, "VALID", ((0, 0), (0, 0))),
    "7x7 same": ((7, 7), 1, "SAME", ((3, 3), (3, 3))),
    "11x11, stride 4": ((11, 11), 4, 5, ((5, 5), (5, 5))),
}
X = images(3, 7, 6, 2)


@pytest.fixture
def small_blocks(monkeypatch):
    """Patches of two images of 6x6x2 at a time."""
    monkeypatch.setattr(layers, "_PATCH_BYTES", 2 * 6 * 6 * 9 * 2 * 4)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("lowering", ["patches", "conv"])
def test_convolution_is_the_sum_of_its_definition(case, lowering):
    size, stride, padding, pixels = CASES[case]
    kernel = images(*size, 2, 4, seed=2)
    y = run(functools.partial(layers.convolve, stride=stride, padding=padding, lowering=lowering), X, kernel)
    np.testing.assert_allclose(y, reference.convolve(X, kernel, 0.0, stride, pixels), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("case", CASES)
def test_both_lowerings_have_one_gradient(case):
    size, stride, padding, _ = CASES[case]
    kernel = images(*size, 2, 4, seed=2)

    def gradient(lowering):
        def loss(x, kernel):
            return jnp.sum(jnp.sin(layers.convolve(x, kernel, stride=stride, padding=padding, lowering=lowering)))

        return run(jax.grad(loss, (0, 1)), X, kernel)

    for ours, xla in zip(gradient("patches"), gradient("conv")):
        np.testing.assert_allclose(ours, xla, rtol=1e-4, atol=1e-4)


def second_order(lowering, x, kernel, dx, dkernel):
    """Value, gradient, jvp of the gradient, and gradient of a jvp."""

    def loss(x, kernel):
        return jnp.sum(jnp.sin(layers.convolve(x, kernel, padding=1, lowering=lowering)))

    def slope(x, kernel):
        return jax.jvp(loss, (x, kernel), (dx, dkernel))[1]

    gradient, product = jax.jvp(jax.grad(loss, (0, 1)), (x, kernel), (dx, dkernel))
    return loss(x, kernel), gradient, product, jax.grad(slope, (0, 1))(x, kernel)


@pytest.mark.parametrize("n", [4, 5])  # full blocks of two, and a rest
def test_blocks_change_nothing_up_to_second_order(small_blocks, n):
    args = (images(n, 6, 6, 2), images(3, 3, 2, 3), images(n, 6, 6, 2, seed=3), images(3, 3, 2, 3, seed=4))
    ours, xla = (run(functools.partial(second_order, lowering), *args) for lowering in ("patches", "conv"))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-4), ours, xla)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=2e-4, atol=2e-4), ours[2], ours[3])


def test_derivatives_agree_with_finite_differences_in_float64(small_blocks, x64):
    x, kernel = images(5, 6, 6, 2).astype(np.float64), images(3, 3, 2, 3).astype(np.float64)
    loss = jax.jit(lambda x, kernel: jnp.sum(jnp.sin(layers.convolve(x, kernel, lowering="patches"))))
    gradient = jax.jit(jax.grad(loss, (0, 1)))
    dx, dkernel = images(*x.shape, seed=3), images(*kernel.shape, seed=4)
    eps = 1e-5
    ahead, behind = (x + eps * dx, kernel + eps * dkernel), (x - eps * dx, kernel - eps * dkernel)
    slope = sum(jnp.vdot(g, d) for g, d in zip(gradient(x, kernel), (dx, dkernel)))
    np.testing.assert_allclose(slope, (loss(*ahead) - loss(*behind)) / (2 * eps), rtol=1e-7)
    product = jax.jit(lambda: jax.jvp(gradient, (x, kernel), (dx.astype(x.dtype), dkernel.astype(x.dtype)))[1])()
    for p, a, b in zip(product, gradient(*ahead), gradient(*behind)):
        np.testing.assert_allclose(p, (a - b) / (2 * eps), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("blocked", [False, True])
def test_vmap_over_parameters_and_scan(blocked, request):
    if blocked:
        request.getfixturevalue("small_blocks")
    x, kernels = images(5, 6, 6, 2), images(3, 3, 3, 2, 2, seed=5)

    def descend(kernel, _):
        return kernel - 0.1 * jax.grad(lambda k: jnp.mean(layers.convolve(x, k, lowering="patches") ** 2))(kernel), None

    together = run(jax.vmap(lambda kernel: lax.scan(descend, kernel, None, length=2)[0]), kernels)
    alone = jax.jit(descend)
    for kernel, last in zip(kernels, together):
        np.testing.assert_allclose(last, alone(alone(kernel, None)[0], None)[0], rtol=1e-5, atol=1e-6)


def test_on_cpu_the_default_is_patches():
    if jax.default_backend() != "cpu":
        pytest.skip("the default backend is no CPU")
    kernel = images(3, 3, 2, 4)
    text = {
        how: str(jax.make_jaxpr(functools.partial(layers.convolve, lowering=how))(X, kernel)) for how in (None, "conv")
    }
    assert "conv_general_dilated" not in text[None] and "dot_general" in text[None]
    assert "conv_general_dilated" in text["conv"]


def test_gradient_keeps_no_patches():
    x, kernel = jax.ShapeDtypeStruct((64, 16, 16, 32), np.float32), jax.ShapeDtypeStruct((3, 3, 32, 8), np.float32)
    loss = lambda x, kernel: jnp.sum(jnp.sin(layers.convolve(x, kernel, lowering="patches")))  # noqa: E731
    plan = jax.jit(jax.grad(loss, (0, 1))).lower(x, kernel).compile().memory_analysis()
    patches = 4 * 9 * np.prod(x.shape)
    assert plan.temp_size_in_bytes < 0.7 * patches


def test_conv_layer_has_a_kernel_and_a_bias():
    layer = layers.Conv(4, kernel_size=(5, 3), stride=2, padding=2)
    variables = jax.tree.map(
        lambda leaf: images(*leaf.shape, seed=7), jax.eval_shape(layer.init, jax.random.key(0), jnp.asarray(X))
    )
    params = variables["params"]
    assert {name: leaf.shape for name, leaf in params.items()} == {"kernel": (5, 3, 2, 4), "bias": (4,)}
    expected = reference.convolve(X, params["kernel"], params["bias"], 2, ((2, 2), (2, 2)))
    np.testing.assert_allclose(layer.apply(variables, X), expected, rtol=2e-5, atol=2e-5)
    assert set(jax.eval_shape(layers.Conv(4, use_bias=False).init, jax.random.key(0), X)["params"]) == {"kernel"}


@pytest.mark.parametrize("kind", ["avg", "max"])
@pytest.mark.parametrize("shape", [(2, 4, 6, 3), (2, 5, 7, 3)])
def test_pooling_drops_the_odd_row_and_column(kind, shape):
    x = images(*shape)
    np.testing.assert_allclose(layers.pool(x, kind), reference.pool(x, kind), rtol=1e-6, atol=1e-6)


def test_no_pooling():
    assert layers.pool(X, "none") is X


def test_max_pooling_sends_the_gradient_to_the_maximum():
    x = np.arange(16.0, dtype=np.float32).reshape(1, 4, 4, 1)
    gradient = jax.grad(lambda x: jnp.sum(layers.pool(x, "max") ** 2))(x)[0, :, :, 0]
    expected = np.zeros((4, 4))
    expected[1::2, 1::2] = [[10, 14], [26, 30]]
    np.testing.assert_array_equal(gradient, expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: layers.convolve(X, images(3, 3, 3, 1)), r"x has shape \(3, 7, 6, 2\) and kernel \(3, 3, 3, 1\)"),
        (lambda: layers.convolve(X[0], images(3, 3, 2, 1)), r"expected \[n, h, w, c\]"),
        (lambda: layers.convolve(X, images(3, 3, 2, 1), stride=0), "stride is 0"),
        (
            lambda: layers.convolve(X, images(3, 3, 2, 1), padding="FULL"),
            "padding is 'FULL'; choose one of SAME, VALID",
        ),
        (lambda: layers.convolve(X, images(3, 3, 2, 1), padding=-1), "padding is -1"),
        (
            lambda: layers.convolve(X, images(3, 3, 2, 1), lowering="fft"),
            "lowering is 'fft'; choose one of None, patches",
        ),
        (lambda: layers.convolve(X, images(9, 9, 2, 1), padding=1), "map of 7x6 with padding 1 .* kernel of 9x9"),
        (lambda: layers.pool(X, "mean"), "pool is 'mean'; choose one of avg, max, none"),
        (lambda: layers.pool(X[:, :1]), "map of 1x6 is too small for 2x2 pooling"),
        (lambda: layers.dense(3, 4, initial="zero", name="head"), "initial is 'zero'; choose one of lecun"),
        (lambda: layers.Conv(3, initial="zero").init(jax.random.key(0), X), "initial is 'zero'; choose one of lecun"),
    ],
)
def test_refusals_say_what_to_do(call, message):
    with pytest.raises(InputError, match=message):
        call()
