"""Exact distillation for kernel ridge regression: the regressor of the whole training set from one point a class.

Paper: Chen, Huang, Weng, "Provable and Efficient Dataset Distillation for Kernel Ridge Regression", NeurIPS 2024
(openreview WI2VpcBdnd). The formulas are in ``core.exact``, the feature maps in ``kernels.feature_maps``.

1. Teacher: ``W = argmin |h(x_t) W - y_t|^2 + lambda |W|^2``, lambda chosen on held-out targets (algorithm 1).
2. Every set with ``D^T y_s = W`` has the teacher's weights: ``D = (y_s^+)^T W^T + (I - y_s y_s^+) Z`` (theorem 4.1).
   ``Z`` takes the set close to real images (corollary 4.1.1), or is noise, or zero.
3. Features that have this D at the student's ridge, by singular values; from them back to images (theorem 5.1).
4. Where features cannot be reached, labels are solved anew for those that were (theorem 4.2).

On privacy. The paper claims (theorem 6.2) that noise in ``Z`` makes each row of the set (epsilon, delta)-differentially
private as long as the labels stay secret. Do not rely on it: its constant lacks a factor sqrt(2) of the Gaussian
mechanism that it cites; it holds row by row, for rows that are correlated; ``D^T y_s = W`` hands the teacher, without
noise, to whoever has images and labels; and with one point a class there is no room for noise at all. Sets made close
to real images show those images by design. What does hold (proposition 6.1) is that many training sets have the same
teacher, so a set made with noise does not determine the training images.
"""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from kipjax import checks
from kipjax.core import exact, precision
from kipjax.kernels.basic import FeatureMap
from kipjax.methods import _teacher, inputs
from kipjax.types import Distilled, KernelFn, Method

__all__ = ["IMAGES", "LABELS", "RELABEL", "Info", "State", "make"]

IMAGES = ("real", "noise", "minimal", "fixed")
LABELS = ("given", "teacher")
RELABEL = ("auto", "always", "never")
_NOISE = 0.1  # of the standard deviation of the least D, in the authors' program


class State(NamedTuple):
    """The set ``x [m, ...]``, ``y [m, k]``, its teacher's ``weights [p, k]``, the absolute ridge ``reg []`` that it is
    to be used with, and ``error []`` as in ``Info``; weights and error are zero before the step."""

    x: jax.Array
    y: jax.Array
    weights: jax.Array
    reg: jax.Array
    error: jax.Array


class Info(NamedTuple):
    """All ``[]``.

    Attributes:
      error: ``|W_S - W| / |W|`` of the student on the set as it is stored: near the rounding of its type if exact.
      reg: the student's ridge, absolute: what was asked for, or ``reg_limit`` if that is smaller.
      reg_limit: the largest ridge at which there is an exact set, ``1 / (4 s_1(D)^2)``.
      rank: of ``D``.
      teacher_reg: the teacher's ridge, absolute.
      teacher_accuracy: in 0..1 on the held-out targets, or on all of them if none were held out.
    """

    error: jax.Array
    reg: jax.Array
    reg_limit: jax.Array
    rank: jax.Array
    teacher_reg: jax.Array
    teacher_accuracy: jax.Array


