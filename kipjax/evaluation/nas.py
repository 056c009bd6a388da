"""Neural architecture search on a proxy: do networks rank alike when trained on a small set and on the whole?

The space of DC (arXiv:2006.05929, section 4.3), DSA and DM: 720 ConvNets of width 32 to 256, depth 1 to 4, five norms,
three activations and three poolings. Every one is trained on a proxy set. A proxy is judged by the rank correlation of
the accuracies with those of training on the whole set, for all networks and for the best, by the accuracy of the
network that it selects, and by time and stored images. *Early stopping* is the whole set for as many steps as a proxy.
A set that was distilled through a training, as GTN's (arXiv:1912.07768), may be trained on as it was unrolled.

Networks whose parameters have the same shapes (which differ in activation, or in the kind of pooling) are one compiled
program, and run together where the device is wide enough.
"""

import functools
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax

from kipjax import checks, models
from kipjax.core import labels
from kipjax.evaluation import protocols, train
from kipjax.evaluation._combinations import combinations
from kipjax.evaluation.protocols import Protocol
from kipjax.evaluation.result import Task
from kipjax.methods import dd
from kipjax.models import activations, convnet, layers
from kipjax.types import Batch, Distilled

__all__ = [
    "FULL",
    "PROTOCOL",
    "WORDS",
    "Architecture",
    "Correlation",
    "Curriculum",
    "Search",
    "build",
    "correlation",
    "evaluate",
    "require_suits",
    "search",
    "searches",
    "space",
]

WORDS: dict[str, tuple] = {
    "width": (32, 64, 128, 256),
    "depth": (1, 2, 3, 4),
    "norm": ("none", "batch", "layer", "instance", "group"),
    "activation": ("sigmoid", "relu", "leaky"),
    "pool": ("none", "max", "avg"),
}
"""The values of the 720 ConvNets."""

PROTOCOL: Protocol = protocols.NAMED["dc"]._replace(name="nas", epochs=200, drop_epoch=101)
"""How a network is trained on a proxy: DC's rule for so many epochs (200 for DM's 50 images per class; DC took 100)."""
FULL: Protocol = PROTOCOL._replace(name="nas_full", epochs=100, drop_epoch=51)
"""The same on the whole training set."""


class Architecture(NamedTuple):
    """One ConvNet of the space."""

    width: int
    depth: int
    norm: str
    activation: str
    pool: str

    def __str__(self) -> str:
        return f"w{self.width} d{self.depth} {self.norm} {self.activation} {self.pool}"


class Curriculum(NamedTuple):
    """How a set was unrolled: in ``inner_steps`` batches, by its own step sizes ``lr [T]``, ``momentum`` [] or [T]."""

    inner_steps: int
    momentum: float | jax.Array = 0.0


class Search(NamedTuple):
    """All architectures trained on one set.

    Attributes:
      proxy: its name.
      images: real or distilled images that have to be stored for it.
      accuracies: ``[architectures, seeds]`` on the images that score it, in 0..1.
      seconds: of training and scoring; ``compile_seconds`` come on top.
    """

    proxy: str
    images: int
    accuracies: np.ndarray
    seconds: float
    compile_seconds: float


class Correlation(NamedTuple):
    """Rank correlations over ``n`` networks, in -1..1; NaN where one of the rankings is a single tie."""

    spearman: float
    kendall: float
    n: int


def space(
    *,
    width: Sequence[int] = WORDS["width"],
    depth: Sequence[int] = WORDS["depth"],
    norm: Sequence[str] = WORDS["norm"],
    activation: Sequence[str] = WORDS["activation"],
    pool: Sequence[str] = WORDS["pool"],
) -> list[Architecture]:
    """All combinations, 720 unless some words are left out.

    Args:
      width, depth: any positive whole numbers.
      norm, activation, pool: words that ``models.get("dc_convnet")`` knows.

    Raises:
      InputError: a word is unknown or repeated, there is none, or group norm's four groups do not divide a width.

    Example:
      >>> len(space()), len(space(width=[32], depth=[3]))
      (720, 45)
    """
    where = "nas.space"
    known = {"norm": models.norms.NORMS, "activation": activations.ACTIVATIONS, "pool": layers.POOLS}
    chosen = {"width": width, "depth": depth, "norm": norm, "activation": activation, "pool": pool}

    def check(name, value):
        if name in known:
            checks.one_of(where, name, value, known[name])
        else:
            checks.whole(where, name, value)

    found = [Architecture(*values) for values in combinations(where, chosen, check)]
    for one in found:
        if one.norm == "group":
            checks.divides(where, "width", one.width, "groups of group norm", 4)
    return found


