"""Attacks that tell members of a training set from other points, by what a network says of them.

The five of TensorFlow Privacy: a threshold on the loss, and four classifiers that are trained on points of known
membership and score those that they did not see.
"""

import warnings
from typing import Any, NamedTuple

import numpy as np

from kipjax import checks
from kipjax.core import labels

__all__ = ["ATTACKS", "FEWEST", "GRIDS", "Attack", "attack", "features"]

ATTACKS = ("threshold", "logistic_regression", "mlp", "random_forest", "k_nearest_neighbors")

GRIDS: dict[str, dict[str, dict[str, list[Any]]]] = {
    "paper": {
        "logistic_regression": {"C": list(np.logspace(-4, 2, 10))},
        "mlp": {"hidden_layer_sizes": [(64,), (32, 32)], "alpha": [1e-4, 1e-3, 1e-2]},
        "random_forest": {
            "max_depth": [5, 10, 20, None],
            "min_samples_split": [2, 5, 10],
            "min_samples_leaf": [1, 2, 4],
        },
        "k_nearest_neighbors": {"n_neighbors": [3, 5, 7]},
    },
    "small": {
        "logistic_regression": {"C": [1e-2, 1.0, 1e2]},
        "mlp": {"hidden_layer_sizes": [(64,)], "alpha": [1e-3]},
        "random_forest": {"max_depth": [5, None], "min_samples_leaf": [4]},
        "k_nearest_neighbors": {"n_neighbors": [3, 5, 7]},
    },
}
"""Hyperparameters among which each attack chooses. ``"paper"`` is TensorFlow Privacy 0.8.5's, less a name that stood
for the same number of features of a tree; ``"small"`` takes seconds."""

FEWEST = 12  # two halves, three folds in each, and 7 neighbours in two of them


class Attack(NamedTuple):
    """What an attack made of every point; a higher score says "member".

    ``member_scores [n]`` and ``other_scores [n']``, in the order of the points.
    """

    name: str
    member_scores: np.ndarray
    other_scores: np.ndarray

    @property
    def auc(self) -> float:
        """Area under the ROC curve, the chance that a member scores above another point; 0.5 is guessing.

        A value below 0.5 is left as it is.
        """
        from sklearn import metrics

        return float(metrics.roc_auc_score(*self._pooled()))

    @property
    def advantage(self) -> float:
        """``max |TPR - FPR|`` over thresholds, in 0..1."""
        fpr, tpr = self.roc()
        return float(np.max(np.abs(tpr - fpr)))

    def tpr_at(self, fpr: float) -> float:
        """The largest share of members found by a threshold that takes at most the share ``fpr`` of others for such.

        Args:
          fpr: in 0..1; below ``1 / n'`` no other point may be accused.

        References:
          arXiv:2112.03570, section IV.
        """
        checks.within("mia.Attack.tpr_at", "fpr", fpr, 0.0, 1.0)
        rates = self.roc()
        return float(rates[1][rates[0] <= fpr].max())

    def roc(self) -> tuple[np.ndarray, np.ndarray]:
        """``(fpr, tpr)``, both rising from 0 to 1, a point for each threshold."""
        from sklearn import metrics

        return metrics.roc_curve(*self._pooled(), drop_intermediate=False)[:2]

    def among(self, rows: Any) -> "Attack":
        """The same scores with only some of the members: those that were really used in training.

        Args:
          rows: positions among the members.
        """
        checks.require(len(rows) > 0, "mia.Attack.among", "rows is empty; name at least one member")
        return self._replace(member_scores=self.member_scores[np.asarray(rows)])

    def _pooled(self):
        is_member = np.repeat([1, 0], [len(self.member_scores), len(self.other_scores)])
        return is_member, np.concatenate([self.member_scores, self.other_scores])


