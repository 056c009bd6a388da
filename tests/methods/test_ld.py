"""Label distillation: ridge step and gradients against NumPy, the watch over overfitting, what moves and what not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kipjax import checks
from kipjax.core import labels
from kipjax.methods import ld
from kipjax.models import network
from kipjax.types import Batch, Distilled
from tests.reference import networks
from tests.reference import unroll as reference

K, M, D, B = 3, 6, 4, 9


def problem(dtype=np.float64):
    rng = np.random.default_rng(0)
    start = Distilled(rng.normal(size=(M, D)).astype(dtype), np.eye(K, dtype=dtype)[np.arange(M) % K])
    return start, Batch(rng.normal(size=(B, D)).astype(dtype), np.eye(K, dtype=dtype)[np.arange(B) % K])


def steps(count=1, **options):
    """``[(state, info), ...]``, the first with no info."""
    start, batch = problem()
    method = ld.make(options.pop("model", networks.Linear(K)), **{"batch_size": M, "window": 100, **options})
    state = method.init(jax.random.key(0), start)
    step, out = jax.jit(method.step), [(state, None)]
    for i in range(count):
        out.append(step(jax.random.key(i + 1), out[-1][0], batch))
    return out


def with_one(x):
    return np.concatenate([x, np.ones((len(x), 1))], axis=1)


def test_ridge_weights_are_numpys_dual_and_primal(x64):
    rng = np.random.default_rng(0)
    h, y = rng.normal(size=(5, 3)), rng.normal(size=(5, K))
    phi = with_one(h)
    for reg in (1.0, 0.1):
        found = ld.ridge_weights(h, y, reg=reg)
        dual = phi.T @ np.linalg.solve(phi @ phi.T + reg * np.eye(5), y)
        np.testing.assert_allclose(found, dual, rtol=1e-10)
        primal = np.linalg.solve(phi.T @ phi + reg * np.eye(4), phi.T @ y)
        np.testing.assert_allclose(found, primal, rtol=1e-9)
        np.testing.assert_allclose(ld.ridge_weights(h, 3 * y, reg=reg), 3 * found, rtol=1e-10)
    np.testing.assert_allclose(phi[:3] @ ld.ridge_weights(h[:3], y[:3], reg=1e-10), y[:3], rtol=1e-6)
    assert np.abs(ld.ridge_weights(h, y, reg=1e9)).max() < 1e-7


def test_the_first_ridge_step_is_numpys(x64):
    """A linear model, whose features are its inputs: loss, the labels' gradient, weights and the scale's step."""
    start, batch = problem()
    (_, _), (state, info) = steps(alpha=0.1, learning_rate=1e-3)
    phi, real, y = with_one(start.x), with_one(batch.x), np.full((M, K), 1 / K)
    inverse = np.linalg.inv(phi @ phi.T + np.eye(M))
    w = 0.1 * phi.T @ inverse @ y
    p = reference.softmax(real @ w)
    np.testing.assert_allclose(info.loss, -np.mean(np.log(p[np.arange(B), np.arange(B) % K])), rtol=1e-10)
    # d loss / dY = alpha s (Phi Phi^T + I)^-1 Phi G,  G = [phi, 1]^T (p - onehot) / n
    slope = 0.1 * inverse @ phi @ (real.T @ (p - batch.y) / B)
    np.testing.assert_allclose(state.opt_state[0].mu, 0.1 * slope, rtol=1e-8)  # betas 0.9
    moved = np.clip(y - 1e-3 * slope / (np.abs(slope) + 1e-8), 0, 1)
    np.testing.assert_allclose(state.y, moved / moved.sum(axis=1, keepdims=True), rtol=1e-6)
    np.testing.assert_allclose(state.learner.w, w, rtol=1e-10)
    inner = -np.mean(np.sum(np.asarray(state.y) * np.log(reference.softmax(phi @ w)), axis=1))
    np.testing.assert_allclose(info.inner_loss, inner, rtol=1e-9)  # at the new labels


def test_global_weights_are_a_moving_average_of_local_ones(x64):
    """Labels frozen and features fixed: after n steps ``W = (1 - (1 - alpha)^n) W_l``."""
    start, _ = problem()
    out = steps(3, alpha=0.1, learn_labels=False)
    local = np.asarray(ld.ridge_weights(start.x, start.y))
    for n, (state, _) in enumerate(out):
        np.testing.assert_allclose(state.learner.w, (1 - 0.9**n) * local, rtol=1e-9, atol=1e-12)
        np.testing.assert_array_equal(state.y, start.y)
    assert abs(float(out[1][0].learner.scale) - 1) == pytest.approx(1e-2, rel=1e-3)


@pytest.mark.slow
def test_the_feature_loss_reaches_the_features_through_the_ridge_solve(x64):
    """The first Adam moment of the network is the gradient with W as a function of theta, not with W held fixed."""
    start, _ = problem()
    model = networks.Small(K)
    (before, _), (after, _) = steps(model=model, alpha=0.3)
    y_old, y_new = np.full((M, K), 1 / K), after.y

    def loss(params, w_of):
        h = network.forward(model, {"params": params}, jnp.asarray(start.x))[1]
        phi = jnp.concatenate([h, jnp.ones((M, 1))], axis=1)
        w = 0.3 * phi.T @ jnp.linalg.solve(phi @ phi.T + jnp.eye(M), y_old)
        return -jnp.mean(jnp.sum(y_new * jax.nn.log_softmax(phi @ w_of(w)), axis=1))

    params = before.learner.variables["params"]
    attached, cut = (jax.grad(loss)(params, f)["Dense_1"]["kernel"] for f in (lambda w: w, jax.lax.stop_gradient))
    found = after.learner.opt_state[0].mu["Dense_1"]["kernel"] / 0.1
    np.testing.assert_allclose(found, attached, rtol=1e-6, atol=1e-12)
    assert np.abs(attached - cut).max() > 1e-3 * np.abs(attached).max()


def test_second_order_gradient_of_labels_is_finite_differences_and_the_closed_form(x64):
    start, batch = problem()
    rng = np.random.default_rng(1)
    w, y, a = rng.normal(size=(D, K)), rng.dirichlet(np.ones(K), M), 0.05
    model, variables = networks.Linear(K), {"params": {"head": {"kernel": jnp.asarray(w)}}}
    real = Batch(batch.x, np.arange(B) % K)

    def loss(y):
        return ld.second_order_loss(model, variables, start.x, y, real, inner_step_size=a)[0]

    value, slope = jax.value_and_grad(loss)(jnp.asarray(y))
    of_numpy = lambda y: reference.outer_loss(w, [(start.x, y)], [a], batch.x, real.y)  # noqa: E731
    np.testing.assert_allclose(value, of_numpy(y), rtol=1e-12)
    for index in ((0, 0), (3, 2)):
        np.testing.assert_allclose(slope[index], reference.difference(of_numpy, y, index), rtol=1e-6)
    end = reference.trained(w, [(start.x, y)], [a])
    p = reference.softmax(batch.x @ end)
    at_end = batch.x.T @ (p - batch.y) / B
    # (a / n) <grad log p_c(x_i; theta), grad L(theta')>
    q = reference.softmax(start.x @ w)
    along = start.x @ at_end
    np.testing.assert_allclose(slope, a / M * (along - (q * along).sum(axis=1, keepdims=True)), rtol=1e-9)


def test_second_order_step_trains_the_network_at_the_old_labels(x64):
    start, _ = problem()
    (before, _), (after, info) = steps(form="second_order", model=networks.Linear(K))
    w = np.asarray(before.learner.variables["params"]["head"]["kernel"])
    slope = start.x.T @ (reference.softmax(start.x @ w) - 1 / K) / M
    np.testing.assert_allclose(after.learner.opt_state[0].mu["head"]["kernel"], 0.1 * slope, rtol=1e-7)
    np.testing.assert_allclose(
        info.inner_loss, -np.mean(np.log(reference.softmax(start.x @ w)).mean(axis=1)), rtol=1e-9
    )
    assert not np.any(after.learner.w) and float(after.learner.scale) == 1.0


@pytest.mark.parametrize("form", ld.FORMS)
def test_labels_stay_on_the_simplex_and_images_as_they_are(form):
    start, _ = problem(np.float32)
    out = steps(5, form=form, learning_rate=0.3, batch_size=4)
    np.testing.assert_allclose(out[0][0].y, 1 / K, rtol=1e-6)
    for state, _ in out[1:]:
        assert np.all((state.y >= 0) & (state.y <= 1))
        np.testing.assert_allclose(state.y.sum(axis=1), 1.0, rtol=1e-5)
        np.testing.assert_array_equal(state.x, start.x)
    assert not np.array_equal(out[1][0].y, out[0][0].y)


@pytest.mark.parametrize("form", ld.FORMS)
def test_rows_that_were_not_drawn_have_no_gradient(form, x64):
    _, (state, _) = steps(form=form, batch_size=4, model=networks.Small(K))
    touched = np.any(np.asarray(state.opt_state[0].mu) != 0, axis=1)
    assert touched.sum() == 4


def test_normalised():
    y = jnp.asarray([[-1.0, 2.0, 0.5], [-1.0, -2.0, 0.0], [0.2, 0.2, 0.0]])
    expected = [[0, 2 / 3, 1 / 3], [1 / 3] * 3, [0.5, 0.5, 0]]
    np.testing.assert_allclose(ld.normalised(y), expected, rtol=1e-6)
    assert np.all(np.isfinite(jax.jacobian(ld.normalised)(y)))
    found = np.asarray(ld.normalised(jnp.asarray([[np.nan, 1.0], [0.0, 2.0]])))
    assert np.isnan(found[0]).any(), "learned labels that are lost do not come back as uniform ones"
    np.testing.assert_array_equal(found[1], [0, 1])


@pytest.mark.parametrize("form", ld.FORMS)
def test_a_batch_that_is_not_finite_is_seen_in_every_loss_after_it(form):
    start, batch = problem(np.float32)
    method = ld.make(networks.Linear(K), form=form, batch_size=M)
    step, state = jax.jit(method.step), method.init(jax.random.key(0), start)
    state, info = step(jax.random.key(0), state, batch._replace(x=jnp.asarray(batch.x).at[0, 0].set(np.nan)))
    assert np.isnan(info.loss)
    state, info = step(jax.random.key(1), state, batch)
    assert np.isnan(info.loss) and np.isnan(np.asarray(state.y)).any()


def test_classes_that_the_labels_lack():
    start, batch = problem(np.float32)
    model = networks.Linear(K)
    variables = model.init(jax.random.key(0), start.x)
    with pytest.raises(checks.InputError, match=f"batch.y spans 0..7, but with num_classes = {K}"):
        ld.second_order_loss(model, variables, start.x, start.y, Batch(batch.x[:2], np.array([0, 7])))


def test_windows_of_the_same_errors_in_another_order_are_level():
    """Errors of batches of 1000, again and again: no window after the first is better, whatever the rounding."""
    errors = np.random.default_rng(0).integers(0, 1000, 50) / 1000
    watched, at, fired = jax.jit(ld.watched), ld.watch(50), []
    for number in range(1, 330):
        at, over = watched(at, jnp.float32(errors[number % 50]))
        fired += [number] * bool(over)
    assert fired == [101, 202, 303] and int(ld.training_steps(at)) == 50


def test_the_watch_resets_after_window_plus_one_idle_steps_and_remembers_the_best(x64):
    """Window 3: the lowest sum, 4 + 3 + 4, ends at step 8, so the reset comes at 8 + 3 + 1."""
    errors = [9, 8, 7, 6, 5, 4, 3, *range(4, 20)]
    at, fired = ld.watch(3), []
    for number, error in enumerate(errors, 1):
        at, over = ld.watched(at, jnp.float32(error))
        if number == 3:
            assert float(at.lowest) == 24 and int(at.waited) == 0
        if over:
            fired.append(number)
            break
        assert int(ld.training_steps(at)) == number
    assert fired == [8 + 3 + 1]
    assert int(ld.training_steps(at)) == 8 and int(at.resets) == 1 and int(at.steps) == 0
    assert np.isinf(at.lowest) and not np.any(at.errors)


def test_the_watch_against_the_papers_program_on_random_errors():
    errors = np.random.default_rng(0).integers(0, 40, 300)
    gap, window, lowest, patience, since, expected = 5, [], None, 0, 0, []
    for error in errors:
        since += 1
        window = [*window, error][-gap:]
        if len(window) < gap:
            continue
        if lowest is None or sum(window) < lowest:
            lowest, patience = sum(window), 0
        elif patience < gap:
            patience += 1
        else:
            expected.append(since - patience - 1)
            window, lowest, since = [], None, 0
    watched, at, lengths = jax.jit(ld.watched), ld.watch(gap), []
    for error in errors:
        at, over = watched(at, jnp.float32(error))
        if over:
            lengths.append(int(at.lengths[-1]))
            assert int(ld.training_steps(at)) == sum(lengths[-3:]) // len(lengths[-3:])
    assert lengths == expected and len(expected) > 5


@pytest.mark.parametrize("form", ld.FORMS)
def test_a_reset_replaces_the_network_and_keeps_the_labels(form):
    """Hopeless targets: with a window of 1 the second idle step resets."""
    out = steps(12, form=form, window=1, model=networks.Small(K))
    resets = [0, *(int(info.resets) for _, info in out[1:])]
    at = next(i for i in range(1, 13) if resets[i] > resets[i - 1])
    (before, _), (after, _) = out[at - 1], out[at]
    assert not np.any(after.learner.w) and float(after.learner.scale) == 1.0
    assert int(after.learner.opt_state[0].count) == 0 and int(after.opt_state[0].count) == at
    assert not np.array_equal(*(s.learner.variables["params"]["Dense_0"]["kernel"] for s in (before, after)))
    np.testing.assert_allclose(after.y.sum(axis=1), 1.0, rtol=1e-5)
    assert np.any(np.abs(np.asarray(after.y) - 1 / K) > 1e-4)


def test_windows_of_the_paper():
    assert [ld.patience_for(*a) for a in ((10, 10), (100, 10), (200, 10), (100, 100), (500, 49))] == [
        50, 50, 200, 100, 100
    ]  # fmt: skip


@pytest.mark.parametrize("form", ld.FORMS)
def test_labels_learned_on_foreign_images_tell_the_classes_apart(form):
    """Base images from another distribution: trained on them and their labels, a network knows the task."""
    rng = np.random.default_rng(0)
    centres = 2 * rng.normal(size=(K, D))
    classes = np.arange(120) % K
    x = jnp.asarray(centres[classes] + 0.5 * rng.normal(size=(120, D)), jnp.float32)
    base = Distilled(jnp.asarray(rng.uniform(-2, 2, (20, D)), jnp.float32), jnp.zeros((20, K)))
    method = ld.make(
        networks.Linear(K), form=form, batch_size=20, learning_rate=0.02, model_learning_rate=0.05, alpha=0.1
    )
    state, step = method.init(jax.random.key(0), base), jax.jit(method.step)
    for i in range(200):
        state, _ = step(jax.random.key(i), state, Batch(x, jnp.eye(K)[classes]))
    h, y = (np.asarray(a, np.float64) for a in method.distilled(state)[:2])
    w = np.asarray(ld.ridge_weights(jnp.asarray(h), jnp.asarray(y), reg=0.01))
    assert np.mean((with_one(np.asarray(x)) @ w).argmax(axis=1) == classes) > 0.85


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"form": "first"}, "form is 'first'; choose one of ridge, second_order"),
        ({"reg": 0.0}, "reg is 0.0; it must be above 0"),
        ({"alpha": 1.5}, r"alpha is 1\.5; it must lie between 0"),
        ({"alpha": 0.0}, r"alpha is 0\.0; it must be above 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"window": -1}, "window is -1"),
    ],
)
def test_bad_input(options, words):
    with pytest.raises(checks.InputError, match=words):
        ld.make(networks.Linear(K), **options)


def test_a_label_set_of_another_size():
    start, batch = problem()
    method = ld.make(networks.Linear(K))
    state = method.init(jax.random.key(0), start)
    with pytest.raises(checks.InputError, match=r"3 columns and y_t has 2"):
        method.step(jax.random.key(0), state, batch._replace(y=batch.y[:, :2]))
    with pytest.raises(checks.InputError, match="same number of rows"):
        method.init(jax.random.key(0), start._replace(y=start.y[:-1]))
    with pytest.raises(checks.InputError, match="the model has 2 outputs and the labels 3 columns"):
        ld.make(networks.Linear(2)).init(jax.random.key(0), start)
    held = batch._replace(y=jnp.pad(batch.y, ((0, 0), (0, 2))))
    with pytest.raises(checks.InputError, match=r"validation: .*3 columns and y_t has 5"):
        ld.make(networks.Linear(K), validation=held).init(jax.random.key(0), start)


def test_true_labels_may_be_centred():
    start, _ = problem()
    hard = labels.one_hot(np.arange(M) % K, K)
    for y in (hard, hard + 1 / K):
        state = ld.make(networks.Linear(K), learn_labels=False).init(jax.random.key(0), start._replace(y=y))
        np.testing.assert_allclose(state.y, hard + 1 / K, atol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("form", ld.FORMS)
def test_training_alone_is_that_of_the_method_with_its_labels_frozen(form, x64):
    """From the network of the method's first state, on all images: the same network and ridge weights."""
    start, _ = problem()
    model = networks.Small(K)
    after = steps(3, model=model, form=form, learn_labels=False, alpha=0.1)
    options = {"form": form, "alpha": 0.1, "variables": after[0][0].learner.variables, "batch_size": M}
    along = ld.fit_along(jax.random.key(7), model, start.x, start.y, jnp.array([1, 3]), **options)
    for i, count in enumerate((1, 3)):
        learner = after[count][0].learner
        for ours, theirs in zip(jax.tree.leaves(along.variables), jax.tree.leaves(learner.variables)):
            np.testing.assert_allclose(ours[i], theirs, rtol=1e-8, atol=1e-12)
        if form == "ridge":
            np.testing.assert_allclose(along.w[i], learner.w, rtol=1e-8)
    one = jax.tree.map(lambda leaf: leaf[1], along)
    logits, h = network.forward(model, one.variables, start.x)
    expected = with_one(np.asarray(h)) @ np.asarray(one.w) if form == "ridge" else logits
    np.testing.assert_allclose(ld.outputs(model, one, start.x), expected, rtol=1e-12)
    whole = ld.fit(jax.random.key(7), model, start.x, start.y, 3, **options)
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: np.array_equal(a, b), whole, one)))


