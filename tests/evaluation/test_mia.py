"""Membership inference: the attacks' invariants, the protocol of halves, and networks that do and do not remember."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kipjax import checks, models
from kipjax.core import labels
from kipjax.evaluation import Task, mia, protocols, train
from kipjax.types import Distilled

TRAINED = mia.ATTACKS[1:]


def points(n=60, others=60, shift=0.0, seed=0, p=4):
    """Members and others, whose last feature (the loss) differs by ``shift``."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, p)), rng.normal(size=(others, p)) + shift * np.eye(p)[-1]


def mann_whitney(scores, other_scores):
    """The share of pairs in which the member scores higher, ties counted half."""
    a, b = np.asarray(scores)[:, None], np.asarray(other_scores)[None]
    return float(np.mean((a > b) + 0.5 * (a == b)))


def tpr_by_hand(scores, other_scores, fpr):
    best = 0.0
    for threshold in [np.inf, *scores, *other_scores]:
        if np.mean(other_scores >= threshold) <= fpr:
            best = max(best, np.mean(scores >= threshold))
    return best


def test_threshold_auc_is_the_mann_whitney_statistic_with_ties():
    members, others = (np.round(side, 1) for side in points(40, 70, shift=0.5))
    made = mia.attack("threshold", members, others)
    assert made.auc == pytest.approx(mann_whitney(-members[:, -1], -others[:, -1]), abs=1e-12)
    some = [3, 5, 8]
    assert made.among(some).auc == pytest.approx(mann_whitney(-members[some, -1], -others[:, -1]), abs=1e-12)


def test_rates_by_hand():
    members, others = (np.round(side, 1) for side in points(50, 80, shift=0.7))
    made = mia.attack("threshold", members, others)
    for fpr in (0.0, 0.01, 0.1, 0.5, 1.0):
        assert made.tpr_at(fpr) == pytest.approx(tpr_by_hand(made.member_scores, made.other_scores, fpr)), fpr
    fpr, tpr = made.roc()
    assert made.advantage == pytest.approx(np.abs(tpr - fpr).max()) and 0 < made.advantage < 1
    assert made.tpr_at(1.0) == 1.0


def test_threshold_is_invariant_and_mirrors():
    members, others = points(30, 40, shift=0.4)
    auc = mia.attack("threshold", members, others).auc

    def changed(fn, a, b):
        a, b = a.copy(), b.copy()
        a[:, -1], b[:, -1] = fn(a[:, -1]), fn(b[:, -1])
        return mia.attack("threshold", a, b).auc

    assert changed(np.exp, members, others) == pytest.approx(auc)
    assert changed(np.negative, others, members) == pytest.approx(auc)
    assert mia.attack("threshold", others, members).auc == pytest.approx(1 - auc)
    assert auc > 0.5, "members have the lower loss"


@pytest.mark.parametrize("name", mia.ATTACKS)
def test_perfect_separation_is_found(name):
    members, others = np.zeros((60, 3)), np.zeros((60, 3))
    others[:, -1] = 1.0
    made = mia.attack(name, members, others, grid="small")
    assert made.auc == 1.0 and made.advantage == 1.0 and made.tpr_at(0.0) == 1.0


@pytest.mark.parametrize("name", TRAINED)
def test_nothing_is_found_where_nothing_is(name):
    """Scores are of attackers that did not see the point: one that had would find every member by heart."""
    members, others = points(300, 300)
    made = mia.attack(name, members, others, grid="small")
    assert abs(made.auc - 0.5) < 0.1
    assert np.isfinite(made.member_scores).all() and np.isfinite(made.other_scores).all()


