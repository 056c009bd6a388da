"""Exact distillation: the teacher against the oracle, every construction exact in float64, and what is refused."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kipjax import checks, kernels
from kipjax.evaluation import krr
from kipjax.methods import krr_exact
from kipjax.types import Batch, Distilled

K, SHAPE = 3, (4, 4, 1)


def problem(m, n=60, centred=True, dtype=np.float64):
    """Three noisy classes."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(K, *SHAPE))

    def some(n):
        labels = np.arange(n) % K
        x = centres[labels] + 0.5 * rng.normal(size=(n, *SHAPE))
        return jnp.asarray(x, dtype), jnp.asarray(np.eye(K)[labels] - (1 / K if centred else 0), dtype)

    return Distilled(*some(m)), Batch(*some(n))


def run(spec, start, batch, **options):
    method = krr_exact.make(kernels.get(**spec), **options)
    return jax.jit(method.step)(jax.random.key(0), method.init(jax.random.key(0), start), batch)


CONSTRUCTIONS = [
    ("linear", {}, 3, True),
    ("linear", {}, 3, False),
    ("linear", {"reg": 1e-3, "root": "smaller"}, 9, True),
    ("linear", {"reg": 1e-3, "images": "noise"}, 24, False),
    ("linear", {"labels": "teacher", "images": "minimal"}, 9, True),
    ("linear", {"images": "fixed", "reg": 1e-3}, 24, True),
    ("leaky_net", {}, 3, True),
    ("convolution", {"labels": "teacher", "reg": 1e-3}, 6, True),
    ("fourier", {}, 3, True),
    ("fourier", {"images": "noise", "reg": 1e-7, "root": "smaller"}, 6, False),
    ("linear_net", {"images": "noise"}, 6, True),
]


@pytest.mark.parametrize(("name", "options", "m", "centred"), CONSTRUCTIONS, ids=str)
def test_every_construction_has_the_teachers_weights(name, options, m, centred, x64):
    start, batch = problem(m, centred=centred)
    spec = {"name": name} | ({"widths": (20,)} if name == "linear_net" else {})
    state, info = run(spec, start, batch, validation=0.2, **options)
    assert info.error < 1e-8 and info.reg == options.get("reg", 0.0)
    # and as anyone else would use the set, on new points
    x = problem(m, n=40)[1].x + 0.1
    feature_map = kernels.get(**spec)
    student = krr.predict(feature_map, Distilled(state.x, state.y), x, reg=float(info.reg), reg_unit="absolute")
    teacher = feature_map.features(x) @ state.weights
    np.testing.assert_allclose(student, teacher, atol=1e-5 * np.abs(teacher).max())


@pytest.mark.parametrize("n", [60, 10])
def test_the_teacher_is_ridge_regression_with_the_ridge_of_the_best_validation_accuracy(n, x64):
    """Normal and dual equations, in blocks; the smallest of equally good ridges."""
    start, batch = problem(3, n=n)
    regs = (0.0, 1e-2, 1.0, 100.0, 1e5)
    state, info = run({"name": "linear"}, start, batch, validation=0.3, regs=regs, block_size=7)
    split = krr_exact._teacher.hold_out(jax.random.split(jax.random.key(0))[0], batch, 0.3)
    kept = np.asarray(split.kept)
    assert kept.sum() == n - round(0.3 * n) and len(split.scored.y) == n - kept.sum()
    x, y = np.asarray(batch.x).reshape(n, -1), np.asarray(batch.y)

    def fit(reg):
        h = x[kept]
        return np.linalg.pinv(h) @ y[kept] if reg == 0 else np.linalg.solve(h.T @ h + reg * np.eye(16), h.T @ y[kept])

    scores = [np.mean((x[~kept] @ fit(reg)).argmax(1) == y[~kept].argmax(1)) for reg in regs]
    best = int(np.argmax(scores))
    assert float(info.teacher_reg) == regs[best] and float(info.teacher_accuracy) == pytest.approx(scores[best])
    np.testing.assert_allclose(state.weights, fit(regs[best]), atol=1e-7)


