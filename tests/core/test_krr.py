"""Kernel ridge regression against the NumPy oracle, finite differences and the paper's theorems."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kipjax import checks
from kipjax.core import krr
from tests.reference import krr as reference


def problem(seed=0, m=9, n=30, d=5, k=3):
    rng = np.random.default_rng(seed)
    x_s, x_t = rng.normal(size=(m, d)), rng.normal(size=(n, d))
    return x_s, x_t, rng.normal(size=(m, k)), rng.normal(size=(n, k))


def kernels_of(x_s, x_t):
    return reference.rbf(x_s, x_s), reference.rbf(x_t, x_s)


@pytest.mark.parametrize("unit", krr.REG_UNITS)
@pytest.mark.parametrize("reg", [1e-6, 0.3])
def test_predict_and_loss_equal_the_oracle(x64, unit, reg):
    x_s, x_t, y_s, y_t = problem()
    k_ss, k_ts = kernels_of(x_s, x_t)
    arrays = [jnp.asarray(a) for a in (k_ss, k_ts, y_s, y_t)]
    np.testing.assert_allclose(
        krr.predict(*arrays[:3], reg=reg, reg_unit=unit), reference.predict(k_ss, k_ts, y_s, reg, unit), rtol=1e-7
    )
    np.testing.assert_allclose(
        krr.loss(*arrays, reg=reg, reg_unit=unit), reference.loss(k_ss, k_ts, y_s, y_t, reg, unit), rtol=1e-8
    )


def test_the_solve_is_float64_under_float32_kernels():
    """With n = 600 near-duplicate points a float32 Cholesky fails where the default does not; jit or not."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 3))
    k = jnp.asarray(reference.rbf(x, x, 0.05), jnp.float32)
    y = jnp.asarray(rng.normal(size=(600, 2)), jnp.float32)
    wide = jax.jit(lambda k, y: krr.alpha(k, y, reg=1e-6))(k, y)
    narrow = jax.jit(lambda k, y: krr.alpha(k, y, reg=1e-6, solve_dtype=None))(k, y)
    assert wide.dtype == jnp.float32 and bool(jnp.isfinite(wide).all())
    assert not bool(jnp.isfinite(narrow).all())
    exact = reference.inverse(np.asarray(k, np.float64), 1e-6, "trace") @ np.asarray(y, np.float64)
    np.testing.assert_allclose(wide, exact, rtol=1e-4, atol=1e-4 * np.abs(exact).max())
    assert jnp.zeros(1).dtype == jnp.float32, "the switch must not leak"


def test_gradients_equal_finite_differences(x64):
    x_s, x_t, y_s, y_t = problem(m=4, n=12, d=2)

    def kernel(a, b):
        return jnp.exp(-jnp.sum((a[:, None] - b[None]) ** 2, -1) / a.shape[1])

    def loss(x):
        return krr.loss(kernel(x, x), kernel(jnp.asarray(x_t), x), jnp.asarray(y_s), jnp.asarray(y_t), reg=1e-3)

    numeric = reference.rbf_kip_gradient(x_s, y_s, x_t, y_t, 1e-3)
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(jnp.asarray(x_s)), numeric, rtol=1e-6, atol=1e-9)


def test_second_derivatives_and_forward_mode_work(x64):
    x_s, x_t, y_s, y_t = problem(m=4)
    k_ss, k_ts = map(jnp.asarray, kernels_of(x_s, x_t))

    def f(scale):
        return krr.loss(k_ss + scale * jnp.eye(4), k_ts, jnp.asarray(y_s), jnp.asarray(y_t), reg=0.1)

    step = 1e-4
    numeric = (f(0.5 + step) - 2 * f(0.5) + f(0.5 - step)) / step**2
    np.testing.assert_allclose(jax.grad(jax.grad(f))(0.5), numeric, rtol=1e-5)
    np.testing.assert_allclose(jax.jvp(f, (0.5,), (1.0,))[1], jax.grad(f)(0.5), rtol=1e-10)


def test_gradients_agree_between_vmap_and_a_loop():
    x_s, x_t, y_s, y_t = problem(m=4)
    k_ss, k_ts = (jnp.asarray(a, jnp.float32) for a in kernels_of(x_s, x_t))
    y_s, y_t = jnp.asarray(y_s, jnp.float32), jnp.asarray(y_t, jnp.float32)
    grad = jax.grad(lambda y: krr.loss(k_ss, k_ts, y, y_t, reg=1e-3))
    many = jax.jit(jax.vmap(grad))(jnp.stack([y_s, 2 * y_s]))
    np.testing.assert_allclose(many[1], grad(2 * y_s), rtol=1e-5)


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(1e-3, 1e3), seed=st.integers(0, 100))
def test_trace_ridge_does_not_see_the_scale_of_the_kernel(scale, seed):
    x_s, x_t, y_s, y_t = problem(seed)
    k_ss, k_ts = kernels_of(x_s, x_t)
    with jax.enable_x64(True):
        loss = [float(krr.loss(*map(jnp.asarray, (c * k_ss, c * k_ts, y_s, y_t)), reg=1e-2)) for c in (1.0, scale)]
        absolute = float(
            krr.loss(*map(jnp.asarray, (k_ss, k_ts, y_s, y_t)), reg=1e-2 * np.trace(k_ss) / 9, reg_unit="absolute")
        )
    assert loss[1] == pytest.approx(loss[0], rel=1e-9)
    assert absolute == pytest.approx(loss[0], rel=1e-9)