def test_every_point_is_scored_once_by_the_other_half(monkeypatch):
    seen = []

    class Spy:
        def __init__(self, *args, **kwargs):
            self.fitted = None

        def fit(self, x, y):
            self.fitted, self.labels = set(x[:, 0]), y

        def predict_proba(self, x):
            assert not self.fitted & set(x[:, 0]), "scored by a classifier that was fitted to it"
            assert abs(int(self.labels.sum()) * 2 - len(self.labels)) <= 1
            seen.append((set(x[:, 0]), len(self.fitted)))
            return np.tile([0.25, 0.75], (len(x), 1))

    monkeypatch.setattr("sklearn.model_selection.GridSearchCV", Spy)
    members, others = np.arange(40.0)[:, None], 100 + np.arange(20.0)[:, None]
    made = mia.attack("mlp", members, others)
    halves, left_out = [seen[0], seen[2]], seen[1][0]
    assert [size for _, size in halves] == [20, 20]
    assert not halves[0][0] & halves[1][0] and len(halves[0][0] | halves[1][0]) == 40
    assert len(left_out) == 20 and not left_out & (halves[0][0] | halves[1][0])
    assert seen[3][0] == left_out, "the last classifier scores what was left out, in place of the first"
    assert made.member_scores.shape == (40,) and made.other_scores.shape == (20,)
    assert set(made.member_scores) == {-0.75}


def test_unequal_sides_and_seeds():
    members, others = points(90, 40, shift=3.0)
    first, again, other = (mia.attack("k_nearest_neighbors", members, others, seed=s) for s in (1, 1, 2))
    assert first.auc > 0.85
    np.testing.assert_array_equal(first.member_scores, again.member_scores)
    assert not np.array_equal(first.member_scores, other.member_scores)


def test_the_papers_grids():
    paper = mia.GRIDS["paper"]
    np.testing.assert_allclose(paper["logistic_regression"]["C"], np.logspace(-4, 2, 10))
    assert len(paper["random_forest"]) == 3 and "max_features" not in paper["random_forest"]
    assert paper["k_nearest_neighbors"] == {"n_neighbors": [3, 5, 7]}
    assert set(paper) == set(mia.GRIDS["small"]) == set(TRAINED)


def test_features_are_outputs_and_loss():
    outputs = np.array([[0.5, -0.5], [1.0, 2.0]])
    found = mia.features(outputs, np.array([0, 1]))
    np.testing.assert_allclose(found, [[0.5, -0.5, 0.0], [1.0, 2.0, 0.5 * (1.5**2 + 1.5**2)]], atol=1e-7)


def test_chunks_are_rows_in_stored_order():
    np.testing.assert_array_equal(mia.chunk(60_000, 4)[[0, -1]], [40_000, 49_999])
    np.testing.assert_array_equal(mia.chunk(10, 1, size=5), range(5, 10))
    with pytest.raises(checks.InputError, match="there are 6 chunks"):
        mia.chunk(60_000, 6)


def test_the_protocol_has_the_papers_numbers():
    p = mia.PROTOCOL
    assert (p.optimizer, p.learning_rate, p.loss, p.batch_size, p.shuffle) == ("adam", 3e-4, "half_squares", 256, True)
    assert mia.REAL_BATCH == 1024 and mia.LENGTHS[-1] == p.steps == 16_000
    rate = protocols.schedule(p, 500)
    assert float(rate(0)) == float(rate(15_999)) == pytest.approx(3e-4), "constant"
    assert p.augment == protocols.NAMED["frepo"].augment and p.augment_style == "batch"


PLAIN = mia.PROTOCOL._replace(steps=1000, augment=("none", "none"), learning_rate=3e-3)


def memory_task(n=240, seed=0):
    """Random labels: whatever is known of a member's label was remembered."""
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(n, 4, 4, 1)).astype(np.float32), rng.integers(0, 3, n)
    half = n // 2
    return Task(x[:half], y[:half], jnp.asarray(x[half:][:60]), y[half:][:60], 3)


