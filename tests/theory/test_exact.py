"""The theorems of Chen, Huang, Weng (NeurIPS 2024), each with its counter-example, on random data in float64.

Examples are columns here, as in the paper; ``core.exact`` has them as rows.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from kipjax import checks, kernels
from kipjax.core import exact
from tests.reference import exact as reference

pytestmark = [pytest.mark.theory, pytest.mark.usefixtures("x64")]

P, K, N = 7, 3, 40
SIZES = [K, 5, 12]  # m = k, k < m < p, m > p


def teacher(p=P, n=N, seed=0):
    """``(Phi [p, n], Y [k, n], W [k, p])`` of ridge regression."""
    rng = np.random.default_rng(seed)
    phi, y = rng.normal(size=(p, n)), np.eye(K)[np.arange(n) % K].T
    return phi, y, reference.weights(phi, y, 0.1)


def labels(m):
    """One-hot ``Y_S [k, m]`` with every class."""
    return np.eye(K)[np.arange(m) % K].T


def solve(y_s, w, reg=0.0, root="larger", free=None):
    """``Phi_S [p, m]`` and the ridge, by the library."""
    d = exact.prescribed(jnp.asarray(y_s.T), jnp.asarray(w.T), free)
    h, used = exact.features(d, reg, root=root)
    return np.asarray(h).T, float(used)


def error(phi_s, y_s, w, lam):
    """``|W_S - W| / |W|`` of the student, by the oracle."""
    return np.linalg.norm(reference.weights(phi_s, y_s, lam) - w) / np.linalg.norm(w)


@pytest.mark.parametrize("m", SIZES)
def test_theorem_4_1_without_a_ridge(m):
    """lambda_S = 0: ``Phi_S = D^+`` has the teacher's weights for every ``Z``; other features do not."""
    _, _, w = teacher()
    y_s, z = labels(m), np.random.default_rng(1).normal(size=(m, P))
    phi_s, _ = solve(y_s, w, free=jnp.asarray(z))
    assert error(phi_s, y_s, w, 0.0) < 1e-8
    np.testing.assert_allclose(phi_s, np.linalg.pinv(reference.all_d(y_s, w, z)), atol=1e-9)
    assert error(phi_s + 0.1 * np.random.default_rng(2).normal(size=phi_s.shape), y_s, w, 0.0) > 1e-2


@pytest.mark.parametrize("root", exact.ROOTS)
@pytest.mark.parametrize("m", SIZES)
def test_theorem_4_1_with_a_ridge(m, root):
    """lambda_S > 0: both roots of every singular value, up to the bound ``1 / (4 s_1^2)`` and at it."""
    _, _, w = teacher()
    y_s, z = labels(m), np.random.default_rng(1).normal(size=(m, P))
    d = reference.all_d(y_s, w, z)
    bound = 0.25 / np.linalg.norm(d, 2) ** 2
    for lam in (1e-3 * bound, bound):
        phi_s, used = solve(y_s, w, lam, root, jnp.asarray(z))
        assert used == pytest.approx(lam) and error(phi_s, y_s, w, lam) < 1e-8
        np.testing.assert_allclose(phi_s, reference.phi_from_d(d, lam, 1 if root == "larger" else -1), atol=1e-6)
    assert float(exact.reg_limit(jnp.asarray(d))) == pytest.approx(bound)


def test_theorem_4_1_above_its_bound_nothing_has_the_weights_and_the_ridge_is_clamped():
    """``s / (s^2 + lambda)`` never passes ``1 / (2 sqrt lambda)``, so at m = k, where D is unique, no set has ``W``."""
    _, _, w = teacher()
    y_s = labels(K)
    d = exact.prescribed(jnp.asarray(y_s.T), jnp.asarray(w.T))
    bound = float(exact.reg_limit(d))
    lam = 4 * bound
    reachable = max(s / (s**2 + lam) for s in np.geomspace(1e-3, 1e3, 10001))
    assert reachable <= 1 / (2 * np.sqrt(lam)) < float(jnp.linalg.norm(d, ord=2))
    phi_s, used = solve(y_s, w, lam)
    assert used == pytest.approx(bound)
    assert error(phi_s, y_s, w, used) < 1e-8 < error(phi_s, y_s, w, lam)