def make(
    kernel_fn: KernelFn,
    *,
    images: str = "real",
    labels: str = "given",
    relabel: str = "auto",
    reg: float = 0.0,
    root: str = "larger",
    validation: float = 0.05,
    teacher_reg: float = 1e-6,
    regs: Sequence[float] = _teacher.REGS,
    block_size: int = 4096,
    dtype: Any = "float64",
) -> Method:
    """Exact distillation as a ``Method`` of one step.

    Args:
      kernel_fn: a feature map: ``kernels.get("linear")``, ``"leaky_net"``, ``"fourier"``, ``"convolution"``, ...
      images: ``"real"``: as close as can be to the images that the set starts from; ``"noise"``: with random ``Z``;
        ``"minimal"``: with ``Z = 0``; ``"fixed"``: those of the start, and only the labels are solved for. With one
        point a class and labels of rank ``k`` the first three are the same.
      labels: of images that are made: ``"given"``, those of the start; or ``"teacher"``, the teacher's on the images of
        the start, which brings real images closer, if they are of the teacher's rank (those of the start if not).
      relabel: solve the labels again for the images that were found: ``"always"``, ``"never"``, or ``"auto"``, where
        not all features can be reached. If the set is not exact even so, that is said as a clamped ridge is.
      reg: the student's ridge lambda_S, absolute. Above ``Info.reg_limit`` it is clamped to that, as ``Info.reg``, the
        ``remarks`` of ``Method.usage`` and, outside jit, a warning say; the set must be used with ``Info.reg``.
      root: which features of the two that belong to a positive ridge, ``"larger"`` or ``"smaller"``.
      validation: fraction of the targets that are held out to choose the teacher's ridge; 0 for ``teacher_reg``.
      teacher_reg: the teacher's absolute ridge if ``validation`` is 0.
      regs: absolute ridges to choose from otherwise, ascending.
      block_size: targets that go through the features at once.
      dtype: precision of features and solve; ``None`` for that of the set.

    Returns:
      The method; its batch is the whole target set ``x [n, ...]``, ``y [n, k]``.

    Raises:
      InputError: ``kernel_fn`` is no feature map, or one that cannot be inverted (the text names the layer); there are
        fewer points than classes; labels of the start have no full rank; a value is outside its range.

    References:
      NeurIPS 2024 (WI2VpcBdnd), algorithm 1.
    """
    where = "krr_exact.make"
    precision.check(where, "dtype", dtype)
    _check_options(where, kernel_fn, images, labels, relabel, reg, root, validation, teacher_reg, regs, block_size)
    feature_map: Any = kernel_fn
    options = _Options(images, labels, reg, root)
    chosen = regs if validation else (teacher_reg,)

    def init(key, distilled0):
        del key
        x, y = inputs.start("krr_exact.init", distilled0)
        if images != "fixed":
            _check_reachable("krr_exact.init", feature_map, x.shape[1:], relabel)
            _check_labels("krr_exact.init", distilled0.y, labels)
        p = jax.eval_shape(feature_map.features, x).shape[1]
        return State(x, y, jnp.zeros((p, y.shape[1]), x.dtype), jnp.asarray(reg, x.dtype), jnp.zeros((), x.dtype))

    def step(key, state, batch):
        inputs.fit("krr_exact.step", state.x, state.y, batch)
        _check_convention("krr_exact.step", state.y, batch.y, labels, images)
        teacher_key, noise_key = jax.random.split(key)
        split = _teacher.hold_out(teacher_key, batch, validation)
        again = relabel == "always" or (relabel == "auto" and bool(feature_map.obstacle(state.x.shape[1:])))

        noise = jax.random.normal(noise_key, (state.x.shape[0], state.weights.shape[0]), state.x.dtype)

        def solve(x, y, noise):
            found = _teacher.fit(feature_map, split, regs=chosen, block_size=block_size, dtype=x.dtype)
            set_ = _construct(feature_map, noise, x, y, found.weights, again, state.x.dtype, options)
            return set_[:2], found.weights, Info(*set_[2:], found.reg, found.accuracy)

        (x, y), weights, info = precision.run_in(dtype, solve, state.x, state.y, noise)
        new = State(x, y, weights, info.reg, info.error)
        for remark in () if checks.is_traced(new) else remarks(new):
            warnings.warn(f"krr_exact.step: {remark}", stacklevel=2)
        return new, info

    def remarks(state):
        """What is not as it was asked for."""
        (m, *shape), p = state.x.shape, len(state.weights)
        found, obstacle = [], feature_map.obstacle(tuple(shape))
        if state.reg < reg * (1 - 1e-6):
            found.append(f"reg is {reg:g}, above its bound {float(state.reg):g}, and was clamped to it")
        if not state.error > 10 * float(jnp.finfo(state.x.dtype).eps) ** 0.5:  # NaN is the run's to tell
            return found
        ranks = [int(np.linalg.matrix_rank(np.asarray(a, np.float64), rtol=1e-5)) for a in (state.y, state.weights)]
        far = f"with {m} points |W_S - W| / |W| is {float(state.error):.2g}"
        enough = f"points as many as features ({p}) make it 0"
        if images == "fixed":
            found.append(f"the images stay as they are, and {far}; {enough}")
        elif ranks[0] < ranks[1]:
            found.append(f"the labels of the set have rank {ranks[0]}, the weights {ranks[1]}, and {far}; give others")
        elif obstacle:
            found.append(
                f"{feature_map.name} cannot be inverted on examples of shape {tuple(shape)}: {obstacle}; labels were "
                f"solved anew, and {far}; {enough}"
            )
        else:
            found.append(f"the set is not exact: {far}; solve in float64, or with fewer points")
        return found

    def usage(state):
        said = remarks(state)
        return {"reg": float(state.reg), **({"remarks": said} if said else {})}

    return Method(init, step, lambda state: Distilled(state.x, state.y), usage)


