"""Variables of a network without compiling its initialisation."""

import jax
import numpy as np


def shapes(model, shape):
    """The variables' shapes for ``x`` of a shape."""
    return jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, np.float32))


def run(fn, *args):
    """``fn(*args)`` in one program, compiled in a hurry: these networks run once."""
    return jax.jit(fn).lower(*args).compile(compiler_options={"xla_backend_optimization_level": 0})(*args)


def count(model, shape):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes(model, shape)["params"]))


def random_variables(model, shape, seed=0):
    """Every leaf at random, running variances and scales positive, so that no layer is an identity by accident."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        name = path[-1].key
        if name in ("var", "scale"):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        spread = np.prod(leaf.shape[:-1]) ** -0.5 if name == "kernel" else 0.3
        return rng.normal(0, spread, leaf.shape).astype(np.float32)

    return jax.tree_util.tree_map_with_path(draw, shapes(model, shape))


def images(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)