def test_theorem_4_1_fewer_points_than_classes_are_not_enough():
    """m < k: ``W_S`` has rank m, so its error is at least the next singular value of ``W``, whatever the labels."""
    _, _, w = teacher()
    tail = np.linalg.svd(w)[1][K - 1] / np.linalg.norm(w)
    rng = np.random.default_rng(0)
    for _ in range(20):
        phi_s, y_s = rng.normal(size=(P, K - 1)), rng.normal(size=(K, K - 1))
        assert error(phi_s, y_s, w, 0.0) >= tail
    phi_s, _ = solve(labels(K)[:, : K - 1], w)
    assert error(phi_s, labels(K)[:, : K - 1], w, 0.0) >= tail > 0.01


def test_theorem_4_1_fewer_points_suffice_if_the_weights_lie_in_the_range_of_the_labels():
    _, _, w = teacher()
    y_s = np.random.default_rng(3).normal(size=(K, K - 1))
    inside = y_s @ np.linalg.pinv(y_s) @ w
    phi_s, _ = solve(y_s, inside)
    assert error(phi_s, y_s, inside, 0.0) < 1e-8


def test_theorem_4_1_centred_labels_reach_a_centred_teacher():
    """Rank k - 1 on both sides; a teacher that was not centred is out of reach."""
    phi, y, w = teacher()
    centred = reference.weights(phi, y - 1 / K, 0.1)
    y_s = labels(6) - 1 / K
    phi_s, _ = solve(y_s, centred)
    assert error(phi_s, y_s, centred, 0.0) < 1e-8
    np.testing.assert_allclose(centred, w - w.mean(0), atol=1e-12)
    assert error(solve(y_s, w)[0], y_s, w, 0.0) > 1e-2


def test_theorem_4_1_with_all_points_gives_back_the_original_data():
    phi, y, w = teacher(p=N + 5, n=12)
    free = jnp.asarray(reference.phi_plus(phi, 0.1))
    phi_s, used = solve(y, w, 0.1, free=free)
    small, _ = solve(y, w, 0.1, "smaller", free=free)
    values = [np.linalg.svd(a, compute_uv=False) for a in (phi, phi_s)]
    assert used == 0.1 and values[0].min() > np.sqrt(0.1)  # the larger root is the one the data have
    np.testing.assert_allclose(phi_s, phi, atol=1e-9)
    assert np.linalg.norm(small - phi) > 1


@pytest.mark.parametrize("m", [5, P])
def test_proposition_4_1_a_full_rank_set(m):
    """Row spaces of ``W`` and ``Z`` that meet only at zero give ``Phi_S`` full rank; ``Z`` inside that of ``W`` not."""
    _, _, w = teacher()
    rng = np.random.default_rng(1)
    complement = np.eye(P) - np.linalg.pinv(w) @ w
    z = rng.normal(size=(m, P)) @ complement
    assert np.linalg.matrix_rank(solve(labels(m), w, free=jnp.asarray(z))[0], tol=1e-8) == m
    inside = rng.normal(size=(m, K)) @ w
    assert np.linalg.matrix_rank(solve(labels(m), w, free=jnp.asarray(inside))[0], tol=1e-8) == K


@pytest.mark.parametrize("lam", [0.0, 1e-3])
def test_corollary_4_1_1_the_solution_closest_to_real_data(lam):
    """No other ``Z`` is closer, and the teacher's labels come closer still."""
    _, _, w = teacher()
    m, rng = 6, np.random.default_rng(4)
    real = rng.normal(size=(P, m))
    target = reference.phi_plus(real, lam)
    y_s = labels(m)

    def distance(y_s, z):
        d = np.asarray(exact.prescribed(jnp.asarray(y_s.T), jnp.asarray(w.T), jnp.asarray(z)))
        np.testing.assert_allclose(y_s @ d, w, atol=1e-10)
        return np.linalg.norm(d - target)

    best = distance(y_s, target)
    assert all(distance(y_s, target + 0.1 * rng.normal(size=target.shape)) > best for _ in range(20))
    np.testing.assert_allclose(distance(y_s, target + y_s.T @ rng.normal(size=(K, P))), best, rtol=1e-10)
    soft = np.asarray(exact.labels(jnp.asarray(real.T), jnp.asarray(w.T), lam)).T
    np.testing.assert_allclose(soft, w @ reference.regularized(real, lam), atol=1e-10)
    assert distance(soft, target) < best