def build(architecture: Architecture, num_classes: int) -> nn.Module:
    """The ConvNet of DC with those words."""
    return models.get("dc_convnet", num_classes=num_classes, **architecture._asdict())


def correlation(proxy: Any, full: Any, *, top: float = 1.0, by: str = "proxy") -> Correlation:
    """Rank correlation of two accuracies of the same networks, ties averaged.

    Args:
      proxy, full: ``[n]``, the means over seeds.
      top: the best share of the networks (0.1: a tenth, rounded up), or their number if it is above 1.
      by: the best by ``"proxy"``, which are those that a search would look at again, or by ``"full"``.

    Raises:
      InputError: fewer than two networks are left, or lengths differ.

    Example:
      >>> correlation([1, 2, 3, 4], [10, 20, 30, 40]).spearman
      1.0
    """
    from scipy import stats

    where = "nas.correlation"
    proxy, full = np.asarray(proxy, np.float64), np.asarray(full, np.float64)
    checks.same_length(where, "proxy", proxy, "full", full)
    checks.one_of(where, "by", by, ("proxy", "full"))
    checks.at_least(where, "top", top, 0.0, strict=True)
    n = len(proxy) if top == 1 else int(np.ceil(round(top * len(proxy), 9))) if top < 1 else int(top)
    checks.require(
        2 <= n <= len(proxy),
        where,
        f"top = {top:g} of {len(proxy)} networks is {n}; a ranking needs at least 2 of them; "
        f"{'raise' if n < 2 else 'lower'} top",
    )
    best = np.argsort(-(proxy if by == "proxy" else full), kind="stable")[:n]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        rules: Any = (stats.spearmanr, stats.kendalltau)
        rho, tau = (rule(proxy[best], full[best]).statistic for rule in rules)
    return Correlation(float(rho), float(tau), n)


def search(
    architectures: Sequence[Architecture],
    distilled: Distilled,
    x: Any,
    classes: Any,
    *,
    protocol: Protocol = PROTOCOL,
    curriculum: Curriculum | None = None,
    name: str = "distilled",
    key: jax.Array | None = None,
    seeds: int = 1,
    parallel: int = 0,
    block_size: int = 250,
) -> Search:
    """Every architecture trained on one set and scored.

    Args:
      architectures: as of ``space``.
      distilled: the set.
      x: ``[n, h, w, c]`` images that score, ``classes [n]`` theirs.
      protocol: of the training.
      curriculum: trains on the set as it was unrolled instead.
      name: of the set in the result.
      key: of all networks; that of one depends on its architecture alone, not on which others there are.
      seeds: networks of each architecture.
      parallel: networks of equal shapes trained at once; 0 for one after the other on CPU and all elsewhere.
      block_size: images that go through each network at once.

    Returns:
      A ``Search``. A network that leaves the finite numbers counts as one that says the first class always.

    Raises:
      InputError: an architecture does not suit the images, shapes do not fit, or the set is no such curriculum.
    """
    where = "nas.search"
    for option, value, low in (("seeds", seeds, 1), ("parallel", parallel, 0), ("block_size", block_size, 1)):
        checks.whole(where, option, value, low)
    checks.require(len(architectures) > 0, where, "architectures is empty; give at least one")
    checks.same_length(where, "x", x, "classes", classes)
    checks.same_example_shape(where, "distilled.x", distilled.x, "x", x)
    distilled = jax.tree.map(jnp.asarray, distilled)
    checks.labels_within(where, "classes", classes, distilled.y.shape[1])
    require_suits(architectures, distilled.x, distilled.y.shape[1])
    batches = None if curriculum is None else _batches(where, distilled, curriculum)
    key = jax.random.key(0) if key is None else key
    x, classes = jnp.asarray(x), np.asarray(classes)
    accuracies, seconds = np.zeros((len(architectures), seeds)), np.zeros(2)
    for shape, members in _groups(architectures).items():
        kinds, keys, choices = _members([architectures[i] for i in members], key, seeds)
        at_once = min(parallel, len(keys)) or (1 if jax.default_backend() == "cpu" else len(keys))
        began = time.monotonic()
        program = _train_group.lower(
            keys, choices, distilled, batches, x,
            shape=shape, kinds=kinds, protocol=protocol, parallel=at_once, block_size=block_size,
        ).compile()  # fmt: skip
        compiled = time.monotonic()
        found = np.asarray(program(keys, choices, distilled, batches, x))
        seconds += compiled - began, time.monotonic() - compiled
        accuracies[members] = (found == classes).mean(axis=1).reshape(len(members), seeds)
    return Search(name, len(distilled.x), accuracies, float(seconds[1]), float(seconds[0]))


