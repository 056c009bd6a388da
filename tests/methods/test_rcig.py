"""RCIG against closed forms: the spec's tests of inner loss, Hessian, implicit gradient, subsets and clipping."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kipjax.checks import InputError
from kipjax.core import linearize
from kipjax.methods import _pooled, frepo, rcig
from kipjax.methods._pooled import Learned
from kipjax.models import network
from kipjax.types import Batch, Distilled
from tests.reference import networks

K, M, B, REG = 3, 4, 9, 1e-2
DEFAULTS = {
    "loss": "platt",
    "margin": True,
    "reg": REG,
    "flip": False,
    "subsample": 0,
    "block_size": 0,
    "solve_dtype": None,
    "cg_tol": 1e-12,
    "cg_steps": 500,
    "dense_limit": 0.0,
    "inner_steps": 20,
    "hessian_steps": 20,
    "inner_step_size": 0.01,
    "hessian_step_size": 0.03,
    "clip": False,
}
FORMS = {"dense": rcig._dense_form, "cg": rcig._cg_form, "adam": rcig._adam_form}


@functools.cache
def setting():
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), 4)
        x, x_t = (jax.random.normal(k, (n, 3, 2, 1)) for k, n in zip(keys, (M, B)))
        learned = Learned(x, jax.random.normal(keys[2], (M, K)), jnp.asarray(0.3))
        batch = Batch(x_t, jnp.eye(K)[jnp.arange(B) % K] - 1 / K)
        model = networks.Small(K)
        return model, network.init(model, keys[3], x), learned, batch


def gradient(solve, **changes):
    """``(inner solution, hypergradient, step sizes)`` of one form."""
    model, variables, learned, batch = setting()
    options = rcig._Options(**{**DEFAULTS, **changes})
    sizes = _pooled.StepSizes(*(rcig.step_size.watch(s) for s in (options.inner_step_size, options.hessian_step_size)))
    net = rcig._Net(model, variables, options.block_size)
    return jax.jit(lambda at: FORMS[solve](jax.random.key(1), net, at, sizes, batch, options))(learned)


def pieces(learned, flip=False):
    """Full tangent kernels by explicit Jacobians: ``G`` without its ridge, its rows at the targets, labels, ridge."""
    model, variables, _, batch = setting()
    body, kernel = network.split_head(variables["params"])

    def logits(body, x):
        return model.apply({"params": network.join_head(body, kernel)}, x)

    x, y = _pooled.mirrored(learned.x, learned.y) if flip else (learned.x, learned.y)
    j_s, j_t = (linearize.jacobian(logits, body, a) for a in (x, batch.x))
    h_s, h_t = (model.apply(variables, a, features=True)[1] for a in (x, batch.x))
    g_ss, g_ts = (linearize.ntk(j, j_s) + jnp.kron(h @ h_s.T, jnp.eye(K)) for j, h in ((j_s, h_s), (j_t, h_t)))
    return g_ss, g_ts, y, REG * learned.x.shape[0]


def exact(learned, loss="platt", margin=True, flip=False):
    """The outer loss at the exact inner optimum, straight from the closed form."""
    g_ss, g_ts, y, lam = pieces(learned, flip)
    alpha = jnp.linalg.solve(g_ss + lam * jnp.eye(len(g_ss)), y.ravel())
    f_t = (g_ts @ alpha).reshape(-1, K)
    return rcig.outer_loss(f_t, learned, setting()[3], loss=loss, margin=margin)[0]


def relative(a, b):
    return float(jnp.abs(a - b).max() / jnp.abs(b).max())


@pytest.mark.parametrize(
    ("solve", "changes"),
    [
        ("dense", {}),
        ("dense", {"flip": True, "block_size": 3}),
        ("cg", {"loss": "mse", "margin": False}),
        ("cg", {"flip": True}),
    ],
)
def test_direct_and_implicit_gradient_are_the_derivative_of_the_closed_form(solve, changes, x64):
    _, found, _ = gradient(solve, **changes)
    options = {name: changes[name] for name in ("loss", "margin", "flip") if name in changes}
    value, expected = jax.jit(jax.value_and_grad(functools.partial(exact, **options)))(setting()[2])
    np.testing.assert_allclose(found.value, value, rtol=1e-10)
    for name in ("x", "y"):
        assert relative(getattr(found.total, name), getattr(expected, name)) < 1e-9
    np.testing.assert_allclose(found.total.log_temp, expected.log_temp, rtol=1e-8, atol=1e-12)


def test_it_is_the_finite_difference_of_the_closed_form(x64):
    _, found, _ = gradient("dense")
    learned = setting()[2]
    loss = jax.jit(exact)
    for name, index in (("x", (1, 2, 0, 0)), ("x", (3, 0, 1, 0)), ("y", (2, 1))):
        sides = [
            learned._replace(**{name: getattr(learned, name).at[index].add(s)}) for s in (1e-5, -1e-5)
        ]  # fmt: skip
        numeric = (loss(sides[0]) - loss(sides[1])) / 2e-5
        np.testing.assert_allclose(getattr(found.total, name)[index], numeric, rtol=1e-5, atol=1e-9)
        wrong = getattr(found.direct, name)[index] - getattr(found.implicit, name)[index]  # equation (1) as printed
        assert abs(wrong - numeric) > 10 * abs(getattr(found.total, name)[index] - numeric)
    warmer, colder = (loss(learned._replace(log_temp=learned.log_temp + s)) for s in (1e-5, -1e-5))
    np.testing.assert_allclose(found.total.log_temp, (warmer - colder) / 2e-5, rtol=1e-5)


@pytest.mark.slow
def test_the_papers_solver_converges_to_the_exact_gradient(x64):
    """Errors fall as both numbers of Adam steps grow; the tangent becomes that of the closed form."""
    expected = jax.jit(jax.grad(exact))(setting()[2])
    errors = []
    for steps in (20, 200, 4000):
        inner, found, _ = gradient("adam", inner_steps=steps, hessian_steps=steps)
        errors.append(relative(found.total.x, expected.x))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.02
    assert inner.residual < 1e-3


@pytest.mark.slow
def test_the_inner_loss_is_its_long_form_and_its_hessian_the_quadratics(x64):
    model, variables, learned, _ = setting()
    net = rcig._Net(model, variables, 0)
    lam = REG * M
    tau = jax.tree.map(lambda p: 0.1 * jax.random.normal(jax.random.key(p.size), p.shape), net.body)
    flat, unflatten = jax.flatten_util.ravel_pytree(tau)
    o_s, h_s = net.tangent(tau, (learned.x,))
    k_ss = h_s @ h_s.T
    alpha = jnp.linalg.solve(k_ss + lam * jnp.eye(M), learned.y - o_s)
    rest = learned.y - o_s - k_ss @ alpha
    np.testing.assert_allclose(rest, lam * alpha, rtol=1e-9)
    long = (0.5 * jnp.sum(rest**2) + 0.5 * lam * (jnp.trace(alpha.T @ k_ss @ alpha) + flat @ flat)) / (M * K)

    def loss(flat):
        o_s, h_s = net.tangent(unflatten(flat), (learned.x,))
        return rcig.inner_loss(o_s, h_s @ h_s.T, learned.y, unflatten(flat), lam=lam, solve_dtype=None)

    np.testing.assert_allclose(loss(flat), long, rtol=1e-10)
    hessian, b = rcig._quadratic(net, learned, lam, rcig._Options(**DEFAULTS))
    product = jax.flatten_util.ravel_pytree(hessian(tau))[0]
    dense = jax.jit(jax.hessian(loss))(flat)
    np.testing.assert_allclose(product, dense @ flat, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(jax.flatten_util.ravel_pytree(b)[0], -jax.grad(loss)(0 * flat), rtol=1e-8, atol=1e-12)


def test_without_steps_it_is_frepo_with_an_absolute_ridge(x64):
    """Zero steps leave the network where it is: feature regression, whose loss is summed over classes."""
    model, variables, learned, batch = setting()
    _, found, _ = gradient("adam", inner_steps=0, hessian_steps=0, loss="mse", margin=False)

    def loss(at):
        h_s, h_t = (model.apply(variables, x, features=True)[1] for x in (at.x, batch.x))
        return frepo.outer_loss(h_s, h_t, at.y, batch, reg=REG * M, reg_unit="absolute", solve_dtype=None)[0]

    expected = jax.grad(loss)(learned)
    for name in ("x", "y"):
        assert not np.any(getattr(found.implicit, name))
        assert relative(K * getattr(found.total, name), getattr(expected, name)) < 1e-9


def test_the_temperature_has_no_implicit_gradient_and_starts_at_one(x64):
    _, found, _ = gradient("dense")
    assert found.implicit.log_temp == 0
    assert (
        rcig.make(setting()[0], pool_size=1).init(jax.random.key(0), Distilled(*setting()[2][:2])).learned.log_temp == 0
    )


def test_clipping_caps_images_and_labels_at_the_direct_norm(x64):
    free, capped = (
        gradient("adam", flip=True, inner_steps=1000, hessian_steps=1000, clip=clip)[1] for clip in (False, True)
    )
    norms = {name: jnp.linalg.norm(getattr(free.direct, name)) for name in ("x", "y")}
    assert any(jnp.linalg.norm(getattr(free.implicit, name)) > norms[name] for name in norms)
    for name, norm in norms.items():
        assert jnp.linalg.norm(getattr(capped.implicit, name)) <= norm * (1 + 1e-9)
    assert capped.implicit.log_temp == 0


@pytest.mark.parametrize("solve", ["dense", "adam"])
def test_a_part_of_the_images_gives_the_gradient_on_average(solve, x64):
    """Over all parts of two of four images: the mean is the full gradient, as the weight n / b makes it."""
    model, variables, learned, batch = setting()
    steps = {"inner_steps": 0, "hessian_steps": 0} if solve == "adam" else {}
    full = gradient(solve, **steps)[1].total
    options = rcig._Options(**{**DEFAULTS, "subsample": 2, **steps})
    net, sizes = rcig._Net(model, variables, 0), _pooled.StepSizes(*(rcig.step_size.watch(0.01) for _ in range(2)))

    @jax.jit
    def part(order):
        at = learned._replace(x=learned.x[order], y=learned.y[order])
        total = FORMS[solve](jax.random.key(0), net, at, sizes, batch, options)[1].total
        return total._replace(x=jnp.zeros_like(total.x).at[order].set(total.x), y=total.y[jnp.argsort(order)])

    parts = [(i, j) for i in range(M) for j in range(i)]
    orders = [jnp.asarray([i, j, *(set(range(M)) - {i, j})]) for i, j in parts]
    found = [part(order) for order in orders]
    assert relative(sum(f.x for f in found) / len(found), full.x) < 1e-9
    for (i, j), one in zip(parts, found):
        assert relative(one.y, full.y) < 1e-9  # labels keep their whole gradient
        rest = jnp.asarray(sorted(set(range(M)) - {i, j}))
        assert not np.any(one.x[rest])


def test_random_products_of_adam_are_right_on_average(x64):
    model, variables, learned, _ = setting()
    net = rcig._Net(model, variables, 0)
    some, _ = rcig._quadratic(net, learned, REG * M, rcig._Options(**{**DEFAULTS, "subsample": 2}))
    whole, _ = rcig._quadratic(net, learned, REG * M, rcig._Options(**DEFAULTS))
    v = jax.tree.map(jnp.ones_like, net.body)
    many = jax.jit(jax.vmap(lambda key: some(v, key)))(jax.random.split(jax.random.key(0), 2000))
    mean, exact_product = jax.tree.map(lambda a: a.mean(0), many), whole(v)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=0.1 * np.abs(b).max()), mean, exact_product)


def batch32():
    _, _, learned, batch = setting()
    return Distilled(*(jnp.asarray(a, jnp.float32) for a in learned[:2])), jax.tree.map(
        lambda a: jnp.asarray(a, jnp.float32), batch
    )


def run(steps, **options):
    start, batch = batch32()
    method = rcig.make(networks.Small(K), pool_size=3, pool_steps=2, **options)
    state = jax.jit(method.init)(jax.random.key(0), start)
    step, states, infos = jax.jit(method.step), [state], []
    for i in range(steps):
        state, info = step(jax.random.key(i), state, batch)
        states.append(state)
        infos.append(info)
    return method, states, infos


def test_steps_lower_the_loss_and_the_result_is_their_average():
    method, states, infos = run(60, learning_rate=0.03, margin=False, ema_decay=0.9)
    assert np.mean([i.loss for i in infos[-5:]]) < 0.9 * np.mean([i.loss for i in infos[:5]])
    average, weight = 0.0, 0.0
    for state in states[1:]:
        average, weight = 0.9 * average + 0.1 * state.learned.x, 0.9 * weight + 0.1
    np.testing.assert_allclose(method.distilled(states[-1]).x, average / weight, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(method.distilled(states[0]).x, states[0].learned.x)


def test_the_pool_trains_the_picked_network_alone_and_replaces_the_old():
    _, states, _ = run(25, pool_max_age=6)
    ages = np.array([state.pool.ages for state in states])
    assert ages.max() < 6
    assert np.all((np.diff(ages, axis=0) != 0).sum(1) <= 1)
    grown = np.diff(ages, axis=0)
    assert set(grown[grown > 0]) <= {1, 2}
    assert (grown < 0).any() and set(ages[1:][grown < 0]) == {0}
    for before, after in itertools.pairwise(states):
        kernels = [state.pool.members[0]["params"]["Dense_0"]["kernel"] for state in (before, after)]
        changed = [not np.array_equal(*pair) for pair in zip(*kernels)]
        assert sum(changed) == 1


def test_what_is_not_learned_stays():
    _, states, _ = run(2, learn_labels=False, loss="mse")
    np.testing.assert_array_equal(states[0].learned.y, states[-1].learned.y)
    assert states[-1].learned.log_temp == 0
    assert not np.array_equal(states[0].learned.x, states[-1].learned.x)


@pytest.mark.slow
def test_the_average_leaves_what_is_not_learned_as_it_was():
    method, states, _ = run(3, learn_labels=False)
    np.testing.assert_array_equal(method.distilled(states[-1]).y, states[0].learned.y)
    method, states, _ = run(3, learn_images=False)
    np.testing.assert_array_equal(method.distilled(states[-1]).x, states[0].learned.x)


@pytest.mark.slow
def test_a_subset_as_large_as_the_set_is_the_set():
    """With Adam too, whose products then need no random part."""
    options = {"solve": "adam", "inner_step_size": 1e-3, "hessian_step_size": 1e-3}
    found = [run(1, subsample=size, **options)[1][-1].learned.x for size in (0, M, 100)]
    np.testing.assert_allclose(found[1], found[0], atol=1e-6)
    np.testing.assert_allclose(found[2], found[0], atol=1e-6)


@pytest.mark.slow
def test_the_step_sizes_are_found_in_the_first_step_and_kept():
    _, states, infos = run(2, solve="adam", inner_steps=4, hessian_steps=4)
    first, second = (state.memory for state in states[1:])
    assert states[0].memory.inner.step_size == 0
    assert first.inner.step_size > 1e-5 and first.hessian.step_size > 5e-5
    assert second.inner.step_size == first.inner.step_size
    assert second.inner.runs == 2
    assert infos[0].inner_residual < 1


@pytest.mark.slow
def test_batch_norm_trains_with_batches_and_linearises_with_running_statistics():
    start, batch = batch32()
    method = rcig.make(networks.Small(K, norm=True), pool_size=2, pool_steps=1)
    state = jax.jit(method.init)(jax.random.key(0), start)
    new, info = jax.jit(method.step)(jax.random.key(0), state, batch)
    before, after = (s.pool.members[0]["batch_stats"]["BatchNorm_0"]["mean"] for s in (state, new))
    assert not np.array_equal(before, after)
    assert np.isfinite(info.loss)


@pytest.mark.parametrize("solve", rcig.SOLVERS)
def test_products_keep_all_digits_on_accelerators(solve):
    """Their default keeps three, which the ridge does not survive."""
    method = rcig.make(networks.Small(K), solve=solve, pool_size=1, inner_step_size=0.1, hessian_step_size=0.1)
    start, batch = batch32()
    state = jax.eval_shape(method.init, jax.random.key(0), start)
    text = str(jax.make_jaxpr(method.step)(jax.random.key(0), state, batch))
    assert "precision=Precision.HIGHEST" in text or "precision=(Precision.HIGHEST" in text


class Bare(networks.nn.Module):
    @networks.nn.compact
    def __call__(self, x):
        return networks.nn.Dense(3)(x)


class Headless(networks.nn.Module):
    @networks.nn.compact
    def __call__(self, x, *, train=False, features=False):
        out = networks.nn.Dense(3)(x.reshape(len(x), -1))
        return (out, out) if features else out


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rcig.make(Bare()), r"Bare has no features: its __call__ takes \(x\)"),
        (lambda: rcig.make(len), "model is <built-in function len>; expected a flax module"),
        (lambda: rcig.make(networks.Small(K), solve="exact"), "solve is 'exact'; choose one of dense, cg, adam"),
        (lambda: rcig.make(networks.Small(K), loss="hinge"), "loss is 'hinge'; choose one of platt, mse"),
        (lambda: rcig.make(networks.Small(K), reg=0.0), "reg is 0.0; it must be above"),
        (lambda: rcig.make(networks.Small(K), solve_dtype="float16"), "solve_dtype is 'float16'; choose"),
        (lambda: rcig.make(networks.Small(K), solve_dtype="foo"), "solve_dtype is 'foo'; choose"),
        (lambda: rcig.make(networks.Small(K), block_size=-1), "rcig.make: block_size is -1"),
        (lambda: rcig.make(networks.Small(K), cg_steps=0), "rcig.make: cg_steps is 0"),
        (lambda: rcig.make(networks.Small(K), repeats=2), "repeats is 2 and subsample 0"),
        (lambda: rcig.make(networks.Small(K), solve="adam", inner_step_size=-0.1), "inner_step_size is -0.1"),
        (lambda: rcig.make(networks.Small(K), solve="adam", hessian_steps=1), "hessian_steps is 1, and the search"),
        (lambda: rcig.make(networks.Small(K), pool_steps=0), "rcig.make: pool_steps is 0"),
        (lambda: rcig.make(networks.Small(K), learn_images=False, learn_labels=False), "nothing is learned"),
        (
            lambda: run(0, flip=False) and rcig.make(Headless(), pool_size=1).init(jax.random.key(0), batch32()[0]),
            "head",
        ),
        (lambda: run(1, dense_limit=1000.0), r"Jacobian, [\d.]+ kB, and 1 kB are free; use solve='cg'"),
        (lambda: run(1, dense_limit=1000.0), r"matrix of nC = 12 rows and their Jacobian"),
        (lambda: rcig.make(networks.Small(K), dense_limit=-1.0), "dense_limit is -1.0; it must be at least 0"),
        (lambda: rcig.make(networks.Small(K), ema_decay="much"), "ema_decay is 'much'; it must be a number"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