def test_without_validation_all_targets_are_used(x64):
    start, batch = problem(3)
    state, info = run({"name": "linear"}, start, batch, validation=0.0, teacher_reg=0.5)
    x = np.asarray(batch.x).reshape(60, -1)
    w = np.linalg.solve(x.T @ x + 0.5 * np.eye(16), x.T @ np.asarray(batch.y))
    np.testing.assert_allclose(state.weights, w, rtol=1e-8)
    accuracy = np.mean((x @ w).argmax(1) == np.asarray(batch.y).argmax(1))
    assert info.teacher_reg == 0.5 and info.teacher_accuracy == pytest.approx(accuracy)


def test_images_are_as_close_to_the_real_ones_as_they_can_be(x64):
    start, batch = problem(6)
    options = {"validation": 0.0, "teacher_reg": 1.0}
    distance = {}
    for images, labels in [("real", "given"), ("real", "teacher"), ("noise", "given"), ("minimal", "given")]:
        state, _ = run({"name": "linear"}, start, batch, images=images, labels=labels, **options)
        d, real = (np.linalg.pinv(np.asarray(x).reshape(6, -1)).T for x in (state.x, start.x))
        distance[images, labels] = np.linalg.norm(d - real)
        assert np.array_equal(state.y, start.y) == (labels == "given")
    assert distance["real", "teacher"] < distance["real", "given"]
    assert distance["real", "given"] < min(distance["noise", "given"], distance["minimal", "given"])


def test_a_float32_process_gives_sets_that_are_exact_to_its_rounding():
    start, batch = problem(3, dtype=np.float32)
    state, info = run({"name": "leaky_net"}, start, batch)
    assert state.x.dtype == jnp.float32 and info.error < 1e-4


@pytest.mark.slow
def test_a_ridge_above_the_bound_is_clamped_and_said_so(x64):
    start, batch = problem(3)
    method = krr_exact.make(kernels.get("linear"), reg=1e9, images="minimal")
    with pytest.warns(UserWarning, match=r"reg is 1e\+09, above its bound [\d.]+, and was clamped to it"):
        _, info = method.step(jax.random.key(0), method.init(jax.random.key(0), start), batch)
    assert info.reg == info.reg_limit < 1e9 and info.error < 1e-8


def test_a_class_that_the_targets_lack_does_not_matter(x64):
    """The teacher's weights have no full rank then."""
    start, batch = problem(3, centred=False)
    kept = np.flatnonzero(np.asarray(batch.y).argmax(axis=1) != 1)
    for shift in (0.0, 1 / K):
        some = Batch(batch.x[kept], batch.y[kept] - shift)
        state, info = run({"name": "linear"}, start._replace(y=start.y - shift), some)
        assert np.linalg.matrix_rank(state.weights, tol=1e-9) < K and info.error < 1e-8


@pytest.mark.slow
def test_what_cannot_be_exact_is_said_with_the_layer_and_the_error(x64):
    _, batch = problem(3)
    for widths, m, exact in (((8,), 3, True), ((20,), 3, False), ((20,), 24, True)):
        method = krr_exact.make(kernels.get("leaky_net", widths=widths))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            state, info = method.step(jax.random.key(0), method.init(jax.random.key(0), problem(m)[0]), batch)
        said = [str(w.message) for w in caught if "krr_exact" in str(w.message)]
        assert bool(said) != exact and (float(info.error) < 1e-6) == exact, (widths, m)
        assert method.usage(state).get("remarks", []) == [text.removeprefix("krr_exact.step: ") for text in said]
        if not exact:
            assert "layer 1 maps 16 entries to 20" in said[0] and f"is {float(info.error):.2g}" in said[0]


@pytest.mark.parametrize(
    ("options", "change", "words"),
    [
        ({"images": "fixed"}, lambda s, b: (s, b), "the images stay as they are, and with 3 points"),
        ({"labels": "teacher"}, lambda s, b: (Distilled(s.x[:1].repeat(3, 0), 0 * s.y), b), "have rank 0, the weights"),
        ({}, lambda s, b: (s, b._replace(y=b.y + 1 / K)), "the labels of the set have rank 2, the weights 3"),
    ],
)
def test_a_set_that_is_not_exact_says_so_though_all_features_can_be_reached(options, change, words, x64):
    """Under jit, where labels are not known."""
    start, batch = change(*problem(3))
    method = krr_exact.make(kernels.get("linear"), **options)
    state, info = jax.jit(method.step)(jax.random.key(0), method.init(jax.random.key(0), start), batch)
    (said,) = method.usage(state)["remarks"]
    assert info.error > 0.1 and words in said and f"is {float(info.error):.2g}" in said
    assert "remarks" not in method.usage(state._replace(error=jnp.nan, weights=state.weights * jnp.nan))