def searches(
    task: Task,
    architectures: Sequence[Architecture],
    proxies: Mapping[str, Distilled | Sequence[Distilled]],
    *,
    protocol: Protocol = PROTOCOL,
    full_protocol: Protocol = FULL,
    curricula: Mapping[str, Curriculum] | None = None,
    early_stopping: bool = True,
    held: tuple[Any, Any] | None = None,
    key: jax.Array | None = None,
    seeds: int = 1,
    **options: Any,
) -> Iterator[Search]:
    """Searches on several proxies, by early stopping, and on the whole training set, which comes last.

    Args:
      task: the data.
      architectures: as of ``space``.
      proxies: sets by name, of random images, of a coreset, distilled, in the space of the task. Several of one name
        (draws of a random set) are searched on one after the other.
      protocol: on the proxies; early stopping takes as many steps, at its first learning rate.
      full_protocol: on the whole training set.
      curricula: of the proxies that are trained on as they were unrolled, by name.
      early_stopping: whether to search that way too, in as many steps as on each proxy.
      held: ``(images [v, ...], classes [v])`` that score the proxies and early stopping, which are in no proxy nor in
        the task; ``None`` scores them on the test set, as the papers do. The whole set's networks are scored there.
      key: of everything.
      seeds: networks of each architecture.
      **options: of ``search``.

    Yields:
      A ``Search`` for each, when it is done; ``correlation`` compares any of them with the last.

    Raises:
      InputError: as in ``search``; there is no proxy.
    """
    where = "nas.evaluate"
    checks.require(bool(proxies), where, "proxies is empty; give at least one set")
    key = jax.random.key(0) if key is None else key
    whole = Distilled(jnp.asarray(task.x_train), labels.one_hot(task.train_labels, task.num_classes))
    tested = task.x_test, task.test_labels
    run = functools.partial(search, architectures, key=key, seeds=seeds, **options)
    sets = [
        (name, made) for name, some in proxies.items() for made in ([some] if isinstance(some, Distilled) else some)
    ]
    curricula = curricula or {}
    unknown = ", ".join(sorted(set(curricula) - set(proxies)))
    checks.require(not unknown, where, f"curricula has {unknown}, which is no proxy; they are {', '.join(proxies)}")
    for name, made in sets:
        yield run(made, *(held or tested), protocol=protocol, curriculum=curricula.get(name), name=name)
    if early_stopping:
        lengths = [
            np.asarray(m.lr).size if name in curricula else protocols.steps(protocol, len(m.x)) for name, m in sets
        ]
        counts = sorted(set(lengths))
        for count in counts:
            stopped = protocol._replace(name="nas_early", steps=count, epochs=0, drop_epoch=0)
            name = "early stopping" if len(counts) == 1 else f"early stopping, {count} steps"
            yield run(whole, *(held or tested), protocol=stopped, name=name)
    yield run(whole, *tested, protocol=full_protocol, name="whole set")


def evaluate(*args: Any, **options: Any) -> list[Search]:
    """All that ``searches`` yields, in a list; the same arguments."""
    return list(searches(*args, **options))


