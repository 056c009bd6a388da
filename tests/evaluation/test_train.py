"""Training networks on a distilled set: the protocols' numbers, the steps against NumPy, and what comes of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from kipjax import checks
from kipjax.evaluation import PROTOCOLS, Task, krr, protocols, train
from kipjax.types import Batch, Distilled
from tests.reference.networks import Small

SGD = protocols.Protocol("sgd", steps=3, optimizer="sgd", learning_rate=0.1, loss="half_squares")


class Linear(nn.Module):
    """``x W + b`` that starts from zero, or from the constants given, so that nothing is random."""

    num_classes: int = 2
    start: float = 0.0
    bias: bool = True

    @nn.compact
    def __call__(self, x, *, train=False, features=False):
        fill = nn.initializers.constant(self.start)
        head = nn.Dense(self.num_classes, self.bias, kernel_init=fill, bias_init=fill, name="head")
        return head(x.reshape(len(x), -1))


def task(seed=0, n=90, k=3, distance=3.0):
    """Separable classes of 2 x 2 images, two thirds of them for training."""
    rng = np.random.default_rng(seed)
    classes = np.arange(n) % k
    x = rng.normal(size=(n, 4)) + distance * np.eye(k, 4)[classes]
    x, cut = x.reshape(n, 2, 2, 1).astype(np.float32), 2 * n // 3
    return Task(jnp.asarray(x[:cut]), classes[:cut], jnp.asarray(x[cut:]), classes[cut:], k)


def problem(seed=0, m=6, k=2):
    rng = np.random.default_rng(seed)
    return Distilled(
        jnp.asarray(rng.normal(size=(m, 3)), jnp.float32), jnp.asarray(rng.normal(size=(m, k)), jnp.float32)
    )


def head(trained):
    return {name: np.asarray(value) for name, value in trained.variables["params"]["head"].items()}


def gradients(x, error):
    """Of the kernel and the bias of a linear model whose loss has the gradient ``error`` at the outputs."""
    return {"kernel": x.T @ error, "bias": error.sum(0)}


def by_hand(distilled, count, output_gradient, rule):
    """A linear model from zero in NumPy: ``rule(step, gradient, memory) -> (change, memory)`` for each parameter."""
    x, y = (np.asarray(a, np.float64) for a in distilled[:2])
    params = {"kernel": np.zeros((x.shape[1], y.shape[1])), "bias": np.zeros(y.shape[1])}
    memory = dict.fromkeys(params)
    for step in range(count):
        found = gradients(x, output_gradient(x @ params["kernel"] + params["bias"], y))
        for name, value in params.items():
            change, memory[name] = rule(step, found[name], value, memory[name])
            params[name] = value + change
    return params


# --- the table of protocols


FACTS = {
    "rcig": {
        "optimizer": "adam",
        "learning_rate": 1e-4,
        "warmup": 500,
        "final_rate": 0.01,
        "batch_size": 256,
        "loss": "half_mse",
    },
    "frepo": {
        "optimizer": "adam",
        "learning_rate": 3e-4,
        "warmup": 500,
        "final_rate": 0.01,
        "batch_size": 500,
        "shuffle": False,
    },
    "rfad": {
        "optimizer": "sgd",
        "momentum": 0.9,
        "centred": True,
        "decay_to_start": True,
        "patience": 500,
        "validate_every": 100,
    },
    "dc": {
        "optimizer": "sgd",
        "momentum": 0.9,
        "learning_rate": 0.01,
        "weight_decay": 5e-4,
        "batch_size": 256,
        "epochs": 301,
    },
    "dsa": {
        "optimizer": "sgd",
        "momentum": 0.9,
        "learning_rate": 0.01,
        "weight_decay": 5e-4,
        "batch_size": 256,
        "epochs": 1001,
    },
    "dm": dict(protocols.NAMED["dsa"]._asdict(), name="dm"),
    "mtt": dict(protocols.NAMED["dsa"]._asdict(), name="mtt", learned_rate=True),
}


@pytest.mark.parametrize("name", FACTS)
def test_the_table_has_the_papers_numbers(name):
    protocol = protocols.NAMED[name]._asdict()
    assert {field: protocol[field] for field in FACTS[name]} == FACTS[name]
    assert protocol["name"] == name and PROTOCOLS[name].keywords == {"protocol": name}


def test_the_number_of_steps_follows_the_size_of_the_set():
    counts = {
        name: [protocols.steps(protocols.NAMED[name], m) for m in (10, 100, 200, 500, 1000, 5000)]
        for name in protocols.NAMED
    }
    assert counts["rcig"] == counts["rcig_aug"] == [1000, 2000, 2000, 2000, 2000, 2000]
    assert counts["frepo"] == [1000, 2000, 20_000, 5000, 10_000, 40_000]
    assert counts["rfad"] == [20_000] * 6
    assert counts["dc"] == [301 * n for n in (1, 1, 1, 2, 4, 20)]  # batches of 256, the last one smaller
    assert counts["dsa"] == counts["mtt"] == [1001 * n for n in (1, 1, 1, 2, 4, 20)]


@pytest.mark.parametrize(("name", "size", "total"), [("rcig", 10, 1000), ("rcig", 100, 2000), ("frepo", 500, 5000)])
def test_the_rate_rises_for_500_steps_and_falls_to_a_hundredth_along_a_cosine(name, size, total):
    protocol = protocols.NAMED[name]
    at = np.array([0, 1, 250, 499, 500, 700, total - 1, total])
    fall = 0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * (at - 500) / (total - 500)))
    expected = protocol.learning_rate * np.where(at < 500, at / 500, fall)
    rate = protocols.schedule(protocol, size)
    np.testing.assert_allclose([rate(step) for step in at], expected, rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize(("name", "size", "last"), [("dc", 10, 151), ("dc", 500, 303), ("dsa", 10, 501)])
def test_the_rate_drops_after_epoch_half_plus_one(name, size, last):
    """The programs count epochs 0 .. E and divide the rate by ten at the end of epoch E // 2 + 1."""
    rate = protocols.schedule(protocols.NAMED[name], size)
    np.testing.assert_allclose([rate(0), rate(last), rate(last + 1)], [0.01, 0.01, 0.001], rtol=1e-6)