@pytest.mark.parametrize("lam", [0.0, 1e-2])
def test_theorem_4_2_labels_alone_are_enough_iff_the_points_span(lam):
    """m >= d points: exact. m < d: the residual is that of ``W`` outside of their span, and no labels do better."""
    _, _, w = teacher()
    rng = np.random.default_rng(5)
    for m, enough in [(P - 2, False), (P, True), (P + 5, True)]:
        x_s = rng.normal(size=(P, m))
        y_s = np.asarray(exact.labels(jnp.asarray(x_s.T), jnp.asarray(w.T), lam)).T
        x_lam = reference.regularized(x_s, lam)
        np.testing.assert_allclose(y_s, w @ x_lam, atol=1e-9)
        residual = np.linalg.norm(w @ (x_lam @ np.linalg.pinv(x_lam) - np.eye(P))) / np.linalg.norm(w)
        assert error(x_s, y_s, w, lam) == pytest.approx(residual, abs=1e-9)
        assert (residual < 1e-8) == enough
        others = [error(x_s, y_s + 0.1 * rng.normal(size=y_s.shape), w, lam) for _ in range(10)]
        assert min(others) >= error(x_s, y_s, w, lam)


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "linear"},
        {"name": "leaky_net", "widths": (14, 10)},
        {"name": "convolution"},
        {"name": "fourier", "width": 12, "bandwidth": 4.0},
        {"name": "linear_net", "widths": (10, 12)},
    ],
    ids=lambda spec: spec["name"],
)
def test_theorem_5_1_one_point_a_class_for_surjective_features(spec):
    """From features back to inputs; of cosines the direction is exact, labels solved anew make up for the length."""
    feature_map = kernels.get(**spec)
    rng = np.random.default_rng(6)
    x = jnp.asarray(rng.normal(size=(60, 4, 4, 1)))
    h, y = feature_map.features(x), jnp.eye(K)[np.arange(60) % K]
    w = exact.weights(h, y, 0.1)
    wanted, _ = exact.features(exact.prescribed(jnp.eye(K), w))
    x_s = feature_map.pull_back(wanted, x)
    found = feature_map.features(x_s)
    student = exact.weights(found, jnp.eye(K))
    cosine = float(jnp.vdot(student, w) / jnp.linalg.norm(student) / jnp.linalg.norm(w))
    assert cosine > 1 - 1e-12
    np.testing.assert_array_equal((h @ student).argmax(1), (h @ w).argmax(1))
    if spec["name"] == "fourier":
        student = exact.weights(found, exact.labels(found, w))
    assert float(jnp.linalg.norm(student - w) / jnp.linalg.norm(w)) < 1e-8


def widening(slope, seed=7):
    """A network of layers d -> p -> p with d < p, and its weights."""
    rng = np.random.default_rng(seed)
    layers = [rng.normal(size=(5, 9)), rng.normal(size=(9, 9))]
    return kernels.feature_maps.network(list(map(jnp.asarray, layers)), slope=slope), layers


def test_theorem_5_2_a_widening_nonlinear_network_is_out_of_reach_unless_its_first_layer_reaches_it():
    """With m = k and no ridge only ``(Y_S^+ W)^+`` works; pulled back to the first layer it must lie in its range."""
    feature_map, layers = widening(0.1)
    assert feature_map.obstacle((5,)).startswith("layer 1 maps 5 entries to 9")
    x = jnp.asarray(np.random.default_rng(8).normal(size=(60, 5)))
    w = exact.weights(feature_map.features(x), jnp.eye(K)[np.arange(60) % K], 0.1)
    wanted, _ = exact.features(exact.prescribed(jnp.eye(K), w))
    found = feature_map.features(feature_map.pull_back(wanted, x))
    assert float(jnp.linalg.norm(found - wanted) / jnp.linalg.norm(wanted)) > 0.1
    assert float(jnp.linalg.norm(exact.weights(found, jnp.eye(K)) - w) / jnp.linalg.norm(w)) > 0.1
    reachable = feature_map.features(x[:K])
    w = exact.weights(reachable, jnp.eye(K))
    found = feature_map.features(feature_map.pull_back(exact.features(exact.prescribed(jnp.eye(K), w))[0], x))
    assert float(jnp.linalg.norm(exact.weights(found, jnp.eye(K)) - w) / jnp.linalg.norm(w)) < 1e-8
    assert layers[0].shape == (5, 9)


