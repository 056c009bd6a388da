"""The protocols with which the papers train networks on their sets: every number, by name and version.

``ld``: arXiv:2006.08572, of which every set has its own number of steps;
``rcig``, ``rcig_aug``: arXiv:2302.06755, appendix; ``frepo``: arXiv:2206.00719; ``rfad``: arXiv:2210.12067; ``dc``:
arXiv:2006.05929; ``dsa``: arXiv:2102.08259; ``dm``: arXiv:2110.04181; ``mtt``: arXiv:2203.11932. What the papers leave
open is as in their programs, except for two slips of RCIG's: without augmentation it takes 2500 and 5000 steps for the
1000 and 2000 of its schedule, and its augmentation draws the same numbers again every 500 steps.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from kipjax import checks
from kipjax.core import labels, losses
from kipjax.data import augment, diffaug
from kipjax.evaluation.result import Task

__all__ = ["AUGMENTS", "LOSSES", "NAMED", "Protocol", "describe", "for_task", "named", "per_epoch", "schedule", "steps"]


class Protocol(NamedTuple):
    """All that fixes a training; a change is ``protocol._replace(...)``.

    Attributes:
      name, version: the version goes up whenever a number of the named protocol changes.
      model, width: the paper's network, for ``train.build``; width 0 is the network's own.
      steps: number of steps, or pairs ``(largest set size, steps)`` in ascending order; the last holds for all larger.
      epochs: passes over the set in a new order each, the last batch as small as it falls; instead of ``steps``.
      batch_size: sets up to this size are taken whole at each step.
      shuffle: draw the batch of each step at random; otherwise go through the set in its order, again and again.
      optimizer: ``"adam"`` or ``"sgd"``; ``momentum`` is that of ``"sgd"``, ``b1`` the first beta of ``"adam"``.
      learning_rate: the highest one; ``learned_rate`` takes the set's own instead, if it has one.
      warmup: steps in which it rises linearly from zero.
      final_rate: fraction to which it falls along a cosine from there to the last step.
      drop_epoch: epochs after which it falls to a tenth, and momentum starts anew; 0 for never.
      milestones: epochs after each of which it falls to a tenth, while momentum goes on.
      halve_every: steps after which it is halved, again and again; 0 for never.
      loss: a name in ``LOSSES``.
      weight_decay: ``w`` in the penalty ``w/2 |theta|^2``, or ``w |theta - theta_0|^2`` if ``decay_to_start``; over all
        parameters.
      centred: the outputs are those of the network minus those at its start.
      label_scale: the network learns the labels times this, so its outputs are divided by it.
      augment: strategies for images of one channel, and of more; ``augment_style`` is a name in ``AUGMENTS``.
      flip: a set that was distilled with its mirror images is trained on with them.
      patience: steps without a better validation accuracy after which training stops, and the best weights are taken;
        0 for neither. ``validate_every`` so many steps, the last time after the last of ``steps``.
    """

    name: str
    version: int = 1
    model: str = "convnet"
    width: int = 0
    steps: int | tuple[tuple[int, int], ...] = 0
    epochs: int = 0
    batch_size: int = 256
    shuffle: bool = True
    optimizer: str = "adam"
    momentum: float = 0.0
    b1: float = 0.9
    learning_rate: float = 1e-4
    learned_rate: bool = False
    warmup: int = 0
    final_rate: float = 1.0
    drop_epoch: int = 0
    milestones: tuple[int, ...] = ()
    halve_every: int = 0
    loss: str = "half_mse"
    weight_decay: float = 0.0
    decay_to_start: bool = False
    centred: bool = False
    label_scale: float = 1.0
    augment: tuple[str, str] = ("none", "none")
    augment_style: str = "image"
    flip: bool = False
    patience: int = 0
    validate_every: int = 100


_RCIG = Protocol(
    "rcig", steps=((10, 1000), (100, 2000)), batch_size=256, learning_rate=1e-4, warmup=500, final_rate=0.01, flip=True
)
_FREPO = Protocol(
    "frepo",
    steps=(
        (10, 1000),
        (100, 2000),
        (200, 20_000),
        (400, 5000),
        (500, 5000),
        (1000, 10_000),
        (2000, 40_000),
        (5000, 40_000),
    ),
    batch_size=500,
    shuffle=False,
    learning_rate=3e-4,
    warmup=500,
    final_rate=0.01,
    loss="half_squares",
    augment=("color_crop_rotate_translate_cutout", "flip_color_crop_rotate_translate_cutout"),
    augment_style="batch",
)
_RFAD = Protocol(
    "rfad",
    model="rfad_convnet",
    width=1024,
    steps=20_000,
    batch_size=513,
    optimizer="sgd",
    momentum=0.9,
    learning_rate=1e-3,
    loss="mse",
    weight_decay=1e-3,
    decay_to_start=True,
    centred=True,
    label_scale=8.0,
    patience=500,
)
_DC = Protocol(
    "dc",
    model="dc_convnet",
    epochs=301,
    drop_epoch=152,
    batch_size=256,
    optimizer="sgd",
    momentum=0.9,
    learning_rate=0.01,
    loss="cross_entropy",
    weight_decay=5e-4,
    augment_style="dc",
)
_LD = Protocol(
    "ld", model="lenet", steps=300, batch_size=50, optimizer="adam", learning_rate=1e-3, loss="soft_cross_entropy"
)
_LONG = {"epochs": 1001, "drop_epoch": 502}  # of DC and those after it, wherever they augment
_DSA = _DC._replace(name="dsa", augment=("color_crop_cutout_flip_scale_rotate",) * 2, augment_style="dsa", **_LONG)

NAMED: dict[str, Protocol] = {
    "rcig": _RCIG,
    "rcig_aug": _RCIG._replace(
        name="rcig_aug", augment=("crop_rotate_translate_cutout", "flip_color_crop_rotate_translate_cutout")
    ),
    "frepo": _FREPO,
    "rfad": _RFAD,
    "ld": _LD,
    "dc": _DC,
    "dc_batch_norm": _DC._replace(name="dc_batch_norm", model="dc_convnet:batch", augment=("crop_noise",) * 2, **_LONG),
    "dsa": _DSA,
    "dm": _DSA._replace(name="dm"),
    "mtt": _DSA._replace(name="mtt", learned_rate=True),
}
"""The protocols by name. ``named`` adds what some of them do differently on some data sets."""

_RFAD_SETTINGS = {  # learning rate, label scale, weight decay by data set and images per class
    "mnist": {1: (1e-3, 8, 1e-3), 10: (1e-2, 8, 1e-3), 50: (1e-2, 8, 0.0)},
    "fashion_mnist": {1: (1e-3, 8, 0.0), 10: (1e-2, 8, 1e-3), 50: (1e-3, 2, 0.0)},
    "cifar10": {1: (1e-3, 8, 0.0), 10: (1e-3, 2, 0.0), 50: (1e-2, 2, 0.0)},
    "cifar100": {1: (1e-1, 8, 0.0), 10: (1e-1, 2, 0.0)},
    "svhn": {1: (1e-3, 16, 0.0), 10: (1e-2, 8, 0.0), 50: (1e-2, 2, 0.0)},
}
_CHARACTERS = ("digits", "mnist", "kmnist", "svhn")  # which a mirror would make into others

LOSSES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "half_mse": losses.mse,
    "half_squares": lambda outputs, y: y.shape[1] * losses.mse(outputs, y),
    "mse": lambda outputs, y: 2 * losses.mse(outputs, y),
    "cross_entropy": lambda outputs, y: losses.cross_entropy(outputs, labels.classes(y)),
    "soft_cross_entropy": lambda outputs, y: losses.cross_entropy(outputs, _probabilities(y)),
}
"""``loss(outputs [b, k], y [b, k]) -> []``: ``half_mse`` is the mean over all entries, ``half_squares`` sums over
classes, ``mse`` has no half; ``cross_entropy`` takes the class of each label, ``soft_cross_entropy`` labels as
probabilities, shifted alike in each row where they do not sum to one."""

AUGMENTS: dict[str, Callable[[str], augment.Augment]] = {
    "image": functools.partial(augment.strategy, per="image"),
    "batch": functools.partial(augment.strategy, per="batch"),
    "dsa": diffaug.independent,
    "each": functools.partial(diffaug.independent, mode="multiple"),
    "dc": diffaug.plain,
}
"""What a strategy means: one operation for each image or for each batch of ``data.augment``; DSA's; all of DSA's
one after the other; DC's."""