def test_settings_that_depend_on_the_data_set():
    def settings(dataset, ipc):
        protocol = protocols.named("rfad", dataset=dataset, ipc=ipc)
        return protocol.learning_rate, protocol.label_scale, protocol.weight_decay

    assert settings("mnist", 1) == settings("digits", 1) == (1e-3, 8, 1e-3)
    assert settings("cifar10", 10) == (1e-3, 2, 0) and settings("svhn", 1) == (1e-3, 16, 0)
    assert settings("fashion_mnist", 5) == (1e-2, 8, 1e-3) and settings("cifar100", 50) == (1e-1, 2, 0)
    assert protocols.named("dc", dataset="mnist")[:5] == protocols.NAMED["dc"]._replace(epochs=1001)[:5]
    assert protocols.named("dc", dataset="mnist").augment[0] == "crop_scale_rotate"
    assert protocols.named("dc", dataset="fashion_mnist") == protocols.NAMED["dc"]
    for name in ("dsa", "dm", "mtt"):
        assert [
            "flip" in protocols.named(name, dataset=d).augment[0] for d in ("svhn", "tfds:svhn_cropped", "cifar10")
        ] == [
            False,
            False,
            True,
        ]


@pytest.mark.parametrize(
    ("name", "style", "grey", "rgb"),
    [
        ("rcig_aug", "image", "crop_rotate_translate_cutout", "flip_color_crop_rotate_translate_cutout"),
        ("frepo", "batch", "color_crop_rotate_translate_cutout", "flip_color_crop_rotate_translate_cutout"),
        ("dc_batch_norm", "dc", "crop_noise", "crop_noise"),
        ("dsa", "dsa", "color_crop_cutout_flip_scale_rotate", "color_crop_cutout_flip_scale_rotate"),
    ],
)
def test_images_are_augmented_by_their_channels_with_fresh_numbers_at_each_step(monkeypatch, name, style, grey, rgb):
    asked, drawn = [], []

    def record(strategy):
        asked.append(strategy)

        def change(key, x):
            jax.debug.callback(lambda u: drawn.append(float(u)), jax.random.uniform(key))
            return x

        return change

    monkeypatch.setitem(protocols.AUGMENTS, style, record)
    for channels in (1, 3):
        protocol = protocols.NAMED[name]._replace(epochs=4 if protocols.NAMED[name].epochs else 0, patience=0)
        protocol = protocol if protocol.epochs else protocol._replace(steps=4)
        jax.block_until_ready(
            train.fit(
                jax.random.key(0), Linear(), Distilled(jnp.ones((2, 2, 2, channels)), jnp.eye(2)), protocol=protocol
            )
        )
    jax.effects_barrier()
    assert asked == [grey, rgb] and len(drawn) == 8 and len(set(drawn)) == 4