def test_the_gradient_flows_through_the_trace(x64):
    """Scaling K must not change the loss, so the directional derivative along K itself is zero."""
    x_s, x_t, y_s, y_t = problem()
    k_ss, k_ts, y_s, y_t = map(jnp.asarray, (*kernels_of(x_s, x_t), y_s, y_t))
    slope = jax.grad(lambda c: krr.loss(c * k_ss, c * k_ts, y_s, y_t, reg=0.1))(1.0)
    assert abs(slope) < 1e-12


def test_solved_labels_equal_the_oracle_and_minimise_the_loss(x64):
    x_s, x_t, _, y_t = problem()
    k_ss, k_ts = kernels_of(x_s, x_t)
    arrays = [jnp.asarray(a) for a in (k_ss, k_ts, y_t)]
    solved = krr.solve_labels(*arrays, reg=1e-3)
    np.testing.assert_allclose(solved, reference.solve_labels(k_ss, k_ts, y_t, 1e-3), rtol=1e-8)
    gradient = jax.grad(lambda y: krr.loss(arrays[0], arrays[1], y, arrays[2], reg=1e-3))(solved)
    assert float(jnp.abs(gradient).max()) < 1e-13
    best = krr.loss(arrays[0], arrays[1], solved, arrays[2], reg=1e-3)
    rng = np.random.default_rng(1)
    for _ in range(5):
        moved = solved + 0.01 * jnp.asarray(rng.normal(size=solved.shape))
        assert krr.loss(arrays[0], arrays[1], moved, arrays[2], reg=1e-3) > best


def test_solved_labels_have_minimum_norm_where_the_minimiser_is_not_unique(x64):
    """Fewer targets than support points: every label matrix fits, and the pseudo-inverse takes the shortest."""
    x_s, x_t, _, y_t = problem(m=9, n=5)
    k_ss, k_ts = kernels_of(x_s, x_t)
    solved = np.asarray(krr.solve_labels(*map(jnp.asarray, (k_ss, k_ts, y_t)), reg=1e-2))
    design = k_ts @ reference.inverse(k_ss, 1e-2, "trace")
    np.testing.assert_allclose(design @ solved, y_t, atol=1e-9)
    null = np.linalg.svd(design)[2][5:]
    assert np.abs(null @ solved).max() < 1e-10