def features(outputs: Any, classes: Any) -> np.ndarray:
    """What the attacker sees of each point: the outputs and, last, the loss ``1/2 |f(x) - y|^2``, y centred one-hot.

    Args:
      outputs: ``[n, k]``.
      classes: ``[n]`` true classes; they enter through the loss alone.

    Returns:
      ``[n, k + 1]``.
    """
    outputs = np.asarray(outputs, np.float64)
    checks.require(outputs.ndim == 2, "mia.features", f"outputs has shape {outputs.shape}; expected [points, classes]")
    checks.same_length("mia.features", "outputs", outputs, "classes", classes)
    targets = np.asarray(labels.one_hot(np.asarray(classes), outputs.shape[1]), np.float64)
    return np.concatenate([outputs, 0.5 * ((outputs - targets) ** 2).sum(axis=1, keepdims=True)], axis=1)


def attack(name: str, members: Any, others: Any, *, seed: int = 0, grid: str = "paper") -> Attack:
    """One attack on points of known membership, each scored by an attacker that did not see it.

    The threshold attack takes low loss for membership. The others train a classifier: the larger side is thinned at
    random to the size of the smaller; of two halves with equally many members, each is scored by the classifier that is
    fitted to the other, with hyperparameters by three-fold cross-validation for accuracy inside it. Points left out by
    the thinning are scored by the last classifier. Features are not scaled.

    Args:
      name: one of ``ATTACKS``.
      members, others: ``features [n, p]`` and ``[n', p]``, the loss in the last column.
      seed: of thinning, order and classifiers.
      grid: a name in ``GRIDS``.

    Raises:
      InputError: an unknown name, features that are not finite or do not fit, or fewer than 12 points on a side.

    Example:
      >>> attack("threshold", [[0.0]] * 12, [[1.0]] * 12).auc
      1.0
    """
    where = "mia.attack"
    checks.one_of(where, "name", name, ATTACKS)
    checks.one_of(where, "grid", grid, GRIDS)
    members, others = np.asarray(members, np.float64), np.asarray(others, np.float64)
    for side, points in (("members", members), ("others", others)):
        checks.require(points.ndim == 2, where, f"{side} has shape {points.shape}; expected [points, features]")
        checks.require(
            len(points) >= FEWEST,
            where,
            f"{side} has {len(points)} points; an attack is trained and scored on at least {FEWEST} of each side",
        )
        checks.finite(where, side, points)
    checks.same_example_shape(where, "members", members, "others", others)
    if name == "threshold":
        return Attack(name, -members[:, -1], -others[:, -1])
    points = np.concatenate([members, others])
    is_other = np.repeat([0, 1], [len(members), len(others)])
    scores = -_trained(name, points, is_other, seed, GRIDS[grid][name])
    return Attack(name, scores[: len(members)], scores[len(members) :])


def _trained(name, points, is_other, seed, grid):
    """The probability ``[n]`` of being no member, by classifiers that did not see the point."""
    from sklearn import exceptions, model_selection

    rng = np.random.default_rng(seed)
    size = np.bincount(is_other).min()
    kept = [rng.permutation(np.flatnonzero(is_other == side))[:size] for side in (0, 1)]
    rows = rng.permutation(np.concatenate(kept))
    left_out = np.setdiff1d(np.arange(len(points)), rows)
    scores = np.full(len(points), np.nan)
    for fit, score in model_selection.StratifiedKFold(2).split(points[rows], is_other[rows]):
        search = model_selection.GridSearchCV(_classifier(name, seed), grid, cv=3, scoring="accuracy")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", exceptions.ConvergenceWarning)  # the protocol stops where it stops
            search.fit(points[rows[fit]], is_other[rows[fit]])
        scores[rows[score]] = search.predict_proba(points[rows[score]])[:, 1]
        if len(left_out):
            scores[left_out] = search.predict_proba(points[left_out])[:, 1]
    return scores


def _classifier(name, seed):
    from sklearn import ensemble, linear_model, neighbors, neural_network

    seed = seed % 2**32
    return {
        "logistic_regression": lambda: linear_model.LogisticRegression(random_state=seed),
        "mlp": lambda: neural_network.MLPClassifier(random_state=seed),
        "random_forest": lambda: ensemble.RandomForestClassifier(random_state=seed),
        "k_nearest_neighbors": lambda: neighbors.KNeighborsClassifier(),
    }[name]()
