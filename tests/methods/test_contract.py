"""One table drives every method through everything that a ``Method`` promises."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from kipjax import models
from kipjax.checks import InputError
from kipjax.core import loop
from kipjax.kernels import basic, feature_maps, infinite
from kipjax.methods import METHODS
from kipjax.methods.mtt import parameters
from kipjax.models import network
from kipjax.types import Batch, Distilled, Method
from tests.methods import template
from tests.reference import networks

K, M, B = 3, 6, 12


def families():
    return [basic.rbf(), infinite.fc(1)]


def net():
    return networks.Small(K)


# Step sizes are given: the search for them doubles what there is to compile, and has tests of its own.
STEPS = {"inner_steps": 3, "hessian_steps": 3, "inner_step_size": 1e-3, "hessian_step_size": 1e-2}
GENTLE = {"learning_rate": 1.0, "curriculum_steps": 2}
POOL = {"pool_size": 2, "pool_steps": 2}
VALIDATION = {"validation": Batch(jnp.ones((3, 4, 4, 1)), jnp.eye(3)), "validate_every": 2, "validation_networks": 2}
GTN = {"inner_steps": 2, "latent_size": 3, "hidden": 4, "filters": 2}
CASES = {
    "template": (basic.rbf, {}),
    "kip": (basic.rbf, {}),
    "kip, labels too": (basic.rbf, {"learn_labels": True}),
    "kip, labels alone": (basic.rbf, {"learn_images": False, "learn_labels": True}),
    "kip, decaying rate": (basic.rbf, {"decay_steps": 10}),
    "kip, corrupted": (basic.rbf, {"rho": 0.5}),
    "kip, family": (families, {}),
    "kip, learned kernel": (lambda: lambda p: basic.rbf(p["gamma"]), {"kernel_params": {"gamma": 1.0}}),
    "kip, augmented": (basic.rbf, {"augment": lambda key, x: x + 0.1 * jax.random.normal(key, x.shape)}),
    "label_solve": (basic.rbf, {"block_size": 5}),
    "krr_exact": (basic.linear, {}),
    "krr_exact, noise": (feature_maps.fourier, {"images": "noise", "reg": 1e-6, "root": "smaller"}),
    "coreset": (basic.linear, {}),
    "coreset, k_means": (basic.linear, {"select": "k_means"}),
    "coreset, leverage": (basic.rbf, {"select": "leverage"}),
    "coreset, optimized": (basic.rbf, {"select": "optimized", "draws": 3, "score_size": 5}),
    "network_coreset": (net, {"epochs": 2, "batch_size": 5, "block_size": 5}),
    "vig": (net, {**STEPS, **POOL}),
    "cig": (net, {**STEPS, **POOL}),
    "rcig": (net, POOL),
    "rcig, conjugate gradients": (net, {"solve": "cg", "flip": True, **POOL}),
    "rcig, adam": (net, {"solve": "adam", **STEPS, **POOL}),
    "rcig, a part of the images": (net, {"subsample": 4, "repeats": 2, "block_size": 5, "ema_decay": 0.0, **POOL}),
    "dc": (net, {"outer": 2, "inner": 2, "network_batch_size": 4}),
    "dsa": (lambda: networks.Small(K, norm=True), {"strategy": "flip_crop", "outer": 2, "inner": 1}),
    "dm": (net, {"strategy": "flip_crop"}),
    "mtt": (net, {"steps": 3, "batch_size": 4, "max_start_epoch": 2, "strategy": "flip", **GENTLE}),
    "dd": (net, {"inner_steps": 2, "epochs": 2}),
    "dd, fixed networks": (net, {"inner_steps": 3, "start": "fixed", "networks": 2, "segment": 2, "halve_every": 1}),
    "sldd": (net, {"inner_steps": 1, "label_form": "softmax"}),
    "ld": (net, {"batch_size": 4, "window": 2}),
    "ld, second order": (net, {"form": "second_order", "window": 2}),
    "mnemonics": (net, {"inner_steps": 2, "batches": 2, "networks": 2}),
    "mnemonics, head": (net, {"inner_steps": 2, "level": "head", "optimizer": "adam", "low": -1.0, "high": 1.0}),
    "mnemonics, prototypes": (net, {"level": "prototypes"}),
    "tdd": (net, {"inner_steps": 2, "epochs": 1, "segment": "sqrt"}),
    "gtn": (net, GTN),
    "gtn, shuffled": (net, {**GTN, "curriculum": "all_shuffled", "every": 0, "learn_labels": True, "segment": 0}),
    "frepo": (net, {"pool_size": 2, "reg": 1e-2}),  # at 1e-6, float32 features of rank 5 have no steady gradient
    "rfad": (net, {"networks": 2, "learn_labels": True}),
    "rfad, validated": (net, {"networks": 2, **VALIDATION}),
}


def flat_batch(key, model):
    return Batch(jax.random.normal(key, (B, 4, 4, 1)), jnp.eye(K)[jnp.arange(B) % K] - 1 / K)


def by_class(key, model):
    y = jnp.repeat(jnp.eye(K)[:, None] - 1 / K, 5, axis=1)
    return Batch(jax.random.normal(key, (K, 5, 4, 4, 1)), y.at[0, -1].set(0.0))


def trajectory(key, model):
    first = parameters(network.init(model, key, jnp.ones((1, 4, 4, 1))))
    return Batch((first + 0.1 * jnp.arange(4)[:, None] * jax.random.normal(key, first.shape))[None], jnp.zeros((1, 1)))


BATCHES = {"dc": by_class, "dsa": by_class, "dm": by_class, "mtt": trajectory}

# Operation by operation, and compiled again for each transformation, a step takes long; these stand for all kinds at
# first, and the others are put through the transformations by the slow tests, which take variants of a method too.
FIRST = {"template", "kip", "label_solve", "krr_exact", "coreset", "dm"}
EAGER = FIRST | {"frepo", "rcig", "dd"}
# Entries whose gradient is zero but for rounding move by the learning rate either way under LAMB.
TOLERANCE = {"frepo": 2e-3}


def test_every_method_has_a_case():
    assert {name.split(",")[0] for name in CASES} == {*METHODS, "template"}


@functools.cache
def case(name):
    first, options = CASES[name]
    differentiates = first()
    method = (METHODS | {"template": template.make})[name.split(",")[0]](differentiates, **options)
    keys = jax.random.split(jax.random.key(0), 3)
    start = Distilled(jax.random.normal(keys[0], (M, 4, 4, 1)), jnp.eye(K)[jnp.arange(M) % K] - 1 / K)
    batch = BATCHES.get(name.split(",")[0], flat_batch)(keys[1], differentiates)
    traces = []

    @jax.jit
    def step(key, state, batch):  # one compilation for all tests of a case
        traces.append(1)
        return method.step(key, state, batch)

    return Parts(
        method,
        start,
        batch,
        jax.jit(method.init)(keys[2], start),
        step,
        traces,
        TOLERANCE.get(name, 1e-4),
    )


class Parts(NamedTuple):
    """A method, what it starts from and sees, and its compiled step with the number of times it was traced."""

    method: Method
    start: Distilled
    batch: Batch
    state: Any
    step: Callable
    traces: list
    tolerance: float


def close(parts, a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=parts.tolerance, atol=parts.tolerance), a, b)


def slow_but(names, quick):
    return [pytest.param(name, marks=[] if name in quick else [pytest.mark.slow], id=name) for name in names]


@pytest.fixture(params=slow_but(CASES, {name for name in CASES if "," not in name}))
def parts(request):
    return case(request.param)


TRANSFORMED = slow_but(CASES, FIRST)


def test_step_keeps_structure_shapes_and_dtypes(parts):
    method, start, batch, state = parts[:4]
    new, info = parts.step(jax.random.key(1), state, batch)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    assert [(x.shape, x.dtype) for x in jax.tree.leaves(new)] == [(x.shape, x.dtype) for x in jax.tree.leaves(state)]
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(info))
    made = method.distilled(new)
    assert isinstance(made, Distilled)
    assert made.x.shape == start.x.shape and made.y.shape == start.y.shape
    assert made.x.dtype == start.x.dtype and made.y.dtype == start.y.dtype


MIXED = [("float32", "float64", "float32", "float64"), ("float32", "float32", "float64", "float32")]


@pytest.mark.parametrize(
    ("name", "types"), [(name, MIXED[0]) for name in CASES] + [(name, MIXED[1]) for name in sorted(FIRST)]
)
def test_a_state_has_one_type_whatever_the_inputs_have(name, types, x64):
    """Where 64-bit types are on images often come in 32 bits and labels in 64, and targets in others again."""
    first, options = CASES[name]
    wide = types[1]
    method = (METHODS | {"template": template.make})[name.split(",")[0]](first(), **options)
    x_s, y_s, x_t, y_t = (np.dtype(word) for word in types)
    start = Distilled(jax.ShapeDtypeStruct((M, 4, 4, 1), x_s), jax.ShapeDtypeStruct((M, K), y_s))
    batch = jax.eval_shape(lambda: BATCHES.get(name.split(",")[0], flat_batch)(jax.random.key(0), first()))
    batch = Batch(*(jax.ShapeDtypeStruct(leaf.shape, t) for leaf, t in zip(batch, (x_t, y_t))))
    state = jax.eval_shape(method.init, jax.random.key(0), start)
    after, _ = jax.eval_shape(method.step, jax.random.key(0), state, batch)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), after) == jax.tree.map(lambda a: (a.shape, a.dtype), state)
    made = jax.eval_shape(method.distilled, after)
    assert made.x.dtype == made.y.dtype == wide


UNFIT = {
    "y has shape .*; expected .points, classes.": lambda start, batch: (start._replace(y=start.y[:, 0]), batch),
    "the set is empty": lambda start, batch: (Distilled(start.x[:0], start.y[:0]), batch),
    "y_s has 3 columns and y_t has 2": lambda start, batch: (start, batch._replace(y=batch.y[:, :2])),
    "x_s has examples of shape .4, 4, 1. and x_t of shape .5, 4, 1.": lambda start, batch: (
        start,
        batch._replace(x=jnp.ones((B, 5, 4, 1))),
    ),
    "both need the same number of rows": lambda start, batch: (start, batch._replace(x=batch.x[1:])),
    "the batch is empty": lambda start, batch: (start, Batch(batch.x[:0], batch.y[:0])),
}


@pytest.mark.parametrize("words", UNFIT, ids=range(len(UNFIT)))
@pytest.mark.parametrize("name", ["kip", "label_solve", "krr_exact", "coreset", "frepo", "rfad", "dd"])
def test_inputs_that_do_not_fit_are_named(name, words):
    first, options = CASES[name]
    method = METHODS[name](first(), **options)
    start, batch = Distilled(jnp.ones((M, 4, 4, 1)), jnp.eye(K)[jnp.arange(M) % K]), flat_batch(jax.random.key(0), None)
    start, batch = UNFIT[words](start, batch)
    with pytest.raises(InputError, match=words):
        state = jax.eval_shape(method.init, jax.random.key(0), start)
        jax.eval_shape(method.step, jax.random.key(0), state, batch)


@pytest.mark.parametrize("name", ["vig", "cig", "rcig", "frepo"])
def test_networks_that_do_not_fit_are_named(name):
    start = Distilled(jnp.ones((M, 4, 4, 1)), jnp.eye(K)[jnp.arange(M) % K])
    wide = METHODS[name](networks.Small(K + 1), pool_size=1)
    with pytest.raises(InputError, match=f"the model has 4 outputs and the labels 3 columns; .* num_classes={K}"):
        jax.eval_shape(wide.init, jax.random.key(0), start)
    cosine = METHODS[name](models.get("mlp", num_classes=K, width=4, classifier="cosine"), pool_size=1)
    with pytest.raises(InputError, match="the last layer of MLP has scale besides kernel and bias"):
        jax.eval_shape(cosine.init, jax.random.key(0), start)


def test_step_is_pure(parts):
    _, _, batch, state = parts[:4]
    before = jax.tree.map(np.array, state)
    key = jax.random.key(1)
    once, twice = (parts.step(key, state, batch) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, once, twice)
    jax.tree.map(np.testing.assert_array_equal, before, jax.tree.map(np.array, state))


@pytest.mark.parametrize("parts", slow_but(sorted(EAGER), FIRST - {"krr_exact"}), indirect=True)
def test_step_agrees_under_jit(parts):
    method, _, batch, state = parts[:4]
    close(parts, method.step(jax.random.key(1), state, batch), parts.step(jax.random.key(1), state, batch))


def test_second_call_does_not_recompile(parts):
    _, _, batch, state = parts[:4]
    for i in range(3):
        state, _ = parts.step(jax.random.key(i), state, batch)
    assert len(parts.traces) == 1


def test_step_goes_into_a_scan(parts):
    """Traced, not compiled: the state goes round unchanged in kind, and every step reports."""
    method, _, batch, state = parts[:4]
    run = functools.partial(loop.steps(method, 3), lambda key: batch)
    scanned, infos = jax.eval_shape(run, jax.random.key(5), state, 0)
    assert jax.tree.structure(scanned) == jax.tree.structure(state)
    assert [(x.shape, x.dtype) for x in jax.tree.leaves(scanned)] == [
        (x.shape, x.dtype) for x in jax.tree.leaves(state)
    ]
    assert all(len(leaf) == 3 for leaf in jax.tree.leaves(infos))


@pytest.mark.parametrize("parts", TRANSFORMED, indirect=True)
def test_step_under_scan_equals_a_loop(parts):
    method, _, batch, state = parts[:4]
    run = jax.jit(functools.partial(loop.steps(method, 3), lambda key: batch))
    scanned, _ = run(jax.random.key(5), state, 0)
    for i in range(3):
        state, _ = parts.step(loop.step_keys(jax.random.key(5), i)[1], state, batch)
    close(parts, scanned, state)


@pytest.mark.parametrize("parts", TRANSFORMED, indirect=True)
def test_many_seeds_under_vmap(parts):
    method, start, batch, _ = parts[:4]
    init_keys, keys = jax.random.split(jax.random.key(2), 2), jax.random.split(jax.random.key(3), 2)
    states = jax.vmap(method.init, in_axes=(0, None))(init_keys, start)
    many, _ = jax.jit(jax.vmap(method.step, in_axes=(0, 0, None)))(keys, states, batch)
    one, _ = parts.step(keys[1], method.init(init_keys[1], start), batch)
    close(parts, jax.tree.map(lambda leaf: leaf[1], many), one)


@pytest.mark.parametrize("parts", TRANSFORMED, indirect=True)
@pytest.mark.skipif(jax.device_count() < 2, reason="needs two devices; tests force four CPU devices")
def test_replicated_on_two_devices_by_pmap_and_shard_map(parts):
    method, _, batch, state = parts[:4]
    key = jax.random.key(1)
    expected = parts.step(key, state, batch)
    twice = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), (state, batch))
    mapped = jax.pmap(lambda s, b: method.step(key, s, b), devices=jax.devices()[:2])(*twice)
    close(parts, jax.tree.map(lambda leaf: leaf[1], mapped), expected)

    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), "devices")
    spec = jax.sharding.PartitionSpec()
    sharded = jax.shard_map(
        lambda s, b: method.step(key, s, b), mesh=mesh, in_specs=(spec, spec), out_specs=spec, check_vma=False
    )
    close(parts, jax.jit(sharded)(state, batch), expected)