# --- the steps


def test_adam_with_warm_up_and_cosine_equals_numpy():
    distilled = problem()
    protocol = protocols.NAMED["rcig"]._replace(steps=6, warmup=2, learning_rate=0.1)
    rate = [0.0, 0.05] + [0.1 * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * t / 4))) for t in range(4)]

    def adam(step, gradient, value, memory):
        m, v = memory or (0.0, 0.0)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        m_hat, v_hat = m / (1 - 0.9 ** (step + 1)), v / (1 - 0.999 ** (step + 1))
        return -rate[step] * m_hat / (np.sqrt(v_hat) + 1e-8), (m, v)

    expected = by_hand(distilled, 6, lambda outputs, y: (outputs - y) / y.size, adam)
    got = head(train.fit(jax.random.key(0), Linear(), distilled, protocol=protocol))
    for name in expected:
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-4)


def test_sgd_with_momentum_decay_and_drop_equals_numpy():
    """PyTorch's order: decay joins the gradient, the buffer is multiplied and added to; at the drop it starts anew."""
    distilled = problem()
    protocol = protocols.NAMED["dc"]._replace(epochs=5, drop_epoch=3, learning_rate=0.5, weight_decay=0.1)

    def sgd(step, gradient, value, buffer):
        buffer = gradient + 0.1 * value + (0.9 * buffer if step not in (0, 3) else 0)
        return -(0.5 if step < 3 else 0.05) * buffer, buffer

    def cross_entropy(outputs, y):
        p = np.exp(outputs) / np.exp(outputs).sum(1, keepdims=True)
        return (p - np.eye(2)[y.argmax(1)]) / len(y)

    expected = by_hand(distilled, 5, cross_entropy, sgd)
    got = head(train.fit(jax.random.key(0), Linear(), distilled, protocol=protocol))
    for name in expected:
        np.testing.assert_allclose(got[name], expected[name], rtol=1e-4)


