"""The tiled engine against NumPy recursions and finite differences; against neural_tangents in test_parity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kipjax.checks import InputError
from kipjax.core import sharding
from kipjax.kernels import batching, conv, infinite
from tests.reference import kernels as reference

STANDARD = {"w_std": 1.2, "parameterization": "standard", "readout_parameterization": "standard", "width": 32}

ARCHITECTURES = {
    "conv1": (lambda m, **o: m.conv(1, **o), ["conv", "flatten"], (4, 3, 2)),
    "conv10": (lambda m, **o: m.conv(10, **o), ["conv"] * 10 + ["flatten"], (3, 4, 1)),
    "gap": (lambda m, **o: m.conv(2, readout="gap", **o), ["conv", "conv", "gap"], (4, 3, 2)),
    "pool": (lambda m, **o: m.conv(2, pool=True, **o), ["conv", "pool"] * 2 + ["flatten"], (5, 4, 3)),
    "pool in between": (
        lambda m, **o: m.conv(3, pool=(2,), **o),
        ["conv", "conv", "pool", "conv", "flatten"],
        (4, 5, 1),
    ),
    "pool gap": (lambda m, **o: m.conv(1, pool=True, readout="gap", **o), ["conv", "pool", "gap"], (4, 4, 2)),
    "convnet": (lambda m, **o: m.convnet(2, **o), ["conv"] + ["conv", "pool"] * 2 + ["flatten"], (4, 4, 1)),
    "myrtle5": (lambda m, **o: m.myrtle(5, **o), ["conv"] * 2 + ["pool", "conv"] * 2 + ["gap"], (4, 4, 3)),
    "myrtle7": (
        lambda m, **o: m.myrtle(7, **o),
        [*["conv", "conv", "pool"] * 2, "conv", "conv", "gap"],
        (4, 4, 1),
    ),
    "myrtle10": (
        lambda m, **o: m.myrtle(10, **o),
        [*["conv", "conv", "conv", "pool"] * 2, "conv", "conv", "conv", "gap"],
        (4, 4, 1),
    ),
}
SLOW = {"myrtle7", "myrtle10"}  # to compile
CASES = [pytest.param(n, STANDARD, marks=[pytest.mark.slow] if n in SLOW else [], id=n) for n in ARCHITECTURES]
CASES += [(name, {"get": "nngp", "b_std": 0.01}) for name in ("conv1", "pool")]
CASES += [(name, {"b_std": None, "parameterization": "standard", "width": 64}) for name in ("pool", "gap")]
CASES += [("pool", {})]


def images(n, size, seed=0):
    return np.random.default_rng(seed).normal(size=(n, *size))


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_values_equal_the_recursions(name, options, x64):
    make, words, size = ARCHITECTURES[name]
    x1, x2 = images(3, size), images(2, size, seed=1)
    kernel_fn = make(conv, **options)
    options = {key.replace("readout_parameterization", "readout"): value for key, value in options.items()}
    options.setdefault("width", 1)
    for a, b in ((x1, x2), (x1, x1)):
        np.testing.assert_allclose(kernel_fn(a, b), reference.kernel(words, a, b, **options), rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["conv1", "pool gap"])
def test_gradients_equal_finite_differences(name, x64):
    """With respect to either input, both at once, and the scales; over several tiles."""
    make, _, size = ARCHITECTURES[name]
    x1, x2, direction = (images(n, size, seed) for n, seed in ((3, 0), (4, 1), (3, 2)))
    weights = np.random.default_rng(3).normal(size=(3, 4))
    need = conv.tile_bytes(ARCHITECTURES[name][1], x1.shape, np.float64)

    def values(step):
        k = make(conv, w_std=1.3 + step, b_std=0.2 - step, budget=2 * need)
        a = x1 + step * direction
        return (k(a, x2) * weights).sum() + (k(x2, a).T * weights).sum() + (k(a, a) * weights[:, :3]).sum()

    numeric = (values(1e-5) - values(-1e-5)) / 2e-5
    np.testing.assert_allclose(jax.grad(values)(0.0), numeric, rtol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["conv1", "pool"])
def test_gradients_at_identical_and_zero_inputs_are_those_of_float64(name):
    make, _, size = ARCHITECTURES[name]
    one = images(2, size)

    def gradient(dtype):
        with jax.enable_x64(dtype == "float64"):
            x = jnp.asarray(np.concatenate([one, one, 0 * one]), dtype)
            kernel_fn = make(conv, b_std=0.0)
            return jax.jit(jax.grad(lambda a: (kernel_fn(a, a) + kernel_fn(a, x) + kernel_fn(x, a)).sum()))(x)

    np.testing.assert_allclose(gradient("float32"), gradient("float64"), atol=1e-3)


def test_the_program_does_not_grow_with_the_pairs():
    def size(n):
        shapes = [jax.ShapeDtypeStruct((m, 4, 4, 1), jnp.float32) for m in (10, n)]
        return len(jax.jit(conv.conv(1, budget=40_000)).lower(*shapes).as_text())

    assert size(4000) < 1.1 * size(400)


@pytest.mark.slow
def test_the_matrix_with_itself_is_whole_whatever_the_tiles():
    x = jnp.asarray(images(7, (4, 4, 1)), jnp.float32)
    need = conv.tile_bytes(ARCHITECTURES["pool"][1], x.shape, np.float32)
    for pairs in (1, 2, 6):
        kernel_fn = conv.conv(2, pool=True, budget=pairs * need)
        np.testing.assert_allclose(kernel_fn(x, x), kernel_fn(x, x + 0), rtol=2e-4)


@pytest.mark.slow
def test_the_tile_changes_nothing_and_memory_does_not_grow_with_the_pairs():
    words, size = ARCHITECTURES["pool"][1], (6, 6, 1)
    x1, x2 = (jnp.asarray(images(n, size, n), jnp.float32) for n in (5, 7))
    need = conv.tile_bytes(words, x1.shape, np.float32)
    kernels = [conv.conv(2, pool=True, budget=b * need) for b in (1, 4, 1000)]
    np.testing.assert_allclose(kernels[0](x1, x2), kernels[2](x1, x2), rtol=1e-6)
    np.testing.assert_allclose(kernels[1](x1, x1), kernels[2](x1, x1), rtol=1e-6)

    def temporary(n):
        x = jnp.zeros((n, *size))
        gradient = jax.jit(jax.grad(lambda a: conv.conv(2, pool=True, budget=2 * need)(a, x).sum()))
        return gradient.lower(x).compile().memory_analysis().temp_size_in_bytes

    small, large = temporary(4), temporary(32)
    vectors = 8 * 32 * 6 * 7 * 4 * 4  # images, their variances and gradients; not their pairs
    assert large < small + vectors + 4 * 32 * 32 * 4


@pytest.mark.parametrize(
    ("name", "pairs", "channels"),
    [("conv1", 6, 1), ("conv1", 4, 64), ("pool", 6, 1), ("pool", 2, 16), ("convnet", 6, 1), ("convnet", 1, 1)],
)
def test_tile_bytes_bounds_the_working_arrays_of_a_tile_and_its_gradient(name, pairs, channels):
    make, words, _ = ARCHITECTURES[name]
    size = (12, 12, channels)
    x1, x2 = jnp.zeros((1, *size)), jnp.zeros((pairs, *size))
    need = conv.tile_bytes(words, x1.shape, np.float32)
    assert conv.tile_size(words, x1.shape, pairs, np.float32, pairs * need) == pairs
    kernel_fn = make(conv, budget=pairs * need)
    program = jax.jit(jax.value_and_grad(lambda a, b: kernel_fn(a, b).sum(), (0, 1)))
    temporary = program.lower(x1, x2).compile().memory_analysis().temp_size_in_bytes
    # Images, variances and their gradients, which do not come in pairs.
    vectors = (8 * words.count("conv") + 4 * channels) * (1 + pairs) * 12 * 13 * 4
    assert 0.1 * pairs * need < temporary < pairs * need + vectors


@pytest.mark.slow
def test_runs_under_vmap_scan_and_switch():
    size = (4, 4, 1)
    kernel_fn = conv.conv(1, pool=True)
    x1, x2 = (jnp.asarray(images(n, size, n), jnp.float32) for n in (3, 2))
    expected = kernel_fn(x1, x2)
    stacked = jax.vmap(kernel_fn, (None, 0))(x1, jnp.stack([x2, x2 + 1]))
    np.testing.assert_allclose(stacked[0], expected, rtol=1e-5)
    gradient = jax.grad(lambda a: jax.lax.switch(1, [conv.conv(1), kernel_fn], x1, a).sum())
    _, scanned = jax.lax.scan(lambda carry, _: (carry, gradient(carry)), x2, None, length=2)
    np.testing.assert_allclose(scanned[1], jax.grad(lambda a: kernel_fn(x1, a).sum())(x2), rtol=1e-5)


def test_the_engine_taken_is_named():
    tiled = infinite.conv(1, pool=True), infinite.myrtle(5), infinite.conv(1), infinite.conv(1, backend="tiled")
    others = infinite.fc(1), infinite.conv(1, backend="neural_tangents"), infinite.myrtle(5, backend="neural_tangents")
    assert {k.backend for k in tiled} == {"tiled"}
    assert {k.backend for k in others} == {"neural_tangents"}


@pytest.mark.slow
def test_estimate_bounds_the_memory_and_refuses_what_does_not_fit():
    kernel_fn = conv.conv(1, pool=True)
    shapes = (3, 8, 8, 1), (40, 8, 8, 1)
    predicted = batching.estimate(kernel_fn, *shapes, gradient=True, probe=False)
    x1, x2 = (jnp.zeros(s) for s in shapes)
    lowered = jax.jit(jax.value_and_grad(lambda a, b: kernel_fn(a, b).sum(), (0, 1))).lower(x1, x2)
    assert lowered.compile().memory_analysis().temp_size_in_bytes <= predicted.bytes
    assert predicted.seconds is None
    assert batching.estimate(kernel_fn, *shapes).seconds > 0
    with pytest.raises(InputError, match=r"need about \d+ bytes and memory is 1000"):
        batching.estimate(kernel_fn, *shapes, memory=1000, probe=False)


@pytest.mark.parametrize(
    ("make", "shape1", "shape2", "message"),
    [
        (lambda: conv.conv(2, pool=True), (2, 3, 9, 1), (2, 3, 9, 1), "3 x 9 pixels; 2 poolings need at least 4 x 4"),
        (lambda: conv.conv(1), (2, 4, 4, 3), (2, 4, 4, 1), "they must agree"),
        (lambda: conv.conv(1, pool=True, budget=99), (2, 4, 4, 1), (2, 4, 4, 1), r"budget is 99 bytes, and one pair"),
        (lambda: conv.conv(2, pool=(3,)), (2, 4, 4, 1), (2, 4, 4, 1), r"pool is \(3,\); it must be a bool or a tuple"),
        (lambda: infinite.conv(1, backend="neural_tangents", budget=9), (2, 4, 4, 1), (2, 4, 4, 1), "tiled engine's"),
        (lambda: conv.conv(1, budget=0), (2, 4, 4, 1), (2, 4, 4, 1), "budget is 0"),
        (lambda: conv.conv(1, mesh=4), (2, 4, 4, 1), (2, 4, 4, 1), "mesh is 4; expected sharding.mesh"),
        (lambda: conv.conv(2, pool=(True,)), (2, 4, 4, 1), (2, 4, 4, 1), r"pool is \(True,\); it must be"),
        (lambda: conv.conv(2, pool={1}), (2, 4, 4, 1), (2, 4, 4, 1), r"pool is \{1\}; it must be"),
    ],
)
def test_bad_input_is_named(make, shape1, shape2, message):
    with pytest.raises(InputError, match=message):
        make()(jnp.ones(shape1), jnp.ones(shape2))


def test_a_mesh_of_one_device_changes_nothing():
    x = jnp.asarray(images(3, (4, 4, 1)), jnp.float32)
    np.testing.assert_array_equal(conv.conv(1, mesh=sharding.mesh(1))(x, x + 1), conv.conv(1)(x, x + 1))
