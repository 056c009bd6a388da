"""Coresets: a few real images, chosen by how they lie among the others of their class, or by how well they do.

What the papers compare distilled sets with. One step; its batch is the training set to choose from. ``ipc`` images of
each class are chosen, from that class alone. The rules are in ``core.selection``; features are those of the kernel:

- ``random``: uniform, without replacement.
- ``herding``: the running mean follows that of the class (Welling, ICML 2009; as in arXiv:2006.05929). For any kernel
  it is kernel herding (arXiv:1203.3472); with ``kernels.basic.normalize`` the features have length one, as in iCaRL.
- ``k_center``: the image nearest to the mean, then always the one farthest from those chosen (arXiv:1708.00489).
- ``k_means``: the images nearest to the centres of ``ipc`` clusters, by scikit-learn. ``centroids``: the centres
  themselves, of pixels; these are no real images (arXiv:1811.10959). One cluster is ``class_means``.
- ``leverage``: drawn by ridge leverage scores ``(K (K + lambda I)^-1)_ii`` (arXiv:1411.0306).
- ``optimized``: the best of ``draws`` random sets, by kernel ridge regression ("optimized real" of arXiv:1811.10959).

``network_coreset`` does the same on the features of a network that it trains, and has forgetting events.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from kipjax import checks
from kipjax.core import krr, losses, precision, selection
from kipjax.data import draw
from kipjax.kernels.basic import FeatureMap, diagonal, flatten, inner
from kipjax.methods import inputs
from kipjax.types import Batch, Distilled, KernelFn, Method

__all__ = ["SELECTIONS", "Info", "State", "clusters", "make", "products"]

SELECTIONS = ("random", "herding", "k_center", "k_means", "centroids", "class_means", "leverage", "optimized")
_MADE = ("centroids", "class_means")


class State(NamedTuple):
    """The set ``x [m, ...]``, ``y [m, k]``, grouped by class; ``rows [m]`` of the batch, -1 for what is not in it."""

    x: jax.Array
    y: jax.Array
    rows: jax.Array


class Info(NamedTuple):
    """``coverage []``: mean over the batch of ``|x - x_s|^2 / d`` to the nearest image of the set in its class."""

    coverage: jax.Array


def make(
    kernel_fn: KernelFn,
    *,
    select: str = "herding",
    draws: int = 50,
    score_size: int = 5000,
    reg: float = 1e-6,
    reg_unit: str = "trace",
    leverage_reg: float = 1e-3,
    block_size: int = 256,
    solve_dtype: Any = "float64",
) -> Method:
    """A coreset as a ``Method`` of one step.

    Args:
      kernel_fn: whose features tell how far images are apart; ``kernels.get("linear")`` for pixels. ``"k_means"`` needs
        a feature map (linear is one). Herding and centres by another kernel look at all pairs of the batch.
      select: a name in ``SELECTIONS``.
      draws: random sets that ``"optimized"`` chooses from.
      score_size: random images of the batch that it scores them on, at most.
      reg, reg_unit: ridge of that scoring, as in ``krr.alpha``.
      leverage_reg: ridge of the leverage scores, in units of ``trace(K) / n``.
      block_size: rows of a kernel matrix at once, where its features are not known.
      solve_dtype: precision of the leverage scores and of the scoring's solve.

    Returns:
      The method; its batch is the set to choose from, ``x [n, ...]``, ``y [n, k]``, the class being the largest entry.
      Of the start only the size counts, ``m = ipc k``. Chosen images keep the labels they have in the batch.

    Raises:
      InputError: a value is outside its range, or ``k_means`` gets a kernel without features; in ``init``, ``m`` is no
        multiple of ``k``, or not ``k`` for ``"class_means"``; in ``step``, the batch is too small, or (outside jit) has
      too few images of a class. Under jit such a class gets images and labels of NaN, and rows -1.

    Example:
      >>> from kipjax import kernels
      >>> method = make(kernels.get("linear"), select="herding")
      >>> x, y = jnp.array([[0.0], [1.0], [5.0], [7.0], [8.0], [9.5]]), jnp.eye(2)[jnp.array([0, 0, 0, 1, 1, 1])]
      >>> state = method.init(jax.random.key(0), Distilled(jnp.zeros((2, 1)), jnp.eye(2)))
      >>> state, _ = method.step(jax.random.key(1), state, Batch(x, y))
      >>> method.distilled(state).x.ravel()
      Array([1., 8.], dtype=float32)
    """
    where = "coreset.make"
    checks.require(callable(kernel_fn), where, f"kernel_fn is {kernel_fn!r}; expected a kernel")
    checks.one_of(where, "select", select, SELECTIONS)
    checks.require(
        select != "k_means" or isinstance(kernel_fn, FeatureMap),
        where,
        "k_means needs features, and those of kernel_fn are not known; take a feature map, as kernels.get('linear')",
    )
    for name, value in (("draws", draws), ("score_size", score_size), ("block_size", block_size)):
        checks.whole(where, name, value)
    precision.check(where, "solve_dtype", solve_dtype)
    checks.at_least(where, "reg", reg, 0.0)
    checks.one_of(where, "reg_unit", reg_unit, krr.REG_UNITS)
    checks.at_least(where, "leverage_reg", leverage_reg, 0.0, strict=True)

    feature_map: Any = kernel_fn

    def choose(key, batch, ipc):
        """``[k, ipc]`` rows."""
        own = selection.members(batch.y)
        if select == "random":
            return selection.best(jax.random.uniform(key, own.shape[1:]), own, ipc)
        if select == "leverage":
            scores = precision.run_in(solve_dtype, lambda x: _leverage(kernel_fn, x, leverage_reg), batch.x)
            return selection.without_replacement(key, scores, own, ipc)
        if select == "optimized":
            return _optimized(key, kernel_fn, batch, own, ipc, draws, score_size, reg, reg_unit, solve_dtype)
        if select == "k_means":
            return clusters(key, feature_map.features(batch.x), own, ipc)[0]
        rule = selection.herding if select == "herding" else selection.k_center
        return rule(products(kernel_fn, batch, block_size), ipc)

    def construct(key, batch, ipc):
        """``[k * ipc, ...]`` images that are in no batch."""
        own = selection.members(batch.y)
        if select == "centroids" and ipc > 1:
            return clusters(key, flatten(batch.x), own, ipc)[1].reshape(-1, *batch.x.shape[1:])
        counts = jnp.sum(own, axis=1, keepdims=True)  # 0 makes the mean NaN
        return (own @ flatten(batch.x) / counts).reshape(-1, *batch.x.shape[1:])

    def init(key, distilled0):
        del key
        return start("coreset.init", distilled0, one=select == "class_means")

    def step(key, state, batch):
        check_batch("coreset.step", state, batch)
        batch = inputs.typed(state.x, batch)
        ipc = state.x.shape[0] // state.y.shape[1]
        if select not in _MADE:
            return chosen(state, batch, choose(key, batch, ipc))
        first = selection.best(jnp.zeros(len(batch.y)), selection.members(batch.y), 1)
        x, y = construct(key, batch, ipc), jnp.repeat(taken(batch.y, first[:, 0]), ipc, axis=0)
        return finished(state, batch, x, y, jnp.full_like(state.rows, -1))

    return Method(init, step, lambda state: Distilled(state.x, state.y))


def start(where: str, distilled0: Distilled, *, one: bool = False) -> State:
    """The state before the step; with ``one``, ``m`` must be ``k``."""
    x, y = inputs.start(where, distilled0)
    checks.divides(where, "number of points", x.shape[0], "number of classes", y.shape[1])
    checks.require(
        not one or x.shape[0] == y.shape[1],
        where,
        f"the set has {x.shape[0]} points and there is one mean for each of {y.shape[1]} classes; set ipc to 1",
    )
    return State(x, y, jnp.full(x.shape[0], -1, jnp.int32))


def check_batch(where: str, state: State, batch: Batch) -> None:
    """The batch must fit the set, and each class have as many images as are to be chosen."""
    inputs.fit(where, state.x, state.y, batch)
    own: Any = selection.members(batch.y)
    if not checks.is_traced(batch.y):  # what is computed of it may be traced even then
        own = np.arange(batch.y.shape[1])[:, None] == np.asarray(batch.y).argmax(axis=1)
    selection.require_enough(where, own, state.x.shape[0] // batch.y.shape[1])


def chosen(state: State, batch: Batch, rows: jax.Array) -> tuple[State, Info]:
    """What a step gives for ``rows [k, ipc]`` of the batch."""
    rows = rows.reshape(-1)
    return finished(state, batch, taken(batch.x, rows), taken(batch.y, rows), rows)


def taken(a: jax.Array, rows: jax.Array) -> jax.Array:
    """``a[rows]`` of ``a [n, ...]``, with NaN for row -1, of which a run says that it is not finite."""
    some = a[rows]
    missing = (rows < 0).reshape(-1, *[1] * (some.ndim - 1))
    return jnp.where(missing, jnp.nan, some)


def finished(state: State, batch: Batch, x: jax.Array, y: jax.Array, rows: jax.Array) -> tuple[State, Info]:
    """What a step gives for a set ``x [m, ...]``, ``y [m, k]``, in the types of the state."""
    new = State(x.astype(state.x.dtype), y.astype(state.y.dtype), rows)
    return new, Info(_coverage(batch, new))


def products(kernel_fn: KernelFn, batch: Batch, block_size: int = 256) -> selection.Products:
    """``selection.Products`` of a batch: from the features where they are known, else from the kernel in blocks.

    Args:
      kernel_fn: the kernel.
      batch: ``x [n, ...]``, ``y [n, k]``.
      block_size: rows of the kernel matrix of the batch with itself at once.
    """
    if isinstance(kernel_fn, FeatureMap):
        return selection.products(kernel_fn.features(batch.x), batch.y)
    own = selection.members(batch.y)
    shares = own / jnp.maximum(jnp.sum(own, axis=1, keepdims=True), 1)

    n = len(batch.x)
    size = min(block_size, n)
    padded = jnp.pad(batch.x, [(0, -n % size), *[(0, 0)] * (batch.x.ndim - 1)])
    blocks = padded.reshape(-1, size, *batch.x.shape[1:])
    means = lax.map(lambda block: kernel_fn(block, batch.x) @ shares.T, blocks).reshape(-1, len(own))[:n]
    return selection.Products(
        own,
        diagonal(kernel_fn, batch.x),
        selection.in_class(own, means),
        lambda rows: selection.in_class(own, kernel_fn(batch.x, batch.x[rows])),
    )


def clusters(key: jax.Array, h: jax.Array, own: jax.Array, ipc: int) -> tuple[jax.Array, jax.Array]:
    """k-means in each class, by scikit-learn on the host.

    Args:
      key: seeds k-means++.
      h: ``[n, p]`` features.
      own: ``[k, n]`` bool, which rows are of which class.
      ipc: clusters of each class.

    Returns:
      ``(rows [k, ipc], centres [k, ipc, p])``: the row of each cluster that is nearest to its centre, and the centres.
    """
    selection.require_enough("coreset.clusters", own, ipc)
    k = own.shape[0]
    like = jax.ShapeDtypeStruct((k, ipc), jnp.int32), jax.ShapeDtypeStruct((k, ipc, h.shape[1]), h.dtype)
    seed = jax.random.bits(key, dtype="uint32")
    return jax.pure_callback(functools.partial(_host_clusters, ipc), like, seed, h, own, vmap_method="sequential")


def _host_clusters(ipc, seed, h, own):
    from sklearn import cluster  # here, so that importing this package does not import scikit-learn

    h, own = np.asarray(h), np.asarray(own)
    rows, centres = [], []
    for c, of_class in enumerate(own):
        indices = np.flatnonzero(of_class)
        if len(indices) < ipc:  # as under jit in core.selection
            rows.append(np.full(ipc, -1))
            centres.append(np.full((ipc, h.shape[1]), np.nan))
            continue
        seed_of_class = (int(seed) + c) % 2**32
        found: Any = cluster.KMeans(ipc, n_init="auto", random_state=seed_of_class).fit(h[indices])
        distances = found.transform(h[indices])
        rows.append(indices[_nearest(found.labels_, distances)])
        centres.append(found.cluster_centers_)
    return np.asarray(rows, np.int32), np.asarray(centres, h.dtype)


def _nearest(labels, distances):
    """For each cluster the nearest of its own rows; where copies leave it none, the nearest row that is still free."""
    chosen = []
    for cluster, own in enumerate(distances.T):
        free = np.setdiff1d(np.arange(len(labels)), chosen)
        members = free[labels[free] == cluster]
        members = members if len(members) else free
        chosen.append(int(members[own[members].argmin()]))
    return chosen


def _leverage(kernel_fn, x, reg):
    """Leverage scores ``[n]``, through the features' own products where these are fewer than the images."""
    n = len(x)
    if not isinstance(kernel_fn, FeatureMap):
        k = kernel_fn(x, x)
        return selection.leverage_scores(k, reg * jnp.trace(k) / n)
    h = kernel_fn.features(x)
    lam = reg * jnp.sum(h**2) / n
    if n <= h.shape[1]:
        return selection.leverage_scores(h @ h.T, lam)
    values, vectors = jnp.linalg.eigh(h.T @ h)
    return (h @ vectors) ** 2 @ (1 / (jnp.maximum(values, 0.0) + lam))