@pytest.mark.parametrize("m", [3, 6, 12])
@pytest.mark.parametrize("labels", ["given", "teacher"])
def test_a_clamped_set_of_real_images_is_exact_too(m, labels, x64):
    start, batch = problem(m)
    method = krr_exact.make(kernels.get("linear"), reg=1e9, labels=labels)
    with pytest.warns(UserWarning, match="was clamped"):
        state, info = method.step(jax.random.key(0), method.init(jax.random.key(0), start), batch)
    assert info.error < 1e-8 and state.reg == info.reg < 1e9
    assert np.abs(state.x).max() < 1e3


@pytest.mark.parametrize("seed", range(4))
def test_pixels_that_are_always_blank_are_not_made_up(seed, x64):
    """More points than live pixels: singular values of D that are but rounding must not be inverted."""
    start, batch = problem(12)
    alive = np.random.default_rng(seed).permutation(16)[:7]
    mask = np.zeros(16)
    mask[alive] = 1
    mask = mask.reshape(SHAPE)
    state, info = run({"name": "linear"}, start._replace(x=start.x * mask), batch._replace(x=batch.x * mask))
    assert info.error < 1e-8 and info.rank <= 7
    assert np.abs(state.x).max() < 100


def test_centred_labels_do_not_go_with_targets_that_are_not(x64):
    start, batch = problem(6)
    method = krr_exact.make(kernels.get("linear"))
    with pytest.raises(checks.InputError, match="centre both, or neither"):
        method.step(jax.random.key(0), method.init(jax.random.key(0), start), batch._replace(y=batch.y + 1 / K))


def test_features_out_of_reach_get_labels_solved_anew(x64):
    """A widening network: p points suffice, fewer do not, and ``Info.error`` says so."""
    for m, enough in [(3, False), (24, True)]:
        start, batch = problem(m)
        _, info = run({"name": "leaky_net", "widths": (20,)}, start, batch)
        assert (info.error < 1e-8) == enough


def bad(make=None, start=None, **options):
    method = krr_exact.make(kernels.get("linear") if make is None else make, **options)
    default, batch = problem(3, dtype=np.float32)
    state = method.init(jax.random.key(0), default if start is None else start)
    method.step(jax.random.key(0), state, batch._replace(y=batch.y[:, :2]))


def labelled(y):
    return Distilled(jnp.ones((len(y), *SHAPE)), jnp.asarray(y))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"make": kernels.get("rbf")}, "expected a feature map such as"),
        ({"make": kernels.get("leaky_net", widths=(10, 12)), "relabel": "never"}, "layer 2 maps 10 entries to 12"),
        ({"make": kernels.get("fourier"), "relabel": "never"}, "features come back scaled; allow relabel='auto'"),
        ({"start": labelled(np.eye(3)[:2])}, "2 points for 3 classes; no set of fewer points than classes"),
        ({"start": labelled(np.eye(3)[[0, 1, 0]])}, "labels y have rank 2 and there are 3 classes"),
        ({"start": labelled(np.eye(3)[[0, 0, 0]] - 1 / 3)}, "labels y have rank 1 and there are 3 classes"),
        ({"images": "made"}, "images is 'made'; choose one of real, noise, minimal, fixed"),
        ({"labels": "soft"}, "labels is 'soft'"),
        ({"relabel": "maybe"}, "relabel is 'maybe'"),
        ({"reg": -1.0}, "reg is -1.0"),
        ({"root": "smaller"}, "for the smaller root, is 0.0; it must be above 0"),
        ({"validation": 1.0}, "validation is 1.0"),
        ({"regs": (1.0, 0.1)}, "give ridges in ascending order"),
        ({"block_size": 0}, "block_size is 0"),
        ({"dtype": "foo"}, "dtype is 'foo'; choose"),
        ({}, "y_s has 3 columns and y_t has 2"),
    ],
)
def test_bad_input(options, words):
    with pytest.raises(checks.InputError, match=words):
        bad(**options)