def require_suits(architectures: Sequence[Architecture], x: Any, num_classes: int) -> None:
    """Refuses architectures that cannot take images like ``x [n, h, w, c]``, without computing anything.

    Raises:
      InputError: one of them is too deep.
    """
    for one in architectures:
        init = functools.partial(build(one, num_classes).init, train=True)
        try:
            jax.eval_shape(init, jax.random.key(0), jax.ShapeDtypeStruct((2, *np.shape(x)[1:]), jnp.float32))
        except checks.InputError as error:
            raise checks.InputError(f"nas.search: {one}: {error}; leave it out of the space") from None


class _Kinds(NamedTuple):
    """The activations and poolings that occur among networks of one program."""

    activations: tuple[str, ...]
    pools: tuple[str, ...]


class _Either(convnet.ConvNet):
    """A ConvNet whose activation and kind of pooling are numbers, which may differ between networks of one program."""

    kinds: _Kinds = _Kinds((), ())
    choice: Any = None

    def _act(self, x):
        return lax.switch(self.choice[0], [activations.activation(name) for name in self.kinds.activations], x)

    def _pool(self, x):
        kinds = [functools.partial(layers.pool, kind=kind) for kind in self.kinds.pools]
        return lax.switch(self.choice[1], kinds, x)


def _groups(architectures):
    """``{what fixes the shapes: positions of the architectures}``."""
    found = {}
    for i, one in enumerate(architectures):
        shape = one._replace(activation="", pool="none" if one.pool == "none" else "avg")
        found.setdefault(shape, []).append(i)
    return found


def _members(architectures, key, seeds):
    """What occurs among networks of one program, their keys ``[n seeds]`` and choices ``[n seeds, 2]``."""
    kinds = _Kinds(*(tuple(sorted({getattr(a, name) for a in architectures})) for name in ("activation", "pool")))
    keys, choices = [], []
    for one in architectures:
        number = int.from_bytes(str(one).encode(), "big") % (2**31 - 1)
        keys += list(jax.random.split(jax.random.fold_in(key, number), seeds))
        choices += [(kinds.activations.index(one.activation), kinds.pools.index(one.pool))] * seeds
    return kinds, jnp.stack(keys), jnp.asarray(choices, jnp.int32)


def _batches(where, distilled, curriculum):
    """``(batches in their order, momentum)``."""
    checks.whole(where, "curriculum.inner_steps", curriculum.inner_steps)
    dd.check_step_sizes(where, distilled.lr, curriculum.inner_steps)
    for name, values in (("distilled.lr", distilled.lr), ("curriculum.momentum", curriculum.momentum)):
        numbers = np.asarray(values)
        checks.require(
            numbers.dtype.kind in "fiu" and bool(np.all(np.isfinite(numbers) & (numbers >= 0))),
            where,
            f"{name} is {values}; expected numbers of 0 or more",
        )
    ordered = Batch(*(dd.curriculum(a, curriculum.inner_steps) for a in (distilled.x, distilled.y)))
    return ordered, jnp.asarray(curriculum.momentum, distilled.x.dtype)


@functools.partial(jax.jit, static_argnames=("shape", "kinds", "protocol", "parallel", "block_size"))
def _train_group(keys, choices, distilled, batches, x, *, shape, kinds, protocol, parallel, block_size):
    """Classes ``[networks, n]`` that networks of equal shapes assign; ``batches`` in their order, if they have one."""
    dc = build(shape._replace(activation="relu"), distilled.y.shape[1])
    fields = {name: getattr(dc, name) for name in dc.__dataclass_fields__ if name not in ("parent", "name")}

    def one(args):
        key, choice = args
        model = _Either(**fields, kinds=kinds, choice=choice)
        if batches is None:
            trained = train.fit(key, model, distilled, protocol=protocol)
        else:
            (ordered, momentum), start = batches, train.fresh(key, model, distilled)
            trained = train.Network(dd.train(key, model, start, ordered, distilled.lr, momentum=momentum))
        outputs = train.predict(model, trained, x, protocol=protocol, block_size=block_size)
        return labels.classes(jnp.where(jnp.isfinite(outputs).all(axis=1, keepdims=True), outputs, 0.0))

    return lax.map(one, (keys, choices), batch_size=parallel if parallel > 1 else None)
