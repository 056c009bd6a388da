"""Targets on the host, on disk or divided over devices: the batches, steps and labels of targets on one device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kipjax import checks
from kipjax.core import loop, sharding
from kipjax.data import preprocess, samplers, streaming
from kipjax.kernels import basic
from kipjax.methods import kip, label_solve
from kipjax.types import Distilled

N, K = 42, 3
LABELS = np.repeat(np.arange(K), [12, 10, 20])[np.random.default_rng(0).permutation(N)]
PIXELS = np.random.default_rng(1).integers(0, 255, (N, 2, 3, 1)).astype(np.uint8)
Y = (np.eye(K) - 1 / K)[LABELS].astype(np.float32)
CLASSES = {"labels": LABELS, "num_classes": K}
KINDS = {
    "uniform": lambda x: samplers.uniform(x, Y, batch_size=12),
    "class_balanced": lambda x: samplers.class_balanced(x, Y, batch_size=12, **CLASSES),
    "per_class": lambda x: samplers.per_class(x, Y, batch_size=4, **CLASSES),
    "filled": lambda x: samplers.per_class(x, Y, batch_size=16, fill=True, **CLASSES),
    "whole": lambda x: samplers.uniform(x, Y, batch_size=N),
}
four = pytest.mark.skipif(jax.device_count() < 4, reason="needs four devices; tests force four CPU devices")


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def places(kind):
    """The sampler with examples on the device, on the host and divided over four devices."""
    numbers = kind(np.arange(N))
    yield kind(PIXELS)
    yield streaming.streamed(numbers, PIXELS)
    yield streaming.divided(numbers, PIXELS, None)
    if jax.device_count() >= 4:
        yield streaming.divided(numbers, PIXELS, sharding.mesh(4))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_batches_are_those_of_a_data_set_on_the_device(kind):
    on_device, *others = (jax.jit(lambda key, sample=sample: sample(key)) for sample in places(kind))
    for seed in range(3):
        for sample in others:
            same(sample(jax.random.key(seed)), on_device(jax.random.key(seed)))


def test_rows_on_disk_are_read_when_asked_for(tmp_path):
    np.save(tmp_path / "x.npy", PIXELS)
    x, read = np.load(tmp_path / "x.npy", mmap_mode="r"), []

    class Recorded:
        shape, dtype = x.shape, x.dtype

        def __getitem__(self, rows):
            read.append(np.asarray(rows))
            return x[rows]

    kind = KINDS["class_balanced"]
    sample = streaming.streamed(kind(np.arange(N)), Recorded())
    same(sample(jax.random.key(0)), kind(PIXELS)(jax.random.key(0)))
    assert [rows.shape for rows in read] == [(12,)]


def start(m=6, seed=0):
    x = np.random.default_rng(seed).normal(size=(m, 2, 3, 1))
    return Distilled(jnp.asarray(x, jnp.float32), jnp.asarray(np.resize(Y, (m, K))))


def problem(many):
    """KIP with pixels preprocessed on the device, its first state, and the key; or those of two seeds."""
    method, pre = kip.make(basic.rbf()), preprocess.standardize(PIXELS)
    key, state = jax.random.key(5), method.init(jax.random.key(0), start())
    if many:
        key, state = jax.random.split(key), jax.tree.map(lambda a: jnp.stack([a, 2 * a]), state)
    return method, pre, key, state


@pytest.mark.parametrize("many", [False, True])
def test_steps_with_targets_on_the_host_are_the_compiled_ones(many):
    method, pre, key, state = problem(many)
    kind = KINDS["class_balanced"]
    run = loop.steps(method, 5)
    run = jax.jit(jax.vmap(run, (None, 0, 0, None)) if many else run)
    expected = run(kind(preprocess.apply(pre, PIXELS)), key, state, 3)
    sample = streaming.streamed(kind(np.arange(N)), PIXELS, jax.tree_util.Partial(preprocess.apply, pre))
    found = loop.streamed(method, 5)(sample, key, state, 3)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), found, expected)


@four
def test_the_host_serves_four_devices_and_each_takes_its_part():
    method, pre, key, state = problem(False)
    over, kind = sharding.mesh(4), KINDS["class_balanced"]
    sample = streaming.streamed(kind(np.arange(N)), PIXELS, jax.tree_util.Partial(preprocess.apply, pre))
    expected = loop.streamed(method, 3)(sample, key, jax.tree.map(jnp.array, state), 0)
    programs = []
    run = loop.streamed(method, 3, over, inspect=programs.append)
    spread = streaming.Streamed(sharding.on_every_device(sample.numbers, over), sample.x, sample.transform)
    found = run(spread, *sharding.on_every_device((key, state), over), 0)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), found, expected)
    placed = sharding.rows_from_host(PIXELS, np.arange(12), over)
    assert [shard.data.shape[0] for shard in placed.addressable_shards] == [3] * 4
    assert len(programs) == 1 and "all-reduce" in programs[0].as_text()  # the sums over the devices' targets
    filled = sharding.rows_from_host(PIXELS, np.arange(6).reshape(1, 6), over)
    assert filled.shape == (1, 8, *PIXELS.shape[1:]) and {s.data.shape[1] for s in filled.addressable_shards} == {2}
    np.testing.assert_array_equal(filled[:, :6], PIXELS[None, :6])


@four
@pytest.mark.parametrize("shape", [(12,), (3, 4), (10,)])
def test_of_a_batch_of_divided_rows_each_device_gets_its_part_alone(shape):
    over, wanted = sharding.mesh(4), np.random.default_rng(3).integers(0, N, shape)
    rows = sharding.divide_rows(PIXELS, over)
    found = jax.jit(rows.take)(wanted)
    np.testing.assert_array_equal(found, PIXELS[wanted])
    program = jax.jit(lambda rows, i: rows.take(i)).lower(rows, wanted).compile().as_text()
    assert "reduce-scatter" in program
    if shape[-1] % 4 == 0:
        assert "all-reduce" not in program and "all-gather" not in program
        parts = {shard.data.shape[: len(shape)] for shard in found.addressable_shards}
        assert parts == {(*shape[:-1], shape[-1] // 4)}


def test_what_the_device_holds_does_not_grow_with_the_data_set():
    found = []
    for n in (300, 30_000):
        x, y = np.zeros((n, 64), np.uint8), np.zeros((n, K), np.float32)
        method = kip.make(basic.rbf())
        begin = Distilled(jnp.ones((6, 64)), jnp.asarray(Y[:6]))
        sample = streaming.streamed(samplers.uniform(np.arange(n), y, batch_size=20), x)
        programs = []
        loop.streamed(method, 1, inspect=programs.append)(sample, jax.random.key(0), method.init(None, begin), 0)
        plan = programs[0].memory_analysis()
        tables = n * 4 * (1 + K)  # row numbers and targets
        found.append(plan.argument_size_in_bytes + plan.temp_size_in_bytes - tables)
    assert found[1] < found[0] + 1000


@four
def test_of_a_divided_data_set_each_device_holds_its_part_and_no_more():
    n, over = 30_001, sharding.mesh(4)
    x, y = np.random.default_rng(0).random((n, 64), np.float32), np.zeros((n, K), np.float32)
    rows = sharding.divide_rows(x, over)
    assert len(rows) == n and [s.data.shape for s in rows.parts.addressable_shards] == [(7501, 64)] * 4
    wanted = np.array([0, 7500, 7501, n - 1, 5])
    np.testing.assert_array_equal(jax.jit(rows.take)(wanted), x[wanted])
    sample = streaming.divided(samplers.uniform(np.arange(n), y, batch_size=20), x, over)
    draw = jax.jit(lambda sample, key: sharding.data_parallel(sample, over)(key).x.sum())
    plan = draw.lower(sample, jax.random.key(0)).compile().memory_analysis()
    assert plan.argument_size_in_bytes < x.nbytes / 4 + 4 * n * (1 + K) + 10_000
    assert plan.temp_size_in_bytes < x.nbytes / 50


def test_in_order_each_row_comes_once_and_then_again():
    sample = streaming.in_order(np.arange(N), Y, batch_size=14)
    rows = [np.asarray(jax.jit(sample.at)(step).x) for step in range(6)]
    np.testing.assert_array_equal(np.concatenate(rows), np.tile(np.arange(N), 2))
    with pytest.raises(checks.InputError, match="does not divide the 42 rows; 7 would"):
        streaming.in_order(np.arange(N), Y, batch_size=12)
    with pytest.raises(checks.InputError, match=r"call \.at"):
        sample(jax.random.key(0))


@pytest.mark.parametrize("place", ["device", "host", "divided"])
def test_label_solve_adds_up_over_batches_what_it_solves_at_once(place):
    """In a float32 process, with a ridge that only float64 sums can serve."""
    x = np.asarray(preprocess.apply(preprocess.standardize(PIXELS), PIXELS))
    whole = label_solve.make(basic.rbf())
    expected, info = whole.step(None, whole.init(None, start()), samplers.uniform(x, Y, batch_size=N)(None))
    method = label_solve.make(basic.rbf(), accumulate=6, block_size=4)
    state, key = method.init(None, start()), jax.random.key(0)
    if place == "host":
        sample = streaming.streamed(streaming.in_order(np.arange(N), Y, batch_size=7), x)
        found, infos = loop.streamed(method, 6)(sample, key, state, 0)
    else:
        sample = streaming.in_order(x, Y, batch_size=7)
        if place == "divided":
            sample = streaming.divided(streaming.in_order(np.arange(N), Y, batch_size=7), x, None)
        found, infos = jax.jit(loop.steps(method, 6))(sample, key, state, 0)
    np.testing.assert_allclose(found.y, expected.y, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose([infos.start_loss[-1], infos.loss[-1]], [info.start_loss, info.loss], rtol=1e-5)
    same(infos.loss[:-1], infos.start_loss[:-1])  # labels stay until all targets were seen
    again, _ = jax.jit(loop.steps(method, 6))(streaming.in_order(x, Y, batch_size=7), key, found, 6)
    np.testing.assert_allclose(again.y, expected.y, rtol=1e-5, atol=1e-6)  # a second round starts from nothing


def test_preprocessed_images_are_those_of_all_at_once():
    pre = preprocess.zca(PIXELS)
    expected, lazily = np.asarray(preprocess.apply(pre, PIXELS)), streaming.Preprocessed(pre, PIXELS)
    assert lazily.shape == expected.shape and lazily.dtype == expected.dtype and len(lazily) == N and lazily.ndim == 4
    for rows in (3, slice(2, 9), np.array([5, 1, 1]), np.arange(N) % 2 == 0):
        np.testing.assert_allclose(lazily[rows], expected[rows], atol=2e-5)
    np.testing.assert_allclose(np.asarray(lazily), expected, atol=2e-5)


def test_what_is_no_array_of_examples_is_refused():
    numbers = KINDS["uniform"](np.arange(N))
    for make in (streaming.streamed, lambda numbers, x: streaming.divided(numbers, x, None)):
        with pytest.raises(checks.InputError, match=r"x is list; expected an array \[n, ...\]"):
            make(numbers, [[1.0]])
    with pytest.raises(checks.InputError, match="numbers is 3; expected a sampler"):
        streaming.streamed(3, PIXELS)