def test_a_network_that_remembers_is_caught_and_the_control_is_not():
    task, (members, control) = memory_task(), np.split(np.arange(120), 2)
    empty = Distilled(jnp.zeros((12, 4, 4, 1)), labels.one_hot(np.arange(12) % 3, 3))
    found = mia.evaluate(
        task, members, distilled={"nothing": empty}, control=control, subset_size=12,
        model=models.get("mlp", num_classes=3), protocol=PLAIN, lengths=(20, 300), attacks=("threshold",),
    )  # fmt: skip
    assert [(a.trained_on, a.steps) for a in found] == [
        (name, steps) for name in ("nothing", "subset", "real", "control") for steps in (20, 300)
    ]
    nothing, subset, real, control = found[1::2]
    assert real.auc == real.used_auc > 0.97 and real.used == 60 and real.tpr[1] > 0.5
    assert subset.used == 12 and subset.used_auc > 0.97 and subset.auc < 0.8, "few members dilute the AUC"
    assert abs(nothing.auc - 0.5) < 0.2 and abs(control.auc - 0.5) < 0.2
    assert control.used_auc is None and nothing.used == 0
    assert 0 <= control.accuracy < 0.6


def test_audits_come_one_by_one(monkeypatch):
    task, trained = memory_task(), []
    monkeypatch.setattr(mia, "_train", lambda *args, **options: trained.append(1) or np.zeros((1, 120, 3)))
    options = {"subset_size": 12, "model": models.get("mlp", num_classes=3), "attacks": ("threshold",), "lengths": (5,)}
    rest = mia.audits(task, np.arange(60), **options)
    assert next(rest).trained_on == "subset" and len(trained) == 1
    assert [one.trained_on for one in rest] == ["real"] and len(trained) == 2


def test_looking_along_a_training_changes_nothing():
    task = memory_task(60)
    made = Distilled(jnp.asarray(task.x_train), labels.one_hot(task.train_labels, 3))
    model, protocol = models.get("mlp", num_classes=3), PLAIN._replace(batch_size=8)
    along = train.fit_along(jax.random.key(1), model, made, (2, 5), protocol=protocol)
    for i, steps in enumerate((2, 5)):
        alone = train.fit(jax.random.key(1), model, made, protocol=protocol._replace(steps=steps))
        for a, b in zip(jax.tree.leaves(along.variables), jax.tree.leaves(alone.variables)):
            np.testing.assert_allclose(a[i], b, rtol=1e-5, atol=1e-6)
    with pytest.raises(checks.InputError, match="ascending"):
        train.fit_along(jax.random.key(1), model, made, (5, 2), protocol=protocol)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"members": np.arange(5)}, "number of members is 5"),
        ({"members": np.arange(130)}, "0..119"),
        ({"control": np.arange(59, 70)}, "1 rows are both"),
        ({"tested": 9}, "number of non-members, which are the test images, is 9"),
        ({"attacks": ("treshold",)}, "choose one of threshold"),
        ({"lengths": (5, 5)}, "ascending"),
        ({"lengths": (1.5, 2.5)}, "length is 1.5"),
        ({"members": np.arange(60) + 0.5}, "members has dtype float64; expected whole row numbers"),
        ({"attacks": ()}, "attacks is empty; give one or more of threshold"),
        ({"subset_size": 0, "real": False}, "there is nothing to train on"),
        ({"distilled": {"made": Distilled(np.ones((3, 7)), np.eye(3))}}, "made: distilled.x has examples of shape"),
        (
            {"distilled": {"made": Distilled(memory_task(60).x_train[:2], np.eye(2))}},
            r"made: distilled.y has shape \(2, 2\) and the task has 3 classes; it needs one column each",
        ),
        ({"grid": "big"}, "choose one of paper, small"),
        ({"subset_size": 100}, "at least 100"),
    ],
)
def test_bad_input(change, words):
    options = {"members": np.arange(60), "subset_size": 12, "protocol": PLAIN, "lengths": (5,)} | change
    task, size = memory_task(), options.pop("tested", None)
    with pytest.raises(checks.InputError, match=words):
        mia.evaluate(task._replace(x_test=task.x_test[:size], test_labels=task.test_labels[:size]), **options)


def test_bad_features():
    good = np.zeros((20, 3))
    for members, words in ((good[:5], "at least 12"), (good + np.nan, "NaN"), (good[:, :2], "agree")):
        with pytest.raises(checks.InputError, match=words):
            mia.attack("threshold", members, good)