class _Options(NamedTuple):
    """How the set is made; ``make`` documents it."""

    images: str
    labels: str
    reg: float
    root: str


def _construct(feature_map, noise, x, y, w, again, stored, options):
    """``(x, y, error, reg, reg_limit, rank)`` of a set for the weights ``w``, stored with the type ``stored``."""
    if options.images == "fixed":
        h = feature_map.features(x)
        y, used = exact.labels(h, w, options.reg), jnp.asarray(options.reg, w.dtype)
        d = exact.inverse(h, options.reg)
    else:
        x, y, d, used = _pulled_back(feature_map, noise, x, y, w, stored, options)
    x = _rounded(x, stored)
    if again and options.images != "fixed":
        y = exact.labels(feature_map.features(x), w, used)
    h = feature_map.features(x)
    # Rounding fills directions that are empty, up to this; without a ridge they would count.
    noise_floor = float(jnp.finfo(stored).eps) * min(h.shape) ** 0.5
    student = exact.weights(h, _rounded(y, stored), used, rcond=noise_floor)
    size = jnp.linalg.norm(w)
    error = jnp.linalg.norm(student - w) / jnp.where(size > 0, size, 1.0)
    return x, y, error, used, exact.reg_limit(d), exact.rank(d, rcond=_cutoff(d)).astype(w.dtype)


def _pulled_back(feature_map, noise, x, y, w, stored, options):
    """``(x, y, D, ridge)``: images whose features have a ``D`` with ``D^T y = W`` (theorems 4.1 and 5.1)."""
    h = feature_map.features(x)
    # Labels were rounded when they were stored, and so a centred teacher is not quite centred.
    rcond = float(jnp.finfo(stored).eps) ** 0.75 * y.shape[1]
    # What comes before the features has their ridge, which is clamped where no features are that small.
    ridge = jnp.minimum(jnp.asarray(options.reg, w.dtype), exact.reg_limit(exact.prescribed(y, w, rcond=rcond)))
    if options.labels == "teacher":
        of_teacher = _within_rows(exact.labels(h, w, ridge), w, rcond)
        enough = exact.rank(of_teacher, rcond=rcond) >= exact.rank(w, rcond=rcond)
        y = jnp.where(enough, of_teacher, y)
    d = exact.prescribed(y, w, _free(noise, h, y, w, ridge, rcond, options.images), rcond=rcond)
    h, used = exact.features(d, options.reg, root=options.root, rcond=_cutoff(d))
    return feature_map.pull_back(h, x), y, d, used