def test_rfad_learns_the_change_of_the_network_and_decays_to_its_start():
    """``mean((f - f_0 - s y)^2) / s^2 + w |theta - theta_0|^2``: the differences take one path from any start."""
    distilled = problem()
    protocol = protocols.NAMED["rfad"]._replace(
        steps=4, learning_rate=0.3, label_scale=2.0, weight_decay=0.05, patience=0
    )

    def sgd(step, gradient, value, buffer):
        buffer = gradient + 2 * 0.05 * value + (0.9 * buffer if step else 0)
        return -0.3 * buffer, buffer

    expected = by_hand(distilled, 4, lambda change, y: 2 * (change - 2 * y) / 4 / y.size, sgd)
    model = Linear(start=0.7)
    trained = train.fit(jax.random.key(0), model, distilled, protocol=protocol)
    for name, value in expected.items():
        np.testing.assert_allclose(head(trained)[name] - 0.7, value, rtol=1e-4, atol=1e-6)
    outputs = train.predict(model, trained, distilled.x, protocol=protocol)
    np.testing.assert_allclose(
        outputs, (np.asarray(distilled.x) @ expected["kernel"] + expected["bias"]) / 2, rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("scale", [1, 3])
def test_the_two_half_losses_differ_by_the_number_of_classes(scale):
    outputs, y = jnp.arange(6.0).reshape(2, 3), scale * jnp.eye(3)[:2]
    half, squares, mean = (float(protocols.LOSSES[name](outputs, y)) for name in ("half_mse", "half_squares", "mse"))
    expected = np.mean((np.asarray(outputs) - np.asarray(y)) ** 2)
    np.testing.assert_allclose([half, squares, mean], [expected / 2, 3 * expected / 2, expected], rtol=1e-6)


def test_soft_cross_entropy_takes_probabilities_and_centred_labels_alike():
    outputs, y = jnp.array([[1.0, 2.0, 0.0]]), jnp.array([[0.2, 0.5, 0.3]])
    loss = protocols.LOSSES["soft_cross_entropy"]
    expected = -(np.asarray(y) * np.asarray(jax.nn.log_softmax(outputs))).sum()
    np.testing.assert_allclose([loss(outputs, y), loss(outputs, y - 1 / 3)], expected, rtol=1e-6)


# --- which rows a step sees: on one-hot examples, a row of the kernel moves only when its example is seen


def moved(key=0, m=5, **changes):
    """``[m]`` how far each example's weight got towards its label 1 in steps of ``1 / batch``."""
    protocol = SGD._replace(learning_rate=1.0, **changes)
    distilled = Distilled(jnp.eye(m), jnp.ones((m, 1)))
    return head(train.fit(jax.random.key(key), Linear(1, bias=False), distilled, protocol=protocol))["kernel"][:, 0]


def test_an_epoch_sees_every_example_once_and_its_last_batch_is_smaller():
    one = moved(steps=0, epochs=1, batch_size=2)
    assert sorted(one.tolist()) == [0.5, 0.5, 0.5, 0.5, 1.0], "alone in its batch, an example takes the whole step"
    orders = {tuple(moved(key=key, steps=0, epochs=1, batch_size=2)) for key in range(4)}
    assert len(orders) > 1
    np.testing.assert_allclose(moved(steps=0, epochs=2, batch_size=5), 1 - 0.8**2, rtol=1e-6)


def test_in_order_batches_wrap_around():
    np.testing.assert_allclose(moved(steps=2, batch_size=2, shuffle=False), [0.5, 0.5, 0.5, 0.5, 0])
    np.testing.assert_allclose(moved(steps=3, batch_size=2, shuffle=False), [0.75, 0.5, 0.5, 0.5, 0.5])


def test_random_batches_are_without_repetition_and_new_at_each_step():
    drawn = [moved(key=key, steps=1, batch_size=2) for key in range(4)]
    assert all(sorted(some.tolist()) == [0, 0, 0, 0.5, 0.5] for some in drawn) and len({tuple(s) for s in drawn}) > 1
    assert (moved(steps=40, batch_size=2) > 0.9).all()
    np.testing.assert_allclose(moved(steps=2, batch_size=5), 1 - 0.8**2, rtol=1e-6)


def test_mirror_images_join_where_set_and_protocol_have_them():
    distilled = Distilled(jnp.array([1.0, 0, 0, 0]).reshape(1, 2, 2, 1), jnp.ones((1, 1)))
    options = {"protocol": SGD._replace(steps=1, batch_size=1, flip=True)}

    def fit(**more):
        return head(train.fit(jax.random.key(0), Linear(1), distilled, **(options | more)))["kernel"][:, 0]

    np.testing.assert_allclose(fit(flip=True), [0.05, 0.05, 0, 0], rtol=1e-6)  # one example: the batch is whole
    np.testing.assert_allclose(fit(), [0.1, 0, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(fit(flip=True, protocol=SGD._replace(steps=1)), [0.1, 0, 0, 0], rtol=1e-6)


def test_the_learned_step_size_is_the_sets_own():
    distilled, mtt = problem(), protocols.NAMED["mtt"]._replace(epochs=3, augment=("none", "none"))

    def fit(lr, protocol):
        return head(train.fit(jax.random.key(0), Linear(), distilled._replace(lr=lr), protocol=protocol))

    given, same = fit(jnp.asarray(0.3), mtt), fit(None, mtt._replace(learning_rate=0.3))
    np.testing.assert_allclose(given["kernel"], same["kernel"], rtol=1e-5)
    assert np.abs(given["kernel"] - fit(None, mtt)["kernel"]).max() > 0.01
    np.testing.assert_array_equal(
        fit(jnp.asarray(0.3), mtt._replace(learned_rate=False))["kernel"], fit(None, mtt)["kernel"]
    )
    with pytest.raises(checks.InputError, match=r"lr has shape \(2,\); mtt takes one step size"):
        fit(jnp.ones(2), mtt)
    with pytest.raises(checks.InputError, match=r"the learned step size, is -0\.1; it must be above 0"):
        train.fit(jax.random.key(0), Linear(), distilled._replace(lr=-0.1), protocol=mtt)


# --- early stopping


def stopping(targets, **changes):
    """A linear model that learns class 0 on two examples, watched on those with other labels."""
    x, protocol = jnp.eye(2), SGD._replace(patience=4, validate_every=2, **changes)
    distilled = Distilled(x, jnp.array([[1.0, 0.0], [0.0, 1.0]]))
    return head(train.fit(jax.random.key(0), Linear(), distilled, protocol=protocol, validation=Batch(x, targets)))


def test_the_best_validation_weights_are_kept_and_training_stops():
    learned = stopping(jnp.eye(2), steps=10)
    assert learned["kernel"][0, 0] > 0.05 > learned["kernel"][1, 0], "both right after 2 steps"
    np.testing.assert_allclose(learned["kernel"], head_after(2)["kernel"], rtol=1e-6)
    # One of two right at the start (ties go to class 0), none later: the start is kept, in a moment for so many steps.
    spoilt = stopping(jnp.eye(2)[::-1], steps=2_000_000_000)
    assert not spoilt["kernel"].any() and not spoilt["bias"].any()


def head_after(count):
    distilled = Distilled(jnp.eye(2), jnp.eye(2))
    return head(train.fit(jax.random.key(0), Linear(), distilled, protocol=SGD._replace(steps=count)))


def test_no_test_image_decides_when_to_stop():
    """The held-out images are training images, disjoint from the random subsets."""
    parts = task(n=90)
    validation, rest = train._hold_out(jax.random.key(0), parts)

    def rows(x):
        return {tuple(row) for row in np.asarray(x).reshape(len(x), -1).tolist()}

    assert len(validation.x) == 12 and len(rest.x_train) == 48 == len(rest.train_labels)
    assert rows(validation.x) | rows(rest.x_train) == rows(parts.x_train)
    by_image = {tuple(np.ravel(x)): c for x, c in zip(np.asarray(parts.x_train), parts.train_labels)}
    assert [by_image[tuple(np.ravel(x))] for x in np.asarray(validation.x)] == np.argmax(validation.y, 1).tolist()


# --- whole evaluations

QUICK = protocols.NAMED["rcig"]._replace(steps=150, warmup=10, learning_rate=0.02)


@pytest.mark.parametrize(
    "protocol",
    [
        QUICK,
        protocols.NAMED["rfad"]._replace(steps=300, learning_rate=0.1, label_scale=1.0, validate_every=20),
        protocols.NAMED["dc"]._replace(epochs=100, drop_epoch=60, learning_rate=0.1),
    ],
    ids=lambda protocol: protocol.name,
)
def test_training_on_real_images_learns_a_separable_problem(protocol):
    parts = task(distance=6.0)
    results = train.evaluate(krr.subset(jax.random.key(0), parts, 30), parts, Small(3), protocol=protocol, seeds=2)
    assert [(r.trained_on, r.size, r.model, r.accuracy.n) for r in results] == [
        ("distilled", 30, "Small", 2),
        ("random subset", 30, "Small", 2),
    ]
    for result in results:
        assert result.accuracy.mean > 0.95 and result.mse.mean < 0.03
    wrong = train.evaluate(
        Distilled(parts.x_train[:30], jnp.roll(jnp.eye(3), 1, 1)[parts.train_labels[:30]]), parts, Small(3),
        protocol=protocol, seeds=2, subset_seeds=0,
    )  # fmt: skip
    # With wrong labels, the best of RFAD on true validation labels is what it started from: always the first class.
    expected = 1 / 3 if protocol.patience else 0
    assert len(wrong) == 1 and wrong[0].accuracy.mean == pytest.approx(expected, abs=0.1)


def test_a_fit_is_a_function_of_its_key_and_seeds_at_once_equal_seeds_in_turn():
    distilled = problem(m=8)
    protocol = protocols.NAMED["rcig"]._replace(steps=5, warmup=1, learning_rate=0.01, batch_size=4)
    fit = jax.jit(lambda key: train.fit(key, Small(2), distilled, protocol=protocol).variables["params"])
    keys = jax.random.split(jax.random.key(0), 2)
    first, again, other = fit(keys[0]), fit(keys[0]), fit(keys[1])
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(again)))
    assert not any(np.allclose(a, b) for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(other)) if a.ndim == 2)
    at_once = jax.vmap(fit)(keys)
    for leaf, a, b in zip(*map(jax.tree.leaves, (at_once, first, other))):
        np.testing.assert_allclose(leaf, jnp.stack([a, b]), rtol=1e-4, atol=1e-6)


