"""DD and SLDD: against NumPy, finite differences, their theorems and invariants."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kipjax import checks
from kipjax.core import unroll
from kipjax.methods import dd, sldd
from kipjax.models import network
from kipjax.types import Batch, Distilled
from tests.reference import networks
from tests.reference import unroll as reference

K, D, B = 3, 4, 9


def problem(m=6, steps=4, seed=0):
    """A set with soft labels and step sizes, and a batch of real examples, all float64."""
    rng = np.random.default_rng(seed)
    made = Distilled(rng.normal(size=(m, D)), rng.normal(size=(m, K)), rng.uniform(0.1, 0.5, steps))
    return made, Batch(rng.normal(size=(B, D)), np.eye(K)[np.arange(B) % K])


def linear(seed=0):
    """A linear model, its variables, and its weights."""
    w = np.random.default_rng(seed).normal(size=(D, K))
    return networks.Linear(K), {"params": {"head": {"kernel": jnp.asarray(w)}}}, w


def numpy_loss(w, x, y, lr, batch, steps):
    batches = [(x[s::steps], y[s::steps]) for s in range(steps)]
    return reference.outer_loss(w, batches, lr, batch.x, batch.y.argmax(axis=1))


@functools.cache
def gradient(model, steps):
    def loss(made, variables, batch):
        return dd.outer_loss(model, variables, made, batch, inner_steps=steps)[0]

    return jax.jit(jax.value_and_grad(loss))


@pytest.mark.parametrize(("steps", "epochs"), [(1, 1), (3, 1), (3, 2), (2, 2)])
def test_loss_and_gradient_of_images_labels_and_step_sizes_are_numpys(steps, epochs, x64):
    made, batch = problem(steps=steps * epochs)
    model, variables, w = linear()
    value, slope = gradient(model, steps)(made, variables, batch)
    np.testing.assert_allclose(value, numpy_loss(w, *made, batch, steps), rtol=1e-12)
    for name, index in (("x", (0, 1)), ("x", (5, 3)), ("y", (1, 2)), ("y", (4, 0)), ("lr", (0,)), ("lr", (-1,))):
        expected = reference.difference(
            lambda a, name=name: numpy_loss(w, *made._replace(**{name: a}), batch, steps), getattr(made, name), index
        )
        np.testing.assert_allclose(getattr(slope, name)[index], expected, rtol=1e-6, atol=1e-10)


def test_gradient_through_a_network_is_finite_differences(x64):
    """Two tanh layers; S = 2, E = 2."""
    made, batch = problem()
    model = networks.Small(K)
    variables = network.init(model, jax.random.key(0), jnp.asarray(made.x))
    run = gradient(model, 2)
    _, slope = run(made, variables, batch)
    for name, index in (("x", (2, 1)), ("x", (3, 0)), ("y", (0, 0)), ("lr", (2,))):
        moved = reference.difference(
            lambda a, name=name: float(run(made._replace(**{name: a}), variables, batch)[0]),
            getattr(made, name),
            index,
        )
        np.testing.assert_allclose(getattr(slope, name)[index], moved, rtol=1e-5, atol=1e-9)


def test_gradients_chained_by_hand_step_by_step_are_the_same(x64):
    """The program of the paper: one VJP of ``u_t = eta_t grad l_t`` at a time, from the last step to the first."""
    made, batch = problem()
    model, variables, _ = linear()
    _, slope = gradient(model, 2)(made, variables, batch)
    batches = [(made.x[s::2], made.y[s::2]) for s in range(2)]

    def ce(w, x, y):
        return -jnp.mean(jnp.sum(y * jax.nn.log_softmax(x @ w), axis=1))

    def update(w, x, y, eta):
        return eta * jax.grad(ce)(w, x, y)

    ws = [variables["params"]["head"]["kernel"]]
    for t in range(4):
        ws.append(ws[-1] - update(ws[-1], *batches[t % 2], made.lr[t]))
    adjoint = jax.grad(ce)(ws[-1], batch.x, batch.y)
    of_x, of_y = [0.0, 0.0], [0.0, 0.0]
    for t in reversed(range(4)):
        _, pull = jax.vjp(update, ws[t], *batches[t % 2], made.lr[t])
        back, x, y, eta = pull(-adjoint)
        np.testing.assert_allclose(slope.lr[t], eta, rtol=1e-9)
        of_x[t % 2], of_y[t % 2] = of_x[t % 2] + x, of_y[t % 2] + y
        adjoint = adjoint + back
    for s in range(2):
        np.testing.assert_allclose(slope.x[s::2], of_x[s], rtol=1e-9)
        np.testing.assert_allclose(slope.y[s::2], of_y[s], rtol=1e-9)


def test_one_step_in_closed_form(x64):
    """``dL/dX = -eta (d^2 l / dX dtheta)^T grad L(theta_1)``; for labels ``(eta / m) <grad log p_c(x_i), grad L>``."""
    made, batch = problem(steps=1)
    model, variables, _ = linear()
    _, slope = gradient(model, 1)(made, variables, batch)
    w, eta, m = variables["params"]["head"]["kernel"], made.lr[0], len(made.x)

    def ce(w, x, y):
        return -jnp.mean(jnp.sum(y * jax.nn.log_softmax(x @ w), axis=1))

    at_end = jax.grad(ce)(w - eta * jax.grad(ce)(w, made.x, made.y), batch.x, batch.y)
    mixed = jax.jacobian(jax.grad(ce), argnums=1)(w, jnp.asarray(made.x), made.y)
    np.testing.assert_allclose(slope.x, -eta * jnp.einsum("dkmj,dk->mj", mixed, at_end), rtol=1e-9)
    of_log_p = jax.jacobian(lambda w: jax.nn.log_softmax(made.x @ w))(w)
    np.testing.assert_allclose(slope.y, eta / m * jnp.einsum("mcdk,dk->mc", of_log_p, at_end), rtol=1e-9)


def test_epochs_add_the_gradients_of_untied_copies(x64):
    made, batch = problem(steps=6)
    model, variables, _ = linear()
    _, tied = gradient(model, 3)(made, variables, batch)
    untied = Distilled(
        *(dd.rows(jnp.concatenate([dd.curriculum(a, 3)] * 2)) for a in map(jnp.asarray, made[:2])), made.lr
    )
    _, each = gradient(model, 6)(untied, variables, batch)
    for name in ("x", "y"):
        copies = dd.curriculum(getattr(each, name), 6)
        np.testing.assert_allclose(dd.curriculum(getattr(tied, name), 3), copies[:3] + copies[3:], rtol=1e-9)
    np.testing.assert_allclose(tied.lr, each.lr, rtol=1e-9)


@pytest.mark.theory
@pytest.mark.parametrize("m", [D, D + 2])
def test_linear_regression_reaches_the_optimum_in_one_step_from_anywhere(m, x64):
    """Section 3.2: with ``d~^T d~ = (M / eta) I`` and ``(eta / M) d~^T t~ = theta*`` one step ends at ``theta*``."""
    rng = np.random.default_rng(1)
    optimum, eta = rng.normal(size=D), 0.7
    x = np.linalg.qr(rng.normal(size=(m, D)))[0] * np.sqrt(m / eta)
    t = x @ optimum  # then (eta / M) x^T t = (eta / M) (M / eta) theta* = theta*

    def end(theta):
        return unroll.sgd(
            lambda w, item: 0.5 * jnp.mean((item[0] @ w - item[1]) ** 2), theta, (x[None], t[None]), step_size=eta
        ).params

    for theta in (rng.normal(size=D), 100 * rng.normal(size=D)):
        np.testing.assert_allclose(end(theta), optimum, rtol=1e-9, atol=1e-9)


@pytest.mark.theory
def test_with_fewer_points_than_dimensions_the_null_space_is_never_corrected(x64):
    rng = np.random.default_rng(1)
    x, t, theta = rng.normal(size=(1, 2, D)), rng.normal(size=(1, 2)), rng.normal(size=D)
    out = unroll.sgd(
        lambda w, item: 0.5 * jnp.mean((item[0] @ w - item[1]) ** 2), theta, (x, t), step_size=0.1, steps=50
    ).params
    null = np.linalg.svd(x[0])[2][2:]
    np.testing.assert_allclose(null @ out, null @ theta, rtol=1e-9)


def test_order_within_a_step_does_not_matter_and_order_of_steps_does(x64):
    made, batch = problem(steps=2)
    model, variables, _ = linear()
    run = gradient(model, 2)
    value, _ = run(made, variables, batch)
    within = np.array([2, 1, 4, 3, 0, 5])  # rows 0, 2, 4 are step 0
    swapped = np.array([1, 0, 3, 2, 5, 4])
    same, other = (run(made._replace(x=made.x[i], y=made.y[i]), variables, batch)[0] for i in (within, swapped))
    np.testing.assert_allclose(same, value, rtol=1e-12)
    assert abs(float(other - value)) > 1e-4


def test_labels_that_are_linear_in_the_loss_trade_scale_with_step_sizes(x64):
    made, batch = problem()
    model, variables, _ = linear()
    run = gradient(model, 2)
    value, _ = run(made, variables, batch)
    scaled, _ = run(made._replace(y=3 * made.y, lr=made.lr / 3), variables, batch)
    np.testing.assert_allclose(scaled, value, rtol=1e-12)
    still, _ = run(made._replace(y=0 * made.y), variables, batch)
    logits = batch.x @ variables["params"]["head"]["kernel"]
    np.testing.assert_allclose(still, -np.mean(np.log(reference.softmax(logits)[np.arange(B), np.arange(B) % K])))


def first_step(batch, begin, make=dd.make, model=None, **options):
    """``(state before, state after, info)``."""
    method = make(model or networks.Linear(K), **options)
    state = method.init(jax.random.key(0), begin)
    return state, *jax.jit(method.step)(jax.random.key(1), state, batch)


OPTIONS = {"inner_steps": 2, "epochs": 2, "step_size": 0.1, "start": "fixed"}


def hard(m=6):
    made, batch = problem(m)
    return made._replace(y=np.eye(K)[np.arange(m) % K] - 1 / K, lr=None), batch


def test_one_step_of_the_method_is_adam_on_the_outer_gradient(x64):
    """Betas 0.5 and 0.999: the first step is ``-rate g / (|g| + 1e-8)``, of images and of ``r``."""
    start, batch = hard()
    before, after, info = first_step(batch, start, learning_rate=0.01, **OPTIONS)
    variables = jax.tree.map(lambda leaf: leaf[0], before.networks)
    raw = np.log(np.expm1(0.1))
    made = Distilled(start.x, start.y + 1 / K, np.full(4, 0.1))
    value, slope = gradient(networks.Linear(K), 2)(made, variables, batch)
    np.testing.assert_allclose(info.loss, value, rtol=1e-9)
    np.testing.assert_allclose(after.learned.x, start.x - 0.01 * np.sign(slope.x), rtol=1e-4, atol=1e-5)
    sigmoid = 1 / (1 + np.exp(-raw))
    moved = raw - 0.01 * slope.lr * sigmoid / (np.abs(slope.lr * sigmoid) + 1e-8)
    np.testing.assert_allclose(after.learned.raw_step_sizes, moved, rtol=1e-6)
    np.testing.assert_array_equal(after.learned.y, before.learned.y)
    jax.tree.map(np.testing.assert_array_equal, before.networks, after.networks)
    assert after.opt_state[0].mu["x"] == pytest.approx(0.5 * np.asarray(slope.x), rel=1e-6)


def test_step_sizes_start_as_given_and_stay_positive():
    start, batch = hard()
    method = dd.make(networks.Linear(K), **{**OPTIONS, "step_size": 1e-3, "learning_rate": 5.0})
    state = method.init(jax.random.key(0), Distilled(*(jnp.asarray(a, jnp.float32) for a in start[:2])))
    np.testing.assert_allclose(method.distilled(state).lr, 1e-3, rtol=1e-5)
    step = jax.jit(method.step)
    for i in range(5):
        state, _ = step(jax.random.key(i), state, jax.tree.map(jnp.float32, batch))
    assert np.all(method.distilled(state).lr > 0)


@pytest.mark.parametrize(
    ("learned", "moved"),
    [
        ({}, {"x", "raw_step_sizes"}),
        ({"learn_images": False, "learn_labels": True}, {"y", "raw_step_sizes"}),
        ({"learn_step_sizes": False}, {"x"}),
    ],
)
def test_only_what_is_learned_moves(learned, moved):
    start, batch = hard()
    before, after, _ = first_step(batch, start, **OPTIONS, **learned)
    for name in dd.Learned._fields:
        same = np.array_equal(getattr(before.learned, name), getattr(after.learned, name))
        assert same == (name not in moved), name


def test_sldd_with_frozen_one_hot_labels_is_dd(x64):
    start, batch = hard()
    _, plain, info = first_step(batch, start, **OPTIONS)
    _, frozen, same = first_step(batch, start, sldd.make, learn_labels=False, **OPTIONS)
    jax.tree.map(np.testing.assert_array_equal, (plain.learned, info), (frozen.learned, same))
    _, free, _ = first_step(batch, start, sldd.make, **OPTIONS)
    assert not np.array_equal(free.learned.y, plain.learned.y)
    np.testing.assert_allclose(free.learned.x, plain.learned.x, rtol=1e-12)  # the first gradient is the same


def test_softmax_of_constant_logits_is_uniform_labels():
    start, _ = hard()
    method = sldd.make(networks.Linear(K), label_form="softmax", **OPTIONS)
    state = method.init(jax.random.key(0), start._replace(y=np.ones((6, K))))
    np.testing.assert_allclose(method.distilled(state).y, 1 / K, rtol=1e-6)


def test_fewer_samples_than_classes_can_teach_all_classes():
    """Two points on a line with soft labels tell three classes apart (arXiv:1910.02551, section 3.1)."""
    x = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (120, 1)), jnp.float32)
    classes = (x[:, 0] > -0.33).astype(int) + (x[:, 0] > 0.33).astype(int)
    features = jnp.concatenate([x, jnp.ones_like(x)], axis=1)
    start = Distilled(jnp.asarray([[-1.0, 1.0], [1.0, 1.0]]), jnp.eye(3)[:2])
    method = sldd.make(networks.Linear(3), inner_steps=1, epochs=1, step_size=1.0, learning_rate=0.05, start="fixed")
    state, step = method.init(jax.random.key(0), start), jax.jit(method.step)
    for i in range(400):
        state, info = step(jax.random.key(i), state, Batch(features, jnp.eye(3)[classes]))
    assert info.accuracy > 0.9  # at most 2/3 with one class for each point


def test_several_networks_give_the_mean_of_their_gradients(x64):
    start, batch = hard()
    before, after, info = first_step(batch, start, networks=3, **OPTIONS)
    made = Distilled(start.x, start.y + 1 / K, np.full(4, 0.1))
    each = [
        gradient(networks.Linear(K), 2)(made, jax.tree.map(lambda leaf, i=i: leaf[i], before.networks), batch)
        for i in range(3)
    ]
    np.testing.assert_allclose(info.loss, np.mean([value for value, _ in each]), rtol=1e-9)
    np.testing.assert_allclose(
        2 * after.opt_state[0].mu["x"], np.mean([slope.x for _, slope in each], axis=0), rtol=1e-9, atol=1e-14
    )


def test_random_starts_differ_from_step_to_step_and_fixed_ones_do_not():
    start, batch = hard()
    for kind, differ in (("random", True), ("fixed", False)):
        method = dd.make(networks.Linear(K), **{**OPTIONS, "start": kind})
        state = method.init(jax.random.key(0), start)
        step = jax.jit(method.step)
        found = [float(step(jax.random.key(i), state, batch)[1].loss) for i in (1, 2)]
        assert (found[0] != found[1]) == differ, kind


def test_pretrained_networks_are_drawn_without_replacement(x64):
    start, batch = hard()
    model = networks.Linear(K)
    stacked = dd.starts(jax.random.key(7), model, jnp.asarray(start.x), 3)
    options = {**OPTIONS, "pretrained": stacked}
    made = Distilled(start.x, start.y + 1 / K, np.full(4, 0.1))
    each = [
        float(gradient(model, 2)(made, jax.tree.map(lambda leaf, i=i: leaf[i], stacked), batch)[0]) for i in range(3)
    ]
    method = dd.make(model, networks=2, **options)
    state, step = method.init(jax.random.key(0), start), jax.jit(method.step)
    found = {round(float(step(jax.random.key(i), state, batch)[1].loss), 9) for i in range(8)}
    pairs = {round((each[i] + each[j]) / 2, 9) for i in range(3) for j in range(i)}
    assert found <= pairs and len(found) > 1
    _, _, info = first_step(batch, start, networks=3, **options)
    np.testing.assert_allclose(info.loss, np.mean(each), rtol=1e-9)


def test_the_malicious_objective_changes_the_attacked_class_alone(x64):
    start, batch = hard()
    attack = {"attacked": 1, "target": 2}
    others = Batch(*(a[batch.y.argmax(axis=1) != 1] for a in batch))
    _, plain, info = first_step(others, start, **OPTIONS)
    _, attacked, same = first_step(others, start, **OPTIONS, **attack)
    jax.tree.map(np.testing.assert_array_equal, (plain.learned, info), (attacked.learned, same))
    relabelled = batch._replace(y=batch.y[:, [0, 2, 1]] * (batch.y[:, 1:2] > 0) + batch.y * (batch.y[:, 1:2] == 0))
    _, expected, _ = first_step(relabelled, start, **OPTIONS)
    _, found, _ = first_step(batch, start, **OPTIONS, **attack)
    jax.tree.map(np.testing.assert_array_equal, expected.learned, found.learned)


def test_the_rate_is_halved():
    start, batch = hard()
    method = dd.make(networks.Linear(K), learning_rate=0.1, halve_every=2, **OPTIONS)
    state, step = method.init(jax.random.key(0), start), jax.jit(method.step)
    largest = []
    for i in range(4):
        new, _ = step(jax.random.key(i), state, batch)
        largest.append(float(jnp.abs(new.learned.x - state.learned.x).max()))
        state = new
    assert largest[0] == pytest.approx(0.1, rel=1e-2) and largest[2] < 0.06 and largest[3] < 0.06


def test_a_curriculum_has_every_class_in_every_batch():
    y = np.repeat(np.eye(K), 4, axis=0)  # grouped by class, four of each
    batches = dd.curriculum(jnp.asarray(y), 4)
    np.testing.assert_array_equal(batches, np.broadcast_to(np.eye(K), (4, K, K)))
    np.testing.assert_array_equal(dd.rows(batches), y)


def test_distilling_beats_the_real_images_that_it_started_from():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(K, D))
    classes = np.arange(90) % K
    x = jnp.asarray(centres[classes] + 0.6 * rng.normal(size=(90, D)), jnp.float32)
    batch = Batch(x, jnp.eye(K)[classes])
    method = dd.make(networks.Small(K), inner_steps=1, epochs=2, step_size=0.05, learning_rate=0.05)
    state = method.init(jax.random.key(0), Distilled(x[:K], jnp.eye(K)[classes[:K]]))
    step, accuracies = jax.jit(method.step), []
    for i in range(150):
        state, info = step(jax.random.key(i), state, batch)
        accuracies.append(float(info.accuracy))
    assert np.mean(accuracies[-20:]) > np.mean(accuracies[:20]) + 0.2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"attacked": 1, "target": 1}, "the attacked class and the target are both 1"),
        ({"attacked": 1}, "give both classes"),
        ({"step_size": 0.0}, "step_size is 0.0; it must be above 0"),
        ({"start": "pretrained"}, "start is 'pretrained'; choose one of random, fixed"),
        ({"label_form": "hard"}, "label_form is 'hard'"),
        ({"learn_images": False, "learn_step_sizes": False}, "nothing is learned"),
        ({"inner_steps": 0}, "inner_steps is 0"),
        ({"pretrained": {"params": {"w": np.ones((2, 3))}}, "networks": 3}, "networks is 3 and pretrained has 2"),
        ({"pretrained": {"w": np.ones((2, 3))}}, "stacked along a first axis"),
        ({"pretrained": [np.ones((2, 3))]}, "stacked along a first axis"),
        ({"pretrained": {"params": {"w": 1.0}}}, "networks is 1 and pretrained has 0"),
        ({"pretrained": {"params": {"w": np.full((2, 3), np.nan)}}}, r"pretrained \['params'\]\['w'\] has NaN"),
        ({"halve_every": -1}, "halve_every is -1"),
        ({"segment": "half"}, "segment is 'half'"),
        ({"truncate": 0}, "truncate is 0"),
    ],
)
def test_bad_input(options, words):
    with pytest.raises(checks.InputError, match=words):
        dd.make(networks.Linear(K), **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"inner_steps": 4}, "the number of rows is 6, which is not divisible by inner_steps"),
        ({"inner_steps": 7}, "a curriculum of 7 steps is longer than the data, 6 rows"),
        ({"inner_steps": 2, "attacked": 0, "target": 3}, "target 3; classes: 3"),
        (
            {"inner_steps": 2, "pretrained": {"params": {"head": {"kernel": np.ones((1, 9, 3))}}}},
            r"pretrained has \['params'\]\['head'\]\['kernel'\] of shape \(1, 9, 3\) and the model's networks",
        ),
    ],
)
def test_sets_that_do_not_fit(options, words):
    with pytest.raises(checks.InputError, match=words):
        dd.make(networks.Linear(K), **options).init(jax.random.key(0), hard()[0])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"lr": None}, r"distilled.lr is None; expected one step size for each step: 2 batches take \[2\]"),
        ({"lr": np.float32(0.1)}, r"distilled.lr is of shape \(\)"),
        ({"lr": np.full(3, 0.1)}, r"distilled.lr is of shape \(3,\)"),
        ({"lr": np.zeros(0)}, r"distilled.lr is of shape \(0,\)"),
        ({"y": np.array([0, K] * 3)}, "batch.y spans 0..3, but with num_classes = 3"),
    ],
)
def test_what_the_outer_loss_refuses(changed, words):
    made, batch = problem()
    model, variables, _ = linear()
    batch = batch._replace(y=changed.get("y", batch.y), x=batch.x[:6] if "y" in changed else batch.x)
    with pytest.raises(checks.InputError, match=words):
        dd.outer_loss(model, variables, made._replace(lr=changed.get("lr", made.lr)), batch, inner_steps=2)


def test_labels_of_another_number_of_classes():
    start, batch = hard()
    method = dd.make(networks.Linear(K), **OPTIONS)
    with pytest.raises(checks.InputError, match=r"3 columns and y_t has 2"):
        method.step(jax.random.key(0), method.init(jax.random.key(0), start), batch._replace(y=batch.y[:, :2]))


def test_starts_that_do_not_fit_the_network_or_are_not_finite():
    start, _ = hard()
    with pytest.raises(checks.InputError, match="the model has 4 outputs and the labels 3 columns; build it with"):
        dd.make(networks.Linear(4), **OPTIONS).init(jax.random.key(0), start)
    for name in ("x", "y"):
        wrong = start._replace(**{name: np.full_like(getattr(start, name), np.nan)})
        with pytest.raises(checks.InputError, match=f"{name} has NaN"):
            dd.make(networks.Linear(K), **OPTIONS).init(jax.random.key(0), wrong)


def test_free_labels_that_sum_to_zero_stay():
    y = np.array([[1.0, -1.0, 0.0], [2 / 3, -1 / 3, -1 / 3], [0.1, 0.2, -0.3], [0, 0, 0]], np.float32)
    start = Distilled(np.ones((4, D), np.float32), y)
    method = sldd.make(networks.Linear(K), inner_steps=1)
    found = method.distilled(method.init(jax.random.key(0), start)).y
    np.testing.assert_allclose(found, [[1, -1, 0], [1, 0, 0], np.array([0.1, 0.2, -0.3]) + 1 / 3, [0, 0, 0]], atol=1e-6)


@pytest.mark.parametrize("kind", sldd.LABELS)
def test_initial_labels(kind):
    y = np.asarray(sldd.initial_labels(jax.random.key(0), np.array([1, 0]), K, kind))
    expected = {"one_hot": [0, 1, 0], "smoothed": [1 / 30, 0.9 + 1 / 30, 1 / 30], "zeros": [0] * 3, "ones": [1] * 3}
    assert y.shape == (2, K)
    if kind in expected:
        np.testing.assert_allclose(y[0], expected[kind], rtol=1e-6)
    elif kind == "uniform":
        assert np.all((y >= 0) & (y < 1))
    with pytest.raises(checks.InputError, match="kind is 'orthogonal'"):
        sldd.initial_labels(jax.random.key(0), np.array([1]), K, "orthogonal")