def _optimized(key, kernel_fn, batch, own, ipc, draws, score_size, reg, reg_unit, solve_dtype):
    """The rows of the random set with the best accuracy on a part of the batch, the first of equal ones."""
    part_key, draw_key = jax.random.split(key)
    n = len(batch.y)
    part = draw.without_replacement(part_key, min(score_size, n), n)
    x_t, y_t = batch.x[part], batch.y[part]

    def one(key):
        rows = selection.best(jax.random.uniform(key, (n,)), own, ipc)
        x_s, y_s = (a[rows.reshape(-1)] for a in batch)
        k_ss, k_ts = kernel_fn(x_s, x_s), kernel_fn(x_t, x_s)
        outputs = krr.predict(k_ss, k_ts, y_s, reg=reg, reg_unit=reg_unit, solve_dtype=solve_dtype)
        return losses.accuracy(outputs, y_t), rows

    accuracies, rows = lax.map(one, jax.random.split(draw_key, draws))
    return rows[jnp.argmax(accuracies)]


def _coverage(batch, made):
    """``Info.coverage``; in pixels whatever the kernel is, so that rules can be compared."""
    x_s, norms = flatten(made.x), jnp.sum(flatten(made.x) ** 2, axis=1)
    of_class = jnp.argmax(made.y, axis=1)

    def nearest(args):
        x, y = args
        distances = jnp.sum(x**2) + norms - 2 * inner(x_s, x[None])[:, 0]
        return jnp.min(jnp.where(of_class == jnp.argmax(y), distances, jnp.inf))

    found = lax.map(nearest, (flatten(batch.x), batch.y), batch_size=4096)
    return jnp.mean(jnp.maximum(found, 0.0)) / x_s.shape[1]
