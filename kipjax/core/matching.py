"""Distances that matching methods bring to zero: between gradients, mean features, and ends of trajectories."""

import jax
import jax.numpy as jnp

from kipjax import checks
from kipjax.types import PyTree

__all__ = ["KINDS", "feature_distance", "gradient_distance", "trajectory_distance"]

KINDS = ("dc", "mse", "cosine")

_EPSILON = 1e-6  # on the product of two norms, as in the authors' program


def gradient_distance(g_s: PyTree, g_t: PyTree, *, kind: str = "dc") -> jax.Array:
    """How far two gradients of one network are from each other.

    With ``a`` and ``b`` the rows of a tensor, one for each of its outputs,

    - ``"dc"``: ``sum over tensors, over rows of 1 - <a, b> / (|a| |b| + 1e-6)``. The outputs are the last axis, as flax
      lays parameters out: ``[kh, kw, in, out]`` of a convolution, ``[in, out]`` of a dense layer, ``[h, w, c]`` of a
      layer norm's scale and bias. Tensors of one axis (biases, other norms) count nothing.
    - ``"mse"``: ``|g_s - g_t|^2``, a sum over all entries of all tensors.
    - ``"cosine"``: ``1 - <g_s, g_t> / (|g_s| |g_t| + 1e-6)`` over all entries of all tensors.

    A row of zeros is at distance 1 of every other, and has derivative zero.

    Args:
      g_s: gradient at the synthetic data, any pytree.
      g_t: gradient at the real data, a constant by custom, like ``g_s``.
      kind: one of ``KINDS``.

    Returns:
      ``[]``: ``"dc"`` is between 0 and twice the number of rows.

    Raises:
      InputError: the trees differ in structure or in the shape of a leaf, or the kind is unknown.

    References:
      arXiv:2006.05929, section 2.3 (``D`` and ``d``); ``"mse"`` and ``"cosine"`` are options of its program.

    Example:
      >>> g = {"kernel": jnp.array([[3.0, 1.0], [4.0, 0.0]]), "bias": jnp.ones(2)}
      >>> flipped = {"kernel": jnp.array([[3.0, -1.0], [4.0, 0.0]]), "bias": jnp.zeros(2)}
      >>> round(float(gradient_distance(g, flipped)), 3)
      2.0
    """
    where = "matching.gradient_distance"
    checks.one_of(where, "kind", kind, KINDS)
    _require_alike(where, ("g_s", g_s), ("g_t", g_t))
    pairs = list(zip(jax.tree.leaves(g_s), jax.tree.leaves(g_t)))
    if kind == "dc":
        rows = [(a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1])) for a, b in pairs if jnp.ndim(a) > 1]
        return sum((jnp.sum(1 - _cosine(a, b)) for a, b in rows), jnp.zeros(()))
    a, b = (jnp.concatenate([jnp.ravel(leaf) for leaf in side]) for side in zip(*pairs))
    return jnp.sum((a - b) ** 2) if kind == "mse" else 1 - _cosine(a, b)


def feature_distance(h_s: jax.Array, h_t: jax.Array) -> jax.Array:
    """``|mean h_s - mean h_t|^2``, the squared distance of two mean features, summed over features.

    Args:
      h_s: ``[n, p]`` features of synthetic examples of one class.
      h_t: ``[b, p]`` of real ones; ``n`` and ``b`` may differ.

    Returns:
      ``[]``.

    Raises:
      InputError: the features are not matrices of the same width, or have no rows.

    References:
      arXiv:2110.04181, section 3.2.
    """
    where = "matching.feature_distance"
    checks.require(
        jnp.ndim(h_s) == 2 and jnp.ndim(h_t) == 2,
        where,
        f"h_s has shape {jnp.shape(h_s)} and h_t {jnp.shape(h_t)}; expected [n, p] and [b, p]",
    )
    checks.same_example_shape(where, "h_s", h_s, "h_t", h_t)
    for name, h in (("h_s", h_s), ("h_t", h_t)):
        checks.require(jnp.shape(h)[0] > 0, where, f"{name} has no rows; a mean needs at least one")
    return jnp.sum((jnp.mean(h_s, axis=0) - jnp.mean(h_t, axis=0)) ** 2)


def trajectory_distance(student: PyTree, target: PyTree, start: PyTree) -> jax.Array:
    """``|student - target|^2 / |start - target|^2``: 1 for a student that did not move, 0 for one that arrived.

    Args:
      student: parameters after the student's steps, any pytree (a flat vector is one).
      target: parameters of the expert some epochs after ``start``, where the student should be.
      start: parameters from which both set out. It must differ from ``target``.

    Returns:
      ``[]``.

    Raises:
      InputError: the trees differ in structure or in the shape of a leaf, or (not under jit) ``start`` is ``target``.

    References:
      arXiv:2203.11932, section 3.2.

    Example:
      >>> float(trajectory_distance(jnp.array([1.0, 0.0]), jnp.array([2.0, 0.0]), jnp.array([0.0, 0.0])))
      0.25
    """
    where = "matching.trajectory_distance"
    _require_alike(where, ("student", student), ("target", target))
    _require_alike(where, ("start", start), ("target", target))
    way = _squares(start, target)
    if not checks.is_traced(way):
        checks.require(
            bool(way != 0), where, "start and target are the same; the distance is relative to the way between them"
        )
    return jnp.asarray(_squares(student, target) / way)


def _cosine(a, b):
    """``<a, b> / (|a| |b| + 1e-6)`` along the first axis."""
    return jnp.sum(a * b, axis=0) / (_norm(a) * _norm(b) + _EPSILON)


def _norm(a):
    """L2 norm along the first axis, with derivative zero where it is zero."""
    squares = jnp.sum(a * a, axis=0)
    zero = squares == 0
    return jnp.where(zero, 0.0, jnp.sqrt(jnp.where(zero, 1.0, squares)))


def _squares(a, b):
    return sum(jax.tree.leaves(jax.tree.map(lambda x, y: jnp.sum((x - y) ** 2), a, b)))


def _require_alike(where, one, other):
    """Two named trees must have the same structure and shapes."""
    (name1, tree1), (name2, tree2) = one, other
    structures = jax.tree.structure(tree1), jax.tree.structure(tree2)
    checks.require(structures[0].num_leaves > 0, where, f"{name1} has no tensors")
    checks.require(
        structures[0] == structures[1],
        where,
        f"{name1} has the structure {structures[0]} and {name2} {structures[1]}; both must be of one network",
    )
    for (path, leaf1), leaf2 in zip(jax.tree_util.tree_leaves_with_path(tree1), jax.tree.leaves(tree2)):
        checks.require(
            jnp.shape(leaf1) == jnp.shape(leaf2),
            where,
            f"{name1}{jax.tree_util.keystr(path)} has shape {jnp.shape(leaf1)} and {name2} {jnp.shape(leaf2)}; both "
            "must be of one network",
        )