def named(name: str, *, dataset: str = "", ipc: int = 1) -> Protocol:
    """A protocol as its paper applies it to one data set.

    ``rfad`` has learning rate, label scale and weight decay by data set and images per class; where it has none, those
    of MNIST and of the next larger number stand in. ``dc`` augments, and trains for 1001 epochs, on MNIST alone.
    ``dsa``, ``dm`` and ``mtt`` do not mirror characters.

    Args:
      name: a name in ``NAMED``.
      dataset: name of the data set, as in ``data.load``.
      ipc: distilled images per class.

    Raises:
      InputError: there is no such protocol.
    """
    checks.one_of("evaluation.protocols.named", "protocol", name, NAMED)
    protocol, dataset = NAMED[name], dataset.removeprefix("tfds:").removesuffix("_cropped")
    if name == "rfad":
        rows = _RFAD_SETTINGS.get(dataset, _RFAD_SETTINGS["mnist"])
        rate, scale, decay = rows[min((listed for listed in rows if listed >= ipc), default=max(rows))]
        return protocol._replace(learning_rate=rate, label_scale=float(scale), weight_decay=decay)
    if name == "dc" and dataset == "mnist":
        return protocol._replace(augment=("crop_scale_rotate",) * 2, **_LONG)
    if protocol.augment_style == "dsa" and dataset in _CHARACTERS:
        return protocol._replace(augment=("color_crop_cutout_scale_rotate",) * 2)
    return protocol