def test_the_number_trained_at_once_changes_nothing():
    parts = task()
    some = krr.subset(jax.random.key(0), parts, 6)
    options = {"protocol": QUICK._replace(steps=20), "seeds": 3, "subset_seeds": 0, "key": jax.random.key(5)}
    one, many = (train.evaluate(some, parts, Small(3), parallel=n, **options)[0] for n in (1, 2))
    assert len(set(one.mses)) == 3, "every network starts elsewhere"
    np.testing.assert_allclose(one.mses, many.mses, rtol=1e-4)
    np.testing.assert_allclose(one.accuracies, many.accuracies, atol=0.04)


def test_random_subsets_go_through_the_same_protocol():
    """With nothing random in the network, all training images drawn as a subset do exactly what they do as a set."""
    parts = task(n=45)
    everything = krr.subset(jax.random.key(0), parts, 30)
    results = train.evaluate(
        everything, parts, Linear(3), protocol=QUICK, seeds=1, subset_seeds=2, full_size=100, name="linear"
    )
    assert [(r.trained_on, r.accuracy.n) for r in results] == [
        ("distilled", 1), ("random subset", 2), ("full training set", 1)
    ]  # fmt: skip
    for result in results[1:]:
        np.testing.assert_allclose(result.mses, results[0].mses[0], rtol=1e-4)
    few = krr.subset(jax.random.key(0), parts, 6)
    smaller = train.evaluate(few, parts, Linear(3), protocol=QUICK, seeds=1, subset_seeds=3, full_size=12)
    assert (smaller[2].trained_on, smaller[2].size) == ("random training images", 12)
    assert len(set(smaller[1].mses)) == 3, "every subset is another one"


