"""Membership inference: who can tell which images a network was trained on, from its outputs?

The five attacks of TensorFlow Privacy by the protocol of FRePo (arXiv:2206.00719) and RCIG (arXiv:2302.06755, section
4.5 and S2): members are one chunk of the training set, the others the test set; the attacker sees outputs and loss of
every point, and half of the points' membership. Beyond the papers: true positive rates at low false positive rates, as
Carlini et al. (arXiv:2112.03570) ask for; a *control*, a network that saw no member, whose AUC is what a mere shift
between training and test set yields; and the AUC over the members that were really used.

An AUC near 0.5 says that these attacks fail on average. It is no guarantee of privacy.
"""

import functools
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from kipjax import checks
from kipjax.core import labels
from kipjax.data import draw
from kipjax.evaluation import protocols, train
from kipjax.evaluation.protocols import Protocol
from kipjax.evaluation.result import Task
from kipjax.types import Distilled

__all__ = [
    "ATTACKS",
    "FPRS",
    "GRIDS",
    "LENGTHS",
    "PROTOCOL",
    "Attack",
    "Audit",
    "attack",
    "chunk",
    "evaluate",
    "features",
]

PROTOCOL: Protocol = protocols.named("frepo")._replace(
    name="mia", steps=16_000, batch_size=256, shuffle=True, warmup=0, final_rate=1.0
)
"""The training of the networks that are attacked; on real images with batches of ``REAL_BATCH``."""
REAL_BATCH = 1024
LENGTHS = (100, 250, 500, 1000, 2000, 4000, 8000, 16_000)
"""Steps after which the papers attack; their tables have the last."""
FPRS = (0.001, 0.01)
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

_FEWEST = 12  # two halves, three folds in each, and 7 neighbours in two of them


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


class Audit(NamedTuple):
    """One attack on one network.

    Attributes:
      trained_on: the set; ``network``: which of the networks trained on it; ``steps`` that it took.
      attack: a name in ``ATTACKS``.
      accuracy: of the network on the test set, in 0..1.
      auc, advantage: as in ``Attack``; ``tpr`` at each rate in ``FPRS``.
      used, used_auc: how many members were really in the training set, and the AUC over those; ``None`` for none.
    """

    trained_on: str
    network: int
    steps: int
    attack: str
    accuracy: float
    auc: float
    advantage: float
    tpr: tuple[float, ...]
    used: int
    used_auc: float | None


def chunk(total: int, index: int, size: int = 10_000) -> np.ndarray:
    """Row numbers ``[size]``, ``size * index .. size * (index + 1) - 1``, of ``total`` training images as stored."""
    checks.whole("mia.chunk", "size", size)
    checks.whole("mia.chunk", "index", index, 0)
    checks.require(
        size * (index + 1) <= total,
        "mia.chunk",
        f"chunk {index} of {size} images ends at {size * (index + 1)} and there are {total}; there are "
        f"{total // size} chunks of this size, from 0 on",
    )
    return np.arange(size * index, size * (index + 1))


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
            len(points) >= _FEWEST,
            where,
            f"{side} has {len(points)} points; an attack is trained and scored on at least {_FEWEST} of each side",
        )
        checks.finite(where, side, points)
    checks.same_example_shape(where, "members", members, "others", others)
    if name == "threshold":
        return Attack(name, -members[:, -1], -others[:, -1])
    points = np.concatenate([members, others])
    is_other = np.repeat([0, 1], [len(members), len(others)])
    scores = -_trained(name, points, is_other, seed, GRIDS[grid][name])
    return Attack(name, scores[: len(members)], scores[len(members) :])


