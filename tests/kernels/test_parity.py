"""Both engines against neural_tangents' own layers and the NumPy recursions, for every architecture.

python -m tests.kernels.test_parity prints the table of largest relative differences that RESULTS.md shows.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.datasets

from kipjax.kernels import _neural_tangents, infinite
from tests.reference import kernels as reference

GROUPS = {5: (2, 1, 1), 7: (2, 2, 2), 10: (3, 3, 3)}


def _myrtle(depth):
    first, second, third = GROUPS[depth]
    return ["conv"] * first + ["pool"] + ["conv"] * second + ["pool"] + ["conv"] * third + ["gap"]


ARCHITECTURES = {
    "conv1": (lambda **o: infinite.conv(1, **o), ["conv", "flatten"]),
    "conv3": (lambda **o: infinite.conv(3, **o), ["conv"] * 3 + ["flatten"]),
    "conv10": (lambda **o: infinite.conv(10, **o), ["conv"] * 10 + ["flatten"]),
    "conv2, average": (lambda **o: infinite.conv(2, readout="gap", **o), ["conv", "conv", "gap"]),
    "conv3, pooling after the second": (
        lambda **o: infinite.conv(3, pool=(2,), **o),
        ["conv", "conv", "pool", "conv", "flatten"],
    ),
    "convpool3": (lambda **o: infinite.conv(3, pool=True, **o), ["conv", "pool"] * 3 + ["flatten"]),
    "convnet3": (lambda **o: infinite.convnet(3, **o), ["conv"] + ["conv", "pool"] * 3 + ["flatten"]),
    "myrtle5": (lambda **o: infinite.myrtle(5, **o), _myrtle(5)),
    "myrtle7": (lambda **o: infinite.myrtle(7, **o), _myrtle(7)),
    "myrtle10": (lambda **o: infinite.myrtle(10, **o), _myrtle(10)),
}
SLOW = [pytest.param(name, marks=[pytest.mark.slow] * (len(words) > 7)) for name, (_, words) in ARCHITECTURES.items()]
WHY = "XLA compiles neural_tangents' convolution of pixel pairs in float64 into a crash before JAX 0.12"


def stax_kernel(words, get="ntk"):
    """The network as a user of neural_tangents writes it; ``kernel_fn(x1, x2)``."""
    stax = _neural_tangents.stax()
    affine = {"W_std": 2**0.5, "b_std": 0.1}
    layers = {
        "conv": (stax.Conv(1, (3, 3), padding="SAME", **affine), stax.Relu()),
        "pool": (stax.AvgPool((2, 2), strides=(2, 2)),),
        "flatten": (stax.Flatten(),),
        "gap": (stax.GlobalAvgPool(),),
    }
    network = stax.serial(*(layer for word in words for layer in layers[word]), stax.Dense(1, **affine))
    return lambda x1, x2: network[2](x1, x2, get)


def stax_runs(words, dtype):
    """Whether ``stax_kernel`` does not crash."""
    return dtype == "float32" or jax.__version_info__ >= (0, 12) or not {"pool", "gap"} & set(words)


def images(words, dtype):
    """Three and two images of three channels, odd where nothing is pooled."""
    size = (8, 8, 3) if "pool" in words else (5, 6, 3)
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=(n, *size)), dtype) for n in (3, 2)]


def difference(a, b):
    """Largest difference relative to the value, or for gradients to the largest."""
    a, b = (np.asarray(value, np.float64) for value in (a, b))
    return float(np.max(np.abs(a - b) / (np.abs(b) if a.ndim == 2 else np.abs(b).max())))


def differences(name, backend, dtype, get="ntk"):
    """``(to neural_tangents, to NumPy, gradients to neural_tangents)``, ``None`` for what cannot be had."""
    make, words = ARCHITECTURES[name]
    single = dtype == "float32"
    with jax.enable_x64(not single):
        x1, x2 = images(words, dtype)
        ours, theirs = make(get=get, backend=backend), stax_kernel(words, get)
        numpy = difference(ours(x1, x2), reference.kernel(words, x1, x2, get=get, width=1))
        if not stax_runs(words, dtype):
            return None, numpy, None
        weights = np.random.default_rng(1).normal(size=(3, 2)).astype(dtype)
        values, gradients = zip(
            *(
                jax.jit(lambda a, k=k: (k(a, x2), jax.grad(lambda a: (k(a, x2) * weights).sum())(a)))(x1)
                for k in (ours, theirs)
            )
        )
        return difference(*values), numpy, difference(*gradients)


SOME = [
    "conv1",
    "conv3",
    "conv2, average",
    "convpool3",
    *(pytest.param(f"myrtle{n}", marks=pytest.mark.slow) for n in (5, 10)),
]


@pytest.mark.parametrize("name", SOME)
def test_float32_equals_neural_tangents(name):
    assert max(differences(name, "tiled", "float32")) < 1e-5


@pytest.mark.parametrize("name", SLOW)
def test_float64_equals_neural_tangents(name):
    if not stax_runs(ARCHITECTURES[name][1], "float64"):
        pytest.skip(WHY)
    assert max(differences(name, "tiled", "float64")) < 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("name", ["conv3", "convpool3"])
def test_the_nngp_does_so_too(name):
    assert max(differences(name, "tiled", "float32", "nngp")) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["conv3", "convpool3"])
def test_gradients_where_patches_are_parallel(name):
    """Real images share a constant background: patches that differ by a factor, where angles are zero but for rounding.

    There 1 / sin(angle) is that of a rounding error; neural_tangents' gradient is moderate, and so must be ours, in
    pairs of different images and of an image with its copy.
    """
    make, words = ARCHITECTURES[name]
    x = sklearn.datasets.load_digits().images[:12, :, :, None].astype(np.float32)
    x = jnp.asarray((x - x.mean()) / x.std())
    others = jnp.concatenate([x[3:], x[:1]])
    ours, theirs = (jax.jit(jax.grad(lambda a, k=k: k(a, others).mean()))(x[:3]) for k in (make(), stax_kernel(words)))
    assert difference(ours[1:], theirs[1:]) < 1e-3
    assert difference(ours[:1], theirs[:1]) < 0.01  # where x[0] meets its copy, rounding tells left from right


ODD = {
    "odd sizes, standard": (
        {"parameterization": "standard", "readout_parameterization": "standard", "width": 17},
        (5, 7, 2),
    ),
    "odd sizes, no bias": ({"b_std": 0.0, "w_std": 0.9}, (7, 5, 1)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ODD)
def test_odd_sizes_and_parametrisations(name):
    """Pooling drops the odd row and column (VALID windows), and an image may meet itself."""
    options, size = ODD[name]
    stax = _neural_tangents.stax()
    width = options.get("width", 1)
    affine = {"W_std": options.get("w_std", 2**0.5), "b_std": options.get("b_std", 0.1)}
    affine["parameterization"] = options.get("parameterization", "ntk")
    pool = stax.AvgPool((2, 2), strides=(2, 2), padding="VALID")
    block = (stax.Conv(width, (3, 3), padding="SAME", **affine), stax.Relu(), pool)
    theirs = stax.serial(*block, *block, stax.Flatten(), stax.Dense(1, **affine))[2]
    x1, x2 = (jnp.asarray(np.random.default_rng(n).normal(size=(n, *size)), jnp.float32) for n in (2, 3))

    def all_of(kernel_fn, itself):
        def total(a):
            matrix = kernel_fn(a, x2)
            return matrix.sum(), (matrix, itself(x2))

        return jax.jit(lambda a: jax.grad(total, has_aux=True)(a))(x1)

    ours = infinite.conv(2, pool=True, **options)
    gradient, values = all_of(ours, lambda a: ours(a, a))
    their_gradient, their_values = all_of(lambda a, b: theirs(a, b, "ntk"), lambda a: theirs(a, None, "ntk"))
    assert difference(gradient, their_gradient) < 1e-5
    assert difference(values[0], their_values[0]) < 1e-5
    assert difference(values[1], their_values[1]) < 1e-4  # their diagonal has the rounding of an angle that is zero


@pytest.mark.parametrize("name", ["conv3", "conv2, average"])
def test_the_other_backend_does_so_too(name):
    assert max(differences(name, "neural_tangents", "float32")) < 1e-5


def main():
    print("| architecture, NTK | float32: value | gradient | float64: value | gradient | float64 to NumPy |")
    print("|---|---|---|---|---|---|")
    for name in ARCHITECTURES:
        single, double = (differences(name, "tiled", dtype) for dtype in ("float32", "float64"))
        cells = [single[0], single[2], double[0], double[2], double[1]]
        print(f"| {name} | " + " | ".join("not run" if c is None else f"{c:.0e}" for c in cells) + " |")


if __name__ == "__main__":
    main()