@pytest.mark.slow
def test_batch_norm_trains_on_batch_statistics_and_predicts_with_running_ones():
    parts = task()
    some, protocol = (
        krr.subset(jax.random.key(0), parts, 12),
        protocols.NAMED["dc"]._replace(epochs=60, learning_rate=0.1),
    )
    model = Small(3, norm=True)
    trained = train.fit(jax.random.key(0), model, some, protocol=protocol)
    (moments,) = jax.tree.leaves(trained.variables["batch_stats"]["BatchNorm_0"]["mean"])
    assert np.abs(moments).max() > 0.01
    alone, together = (
        train.predict(model, trained, parts.x_test, protocol=protocol, block_size=size) for size in (1, 100)
    )
    np.testing.assert_allclose(alone, together, rtol=1e-4, atol=1e-5)
    result = train.evaluate(some, parts, model, protocol=protocol, seeds=2, subset_seeds=0)[0]
    assert result.accuracy.mean > 0.8


@pytest.mark.parametrize("size", [7, 30, 100])
def test_predictions_do_not_depend_on_the_blocks(size):
    distilled, x = problem(), jax.random.normal(jax.random.key(1), (30, 3))
    trained = train.fit(jax.random.key(0), Linear(), distilled, protocol=SGD)
    found = train.predict(Linear(), trained, x, protocol=SGD, block_size=size)
    np.testing.assert_allclose(found, x @ head(trained)["kernel"] + head(trained)["bias"], rtol=1e-5, atol=1e-6)