def evaluate(
    task: Task,
    members: Any,
    *,
    distilled: Mapping[str, Distilled] | None = None,
    control: Any = None,
    subset_size: int = 500,
    real: bool = True,
    model: nn.Module | None = None,
    protocol: Protocol = PROTOCOL,
    lengths: Sequence[int] = LENGTHS,
    attacks: Sequence[str] = ATTACKS,
    grid: str = "paper",
    key: jax.Array | None = None,
    seeds: int = 1,
    block_size: int = 1000,
) -> list[Audit]:
    """Attacks on networks trained on distilled sets, on the members, on a few of them, and on none of them.

    Args:
      task: the data; its test images are the non-members.
      members: rows of ``task.x_train``, such as ``chunk`` gives.
      distilled: sets by name, distilled from the members alone.
      control: rows of training images that are no members, such as another chunk; ``None`` for no control.
      subset_size: random members for the baseline "subset"; 0 leaves it out.
      real: whether to train on all members too.
      model: of the networks; FRePo's ConvNet of width 128 unless given.
      protocol: of their training, one that counts steps at a constant rate.
      lengths: numbers of steps after which they are attacked, ascending.
      attacks: names in ``ATTACKS``; ``grid`` is a name in ``GRIDS``.
      key: draws subset, networks and attacks.
      seeds: networks on each set; every one has a random subset of its own.
      block_size: images that go through a network at once.

    Returns:
      An ``Audit`` for every set, network, length and attack.

    Raises:
      InputError: rows outside the training set or in both members and control, too few points, unknown names.
      NumericalError: a network left the finite numbers.
    """
    where = "mia.evaluate"
    members, control = _rows(where, "members", members, task), _rows(where, "control", control, task)
    both = len(np.intersect1d(members, control))
    checks.require(not both, where, f"{both} rows are both members and control; a control is trained on no member")
    for name, value, low in (("subset_size", subset_size, 0), ("seeds", seeds, 1), ("block_size", block_size, 1)):
        checks.whole(where, name, value, low)
    checks.at_least(where, "number of members", len(members), max(_FEWEST, subset_size))
    rising = len(lengths) > 0 and np.all(np.diff(lengths, prepend=0) > 0)
    checks.require(bool(rising), where, f"lengths is {list(lengths)}; expected ascending numbers of steps")
    for name in attacks:
        checks.one_of(where, "attack", name, ATTACKS)
    checks.one_of(where, "grid", grid, GRIDS)
    model = model if model is not None else train.build("convnet", task, width=128)
    key = jax.random.key(0) if key is None else key
    x, classes = np.asarray(task.x_train), np.asarray(task.train_labels)
    probes = jnp.concatenate([jnp.asarray(x[members]), jnp.asarray(task.x_test)])
    large = protocol._replace(batch_size=max(protocol.batch_size, REAL_BATCH))

    def images(rows):
        return Distilled(jnp.asarray(x[rows]), labels.one_hot(classes[rows], task.num_classes))

    found = []
    for network in range(seeds):
        keys = jax.random.split(jax.random.fold_in(key, network), 3)
        some = np.asarray(draw.without_replacement(keys[0], subset_size, len(members)))
        none = np.empty(0, int)
        sets = {name: (made, protocol, none) for name, made in (distilled or {}).items()}
        sets |= {"subset": (images(members[some]), protocol, some)} if subset_size else {}
        sets |= {"real": (images(members), large, np.arange(len(members)))} if real else {}
        sets |= {"control": (images(control), large, none)} if len(control) else {}
        attack_seed = int(jax.random.randint(keys[2], (), 0, 2**31 - 1))
        for i, (name, (made, chosen, used)) in enumerate(sets.items()):
            outputs = _train(
                jax.random.fold_in(keys[1], i), made, jnp.asarray(lengths), probes,
                model=model, protocol=chosen, block_size=block_size,
            )  # fmt: skip
            for steps, at in zip(lengths, np.asarray(outputs)):
                start = name, network, int(steps)
                found += _audits(start, at, task, members, used, attacks, attack_seed, grid)
    return found


@functools.partial(jax.jit, static_argnames=("model", "protocol", "block_size"))
def _train(key, distilled, lengths, probes, *, model, protocol, block_size):
    """Outputs ``[lengths, n, k]`` for the probes along one training."""
    along = train.fit_along(key, model, distilled, lengths, protocol=protocol)
    return jax.lax.map(
        lambda network: train.predict(model, network, probes, protocol=protocol, block_size=block_size), along
    )


def _audits(start, outputs, task, members, used, attacks, seed, grid):
    name, network, steps = start
    if not np.isfinite(outputs).all():
        raise checks.NumericalError(
            f"mia.evaluate: network {network} on {name} left the finite numbers within {steps} steps; look for NaN in "
            "the set, or lower the learning rate"
        )
    n, classes = len(members), np.asarray(task.train_labels)[members]
    accuracy = float(np.mean(outputs[n:].argmax(axis=1) == np.asarray(task.test_labels)))
    sides = features(outputs[:n], classes), features(outputs[n:], task.test_labels)
    audits = []
    for which in attacks:
        made = attack(which, *sides, seed=seed, grid=grid)
        rates = tuple(made.tpr_at(fpr) for fpr in FPRS)
        used_auc = made.among(used).auc if len(used) else None
        audits.append(
            Audit(name, network, steps, which, accuracy, made.auc, made.advantage, rates, len(used), used_auc)
        )
    return audits


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


def _rows(where, name, rows, task):
    """Distinct row numbers of the training set, none for ``None``."""
    rows = np.asarray([] if rows is None else rows, int).reshape(-1)
    n = len(task.x_train)
    ok = not len(rows) or (rows.min() >= 0 and rows.max() < n and len(np.unique(rows)) == len(rows))
    checks.require(bool(ok), where, f"{name} must be distinct rows of the {n} training images, 0..{n - 1}")
    return rows