def for_task(name: str, task: Task, size: int) -> Protocol:
    """``named`` for a set of ``size`` images of a task."""
    return named(name, dataset=task.name, ipc=math.ceil(size / task.num_classes))


def steps(protocol: Protocol, size: int) -> int:
    """Number of training steps on a set of ``size`` images."""
    if protocol.epochs:
        return protocol.epochs * per_epoch(protocol, size)
    if isinstance(protocol.steps, int):
        return protocol.steps
    return next((count for largest, count in protocol.steps if size <= largest), protocol.steps[-1][1])


def schedule(protocol: Protocol, size: int) -> optax.Schedule:
    """``rate(step) -> []``: the learning rate on a set of ``size`` images; the first step is step 0."""
    total, top = steps(protocol, size), protocol.learning_rate
    if protocol.drop_epoch:
        drop = protocol.drop_epoch * per_epoch(protocol, size)
        return lambda step: top * jnp.where(jnp.asarray(step) < drop, 1.0, 0.1)
    if protocol.milestones:
        falls = {epoch * per_epoch(protocol, size): 0.1 for epoch in protocol.milestones}
        return optax.piecewise_constant_schedule(top, falls)
    if protocol.halve_every:
        return optax.exponential_decay(top, protocol.halve_every, 0.5, staircase=True)
    fall = optax.cosine_decay_schedule(top, max(total - protocol.warmup, 1), protocol.final_rate)
    if not protocol.warmup:
        return fall
    return optax.join_schedules([optax.linear_schedule(0.0, top, protocol.warmup), fall], [protocol.warmup])


def describe(protocol: Protocol, size: int) -> str:
    """The main numbers in a line."""
    length = f"{protocol.epochs} epochs" if protocol.epochs else f"{steps(protocol, size)} steps"
    rate = f"learning rate {protocol.learning_rate:g}"
    rate = f"the set's own learning rate (else {protocol.learning_rate:g})" if protocol.learned_rate else rate
    parts = [f"{length} of {protocol.optimizer}", rate, protocol.loss]
    parts += [f"weight decay {protocol.weight_decay:g}"] if protocol.weight_decay else []
    parts += [f"labels times {protocol.label_scale:g}"] if protocol.label_scale != 1 else []
    parts += ["augmented" if any(name != "none" for name in protocol.augment) else "not augmented"]
    return f"{protocol.name} v{protocol.version}: {', '.join(parts)}"


def per_epoch(protocol: Protocol, size: int) -> int:
    """Batches in a pass over a set of ``size`` images."""
    return -(-size // protocol.batch_size)


def _probabilities(y):
    """Labels moved so that each row sums to one: probabilities stay, centred one-hot rows become one-hot."""
    return y + (1 - jnp.sum(y, axis=1, keepdims=True)) / y.shape[1]