def test_errors_of_a_cross_entropy_are_those_of_its_probabilities():
    parts = task()
    some = krr.subset(jax.random.key(0), parts, 6)
    protocol = protocols.NAMED["dc"]._replace(epochs=3)
    result = train.evaluate(some, parts, Linear(3), protocol=protocol, seeds=1, subset_seeds=0)[0]
    trained = train.fit(jax.random.key(9), Linear(3), some, protocol=protocol)
    p = np.asarray(jax.nn.softmax(train.predict(Linear(3), trained, parts.x_test, protocol=protocol)))
    assert result.mses[0] == pytest.approx(0.5 * np.mean((p - np.eye(3)[parts.test_labels]) ** 2), rel=1e-4)


# --- mistakes


class NoTrain(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(x)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"protocol": "nope"}, r"protocol is 'nope'; choose one of rcig, rcig_aug, frepo, rfad, "),
        (
            {"model": Small(7)},
            r"the model gives outputs of shape \(7,\) and the labels have 3 columns; .*num_classes=3",
        ),
        ({"model": "convnet"}, "model is 'convnet'; expected a flax module"),
        ({"model": NoTrain()}, r"expected a flax module that is called with \(x, train=...\)"),
        ({"seeds": 0}, "seeds is 0"),
        ({"subset_seeds": -1}, "subset_seeds is -1"),
        ({"protocol": SGD._replace(loss="l1")}, "protocol.loss is 'l1'; choose one of half_mse"),
        ({"protocol": SGD._replace(optimizer="lamb")}, "protocol.optimizer is 'lamb'; choose one of adam, sgd"),
        ({"protocol": SGD._replace(epochs=2)}, "sgd must have either steps or epochs"),
        ({"distilled": Distilled(jnp.ones((3, 5)), jnp.eye(3))}, "they must agree"),
        (
            {"distilled": Distilled(jnp.ones((3, 2, 2, 1)), jnp.eye(4)[:3])},
            "distilled.y has shape \\(3, 4\\) and the task has 3 classes",
        ),
    ],
)
def test_mistakes_say_what_to_do(change, words):
    parts = task()
    options = {
        "distilled": krr.subset(jax.random.key(0), parts, 6),
        "model": Small(3),
        "protocol": SGD,
        "seeds": 1,
    } | change
    with pytest.raises(checks.InputError, match=words):
        train.evaluate(options.pop("distilled"), parts, options.pop("model"), **options)


def test_a_protocol_that_stops_early_needs_validation_images():
    with pytest.raises(checks.InputError, match=r"rfad stops early; give it validation images .* training set"):
        train.fit(jax.random.key(0), Linear(), problem(), protocol="rfad")


def test_a_network_that_diverges_is_reported():
    parts = task()
    protocol = SGD._replace(steps=200, learning_rate=1e6)
    with pytest.raises(checks.NumericalError, match=r"2 of 2 networks \(distilled, Linear\) left the finite numbers"):
        train.evaluate(krr.subset(jax.random.key(0), parts, 6), parts, Linear(3), protocol=protocol, seeds=2)