def test_validation_keeps_the_labels_of_least_error(x64):
    """Looked at after steps 2, 4 and 6; the result has the labels of the best look, the last of equal ones."""
    _, batch = problem()
    after = steps(7, validation=batch, validate_every=2, learning_rate=0.3)
    errors, kept = [], [state.best for state, _ in after]
    for i in (2, 4, 6):
        assert int(kept[i].count) == i and np.array_equal(kept[i + 1].y, kept[i].y)
        errors.append(float(kept[i].error))
        if i == 2 or errors[-1] < errors[-2]:
            np.testing.assert_array_equal(kept[i].y, after[i][0].y)
    assert np.isinf(kept[1].error) and errors == sorted(errors, reverse=True) and errors[-1] <= 1
    method = ld.make(networks.Linear(K), batch_size=M, validation=batch)
    state = after[-1][0]
    np.testing.assert_array_equal(method.distilled(state).y, state.best.y)
    assert method.usage(state)["training_steps"] == int(state.best.steps) > 0
    unseen = after[1][0]
    np.testing.assert_array_equal(method.distilled(unseen).y, unseen.y)
    with pytest.raises(checks.InputError, match="validate_every is 0"):
        ld.make(networks.Linear(K), validation=batch, validate_every=0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y": jnp.ones((2, K)) / K}, "x has .* and y"),
        ({"form": "first"}, "form is 'first'; choose one of ridge, second_order"),
        ({"optimizer": "rmsprop"}, "optimizer is 'rmsprop'"),
        ({"steps": -3}, "the numbers of steps are"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_a_training_that_cannot_be_is_refused(change, words):
    start, _ = problem()
    arguments = {"x": start.x, "y": start.y, "steps": 2} | change
    with pytest.raises(checks.InputError, match=words):
        ld.fit(jax.random.key(0), networks.Linear(K), **arguments)