def test_where_features_cannot_be_reached_p_points_with_solved_labels_suffice():
    feature_map, _ = widening(0.1)
    x = jnp.asarray(np.random.default_rng(8).normal(size=(60, 5)))
    w = exact.weights(feature_map.features(x), jnp.eye(K)[np.arange(60) % K], 0.1)
    for m, enough in [(8, False), (9, True), (12, True)]:
        h = feature_map.features(x[:m])
        student = exact.weights(h, exact.labels(h, w))
        assert (float(jnp.linalg.norm(student - w) / jnp.linalg.norm(w)) < 1e-8) == enough


def test_theorem_5_3_in_the_form_that_holds_for_deep_linear_networks():
    """d < p: a teacher on the same features takes m = k points; a random target is out of reach of any number.

    The theorem's own recipe needs a matrix H of rank p whose null space has an invertible block; it never has.
    """
    rng = np.random.default_rng(9)
    weights = [jnp.asarray(rng.normal(size=shape)) for shape in ((5, 9), (9, 9))]
    q = np.asarray(weights[0] @ weights[1])
    feature_map = kernels.feature_maps.network(weights, slope=1.0)
    x = jnp.asarray(rng.normal(size=(60, 5)))
    np.testing.assert_allclose(feature_map.features(x), x @ q, atol=1e-12)
    w = exact.weights(feature_map.features(x), jnp.eye(K)[np.arange(60) % K], 0.1)
    wanted, _ = exact.features(exact.prescribed(jnp.eye(K), w))
    x_s = wanted @ jnp.linalg.pinv(q)
    assert float(jnp.linalg.norm(exact.weights(x_s @ q, jnp.eye(K)) - w) / jnp.linalg.norm(w)) < 1e-8

    target = rng.normal(size=(9, K))
    out_of_reach = np.linalg.norm((np.eye(9) - np.linalg.pinv(q) @ q) @ target)
    assert out_of_reach > 0.1
    for m in (K, K + 1, 9, 50):
        h = jnp.asarray(rng.normal(size=(m, 5))) @ q
        student = exact.weights(h, exact.labels(h, jnp.asarray(target)))
        assert np.linalg.norm(student - target) >= out_of_reach - 1e-9

    # The recipe's H = [Q' W_1^+, W^+ W - I] in the paper's orientation: the lower block of its null space is singular.
    w1, rest, wt = np.asarray(weights[0]).T, np.asarray(weights[1]).T, np.asarray(w).T
    h = np.hstack([rest @ w1 @ np.linalg.pinv(w1), np.linalg.pinv(wt) @ wt - np.eye(9)])
    null = np.linalg.svd(h)[2][-9:].T
    assert np.linalg.matrix_rank(null[9:]) < 9


def test_theorem_6_1_the_construction_has_zero_kip_loss_up_to_p_points_and_zero_loss_means_the_weights():
    y_s = labels(K)
    phi, y, w = teacher(n=P - 1)
    w = reference.weights(phi, y, 0.0)
    phi_s, _ = solve(y_s, w)
    assert np.abs(reference.weights(phi_s, y_s, 0.0) @ phi - y).max() < 1e-8
    # n >= p, labels that a linear model fits: every set with zero loss has W, so changing W costs
    phi, _, w = teacher()
    y = w @ phi
    phi_s, _ = solve(y_s, w)
    assert np.abs(reference.weights(phi_s, y_s, 0.0) @ phi - y).max() < 1e-8
    other = w + 1e-3 * np.random.default_rng(0).normal(size=w.shape)
    assert np.abs(other @ phi - y).max() > 1e-4
    # n > p and labels beyond a linear model: the loss is that of least squares, not zero
    phi, y, _ = teacher()
    best = reference.weights(phi, y, 0.0)
    phi_s, _ = solve(y_s, best)
    student = reference.weights(phi_s, y_s, 0.0)
    assert (
        np.linalg.norm(student @ phi - y) == pytest.approx(np.linalg.norm(best @ phi - y))
        and np.linalg.norm(best @ phi - y) > 0.1
    )