def _free(noise, h, y, w, ridge, rcond, images):
    """``Z``, the part of ``D`` that the weights leave open."""
    if images == "real":
        return exact.inverse(h, ridge, rcond=_cutoff(h))
    if images == "minimal":
        return None
    return _NOISE * jnp.std(exact.prescribed(y, w, rcond=rcond)) * noise


def _cutoff(a):
    """Where ``d`` is a sum of products, what should be zero in it is of their rounding; 2e-10 in float64."""
    return float(jnp.finfo(a.dtype).eps) ** 0.62


def _within_rows(y, w, rcond):
    """``y [m, k]``, which lies in the row space of ``w [p, k]``, without what rounding put outside of it."""
    return y @ (jnp.linalg.pinv(w, rtol=rcond) @ w)


def _rounded(x, dtype):
    """``x`` as it will be stored, still in its own type; two casts in a row may be optimised away."""
    info = jnp.finfo(dtype)
    return lax.reduce_precision(x, info.nexp, info.nmant) if info.bits < jnp.finfo(x.dtype).bits else x


def _check_options(where, kernel_fn, images, labels, relabel, reg, root, validation, teacher_reg, regs, block_size):
    known = isinstance(kernel_fn, FeatureMap) and (kernel_fn.pull_back is not None or images == "fixed")
    checks.require(
        known,
        where,
        f"kernel_fn is {kernel_fn!r}, whose features are not known or cannot be inverted; expected a feature map such "
        "as kernels.get('linear'), 'leaky_net', 'fourier' or 'convolution', or images='fixed'",
    )
    checks.one_of(where, "images", images, IMAGES)
    checks.one_of(where, "labels", labels, LABELS)
    checks.one_of(where, "relabel", relabel, RELABEL)
    checks.one_of(where, "root", root, exact.ROOTS)
    checks.at_least(
        where, "reg, for the smaller root," if root == "smaller" else "reg", reg, 0, strict=root == "smaller"
    )
    checks.within(where, "validation", validation, 0.0, 0.5)
    checks.at_least(where, "teacher_reg", teacher_reg, 0.0)
    ascending = len(regs) > 0 and all(0 <= a < b for a, b in zip(regs, [*regs[1:], np.inf]))
    checks.require(ascending, where, f"regs is {regs}; give ridges in ascending order, none negative")
    checks.whole(where, "block_size", block_size)


def _check_reachable(where, feature_map, shape, relabel):
    """Some features cannot be reached, and labels are not to make up for it."""
    obstacle = feature_map.obstacle(shape)
    checks.require(
        not obstacle or relabel != "never",
        where,
        f"{feature_map.name} cannot be inverted on examples of shape {shape}: {obstacle}; allow relabel='auto'",
    )


def _check_convention(where, y_s, y_t, labels, images):
    """Centred labels reach a centred teacher alone."""
    if checks.is_traced(y_s, y_t) or labels != "given" or images == "fixed":
        return
    centred_s, centred_t = (float(jnp.abs(y.sum(axis=1)).max()) <= 1e-4 * float(jnp.abs(y).max()) for y in (y_s, y_t))
    checks.require(
        centred_t or not centred_s,
        where,
        "the labels of the set are centred and those of the targets are not; no set with such labels has the teacher's "
        "weights: centre both, or neither",
    )


def _check_labels(where, y, labels):
    """One point a class, and labels of full rank; centred ones lack one, the teacher's as well."""
    m, k = y.shape
    checks.require(
        m >= k,
        where,
        f"there are {m} points for {k} classes; no set of fewer points than classes has the teacher's weights, so give "
        "at least one a class",
    )
    if labels == "given" and not checks.is_traced(y):
        values = np.asarray(y)
        found = int(np.linalg.matrix_rank(values))
        centred = bool(np.abs(values.sum(axis=1)).max() <= 1e-5 * np.abs(values).max())
        checks.require(
            found >= k - centred,
            where,
            f"labels y have rank {found} and there are {k} classes; with such labels the teacher's weights are out of "
            "reach: give points of every class, or labels='teacher'",
        )
