"""A flax module as the methods use it: pure functions of its variables, with the last layer apart from the rest.

Any module will do whose ``__call__(x, *, train=False, features=False)`` returns ``(logits [n, k], features [n, p])`` if
asked for features, and whose last layer is ``nn.Dense(name="head")`` on those features.
"""

import inspect
from typing import Any

import jax
from flax import linen as nn

from kipjax import checks
from kipjax.types import PyTree

__all__ = [
    "forward",
    "init",
    "join_head",
    "require_features",
    "require_linear_head",
    "require_outputs",
    "same_types",
    "split_head",
    "train_features",
    "train_forward",
]


def require_features(where: str, model: Any) -> None:
    """``model`` must be a flax module that returns its last-layer features when asked.

    Raises:
      InputError: it is none, or has no such argument.
    """
    checks.require(
        isinstance(model, nn.Module),
        where,
        f"model is {model!r}; expected a flax module such as models.get('convnet', num_classes=10)",
    )
    known = inspect.signature(type(model).__call__).parameters
    checks.require(
        "features" in known and "train" in known,
        where,
        f"{type(model).__name__} has no features: its __call__ takes ({', '.join(list(known)[1:])}); give it the "
        "keyword arguments train and features, and return (logits, features) if features is true",
    )


def init(model: nn.Module, key: jax.Array, x: jax.Array) -> dict[str, PyTree]:
    """Fresh variables (``params``, and ``batch_stats`` where it has them) for examples like ``x [n, ...]``.

    Raises:
      InputError: the model has no last layer called ``head``.
    """
    variables = dict(model.init(key, x[:1], features=True))
    checks.require(
        "kernel" in variables["params"].get("head", {}),
        "models.network.init",
        f"{type(model).__name__} has layers {', '.join(variables['params'])}; its last one must be "
        "nn.Dense(num_classes, name='head')",
    )
    return variables


def forward(model: nn.Module, variables: dict[str, PyTree], x: jax.Array) -> Any:
    """``(logits [n, k], features [n, p])`` with the running statistics, where the network has any."""
    return model.apply(variables, x, features=True)


def train_forward(
    model: nn.Module, variables: dict[str, PyTree], x: jax.Array, **rngs: jax.Array
) -> tuple[jax.Array, dict[str, PyTree]]:
    """``(logits [n, k], statistics)`` in training mode; ``statistics`` are the updated collections besides params.

    They keep their types, whatever that of ``x`` is, so that training can be a loop.
    """
    logits, statistics = model.apply(variables, x, train=True, mutable=_collections(variables), rngs=rngs)
    return logits, same_types(dict(statistics), variables)


def same_types(statistics: dict[str, PyTree], variables: dict[str, PyTree]) -> dict[str, PyTree]:
    """Updated collections of variables in the types that they had."""
    return {
        name: jax.tree.map(lambda new, old: new.astype(old.dtype), found, variables[name])
        for name, found in statistics.items()
    }


def require_linear_head(where: str, model: nn.Module, x: jax.Array) -> None:
    """The last layer must be linear, for methods that solve for it; ``x [n, ...]`` are examples.

    Raises:
      InputError: ``head`` has other parameters than a kernel and a bias.
    """
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), x[:1], features=True))["params"]
    other = sorted(set(params.get("head", {})) - {"kernel", "bias"})
    checks.require(
        not other,
        where,
        f"the last layer of {type(model).__name__} has {', '.join(other)} besides kernel and bias, and this method "
        "solves for a linear one; build the model with classifier='linear'",
    )


def require_outputs(where: str, model: nn.Module, x: jax.Array, k: int) -> None:
    """The network must have one output for each of ``k`` classes, given examples ``x [n, ...]``.

    Raises:
      InputError: it has another number.
    """
    outputs = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), x[:1]))[0].shape[-1]
    text = f"the model has {outputs} outputs and the labels {k} columns; build it with num_classes={k}"
    checks.require(outputs == k, where, text)


def train_features(model: nn.Module, variables: dict[str, PyTree], x: jax.Array) -> jax.Array:
    """Features ``[n, p]`` in training mode, where batch norm uses the statistics of ``x``; its averages stay."""
    return model.apply(variables, x, train=True, features=True, mutable=_collections(variables))[0][1]


def split_head(params: PyTree) -> tuple[PyTree, jax.Array]:
    """``(body, kernel [p, k])``: the parameters without the last layer's kernel, and that kernel."""
    head = {name: value for name, value in params["head"].items() if name != "kernel"}
    return {**params, "head": head}, params["head"]["kernel"]


def join_head(body: PyTree, kernel: jax.Array) -> PyTree:
    """The inverse of ``split_head``: all parameters, from those of ``body`` and ``kernel [p, k]``."""
    return {**body, "head": {**body["head"], "kernel": kernel}}


def _collections(variables):
    return [name for name in variables if name != "params"]
