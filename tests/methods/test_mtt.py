"""MTT: its loss against students in NumPy, the derivative in the step size, batches, start epochs and experts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kipjax import checks
from kipjax.core import losses
from kipjax.methods import mtt
from kipjax.types import Batch, Distilled
from tests.reference import matching as reference
from tests.reference import networks

K = 3
MATRIX = np.random.default_rng(1).normal(size=(4, 4))
MATRIX = MATRIX + MATRIX.T


def quadratic(theta, n):
    return 0.5 * theta @ MATRIX @ theta + n * jnp.sum(theta)


def pull(theta, n):
    """Its gradient; it differs from step to step."""
    return MATRIX @ theta + n


@pytest.mark.usefixtures("x64")
def test_outer_loss_against_numpys_student_and_at_its_ends():
    start, target = np.random.default_rng(0).normal(size=(2, 4))

    def loss(lr, steps=3, target=target):
        return mtt.outer_loss(quadratic, jnp.asarray(start), jnp.asarray(target), lr, steps=steps)

    end = reference.students(start, [lambda theta, n=n: pull(theta, n) for n in range(3)], 0.1)
    expected = np.sum((end - target) ** 2) / np.sum((start - target) ** 2)
    np.testing.assert_allclose(loss(0.1), expected, rtol=1e-12)
    assert loss(0.1, steps=0) == 1.0 and loss(0.0) == 1.0
    np.testing.assert_allclose(loss(0.1, target=end), 0.0, atol=1e-25)
    total = sum(pull(start, n) for n in range(3))
    slope = -2 * np.dot(total, start - target) / np.sum((start - target) ** 2)
    np.testing.assert_allclose(jax.grad(loss)(0.0), slope, rtol=1e-12)
    np.testing.assert_allclose(jax.grad(loss)(0.1), (loss(0.1 + 1e-6) - loss(0.1 - 1e-6)) / 2e-6, rtol=1e-7)


def test_memory_does_not_grow_with_what_a_step_of_the_student_works_with():
    """Its steps are computed again for the derivative; what is kept of each is its few parameters."""
    data = jnp.ones((4, 50_000))

    def loss(theta, n):
        return jnp.mean(jnp.tanh(jnp.tanh(theta @ data) * n) ** 2)

    def memory(steps):
        outer = jax.grad(lambda lr, start: mtt.outer_loss(loss, start, start + 1.0, lr, steps=steps))
        return jax.jit(outer).lower(0.1, jnp.ones(4)).compile().memory_analysis().temp_size_in_bytes

    assert memory(40) - memory(4) < 0.1 * 36 * data[0].nbytes


def parts(dtype=np.float32, epochs=4, model=None):
    """A set, and a trajectory of small random steps."""
    rng = np.random.default_rng(0)
    y = np.eye(K, dtype=dtype)[np.arange(6) % K] - dtype(1 / K)
    start = Distilled(jnp.asarray(rng.normal(size=(6, 4, 4, 1)).astype(dtype)), jnp.asarray(y))
    model = model or networks.Small(K)
    first = mtt.parameters(model.init(jax.random.key(0), start.x))
    moves = np.concatenate([np.zeros((1, first.size)), rng.normal(size=(epochs, first.size))]).cumsum(0)
    trajectory = jnp.asarray(first)[None] + jnp.asarray(0.05 * moves, first.dtype)
    return model, start, Batch(trajectory[None], jnp.zeros((1, 1)))


def gentle(model, **options):
    return mtt.make(model, **{"strategy": "none", "steps": 3, "expert_epochs": 2, "max_start_epoch": 1} | options)


@pytest.mark.usefixtures("x64")
def test_a_step_by_finite_differences():
    """Pixels and step size; the student trains on the whole set by plain SGD."""
    model, start, batch = parts(np.float64)
    method = gentle(model, learning_rate=2.0, student_lr=0.3, lr_learning_rate=0.01)
    state = method.init(jax.random.key(0), start)
    new, info = jax.jit(method.step)(jax.random.key(1), state, batch)
    unravel = jax.flatten_util.ravel_pytree(model.init(jax.random.key(0), start.x)["params"])[1]
    targets = jnp.argmax(start.y, 1)
    slope_at = jax.jit(
        jax.grad(lambda theta, x: losses.cross_entropy(model.apply({"params": unravel(theta)}, x), targets))
    )

    def value(x, lr):
        gradients = [lambda theta: np.asarray(slope_at(jnp.asarray(theta), jnp.asarray(x)))] * 3
        end = reference.students(batch.x[0, 0], gradients, lr)
        return np.sum((end - batch.x[0, 2]) ** 2) / np.sum((batch.x[0, 0] - batch.x[0, 2]) ** 2)

    np.testing.assert_allclose(info.loss, value(start.x, 0.3), rtol=1e-10)
    assert float(info.student_lr) == 0.3
    direction = np.random.default_rng(3).normal(size=start.x.shape)
    slope = (value(start.x + 1e-5 * direction, 0.3) - value(start.x - 1e-5 * direction, 0.3)) / 2e-5
    np.testing.assert_allclose(-np.vdot(new.x - start.x, direction) / 2.0, slope, rtol=1e-5)
    slope = (value(start.x, 0.3 + 1e-5) - value(start.x, 0.3 - 1e-5)) / 2e-5
    np.testing.assert_allclose((0.3 - new.lr) / 0.01, slope, rtol=1e-6)
    assert method.distilled(new).lr == new.lr


@pytest.mark.usefixtures("x64")
def test_the_student_trains_on_augmented_images():
    """Mirrored images are the same ones where the images are symmetric, and others where they are not."""
    model, start, batch = parts(np.float64)

    def losses_of(strategy, x):
        method = gentle(model, strategy=strategy, student_lr=0.3)
        state, step = method.init(jax.random.key(0), start._replace(x=x)), jax.jit(method.step)
        return np.array([step(jax.random.key(i), state, batch)[1].loss for i in range(6)])

    symmetric = start.x + start.x[:, :, ::-1]
    np.testing.assert_allclose(losses_of("flip", symmetric), losses_of("none", symmetric), rtol=1e-9)
    mirrored, plain = losses_of("flip", start.x), losses_of("none", start.x)
    assert np.abs(mirrored / plain - 1).max() > 1e-3 and len(set(mirrored.round(9))) > 1


@pytest.mark.usefixtures("x64")
def test_an_expert_that_trained_on_the_set_itself_is_met_exactly():
    model, start, _ = parts(np.float64)
    options = {"learning_rate": 0.2, "batch_size": 6, "strategy": "none", "block_size": 4}
    trajectory = mtt.expert(jax.random.key(3), model, start.x, jnp.argmax(start.y, 1), epochs=3, **options)
    assert trajectory.shape[0] == 4
    method = gentle(model, steps=2, student_lr=0.2, max_start_epoch=2)
    state = method.init(jax.random.key(0), start)
    _, info = jax.jit(method.step)(jax.random.key(1), state, Batch(trajectory[None], jnp.zeros((1, 1))))
    assert info.loss < 1e-20


@pytest.mark.parametrize(("size", "steps"), [(4, 5), (2, 6), (3, 4)])
def test_students_see_every_image_once_before_one_comes_again(size, steps):
    rows = mtt._batches(jax.random.key(0), 6, size, steps)
    drawn = [tuple(map(np.asarray, rows(n))) for n in range(steps)]
    parts_of_pass = -(-6 // size)
    for first in range(0, steps - parts_of_pass + 1, parts_of_pass):
        seen = np.concatenate([i[w > 0] for i, w in drawn[first : first + parts_of_pass]])
        assert sorted(seen) == list(range(6))
    assert int(drawn[0][1].sum()) == (6 % size or size)  # the smaller part comes first


def start_epochs(method, model, start, batch, state=None):
    """Start epochs of many draws, told by the loss: epoch ``t`` is far from its target by a factor of its own."""
    state = state or method.init(jax.random.key(0), start)
    found = jax.vmap(lambda key: method.step(key, state, batch)[1].loss)(jax.random.split(jax.random.key(5), 60))
    return {round(float(loss), 4) for loss in found}


@pytest.mark.slow
def test_start_epochs_stay_below_their_bound_and_grow_with_the_curriculum():
    model, start, batch = parts(epochs=5)
    bounded = gentle(model, max_start_epoch=3, student_lr=0.05)
    possible = [
        float(jax.jit(gentle(model, student_lr=0.05).step)(
            jax.random.key(0), bounded.init(jax.random.key(0), start), Batch(batch.x[:, t:], batch.y))[1].loss)
        for t in range(4)
    ]  # fmt: skip
    possible = [round(loss, 4) for loss in possible]
    assert len(set(possible)) == 4
    assert start_epochs(bounded, model, start, batch) == set(possible[:3])
    grown = gentle(model, max_start_epoch=3, student_lr=0.05, curriculum_steps=10)
    state = grown.init(jax.random.key(0), start)
    for count, reached in ((0, 1), (5, 2), (10, 3), (99, 3)):
        at = state._replace(count=jnp.asarray(count))
        assert start_epochs(grown, model, start, batch, at) == set(possible[:reached]), count


@pytest.mark.slow
def test_several_trajectories_are_averaged():
    model, start, batch = parts()
    other = parts()[2]._replace(x=batch.x + 0.3 * batch.x[:, :1])
    method = gentle(model)
    state = method.init(jax.random.key(0), start)
    both = Batch(jnp.concatenate([batch.x, other.x]), jnp.zeros((2, 1)))
    values = [float(method.step(jax.random.key(1), state, some)[1].loss) for some in (batch, other, both)]
    np.testing.assert_allclose(values[2], np.mean(values[:2]), rtol=1e-5)


@pytest.mark.slow
def test_an_expert_starts_fresh_and_its_rate_can_fall():
    model, start, _ = parts()
    classes = jnp.argmax(start.y, 1)
    plain, falling = (
        jax.jit(lambda key, d=d: mtt.expert(key, model, start.x, classes, epochs=3, batch_size=4, decay_epoch=d))(
            jax.random.key(0)
        )
        for d in (0, 2)
    )
    np.testing.assert_array_equal(plain[:3], falling[:3])
    moves = [np.linalg.norm(t[3] - t[2]) for t in (plain, falling)]
    assert 5 < moves[0] / moves[1] < 15
    other = mtt.expert(jax.random.key(1), model, start.x, classes, epochs=1)
    assert not np.allclose(other[0], plain[0])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"strategy": "blur"}, r"crop.*cutout"),
        ({"steps": -1}, "steps is -1"),
        ({"student_lr": 0.0}, "student_lr is 0.0; it must be above 0"),
        ({"max_start_epoch": 0}, "max_start_epoch is 0"),
    ],
)
def test_bad_options(options, words):
    with pytest.raises(checks.InputError, match=words):
        mtt.make(networks.Small(K), **options)


def test_trajectories_that_do_not_fit():
    model, start, batch = parts()
    method = gentle(model, max_start_epoch=4)
    state = method.init(jax.random.key(0), start)
    with pytest.raises(checks.InputError, match=r"trajectories have 4 epochs, and .* needs 5; lower one of them"):
        method.step(jax.random.key(0), state, batch)
    with pytest.raises(checks.InputError, match="of experts of the same architecture"):
        method.step(jax.random.key(0), state, Batch(batch.x[..., 1:], batch.y))
    with pytest.raises(checks.InputError, match="the student has one step size"):
        method.init(jax.random.key(0), start._replace(lr=jnp.ones(3)))