def test_proposition_6_1_many_training_sets_have_the_same_teacher():
    """n > k: ``Phi + N`` with ``Y N^T``-orthogonal noise leaves ``W`` as it is, so ``W`` does not determine ``Phi``."""
    phi, y, w = teacher(p=P, n=P)
    d = reference.phi_plus(phi, 0.0)
    free = (np.eye(P) - np.linalg.pinv(y) @ y) @ np.random.default_rng(0).normal(size=d.shape)
    other = np.linalg.pinv(d + free)
    assert np.linalg.norm(other - phi) > 0.1
    np.testing.assert_allclose(reference.weights(other, y, 0.0), reference.weights(phi, y, 0.0), atol=1e-8)
    assert w.shape == (K, P)


@pytest.mark.parametrize("m", [K, 5, P])
def test_theorem_c_2_regularized_features_without_inverting_them(m):
    """Sufficient for any m >= k; the features follow as long as the singular values are at least 2 sqrt(lambda)."""
    _, _, w = teacher()
    y_s, free = labels(m), 3 * np.random.default_rng(1).normal(size=(m, P))
    h_reg = exact.prescribed_regularized(jnp.asarray(y_s.T), jnp.asarray(w.T), jnp.asarray(free))
    expected = np.linalg.pinv(w) @ y_s + (np.eye(P) - np.linalg.pinv(w) @ w) @ free.T @ (
        np.eye(m) - np.linalg.pinv(y_s) @ y_s
    )
    np.testing.assert_allclose(h_reg.T, expected, atol=1e-9)
    values = np.linalg.svd(expected, compute_uv=False)
    lam = 0.9 * (values[values > 1e-9].min() / 2) ** 2
    for root in exact.ROOTS:
        h = exact.from_regularized(h_reg, lam, root=root)
        assert error(np.asarray(h).T, y_s, w, lam) < 1e-8
        np.testing.assert_allclose(exact.regularized(h, lam), h_reg, atol=1e-9)
    with pytest.raises(checks.InputError, match=r"must be at least 2 sqrt\(reg\); lower reg"):
        exact.from_regularized(h_reg, 2 * lam)
    with pytest.raises(checks.InputError, match=r"for the smaller root, is 0\.0; it must be above 0"):
        exact.from_regularized(h_reg, 0.0, root="smaller")
    np.testing.assert_allclose(exact.from_regularized(h_reg, 0.0), h_reg, atol=1e-9)


def test_theorem_c_1_necessary_up_to_p_points_and_sufficient_from_p_points_on():
    _, _, w = teacher()
    rng = np.random.default_rng(1)
    m = 5  # every solution of full rank has the form: the part that w sees is y w^+
    z = rng.normal(size=(m, P))
    phi_s, _ = solve(labels(m), w, free=jnp.asarray(z))
    h_reg = reference.regularized(phi_s, 0.0)
    free = np.linalg.lstsq(np.eye(P) - np.linalg.pinv(w) @ w, h_reg - np.linalg.pinv(w) @ labels(m), rcond=None)[0]
    rebuilt = np.linalg.pinv(w) @ labels(m) + (np.eye(P) - np.linalg.pinv(w) @ w) @ free
    np.testing.assert_allclose(rebuilt, h_reg, atol=1e-9)
    for m, enough in [(P, True), (P + 4, True), (P - 2, False)]:
        free = jnp.asarray(rng.normal(size=(m, P)))
        h_reg = exact.prescribed_regularized(jnp.asarray(labels(m).T), jnp.asarray(w.T), free, null=False)
        h = exact.from_regularized(h_reg, 1e-4)
        assert (error(np.asarray(h).T, labels(m), w, 1e-4) < 1e-8) == enough


def test_lists_and_integers_are_matrices_too_and_nothing_is_not():
    np.testing.assert_allclose(exact.weights([[2, 0], [0, 1]], [[1], [3]], 0), [[0.5], [3.0]], rtol=1e-6)
    for fn in (exact.inverse, exact.regularized, exact.rank, exact.reg_limit, lambda a: exact.features(a)[0]):
        np.testing.assert_array_equal(fn([[2, 0], [0, 1]]), fn(jnp.array([[2.0, 0.0], [0.0, 1.0]])))
        for bad in (jnp.zeros((0, 3)), [1.0, 2.0], []):
            with pytest.raises(checks.InputError, match="expected a matrix with entries"):
                fn(bad)
    with pytest.raises(checks.InputError, match="w needs one row for each feature"):
        exact.labels([[1, 2]], [[1], [2], [3]])
