"""A network trained on images and soft labels as label distillation trains and tests its own (arXiv:2006.08572).

``"second_order"``: a whole network by Adam on the soft cross-entropy. ``"ridge"``: the features of one, by Adam on
``SCE(s Phi W, y)``, with the running mean ``W`` of ridge classifiers of the parts, which is what predicts.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax import lax

from kipjax import checks
from kipjax.core import krr, losses
from kipjax.data import draw
from kipjax.models import network
from kipjax.types import PyTree

__all__ = ["FORMS", "OPTIMIZERS", "Trained", "fit", "fit_along", "forward", "outputs", "ridge_weights", "with_one"]


FORMS = ("ridge", "second_order")
OPTIMIZERS = {"adam": optax.adam, "sgd": functools.partial(optax.sgd, momentum=0.9)}


class Trained(NamedTuple):
    """A network, and the classifier ``w [p + 1, k]`` on its features; ``None`` where its own last layer predicts."""

    variables: PyTree
    w: jax.Array | None


def ridge_weights(h: jax.Array, y: jax.Array, *, reg: float | jax.Array = 1.0) -> jax.Array:
    """``Phi^T (Phi Phi^T + reg I)^-1 y`` with ``Phi = [h, 1]``: the ridge classifier of a few examples.

    Args:
      h: ``[n, p]`` features.
      y: ``[n, k]`` targets.
      reg: absolute ridge, above 0; the bias is regularised too.

    Returns:
      ``[p + 1, k]``, the bias in the last row.

    References:
      arXiv:2006.08572, equation (3).
    """
    checks.same_length("ld.ridge_weights", "h", h, "y", y)
    checks.at_least("ld.ridge_weights", "reg", reg, 0.0, strict=True)
    phi = with_one(h)
    return phi.T @ krr.alpha(phi @ phi.T, y, reg=reg, reg_unit="absolute", solve_dtype=None)


def with_one(h: jax.Array) -> jax.Array:
    """``[h, 1]``."""
    return jnp.concatenate([h, jnp.ones_like(h[:, :1])], axis=1)


def forward(model: nn.Module, variables: PyTree, x: jax.Array, key: jax.Array):
    """``(logits [n, k], features [n, p], statistics)`` in training mode."""
    collections = [name for name in variables if name != "params"]
    (logits, h), statistics = model.apply(
        variables, x, train=True, features=True, mutable=collections, rngs={"dropout": key}
    )
    return logits, h, network.same_types(dict(statistics), variables)


def fit(key: jax.Array, model: nn.Module, x: jax.Array, y: jax.Array, steps: int | jax.Array, **options) -> Trained:
    """A fresh network after ``steps []``, which may be traced, on ``x [m, ...]``, ``y [m, k]``, as by ``fit_along``.

    References:
      arXiv:2006.08572, section 4.
    """
    along = fit_along(key, model, x, y, jnp.asarray(steps)[None], **options)
    return jax.tree.map(lambda leaf: leaf[0], along)


def fit_along(
    key: jax.Array,
    model: nn.Module,
    x: jax.Array,
    y: jax.Array,
    lengths: jax.Array,
    *,
    form: str = "ridge",
    batch_size: int = 50,
    learning_rate: float = 1e-3,
    scale_learning_rate: float = 1e-2,
    reg: float = 1.0,
    alpha: float = 0.01,
    optimizer: str = "adam",
    variables: PyTree = None,
) -> Trained:
    """One training looked at after each of ``lengths [l]`` steps, ascending: a ``Trained`` of leaves ``[l, ...]``.

    Args:
      key: draws the network, the parts and dropout.
      model: flax module with features.
      x, y: ``[m, ...]``, ``[m, k]`` probabilities.
      lengths: numbers of steps; may be traced.
      form: ``"ridge"`` or ``"second_order"``.
      batch_size, learning_rate, scale_learning_rate, reg, alpha: as in ``ld.make``, of the model.
      optimizer: a name in ``OPTIMIZERS``, of the network; the paper's is ``"adam"``.
      variables: where it starts; drawn unless given.
    """
    where = "ld.fit"
    checks.same_length(where, "x", x, "y", y)
    checks.one_of(where, "form", form, FORMS)
    checks.one_of(where, "optimizer", optimizer, OPTIMIZERS)
    checks.whole(where, "batch_size", batch_size)
    if not checks.is_traced(lengths):
        found = np.asarray(lengths)
        ascending = found.ndim == 1 and bool(np.all(found >= 0) and np.all(np.diff(found) >= 0))
        checks.require(ascending, where, f"the numbers of steps are {found.tolist()}; give them ascending, from 0 on")
    x, y = jnp.asarray(x), jnp.asarray(y)
    init_key, run_key = jax.random.split(key)
    variables = network.init(model, init_key, x) if variables is None else variables
    of_model, of_scale = OPTIMIZERS[optimizer](learning_rate), optax.adam(scale_learning_rate)
    size, scale = min(batch_size, len(x)), jnp.ones((), x.dtype)
    width = variables["params"]["head"]["kernel"].shape[0] if form == "ridge" else 0
    w = jnp.zeros((width + 1, y.shape[1]), x.dtype)

    def step(i, carry):
        variables, opt_state, w, scale, scale_state = carry
        draw_key, drop_key = jax.random.split(jax.random.fold_in(run_key, i))
        rows = draw.without_replacement(draw_key, size, len(x))

        def loss(params, scale):
            logits, h, statistics = forward(model, {**variables, "params": params}, x[rows], drop_key)
            if form != "ridge":
                return losses.cross_entropy(logits, y[rows]), (w, statistics)
            mean = (1 - alpha) * w + alpha * ridge_weights(h, y[rows], reg=reg)
            return losses.cross_entropy(scale * (with_one(h) @ mean), y[rows]), (mean, statistics)

        slopes, (mean, statistics) = jax.grad(loss, argnums=(0, 1), has_aux=True)(variables["params"], scale)
        change, opt_state = of_model.update(slopes[0], opt_state)
        turn, scale_state = of_scale.update(slopes[1], scale_state)
        params = optax.apply_updates(variables["params"], change)
        return {**statistics, "params": params}, opt_state, mean.astype(w.dtype), scale + turn, scale_state

    def until(carry, last):
        state, first = carry
        state = lax.fori_loop(first, last, step, state)
        return (state, last), Trained(state[0], state[2] if form == "ridge" else None)

    state = variables, of_model.init(variables["params"]), w, scale, of_scale.init(scale)
    return lax.scan(until, (state, jnp.zeros((), jnp.int32)), jnp.asarray(lengths, jnp.int32))[1]


def outputs(model: nn.Module, trained: Trained, x: jax.Array) -> jax.Array:
    """``[n, k]``: logits, or ``[phi(x), 1] W`` without the scale, as the papers' programs test."""
    logits, h = network.forward(model, trained.variables, x)
    return logits if trained.w is None else with_one(h) @ trained.w
