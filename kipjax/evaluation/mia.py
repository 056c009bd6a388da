"""Membership inference: who can tell which images a network was trained on, from its outputs?

The five attacks of TensorFlow Privacy (``_attacks``) by the protocol of FRePo (arXiv:2206.00719) and RCIG
(arXiv:2302.06755, section 4.5 and S2): members are one chunk of the training set, the others the test set; the attacker
sees outputs and loss of every point, and half of the points' membership. Beyond the papers: true positive rates at low
false positive rates, as Carlini et al. (arXiv:2112.03570) ask for; a *control*, a network that saw no member, whose AUC
is what a mere shift between training and test set yields; and the AUC over the members that were really used.

An AUC near 0.5 says that these attacks fail on average. It is no guarantee of privacy.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from kipjax import checks
from kipjax.core import labels
from kipjax.data import draw
from kipjax.evaluation import protocols, train
from kipjax.evaluation._attacks import ATTACKS, FEWEST, GRIDS, Attack, attack, features
from kipjax.evaluation.protocols import Protocol
from kipjax.evaluation.result import Task, check_task
from kipjax.types import Distilled

__all__ = [
    "ATTACKS",
    "FPRS",
    "GRIDS",
    "LENGTHS",
    "PROTOCOL",
    "Attack",
    "Audit",
    "attack",
    "audits",
    "chunk",
    "evaluate",
    "features",
]

PROTOCOL: Protocol = protocols.named("frepo")._replace(
    name="mia", steps=16_000, batch_size=256, shuffle=True, warmup=0, final_rate=1.0
)
"""The training of the networks that are attacked; on real images with batches of ``REAL_BATCH``."""
REAL_BATCH = 1024
LENGTHS = (100, 250, 500, 1000, 2000, 4000, 8000, 16_000)
"""Steps after which the papers attack; their tables have the last."""
FPRS = (0.001, 0.01)


class Audit(NamedTuple):
    """One attack on one network.

    Attributes:
      trained_on: the set; ``network``: which of the networks trained on it; ``steps`` that it took.
      attack: a name in ``ATTACKS``.
      accuracy: of the network on the test set, in 0..1.
      auc, advantage: as in ``Attack``; ``tpr`` at each rate in ``FPRS``.
      used, used_auc: how many members were really in the training set, and the AUC over those; ``None`` for none.
    """

    trained_on: str
    network: int
    steps: int
    attack: str
    accuracy: float
    auc: float
    advantage: float
    tpr: tuple[float, ...]
    used: int
    used_auc: float | None


def chunk(total: int, index: int, size: int = 10_000) -> np.ndarray:
    """Row numbers ``[size]``, ``size * index .. size * (index + 1) - 1``, of ``total`` training images as stored."""
    checks.whole("mia.chunk", "size", size)
    checks.whole("mia.chunk", "index", index, 0)
    checks.require(
        size * (index + 1) <= total,
        "mia.chunk",
        f"chunk {index} of {size} images ends at {size * (index + 1)} and there are {total}; there are "
        f"{total // size} chunks of this size, from 0 on",
    )
    return np.arange(size * index, size * (index + 1))


def audits(
    task: Task,
    members: Any,
    *,
    distilled: Mapping[str, Distilled] | None = None,
    control: Any = None,
    subset_size: int = 500,
    real: bool = True,
    model: nn.Module | None = None,
    protocol: Protocol = PROTOCOL,
    lengths: Sequence[int] = LENGTHS,
    attacks: Sequence[str] = ATTACKS,
    grid: str = "paper",
    key: jax.Array | None = None,
    seeds: int = 1,
    block_size: int = 1000,
) -> Iterator[Audit]:
    """Attacks on networks trained on distilled sets, on the members, on a few of them, and on none of them.

    Args:
      task: the data; its test images are the non-members.
      members: rows of ``task.x_train``, such as ``chunk`` gives.
      distilled: sets by name, distilled from the members alone.
      control: rows of training images that are no members, such as another chunk; ``None`` for no control.
      subset_size: random members for the baseline "subset"; 0 leaves it out.
      real: whether to train on all members too.
      model: of the networks; FRePo's ConvNet of width 128 unless given.
      protocol: of their training, one that counts steps at a constant rate.
      lengths: numbers of steps after which they are attacked, ascending.
      attacks: names in ``ATTACKS``; ``grid`` is a name in ``GRIDS``.
      key: draws subset, networks and attacks.
      seeds: networks on each set; every one has a random subset of its own.
      block_size: images that go through a network at once.

    Yields:
      An ``Audit`` for every set, network, length and attack, when it is done.

    Raises:
      InputError: rows outside the training set or in both members and control, too few points, unknown names, a set of
        other shapes or classes than the task, nothing to train on or to attack with.
      NumericalError: a network left the finite numbers.
    """
    where = "mia.evaluate"
    members, control = _rows(where, "members", members, task), _rows(where, "control", control, task)
    both = len(np.intersect1d(members, control))
    checks.require(not both, where, f"{both} rows are both members and control; a control is trained on no member")
    for name, value, low in (("subset_size", subset_size, 0), ("seeds", seeds, 1), ("block_size", block_size, 1)):
        checks.whole(where, name, value, low)
    checks.at_least(where, "number of members", len(members), max(FEWEST, subset_size))
    checks.at_least(where, "number of non-members, which are the test images,", len(task.x_test), FEWEST)
    for length in lengths:
        checks.whole(where, "length", length)
    rising = len(lengths) > 0 and np.all(np.diff(lengths, prepend=0) > 0)
    checks.require(bool(rising), where, f"lengths is {list(lengths)}; expected ascending numbers of steps")
    checks.require(len(attacks) > 0, where, f"attacks is empty; give one or more of {', '.join(ATTACKS)}")
    for name, made in (distilled or {}).items():
        check_task(f"{where}: {name}", task, made)
    asked = distilled or subset_size or real or len(control)
    checks.require(
        bool(asked), where, "there is nothing to train on; give distilled sets, subset_size, real or control"
    )
    for name in attacks:
        checks.one_of(where, "attack", name, ATTACKS)
    checks.one_of(where, "grid", grid, GRIDS)
    model = model if model is not None else train.build("convnet", task, width=128)
    key = jax.random.key(0) if key is None else key
    x, classes = np.asarray(task.x_train), np.asarray(task.train_labels)
    probes = jnp.concatenate([jnp.asarray(x[members]), jnp.asarray(task.x_test)])
    large = protocol._replace(batch_size=max(protocol.batch_size, REAL_BATCH))

    def images(rows):
        return Distilled(jnp.asarray(x[rows]), labels.one_hot(classes[rows], task.num_classes))

    for network in range(seeds):
        keys = jax.random.split(jax.random.fold_in(key, network), 3)
        some = np.asarray(draw.without_replacement(keys[0], subset_size, len(members)))
        none = np.empty(0, int)
        sets = {name: (made, protocol, none) for name, made in (distilled or {}).items()}
        sets |= {"subset": (images(members[some]), protocol, some)} if subset_size else {}
        sets |= {"real": (images(members), large, np.arange(len(members)))} if real else {}
        sets |= {"control": (images(control), large, none)} if len(control) else {}
        attack_seed = int(jax.random.randint(keys[2], (), 0, 2**31 - 1))
        for i, (name, (made, chosen, used)) in enumerate(sets.items()):
            outputs = _train(
                jax.random.fold_in(keys[1], i), made, jnp.asarray(lengths), probes,
                model=model, protocol=chosen, block_size=block_size,
            )  # fmt: skip
            for steps, at in zip(lengths, np.asarray(outputs)):
                start = name, network, int(steps)
                yield from _audits(start, at, task, members, used, attacks, attack_seed, grid)


def evaluate(*args: Any, **options: Any) -> list[Audit]:
    """All that ``audits`` yields, in a list; the same arguments."""
    return list(audits(*args, **options))


@functools.partial(jax.jit, static_argnames=("model", "protocol", "block_size"))
def _train(key, distilled, lengths, probes, *, model, protocol, block_size):
    """Outputs ``[lengths, n, k]`` for the probes along one training."""
    along = train.fit_along(key, model, distilled, lengths, protocol=protocol)
    return jax.lax.map(
        lambda network: train.predict(model, network, probes, protocol=protocol, block_size=block_size), along
    )


def _audits(start, outputs, task, members, used, attacks, seed, grid):
    name, network, steps = start
    if not np.isfinite(outputs).all():
        raise checks.NumericalError(
            f"mia.evaluate: network {network} on {name} left the finite numbers within {steps} steps; look for NaN in "
            "the set, or lower the learning rate"
        )
    n, classes = len(members), np.asarray(task.train_labels)[members]
    accuracy = float(np.mean(outputs[n:].argmax(axis=1) == np.asarray(task.test_labels)))
    sides = features(outputs[:n], classes), features(outputs[n:], task.test_labels)
    made_on = []
    for which in attacks:
        made = attack(which, *sides, seed=seed, grid=grid)
        rates = tuple(made.tpr_at(fpr) for fpr in FPRS)
        used_auc = made.among(used).auc if len(used) else None
        made_on.append(
            Audit(name, network, steps, which, accuracy, made.auc, made.advantage, rates, len(used), used_auc)
        )
    return made_on


def _rows(where, name, rows, task):
    """Distinct row numbers of the training set, none for ``None``."""
    rows, n = np.asarray([] if rows is None else rows).reshape(-1), len(task.x_train)
    checks.require(
        not len(rows) or rows.dtype.kind in "iu", where, f"{name} has dtype {rows.dtype}; expected whole row numbers"
    )
    rows = rows.astype(int)
    ok = not len(rows) or (rows.min() >= 0 and rows.max() < n and len(np.unique(rows)) == len(rows))
    checks.require(bool(ok), where, f"{name} must be distinct rows of the {n} training images, 0..{n - 1}")
    return rows