def test_streamed_labels_equal_dense_labels(x64):
    x_s, x_t, _, y_t = problem(n=31)
    k_ss, k_ts, y_t = map(jnp.asarray, (*kernels_of(x_s, x_t), y_t))
    stats = krr.moments(k_ts[:7], y_t[:7]) + krr.moments(k_ts[7:], y_t[7:])
    streamed, loss = krr.labels_from_moments(k_ss, stats, reg=1e-4)
    dense = krr.solve_labels(k_ss, k_ts, y_t, reg=1e-4)
    np.testing.assert_allclose(streamed, dense, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(loss, krr.loss(k_ss, k_ts, dense, y_t, reg=1e-4), rtol=1e-10)


def test_rcond_cuts_small_singular_values(x64):
    x_s, x_t, _, y_t = problem()
    k_ss, k_ts = kernels_of(x_s, x_t)
    design = k_ts @ reference.inverse(k_ss, 1e-3, "trace")
    values = np.linalg.svd(design, compute_uv=False)
    cut = float(np.sqrt(values[4] * values[5]) / values[0])
    expected = np.linalg.pinv(design, rcond=cut) @ y_t
    arrays = [jnp.asarray(a) for a in (k_ss, k_ts, y_t)]
    np.testing.assert_allclose(krr.solve_labels(*arrays, reg=1e-3, rcond=cut), expected, rtol=1e-7)
    streamed, _ = krr.labels_from_moments(arrays[0], krr.moments(*arrays[1:]), reg=1e-3, rcond=cut)
    np.testing.assert_allclose(streamed, expected, rtol=1e-6)


def test_zero_ridge_is_the_pseudo_inverse(x64):
    """Repeated points make the kernel matrix singular; reg = 0 must give the minimum-norm fit, not NaN."""
    x_s, x_t, y_s, _ = problem(m=6)
    x_s[5] = x_s[0]
    y_s[5] = y_s[0]
    k_ss, k_ts = kernels_of(x_s, x_t)
    got = krr.predict(*map(jnp.asarray, (k_ss, k_ts, y_s)), reg=0.0)
    np.testing.assert_allclose(got, k_ts @ np.linalg.pinv(k_ss, hermitian=True) @ y_s, rtol=1e-6, atol=1e-8)


def test_derivatives_at_zero_ridge_are_those_of_the_pseudo_inverse(x64):
    """A linear kernel of more points than dimensions keeps its rank when the points move."""
    x_s, x_t, y_s, y_t = map(jnp.asarray, problem(m=6, d=3))

    def loss(x):
        return krr.loss(x @ x.T, x_t @ x.T, y_s, y_t, reg=0.0)

    got, step = jax.jit(jax.grad(loss))(x_s), 1e-6
    for index in [(0, 0), (3, 1), (5, 2)]:
        move = jnp.zeros_like(x_s).at[index].set(step)
        assert float(got[index]) == pytest.approx(float(loss(x_s + move) - loss(x_s - move)) / (2 * step), rel=1e-5)


def test_integers_and_lists_are_numbers_too():
    got = krr.predict(np.eye(3, dtype=int), np.ones((2, 3), int), np.eye(3, dtype=int), reg=1.0, reg_unit="absolute")
    np.testing.assert_allclose(got, np.full((2, 3), 0.5))
    listed = krr.loss([[1.0, 0.0], [0.0, 1.0]], [[1.0, 1.0]], [[1.0], [0.0]], [[0.0]], reg=1.0, reg_unit="absolute")
    assert float(listed) == pytest.approx(0.125)


def test_a_matrix_that_does_not_factorise_is_an_error_outside_jit():
    with pytest.raises(checks.NumericalError, match="does not factorise in float64 with reg = 1e-06"):
        krr.predict(-jnp.eye(3), jnp.ones((2, 3)), jnp.eye(3), reg=1e-6)
    assert bool(jnp.isnan(jax.jit(lambda k: krr.predict(k, k, k, reg=1e-6))(-jnp.eye(3))).all())


@pytest.mark.theory
@pytest.mark.parametrize("streamed", [False, True])
def test_theorem_2_solved_labels_of_a_linear_kernel_are_the_classifiers_predictions(x64, streamed):
    """Linear kernel, lambda = 0, rank X_s = rank X_t = d: y* = X_s w0 with w0 the least-squares classifier."""
    x_s, x_t, _, y_t = problem(m=9, n=40, d=6)
    w0 = np.linalg.pinv(x_t) @ y_t
    k_ss, k_ts = jnp.asarray(x_s @ x_s.T), jnp.asarray(x_t @ x_s.T)
    if streamed:
        solved = krr.labels_from_moments(k_ss, krr.moments(k_ts, jnp.asarray(y_t)), reg=0.0)[0]
    else:
        solved = krr.solve_labels(k_ss, k_ts, jnp.asarray(y_t), reg=0.0, rcond=1e-10)
    np.testing.assert_allclose(solved, x_s @ w0, atol=1e-11)


@pytest.mark.theory
def test_theorem_3_the_least_loss_is_the_part_of_the_targets_outside_the_column_space(x64):
    x_s, x_t, _, y_t = problem(m=5, n=20)
    k_ss, k_ts = kernels_of(x_s, x_t)
    solved = krr.solve_labels(*map(jnp.asarray, (k_ss, k_ts, y_t)), reg=1e-6)
    loss = krr.loss(*map(jnp.asarray, (k_ss, k_ts)), solved, jnp.asarray(y_t), reg=1e-6)
    basis = np.linalg.qr(k_ts)[0]
    outside = y_t - basis @ (basis.T @ y_t)
    np.testing.assert_allclose(loss, 0.5 * np.mean(outside**2), rtol=1e-8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"y_t": np.zeros((30, 4))}, "y_s has 3 columns and y_t has 4"),
        ({"k_ts": np.zeros((30, 8))}, "one column per support point"),
        ({"y_s": np.zeros((8, 3))}, "same number of rows"),
        ({"k_ss": np.zeros((9, 8))}, r"expected \[m, m\]"),
        ({"reg": -1.0}, "reg is -1.0; it must be at least 0"),
        ({"reg": float("nan")}, "reg is nan"),
        ({"reg_unit": "lambda"}, "choose one of trace, absolute"),
        ({"solve_dtype": "float16"}, "solve_dtype is 'float16'"),
        ({"reg": "small"}, "reg is 'small'; it must be a number"),
    ],
)
def test_bad_input_says_what_to_mend(change, words):
    x_s, x_t, y_s, y_t = problem()
    k_ss, k_ts = kernels_of(x_s, x_t)
    arguments = {"k_ss": k_ss, "k_ts": k_ts, "y_s": y_s, "y_t": y_t, "reg": 1e-6, **change}
    arguments = {k: jnp.asarray(v) if isinstance(v, np.ndarray) else v for k, v in arguments.items()}
    with pytest.raises(checks.InputError, match=words):
        krr.loss(**arguments)


def test_negative_rcond_is_refused():
    with pytest.raises(checks.InputError, match="rcond"):
        krr.solve_labels(jnp.eye(2), jnp.ones((3, 2)), jnp.ones((3, 1)), reg=1e-3, rcond=-1.0)
