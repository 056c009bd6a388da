"""How far the worth of a distilled set carries: other hyperparameters, other networks, other sizes, every class alike.

- *Hyperparameters* (arXiv:2011.00050, figure 3): networks of many kinds are trained on a distilled set and on natural
  images of the same number, under a grid of optimizers, learning rates, weight decays and losses; each pair of
  accuracies is a point.
- *Networks and sizes* (tables A5 and A6 there): the best point of each network, for sets of one or several sizes. It is
  chosen on the test set, as papers do, or on held-out training images, which is fair if no set has seen them.
- *Classes and groups*: the accuracy on every group of test images, and the gap between the best group and the worst, of
  networks trained on distilled and on full data (``_groups``). Distillation papers report means alone.

A network that leaves the finite numbers counts as one that is never right; a grid has corners where that happens.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from kipjax import checks, models
from kipjax.core import labels
from kipjax.evaluation import krr, protocols, train
from kipjax.evaluation._combinations import combinations
from kipjax.evaluation._groups import Fairness, fairness, groups
from kipjax.evaluation.protocols import Protocol
from kipjax.evaluation.result import Task
from kipjax.types import Distilled

__all__ = [
    "GRID",
    "NETWORKS",
    "PROTOCOL",
    "Fairness",
    "Point",
    "Setting",
    "best",
    "build",
    "fairness",
    "grid",
    "groups",
    "predictions",
    "scatter",
    "wins",
]

NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"fc{depth}": ("mlp", {"depth": depth, "width": 1024, "initial": "rfad"}) for depth in (1, 2, 3)},
    "conv2": ("convnet", {"depth": 2, "width": 512}),
    "conv8": ("convnet", {"depth": 8, "width": 128}),
    "lenet": ("lenet", {}),
    "wide_resnet": ("wide_resnet", {}),
}
"""The networks of arXiv:2011.00050, appendix D: constant width, no pooling and a flattened map in ``fc`` and ``conv``,
drawn as their kernels have it (``w_std^2 = 2``, ``b_std = 0.1``)."""

_CONV = {"pool": "none", "doubling": False, "pad_grey": False, "initial": "rfad"}

PROTOCOL = Protocol("robustness", steps=1000, batch_size=256)
"""Constant learning rate, as there; a ``Setting`` says the rest. The paper gives no number of steps."""


class Setting(NamedTuple):
    """One choice of hyperparameters: words and values of ``protocols.Protocol``."""

    optimizer: str
    loss: str
    learning_rate: float
    weight_decay: float

    def __str__(self) -> str:
        return f"{self.optimizer} {self.learning_rate:g} {self.loss} decay {self.weight_decay:g}"


GRID: dict[str, tuple] = {
    "optimizer": ("sgd", "adam"),
    "loss": ("half_mse", "soft_cross_entropy"),
    "learning_rate": (1e-4, 1e-3, 1e-2, 1e-1),
    "weight_decay": (0.0, 1e-3),
}
"""The values of a ``Setting`` unless others are given; the paper says "small grid" of the same quantities."""


class Point(NamedTuple):
    """One network under one setting.

    Attributes:
      network: its name.
      setting: its hyperparameters.
      distilled, natural: ``[seeds]`` test accuracies of networks trained on either, in 0..1.
      distilled_validation, natural_validation: ``[seeds]`` on held-out images; empty without any.
    """

    network: str
    setting: Setting
    distilled: np.ndarray
    natural: np.ndarray
    distilled_validation: np.ndarray
    natural_validation: np.ndarray


def build(name: str, task: Task, *, scale: float = 1.0) -> nn.Module:
    """A network of ``NETWORKS``, or any that ``models.get`` knows.

    Args:
      name: its name.
      task: says how many classes.
      scale: factor on its width; the result is at least 1. (LeNet has none; a wide residual network widens by 4.)

    Raises:
      InputError: the name is unknown.
    """
    where = "robustness.build"
    checks.at_least(where, "scale", scale, 0.0, strict=True)
    if name not in NETWORKS:
        checks.one_of(where, "network", name.partition(":")[0], [*NETWORKS, *models.names()])
        return train.build(name, task)
    kind, options = NETWORKS[name]
    options = options | (_CONV if kind == "convnet" else {})
    if "width" in options:
        options["width"] = max(1, round(scale * options["width"]))
    if kind == "wide_resnet" and scale != 1:
        options = {**options, "widen": max(1, round(4 * scale))}
    return models.get(kind, num_classes=task.num_classes, **options)


def grid(
    *,
    optimizer: Sequence[str] = GRID["optimizer"],
    loss: Sequence[str] = GRID["loss"],
    learning_rate: Sequence[float] = GRID["learning_rate"],
    weight_decay: Sequence[float] = GRID["weight_decay"],
) -> list[Setting]:
    """All combinations.

    Raises:
      InputError: a word is unknown, a value repeated or out of range, or there is none.

    Example:
      >>> len(grid()), str(grid(optimizer=["adam"], loss=["half_mse"])[0])
      (32, 'adam 0.0001 half_mse decay 0')
    """
    where = "robustness.grid"
    chosen = {"optimizer": optimizer, "loss": loss, "learning_rate": learning_rate, "weight_decay": weight_decay}
    words = {"optimizer": ("adam", "sgd"), "loss": tuple(protocols.LOSSES)}

    def check(name, value):
        if name in words:
            checks.one_of(where, name, value, words[name])
        else:
            checks.at_least(where, name, value, 0.0, strict=name == "learning_rate")

    return [Setting(*values) for values in combinations(where, chosen, check)]


def predictions(
    sets: Sequence[Distilled],
    probes: jax.Array | np.ndarray,
    model: nn.Module,
    settings: Sequence[Setting],
    *,
    protocol: Protocol = PROTOCOL,
    key: jax.Array,
    seeds: int,
    parallel: int = 0,
    block_size: int = 1000,
) -> np.ndarray:
    """Classes that networks say, trained on each set under each setting.

    Args:
      sets: training sets of one size; seed ``s`` takes set ``s mod len(sets)``.
      probes: ``[n, ...]`` images.
      model: flax module.
      settings: hyperparameters. Those that differ in learning rate and weight decay alone share a compiled program.
      protocol: the rest of the training. SGD has momentum 0.9 unless the protocol says otherwise.
      key: draws weights and batches, the same for every setting.
      seeds: networks for each setting.
      parallel: how many at once; 0 for one after the other on CPU and all elsewhere.
      block_size: images that go through a network at once.

    Returns:
      ``[settings, seeds, n]`` int; -1 where an output is not finite.
    """
    where = "robustness.predictions"
    checks.require(len(sets) > 0 and len(settings) > 0, where, "there is no set or no setting; give one of each")
    for name, value, low in (("seeds", seeds, 1), ("parallel", parallel, 0), ("block_size", block_size, 1)):
        checks.whole(where, name, value, low)
    checks.same_example_shape(where, "set", sets[0].x, "probes", probes)
    shapes = {(np.shape(some.x), np.shape(some.y)) for some in sets}
    checks.require(len(shapes) == 1, where, f"the sets are of {len(shapes)} sizes or shapes; give those of one")
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(Distilled(s.x, s.y) for s in sets))
    keys, at_once = jax.random.split(key, seeds), parallel or (1 if jax.default_backend() == "cpu" else seeds)
    found = []
    for setting in settings:
        words = {"optimizer": setting.optimizer, "loss": setting.loss, "momentum": protocol.momentum or 0.9}
        rates = jnp.float32(setting.learning_rate), jnp.float32(setting.weight_decay)
        options = {"model": model, "protocol": protocol._replace(**words), "block_size": block_size}
        found.append(np.asarray(_said(keys, stacked, jnp.asarray(probes), *rates, parallel=at_once, **options)))
    return np.stack(found)


def scatter(
    distilled: Distilled,
    task: Task,
    networks: Mapping[str, nn.Module],
    settings: Sequence[Setting],
    *,
    natural: Sequence[Distilled] = (),
    held: tuple[Any, Any] | None = None,
    protocol: Protocol = PROTOCOL,
    key: jax.Array | None = None,
    seeds: int = 5,
    parallel: int = 0,
) -> list[Point]:
    """Every network under every setting, on a distilled set and on natural images of the same number.

    Args:
      distilled: the set.
      task: the data set in the same space.
      networks: flax modules by name.
      settings: as of ``grid``.
      natural: sets of natural images to compare with, one for each seed in turn; random subsets unless given, another
        for each seed. (For a corrupted set: what it started from, ``corrupted`` alike.)
      held: ``(images [v, ...], classes [v])`` to choose settings by, which are in no set nor in the task.
      protocol: the rest of the training.
      key: draws subsets, weights and batches.
      seeds: networks for each point.
      parallel: as in ``predictions``.

    Returns:
      A ``Point`` for each network and setting.

    Raises:
      InputError: there is no network or no setting, or the shapes do not fit.

    References:
      arXiv:2011.00050, section 4.3, figure 3.
    """
    where = "robustness.scatter"
    checks.require(bool(networks), where, "networks is empty; name at least one")
    checks.same_example_shape(where, "distilled.x", distilled.x, "task.x_test", task.x_test)
    checks.same_classes(where, "distilled.y", distilled.y, "classes", np.zeros((1, task.num_classes)))
    keys = jax.random.split(jax.random.key(0) if key is None else key, 2)
    natural = natural or [krr.subset(k, task, len(distilled.x)) for k in jax.random.split(keys[0], seeds)]
    probes, truth, n = jnp.asarray(task.x_test), np.asarray(task.test_labels), len(task.x_test)
    if held is not None:
        checks.same_length(where, "held images", held[0], "their classes", held[1])
        checks.same_example_shape(where, "held images", held[0], "task.x_test", task.x_test)
        probes, truth = jnp.concatenate([probes, jnp.asarray(held[0])]), np.concatenate([truth, held[1]])
    points = []
    for name, model in networks.items():
        options = {"protocol": protocol, "key": keys[1], "seeds": seeds, "parallel": parallel}
        right = [predictions(sets, probes, model, settings, **options) == truth for sets in ([distilled], natural)]
        for i, setting in enumerate(settings):
            test = [found[i, :, :n].mean(axis=1) for found in right]
            chosen_by = [found[i, :, n:].mean(axis=1) if len(truth) > n else np.zeros(0) for found in right]
            points.append(Point(name, setting, *test, *chosen_by))
    return points


def best(points: Sequence[Point], which: str) -> Point:
    """The point with the best mean accuracy for networks trained on ``"distilled"`` or ``"natural"`` images.

    It is looked up on held-out images where there are some, else on the test images, as papers do.
    """
    checks.one_of("robustness.best", "which", which, ("distilled", "natural"))
    checks.require(len(points) > 0, "robustness.best", "there are no points; give at least one")

    def score(point):
        held_out = getattr(point, f"{which}_validation")
        return np.mean(held_out if len(held_out) else getattr(point, which))

    return max(points, key=score)


def wins(points: Sequence[Point]) -> float:
    """The share of points at which the mean accuracy of the distilled set is the higher one; ties count half."""
    gaps = np.array([point.distilled.mean() - point.natural.mean() for point in points])
    checks.require(len(gaps) > 0, "robustness.wins", "there are no points; give at least one")
    return float(np.mean((gaps > 0) + 0.5 * (gaps == 0)))


@functools.partial(jax.jit, static_argnames=("model", "protocol", "parallel", "block_size"))
def _said(keys, sets, probes, learning_rate, weight_decay, *, model, protocol, parallel, block_size):
    """Classes ``[seeds, n]``."""
    protocol = protocol._replace(learning_rate=learning_rate, weight_decay=weight_decay)

    def one(args):
        key, index = args
        made = jax.tree.map(lambda leaf: leaf[index], sets)
        trained = train.fit(key, model, made, protocol=protocol)
        outputs = train.predict(model, trained, probes, protocol=protocol, block_size=block_size)
        return jnp.where(jnp.isfinite(outputs).all(axis=1), labels.classes(outputs), -1)

    indices = jnp.arange(len(keys)) % len(sets.x)
    return lax.map(one, (keys, indices), batch_size=parallel if parallel > 1 else None)
