"""Reparameterised Convexified Implicit Gradients.

Paper: Loo, Hasani, Lechner, Rus, "Dataset Distillation with Convexified Implicit Gradients", ICML 2023,
arXiv:2302.06755.

At a network theta_0 from the pool, with last-layer features ``h`` and tangent ``tau`` of all other parameters:

- Convexified (section 3.2): the network is linearised around theta_0 and centred, ``o = J tau``.
- Reparameterised (section 3.3): the last layer is solved for, ``f = o + h h_s^T alpha`` with
  ``alpha = (h_s h_s^T + lambda I)^-1 (y_s - o_s)`` and ``lambda = reg`` times the number of distilled images.
- Inner loss: ``[1/2 |y_s - f_s|^2 + lambda/2 (tr alpha^T h_s h_s^T alpha + |tau|^2)] / (n k)``. As
  ``y_s - f_s = lambda alpha`` it equals ``lambda / (2 n k) [tr (y_s - o_s)^T alpha + |tau|^2]``: quadratic in ``tau``.
- Outer loss: cross-entropy of ``exp(log_temp) f_t`` (Platt scaling) minus the margin of the labels.

The inner problem is solved in one of three ways. ``"adam"`` is the paper's: Adam steps on ``tau`` and on the quadratic
for the inverse Hessian. ``"dense"`` and ``"cg"`` solve its dual exactly: ridge regression with the full tangent kernel

    G = J_s J_s^T + h_s h_s^T (x) I + lambda I,   G alpha = y_s,   tau = J_s^T alpha,   f_t = J_t tau + h_t h_s^T alpha

in ``n k`` unknowns, with no step sizes to find and the implicit gradient unbiased.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from kipjax import checks
from kipjax.core import implicit, krr, labels, linear_solve, linearize, losses, precision, sharding, step_size
from kipjax.data import draw
from kipjax.methods import _pooled
from kipjax.methods._pooled import Learned, PoolOptions, StepSizes
from kipjax.models import network
from kipjax.types import Batch, Method, PyTree

__all__ = ["OUTER_LOSSES", "SOLVERS", "Info", "inner_loss", "make", "outer_loss"]

SOLVERS = ("dense", "cg", "adam")
OUTER_LOSSES = ("platt", "mse")


class Info(NamedTuple):
    """Outer ``loss []`` and ``accuracy []`` in 0..1 on the step's targets, before the update, and two residuals.

    ``inner_residual`` and ``hessian_residual``: relative residuals ``|A v - b| / |b|`` of the two linear systems, that
    of the inner solution and that of the inverse Hessian product.
    """

    loss: jax.Array
    accuracy: jax.Array
    inner_residual: jax.Array
    hessian_residual: jax.Array


def inner_loss(
    o_s: jax.Array,
    k_ss: jax.Array,
    y_s: jax.Array,
    tau: PyTree,
    *,
    lam: float | jax.Array,
    solve_dtype: Any = "float64",
) -> jax.Array:
    """The inner loss ``lambda / (2 n k) [tr (y_s - o_s)^T alpha + |tau|^2]`` (the module's text gives its long form).

    Args:
      o_s: ``[n, k]`` centred linearised outputs ``J_s tau`` on the support.
      k_ss: ``[n, n]`` ``h_s h_s^T``.
      y_s: ``[n, k]``.
      tau: the tangent, any pytree.
      lam: absolute ridge.
      solve_dtype: as in ``krr.alpha``.

    Returns:
      ``[]``.
    """
    rest = y_s - o_s
    alpha = krr.alpha(k_ss, rest, reg=lam, reg_unit="absolute", solve_dtype=solve_dtype)
    return lam / (2 * y_s.size) * (jnp.vdot(rest, alpha) + optax.tree.norm(tau, squared=True))


def outer_loss(
    f_t: jax.Array, learned: Learned, batch: Batch, *, loss: str = "platt", margin: bool = True
) -> tuple[jax.Array, jax.Array]:
    """The loss on targets.

    Args:
      f_t: ``[b, k]`` predictions.
      learned: the set; its labels give the margin, its ``log_temp`` the scale.
      batch: targets with centred one-hot ``y [b, k]``.
      loss: ``"platt"``, or ``"mse"``: ``1/2`` the mean over all entries.
      margin: subtract ``mean min(y_(1) - y_(2), 1 / 2k)`` over the rows of the labels.

    Returns:
      ``(loss [], accuracy [])``.
    """
    if loss == "platt":
        value = losses.platt(f_t, _pooled.platt_targets(batch), learned.log_temp)
    else:
        value = losses.mse(f_t, batch.y)
    if margin:
        value -= labels.margin(learned.y, 0.5 / learned.y.shape[1])
    return value, losses.accuracy(f_t, batch.y)


def make(
    model: nn.Module,
    *,
    solve: str = "dense",
    inner_steps: int = 20,
    hessian_steps: int = 20,
    inner_step_size: float = 0.0,
    hessian_step_size: float = 0.0,
    clip: bool = True,
    cg_tol: float = 1e-4,
    cg_steps: int = 200,
    reg: float = 5e-4,
    loss: str = "platt",
    margin: bool = True,
    learn_images: bool = True,
    learn_labels: bool = True,
    learning_rate: float = 0.003,
    temperature_rate: float = 0.03,
    flip: bool = False,
    ema_decay: float = 0.99,
    subsample: int = 0,
    repeats: int = 1,
    block_size: int = 0,
    pool_size: int = 30,
    pool_steps: int = 15,
    pool_max_age: int = 100,
    pool_learning_rate: float = 5e-5,
    pool_batch_size: int = 0,
    solve_dtype: Any = "float64",
    dense_limit: float = 0.0,
) -> Method:
    """RCIG as a ``Method``.

    Args:
      model: network with features and a last layer ``head`` (``models.network``); the paper's is
        ``models.get("convnet", num_classes=k, activation="softplus")``, with softplus for smooth derivatives.
      solve: ``"dense"``: Cholesky of ``G``, ``n k`` by ``n k``; ``"cg"``: conjugate gradients on it, for sets too large
        for that; ``"adam"``: the paper's truncated solver.
      inner_steps, hessian_steps: Adam steps on ``tau``, and for the inverse Hessian product.
      inner_step_size, hessian_step_size: their step sizes; 0 searches for them in the first step. All are adapted.
      clip: with ``"adam"``, cap the norm of the implicit gradient of images, and of labels, at that of the direct one,
        as the authors' program does.
      cg_tol, cg_steps: relative residual at which ``"cg"`` stops, and products at most.
      reg: ridge for each distilled image, before mirror images: ``lambda = reg m``.
      loss, margin: as in ``outer_loss``.
      learn_images, learn_labels: what is learned.
      learning_rate: of AdaBelief for images and labels.
      temperature_rate: of AdaBelief for ``log_temp``.
      flip: networks see mirror images of the set too.
      ema_decay: of the average over steps that is the result; 0 for the last iterate.
      subsample: take the gradient of the images through so many of them, drawn at random and weighted by ``n`` over
        their number, which leaves it unbiased and bounds its memory (section 3.5); 0 for all.
      repeats: average so many of such gradients; more than one needs ``subsample``.
      block_size: images in one forward pass at most; more are done in blocks, which derivatives compute anew. 0: all.
      pool_size, pool_steps, pool_max_age, pool_learning_rate, pool_batch_size: as in ``_pooled.PoolOptions``.
      solve_dtype: precision of factorisations.
      dense_limit: bytes that ``"dense"`` may take for Jacobian and kernel; 0 for the memory that is free.

    Returns:
      The method; its batches are targets ``x [b, ...]``, centred one-hot ``y [b, k]``.

    Raises:
      InputError: a value is outside its range; the model has no features; or (when the first step is traced) the dense
        dual does not fit.
    """
    where = "rcig.make"
    network.require_features(where, model)
    checks.one_of(where, "solve", solve, SOLVERS)
    checks.one_of(where, "loss", loss, OUTER_LOSSES)
    checks.at_least(where, "reg", reg, 0.0, strict=True)
    for name, value in (("learning_rate", learning_rate), ("temperature_rate", temperature_rate)):
        checks.at_least(where, name, value, 0.0, strict=True)
    for name, count in (("inner_steps", inner_steps), ("hessian_steps", hessian_steps), ("subsample", subsample)):
        checks.whole(where, name, count, 0)
    checks.whole(where, "repeats", repeats)
    checks.require(
        repeats == 1 or subsample > 0,
        where,
        f"repeats is {repeats} and subsample 0; all images give the same gradient each time: set subsample",
    )
    checks.whole(where, "block_size", block_size, 0)
    checks.whole(where, "cg_steps", cg_steps)
    checks.at_least(where, "cg_tol", cg_tol, 0.0, strict=True)
    precision.check(where, "solve_dtype", solve_dtype)
    if solve == "adam":
        _pooled.check_step_sizes(
            where, inner=(inner_steps, inner_step_size), hessian=(hessian_steps, hessian_step_size)
        )
    checks.within(where, "ema_decay", ema_decay, 0.0, 0.9999)
    checks.at_least(where, "dense_limit", dense_limit, 0.0)

    options = _Options(
        loss, margin, reg, flip, subsample, block_size, solve_dtype, cg_tol, cg_steps, dense_limit,
        inner_steps, hessian_steps, inner_step_size, hessian_step_size, clip,
    )  # fmt: skip
    form = {"dense": _dense_form, "cg": _cg_form, "adam": _adam_form}[solve]

    def once(key, variables, learned, memory, batch):
        """One gradient, with the images in a random order if only the first of them are to have one."""
        shuffle_key, key = jax.random.split(key)
        m = learned.x.shape[0]
        order = jax.random.permutation(shuffle_key, m) if 0 < subsample < m else jnp.arange(m)
        shuffled = learned._replace(x=learned.x[order], y=learned.y[order])
        net = _Net(model, variables, block_size)
        with jax.default_matmul_precision("highest"):  # on GPUs the default keeps three digits, too few for a ridge
            inner, hyper, memory = form(key, net, shuffled, memory, batch, options)
        total = hyper.total
        total = total._replace(x=jnp.zeros_like(total.x).at[order].set(total.x), y=total.y[jnp.argsort(order)])
        return total, memory, Info(hyper.value, hyper.aux, inner.residual, hyper.solution.residual)

    def meta_gradient(key, variables, learned, memory, batch):
        keys = jax.random.split(key, repeats)
        gradients, memories, infos = zip(*(once(k, variables, learned, memory, batch) for k in keys))
        return jax.tree.map(lambda *g: sum(g) / repeats, *gradients), memories[-1], infos[0]

    def init_memory(_):
        return StepSizes(*map(step_size.watch, (inner_step_size, hessian_step_size))) if solve == "adam" else ()

    names = _pooled.check_learned(where, x=learn_images, y=learn_labels)
    return _pooled.make(
        where,
        model,
        meta_gradient,
        optimizer=_pooled.adabelief(learning_rate, temperature_rate),
        learned=(*names, "log_temp") if loss == "platt" else names,
        options=PoolOptions(pool_size, pool_max_age, pool_steps, pool_learning_rate, pool_batch_size, flip=flip),
        ema_decay=ema_decay,
        init_memory=init_memory,
    )


class _Options(NamedTuple):
    """The hyperparameters that the forms below need; ``make`` documents them."""

    loss: str
    margin: bool
    reg: float
    flip: bool
    subsample: int
    block_size: int
    solve_dtype: Any
    cg_tol: float
    cg_steps: int
    dense_limit: float
    inner_steps: int
    hessian_steps: int
    inner_step_size: float
    hessian_step_size: float
    clip: bool


Parts = tuple[jax.Array, ...]


class _Net:
    """One network: ``body``, its parameters but for the last layer's kernel, and what is computed at them."""

    def __init__(self, model: nn.Module, variables: PyTree, block_size: int):
        variables = jax.lax.stop_gradient(variables)
        self.body, kernel = network.split_head(variables["params"])

        def of(body, x):
            return network.forward(model, {**variables, "params": network.join_head(body, kernel)}, x)

        self.of = lambda body, x: linearize.in_blocks(lambda block: of(body, block), x, size=block_size)

    def tangent(self, tau: PyTree, parts: Parts) -> tuple[jax.Array, jax.Array]:
        """``(o [n, k], h [n, p])``: centred linearised outputs, and features."""
        out = [jax.jvp(lambda body, x=x: self.of(body, x), (self.body,), (tau,)) for x in parts]
        return jnp.concatenate([o for _, (o, _) in out]), jnp.concatenate([h for (_, h), _ in out])

    def predict(self, tau: PyTree, w: jax.Array, parts: Parts) -> jax.Array:
        """``o + h w [n, k]``."""
        o, h = self.tangent(tau, parts)
        return o + h @ w

    def primal(self, alpha: jax.Array, parts: Parts) -> tuple[PyTree, jax.Array]:
        """``(J^T alpha, h^T alpha)`` for dual coefficients ``alpha [n, k]``: the tangent and the last layer."""

        def weighted(body):
            logits, h = zip(*(self.of(body, x) for x in parts))
            return jnp.vdot(jnp.concatenate(logits), alpha), jnp.concatenate(h)

        tau, h = jax.grad(weighted, has_aux=True)(self.body)
        return tau, h.T @ alpha


def _support(at: Learned, options: _Options) -> tuple[Parts, jax.Array]:
    """What networks see of a set: images in parts, of which the last may be without gradient, and labels ``[n, k]``."""
    b, m = options.subsample, at.x.shape[0]
    double = _pooled.mirrored if options.flip else lambda x, y: (x, y)
    if not 0 < b < m:
        x, y = double(at.x, at.y)
        return (x,), y
    fixed = jax.lax.stop_gradient(at.x)
    # The value is that of the images and the derivative m / b times theirs.
    x_some, y_some = double(fixed[:b] + (m / b) * (at.x[:b] - fixed[:b]), at.y[:b])
    x_rest, y_rest = double(fixed[b:], at.y[b:])
    return (x_some, x_rest), jnp.concatenate([y_some, y_rest])


def _score(f_t, at, batch, options):
    return outer_loss(f_t, at, batch, loss=options.loss, margin=options.margin)


def _dual_form(solver, net, learned, batch, options):
    """Both inner solution and hypergradient in ``n k`` dual variables, given a solver of ``G alpha = b``."""
    lam = options.reg * learned.x.shape[0]

    def outer(alpha, at):
        parts, _ = _support(at, options)
        return _score(net.predict(*net.primal(alpha, parts), (batch.x,)), at, batch, options)

    def residual(alpha, at):
        parts, y_s = _support(at, options)
        return net.predict(*net.primal(alpha, parts), parts) + lam * alpha - y_s

    inner = solver(_support(learned, options)[1])

    def solve(_, b):  # the Jacobian of the residual is G itself
        return solver(b)

    return inner, implicit.hypergradient(outer, residual, inner.value, learned, solve, has_aux=True)


def _dense_form(key, net, learned, memory, batch, options):
    parts, y_s = _support(learned, options)
    lam, x_s, (n, k) = options.reg * learned.x.shape[0], jnp.concatenate(parts), y_s.shape
    _require_room(n * k, net, x_s, options.dense_limit)
    h = net.of(net.body, x_s)[1]
    g = linearize.ntk(linearize.jacobian(lambda body, x: net.of(body, x)[0], net.body, x_s))
    g = g + jnp.kron(h @ h.T, jnp.eye(k, dtype=h.dtype))

    def solver(b):
        found = linear_solve.cholesky(g, b.ravel(), ridge=lam, solve_dtype=options.solve_dtype)
        return found._replace(value=found.value.reshape(b.shape))

    return *_dual_form(solver, net, learned, batch, options), memory


def _cg_form(key, net, learned, memory, batch, options):
    parts, _ = _support(learned, options)
    lam = options.reg * learned.x.shape[0]

    def matvec(alpha):
        return net.predict(*net.primal(alpha, parts), parts) + lam * alpha

    def solver(b):
        return linear_solve.cg(matvec, b, tol=options.cg_tol, max_steps=options.cg_steps)

    return *_dual_form(solver, net, learned, batch, options), memory


def _adam_form(key, net, learned, memory, batch, options):
    """The paper's: truncated Adam on ``tau`` and on the quadratic of the inverse Hessian product."""
    lam, solve_dtype = options.reg * learned.x.shape[0], options.solve_dtype
    inner_key, hessian_key = jax.random.split(key)
    hessian, b = _quadratic(net, learned, lam, options)
    partial = 0 < options.subsample < learned.x.shape[0]

    def adam(watched, given, b, steps, start, key):
        def run(size):
            return linear_solve.adam(hessian, b, steps=steps, step_size=size, key=key if partial else None)

        search = not given and steps > 0
        return run(step_size.tuned(watched, lambda size: run(size).values, start) if search else watched.step_size)

    def tangent(tau, at):
        parts, y_s = _support(at, options)
        o_s, h_s = net.tangent(tau, parts)
        return o_s, h_s, y_s

    def outer(tau, at):
        o_s, h_s, y_s = tangent(tau, at)
        alpha = krr.alpha(h_s @ h_s.T, y_s - o_s, reg=lam, reg_unit="absolute", solve_dtype=solve_dtype)
        return _score(net.predict(tau, h_s.T @ alpha, (batch.x,)), at, batch, options)

    def value(tau, at):
        o_s, h_s, y_s = tangent(tau, at)
        return inner_loss(o_s, h_s @ h_s.T, y_s, tau, lam=lam, solve_dtype=solve_dtype)

    def solver(_, b):
        return adam(memory.hessian, options.hessian_step_size, b, options.hessian_steps, 5e-5, hessian_key)

    inner = adam(memory.inner, options.inner_step_size, b, options.inner_steps, 1e-5, inner_key)
    hyper = implicit.hypergradient(outer, jax.grad(value), inner.value, learned, solver, has_aux=True)
    if options.clip:
        hyper = hyper._replace(implicit=implicit.clip_to_direct(hyper.implicit, hyper.direct))
    done = ((memory.inner, inner), (memory.hessian, hyper.solution))
    return inner, hyper, StepSizes(*(step_size.adapt(w._replace(step_size=s.step_size), s.values) for w, s in done))


def _quadratic(net, learned, lam, options):
    """The inner loss as ``1/2 tau.H tau - b.tau``: ``H = c (J^T A^-1 J + I)``, ``b = c J^T A^-1 y``, ``c = lam / nk``.

    With ``options.subsample`` the product takes a key and its ``J^T`` runs over a random part of the images, so that
    it is right on average.
    """
    parts, y_s = _support(learned, options)
    x_s = jnp.concatenate(parts)
    jac = linearize.products(net.of, net.body, x_s)
    h = jac.value[1]
    scale, none = lam / y_s.size, jnp.zeros_like(h)

    def inverted(k_ss):
        return jnp.linalg.inv(k_ss + lam * jnp.eye(len(k_ss), dtype=k_ss.dtype))

    inverse = precision.run_in(options.solve_dtype, inverted, h @ h.T)

    def pull(u):
        return jac.vjp((u, none))

    def some(key, u):
        size = options.subsample * (2 if options.flip else 1)
        rows = draw.without_replacement(key, size, x_s.shape[0])
        _, pullback = jax.vjp(lambda body: net.of(body, x_s[rows])[0], net.body)
        return pullback(u[rows] * (x_s.shape[0] / size))[0]

    def hessian(v, key=None):
        u = inverse @ jac.jvp(v)[0]
        back = pull(u) if key is None else some(key, u)
        return jax.tree.map(lambda a, b: scale * (a + b), back, v)

    return hessian, jax.tree.map(lambda a: scale * a, pull(inverse @ y_s))


def _require_room(rows, net, x_s, limit):
    """The dense dual must fit the memory."""
    size = x_s.dtype.itemsize
    width = sum(leaf.size for leaf in jax.tree.leaves(net.body))
    activations = _largest(jax.make_jaxpr(net.of)(net.body, x_s[:1]).jaxpr)
    # Jacobian; the layers that it is pulled back through; the matrix, and its float64 copy with the factor.
    need = size * rows * (width + 2 * activations) + (size + 16) * rows**2
    free = limit or sharding.free_memory()
    checks.require(
        not free or need <= free,
        "rcig",
        f"solve='dense' needs a matrix of nC = {rows} rows and their Jacobian, {checks.size_text(need)}, and "
        f"{checks.size_text(free or 0)} are free; use solve='cg', or fewer distilled images",
    )


def _largest(jaxpr):
    """The most entries that any value inside a traced function has."""
    sizes = [math.prod(v.aval.shape) for e in jaxpr.eqns for v in e.outvars if hasattr(v.aval, "shape")]
    inner = [p for e in jaxpr.eqns for p in e.params.values() if hasattr(p, "eqns") or hasattr(p, "jaxpr")]
    return max([*sizes, *(_largest(getattr(p, "jaxpr", p)) for p in inner)], default=0)
