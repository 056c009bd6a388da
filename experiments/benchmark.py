"""Speed, as ratios taken in one run on one machine.

python -m experiments.benchmark [--only=kip,driver,import] [--out=benchmark.json]

A row of times runs two programs in turn, a b a b ..., and reports the median of the pairwise ratios, so that a machine
whose speed drifts does not decide the result. A row of memory compares what the compiler plans for both programs. A row
of a bound compares a time with the least that this machine could take. Nothing here is a test.
"""

import contextlib
import functools
import io
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags

from configs import common
from configs.dc import images as dc_config
from configs.dm import images as dm_config
from configs.dsa import images as dsa_config
from configs.kip import fashion_mnist
from configs.krr_exact import fashion_mnist as exact_config
from configs.rcig import fashion_mnist as rcig_config
from experiments import build, cli, trainer
from kipjax import checks, models
from kipjax.core import loop, losses
from kipjax.io import log
from kipjax.kernels import infinite, relu
from kipjax.methods import dc, dd
from kipjax.models import network
from kipjax.types import Batch, Distilled

FLAGS = flags.FLAGS
flags.DEFINE_list("only", [], "Rows to run, by name; all unless given.")
flags.DEFINE_integer("pairs", 5, "Pairs of timings per row.", lower_bound=1)
flags.DEFINE_integer("steps", 20, "Training steps per timing.", lower_bound=1)
flags.DEFINE_string("out", None, "Also write the rows to this JSON file.")


class Row(NamedTuple):
    """Ours and what it is compared with, in ``unit``, and the pairwise ratio ours / other."""

    name: str
    unit: str
    ours: float
    other: float
    ratio: float
    smallest_ratio: float
    largest_ratio: float
    aim: str


def main() -> None:
    unknown = [name for name in FLAGS.only if name not in ROWS]
    checks.require(not unknown, "--only", f"{', '.join(unknown)} unknown; choose from {', '.join(ROWS)}")
    machine = {"device": jax.devices()[0].device_kind, "cores": os.cpu_count(), "jax": jax.__version__}
    machine |= {"python": platform.python_version(), "system": platform.platform()}
    print("  ".join(f"{name} {value}" for name, value in machine.items()))
    rows = []
    for name in FLAGS.only or ROWS:
        rows.append(ROWS[name]())
        r = rows[-1]
        spread = f"({r.smallest_ratio:.3f}..{r.largest_ratio:.3f})"
        print(f"{r.name:<66} {r.ours:9.3f} {r.other:9.3f} {r.unit:<9} ratio {r.ratio:.3f} {spread}  {r.aim}")
    if FLAGS.out:
        log.write_json(FLAGS.out, {"machine": machine, "rows": rows})


def kip_against_the_notebooks_loop() -> Row:
    """KIP FC1, 100 images, 6000 targets: the compiled loop against float64 with one dispatch and host batch a step."""
    config = _config(images_per_class=10)
    experiment = build.experiment(config)
    ours = _scanned(experiment, FLAGS.steps)
    return _compare(
        "KIP step, FC1, 100 images, 6000 targets / notebook loop",
        "ms/step",
        ours,
        _notebook(config, experiment),
        "<= 0.333",
    )


def driver_overhead() -> Row:
    """A whole ``trainer.train`` (metrics, progress, checkpoint) against its compiled program called in a bare loop."""
    config = _config(images_per_class=1)
    config.steps, config.log_every, config.eval_every, config.checkpoint_every = 1000, 100, 0, 1000
    experiment = build.experiment(config)
    chunk = functools.cache(lambda count: trainer.compiled(config, experiment, count))

    def driver():
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            began = time.perf_counter()
            trainer.train(config, experiment, folder, resume=False, chunk=chunk)
            return (time.perf_counter() - began) / config.steps

    def bare():
        began = time.perf_counter()
        state = experiment.method.init(jax.random.key(0), experiment.start)
        for step in range(0, config.steps, config.log_every):
            state, _ = chunk(config.log_every)(experiment.sample, jax.random.key(1), state, jnp.asarray(step))
        jax.block_until_ready(state)
        return (time.perf_counter() - began) / config.steps

    return _compare("driver / its compiled steps, FC1, 10 images, 6000 targets", "ms/step", driver, bare, "<= 1.05")


def conv_pool_kernel() -> Row:
    """The tiled engine against neural_tangents: 10 x 20 images of 28 x 28, two conv, ReLU, pool layers."""
    return _engines("kernel, conv+pool, 2 layers, tiled / neural-tangents", "<= 0.125", _POOL)


def conv_pool_gradient() -> Row:
    """The same with the gradient with respect to both inputs."""
    return _engines("value and gradient, conv+pool, tiled / neural-tangents", "<= 0.2", _POOL, gradient=True)


def conv_pool_memory() -> Row:
    """Peak memory of both programs for the kernel."""
    return _engines_memory("memory, kernel, conv+pool, tiled / neural-tangents", _POOL)


def conv_pool_gradient_memory() -> Row:
    """Peak memory of both programs for value and gradient."""
    return _engines_memory("memory, value and gradient, conv+pool, tiled / neural-tangents", _POOL, gradient=True)


def conv_kernel() -> Row:
    """Without pooling, three layers, 10 x 500 images."""
    return _engines("kernel, conv, 3 layers, tiled / neural-tangents", "<= 1", _PLAIN)


def conv_gradient() -> Row:
    """The same with the gradient with respect to both inputs."""
    return _engines("value and gradient, conv, 3 layers, tiled / neural-tangents", "<= 1", _PLAIN, gradient=True)


def conv_pool_bound() -> Row:
    """The tiled engine against the floating-point operations that a pair needs at this machine's fastest."""
    return _bound("kernel, conv+pool, 2 layers, tiled / bound by operations", _POOL)


def conv_bound() -> Row:
    """The same without pooling."""
    return _bound("kernel, conv, 3 layers, tiled / bound by operations", _PLAIN)


_POOL = {"depth": 2, "pool": True}
_PLAIN = {"depth": 3}


def _images(network):
    """Two batches of images of 28 x 28 to compare the engines on."""
    sizes = (10, 20 if "pool" in network else 500)
    return [jax.random.normal(jax.random.key(n), (n, 28, 28, 1)) for n in sizes]


def _program(network, backend, gradient=False):
    """A kernel matrix, or the sum of its entries with the gradient with respect to both inputs."""
    kernel_fn = infinite.conv(**network, backend=backend)
    return jax.jit(jax.value_and_grad(lambda a, b: kernel_fn(a, b).sum(), (0, 1)) if gradient else kernel_fn)


def _timed(program, x1, x2):
    """Seconds per pair of images."""

    def run():
        began = time.perf_counter()
        jax.block_until_ready(program(x1, x2))
        return (time.perf_counter() - began) / (len(x1) * len(x2))

    return run


def _engines(name, aim, network, gradient=False) -> Row:
    inputs = _images(network)
    ours, other = (_timed(_program(network, backend, gradient), *inputs) for backend in ("tiled", "neural_tangents"))
    return _compare(name, "ms/pair", ours, other, aim)


def _engines_memory(name, network, gradient=False) -> Row:
    def megabytes(backend):
        plan = _program(network, backend, gradient).lower(*_images(network)).compile().memory_analysis()
        return (plan.argument_size_in_bytes + plan.output_size_in_bytes + plan.temp_size_in_bytes) / 1e6

    ours, other = megabytes("tiled"), megabytes("neural_tangents")
    return Row(name, "MB", ours, other, *(ours / other,) * 3, "<= 0.1")


def _bound(name, network) -> Row:
    """Of the least time: no memory traffic but the inputs', and every operation a fused multiply-add of all cores."""
    least = _least_time(_operations(network))
    return _compare(name, "ms/pair", _timed(_program(network, "tiled"), *_images(network)), least, "reported")


def _least_time(operations):
    """``() -> seconds`` for so many floating-point operations at the speed of a matrix product, measured anew."""
    matrix = jax.random.normal(jax.random.key(0), (2048, 2048))
    product = jax.jit(lambda a: jnp.matmul(a, a, precision=jax.lax.Precision.HIGHEST))

    def run():
        began = time.perf_counter()
        jax.block_until_ready(product(matrix))
        return operations * (time.perf_counter() - began) / (2 * 2048**3)

    return run


def _operations(network, size=28) -> float:
    """Floating-point operations of one pair of images of one channel, NTK: shifts, affine maps, ReLU, pooling."""
    ones = jnp.ones(1000)
    cost = jax.jit(relu.moments).lower(ones, ones).compile().cost_analysis()
    per_relu = (cost["flops"] + cost.get("transcendentals", 0)) / 1000 + 2  # the product of variances, and times NTK
    total, pixels = 0.0, size**2
    for layer in range(network["depth"]):
        entries = pixels**2 if "pool" in network else pixels
        states = 1 if layer == 0 else 2  # the first layer's covariance is all there is
        total += entries * (states * 6 + 3 + per_relu)
        if "pool" in network:
            total += 2 * entries
            pixels //= 4
    return total


def _outer_steps(solve, width, aim) -> Row:
    """RCIG with an exact solver against 20 + 20 Adam steps, whose step sizes are found before the timing."""

    def steps(solve):
        config = rcig_config.get_config("cpu")
        config.model.width = width
        config.method.solve = solve
        return _scanned(build.experiment(config), max(1, FLAGS.steps // 10))

    name = f"RCIG outer step, width {width}, 10 images, 256 targets, {solve} / adam"
    return _compare(name, "ms/step", steps(solve), steps("adam"), aim)


def _exact(ipc, features="leaky_net", kip_steps=30_000) -> Row:
    """Exact distillation against KIP on the same features, whose time is that of its steps times those of the paper.

    5000 targets a step as in the authors' program, which besides solves labels for the whole training set at each.
    """
    config = exact_config.get_config()
    config.kernel = {"name": features}
    config.init.ipc = ipc
    exact = build.experiment(config)
    config.method = common.method("kip", learning_rate=0.01)
    config.batch.update(kind="class_balanced", size=5000)
    step = _scanned(build.experiment(config), max(1, FLAGS.steps // 10))
    name = f"exact distillation, {features}, {ipc} a class / {kip_steps} KIP steps at the measured rate"
    return _compare(name, "ms", _scanned(exact, 1), lambda: kip_steps * step(), "reported")


def _matching(name, config, ipc, steps, aim) -> Row:
    """An iteration of the paper (``steps`` steps of the method) against the arithmetic that it cannot avoid."""
    config = config.get_config(str(ipc))
    experiment = build.experiment(config)
    timed = _scanned(experiment, steps)
    operations = _matching_operations(name, config, experiment, steps)
    text = f"{name.upper()} iteration, width {config.model.width}, {ipc} a class / {operations / 1e9:.0f} GFLOP"
    return _compare(text, "ms", lambda: steps * timed(), _least_time(operations), aim)


def _matching_operations(name, config, experiment, steps) -> float:
    """Floating-point operations of the convolutions and the last layer; a gradient has no use for that of the images.

    Per image, with the forward pass as unit: DM takes one for real images and two for synthetic ones; a gradient in the
    parameters takes three (the first layer two); its derivative in the images four more (three). The other work is
    linear in the size of the maps.
    """
    images, k = experiment.start.x, experiment.task.num_classes
    side, width, channels = images.shape[1], config.model.width, images.shape[3]
    side = side + 4 if channels == 1 else side
    first = 2 * side**2 * 9 * channels * width
    rest = sum(2 * (side // 2**i) ** 2 * 9 * width**2 for i in (1, 2)) + 2 * (side // 8) ** 2 * width * k
    real, synthetic = k * config.batch.size, len(images)
    if name == "dm":
        return steps * (real + 2 * synthetic) * (first + rest)
    gradient, second = 2 * first + 3 * rest, 5 * first + 7 * rest
    outer, inner = dc.loops(config.init.ipc)
    trained = steps * (outer - 1) / outer * inner * synthetic  # images in the network's training
    return (steps * real + trained) * gradient + steps * synthetic * second


def unrolled_time(steps: int) -> Row:
    """A step of the gradient through ``steps`` inner steps, inside scan, against one step's gradient outside."""
    outer, one = _unrolled(steps, 0), _single_step()
    return _compare(
        f"unrolled DD, T = {steps}, gradient / T gradients of one step", "ms/step",
        lambda: outer() / steps, one, "about 1",
    )  # fmt: skip


def unrolled_memory(steps: int) -> Row:
    """Peak memory as the compiler plans it, rematerialised by segments of sqrt(T) steps against keeping all."""
    ours, other = (_unrolled_plan(steps, segment) for segment in ("sqrt", 0))
    name = f"memory, unrolled DD, T = {steps}, segments of sqrt(T) / all kept"
    return Row(name, "MB", ours, other, *(ours / other,) * 3, "reported")


def rematerialised_time(steps: int) -> Row:
    """The time that the segments cost."""
    name = f"unrolled DD, T = {steps}, segments of sqrt(T) / all kept"
    return _compare(name, "ms", _unrolled(steps, "sqrt"), _unrolled(steps, 0), "< 2")


def _problem(steps):
    """A ConvNet of width 32, ten images of 28x28 a step, 100 real ones."""
    model = models.get("convnet", num_classes=10, width=32, depth=3, norm="none")
    x, y = jax.random.normal(jax.random.key(0), (110, 28, 28, 1)), jnp.eye(10)[jnp.arange(110) % 10]
    variables = jax.jit(lambda: network.init(model, jax.random.key(1), x))()
    made = Distilled(x[:10], y[:10], jnp.full(steps, 0.01))
    return model, variables, made, Batch(x[10:], y[10:])


def _unrolled_program(steps, segment):
    model, variables, made, batch = _problem(steps)

    def loss(made):
        return dd.outer_loss(model, variables, made, batch, inner_steps=1, segment=segment)[0]

    return jax.jit(jax.grad(loss)), made


def _unrolled(steps, segment):
    """Seconds for a gradient through the whole training."""
    program, made = _unrolled_program(steps, segment)

    def run():
        began = time.perf_counter()
        jax.block_until_ready(program(made))
        return time.perf_counter() - began

    return run


def _unrolled_plan(steps, segment):
    program, made = _unrolled_program(steps, segment)
    return program.lower(made).compile().memory_analysis().temp_size_in_bytes / 1e6


def _single_step():
    """Seconds for the same work of one step outside any loop: the update, and the product with its Jacobian."""
    model, variables, made, _ = _problem(1)

    def update(params, x):
        def loss(params):
            logits = network.train_forward(model, {"params": params}, x)[0]
            return losses.cross_entropy(logits, made.y)

        return jax.tree.map(lambda p, g: p - 0.01 * g, params, jax.grad(loss)(params))

    @jax.jit
    def both(params, x, cotangent):
        new, pull = jax.vjp(update, params, x)
        return new, pull(cotangent)

    def run():
        began = time.perf_counter()
        jax.block_until_ready(both(variables["params"], made.x, variables["params"]))
        return time.perf_counter() - began

    return run


def import_time() -> Row:
    """``import kipjax`` against ``import jax``, each timed inside a fresh interpreter."""

    def timed(module):
        code = f"import time; began = time.perf_counter(); import {module}; print(time.perf_counter() - began)"
        return lambda: float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)

    return _compare("import kipjax / import jax", "ms/import", timed("kipjax"), timed("jax"), "< 1500 ms")


ROWS: dict[str, Callable[[], Row]] = {
    "kip": kip_against_the_notebooks_loop,
    "driver": driver_overhead,
    "conv_pool": conv_pool_kernel,
    "conv_pool_gradient": conv_pool_gradient,
    "conv_pool_memory": conv_pool_memory,
    "conv_pool_gradient_memory": conv_pool_gradient_memory,
    "conv_pool_bound": conv_pool_bound,
    "conv": conv_kernel,
    "conv_gradient": conv_gradient,
    "conv_bound": conv_bound,
    "rcig_dense": functools.partial(_outer_steps, "dense", 32, "< 1000 ms, adam < 2500 ms"),
    "rcig_cg": functools.partial(_outer_steps, "cg", 32, "reported"),
    "rcig_dense_128": functools.partial(_outer_steps, "dense", 128, "reported"),
    "rcig_cg_128": functools.partial(_outer_steps, "cg", 128, "reported"),
    **{f"exact_{ipc}": functools.partial(_exact, ipc) for ipc in (1, 10, 50)},
    "dc": functools.partial(_matching, "dc", dc_config, 1, 1, "< 10500 ms, aim 5250"),
    "dm": functools.partial(_matching, "dm", dm_config, 10, 1, "< 4200 ms, aim 2100"),
    "dsa": functools.partial(_matching, "dsa", dsa_config, 10, 10, "< 320000 ms, aim 160000"),
    **{f"unrolled_{steps}": functools.partial(unrolled_time, steps) for steps in (10, 50, 200)},
    **{f"unrolled_memory_{steps}": functools.partial(unrolled_memory, steps) for steps in (10, 50, 200)},
    **{f"unrolled_segments_{steps}": functools.partial(rematerialised_time, steps) for steps in (10, 50, 200)},
    "import": import_time,
}


def _config(images_per_class):
    config = fashion_mnist.get_config()
    config.init.ipc = images_per_class
    return config


def _compare(name, unit, ours, other, aim) -> Row:
    """Warms both up, then times them in turn; each returns seconds, and ``unit`` is milliseconds."""
    ours(), other()
    pairs = [(1e3 * ours(), 1e3 * other()) for _ in range(FLAGS.pairs)]
    ratios = [a / b for a, b in pairs]
    a, b = (statistics.median(side) for side in zip(*pairs))
    return Row(name, unit, a, b, statistics.median(ratios), min(ratios), max(ratios), aim)


def _scanned(experiment, count):
    """Seconds per step of the driver's compiled chunk."""
    chunk = jax.jit(loop.steps(experiment.method, count), donate_argnums=2)
    state = experiment.method.init(jax.random.key(0), experiment.start)
    at = {"state": state, "step": 0}

    def run():
        began = time.perf_counter()
        at["state"], infos = chunk(experiment.sample, jax.random.key(1), at["state"], jnp.asarray(at["step"]))
        {name: float(np.mean(values)) for name, values in infos._asdict().items()}
        at["step"] += count
        return (time.perf_counter() - began) / count

    return run


def _notebook(config, experiment):
    """The KIP authors' loop: float64 everywhere, a class-balanced batch drawn on the host, one dispatch a step."""
    task = experiment.task
    x, labels = np.asarray(task.x_train, np.float64), np.asarray(task.train_labels)
    y = np.eye(task.num_classes)[labels] - 1 / task.num_classes
    members = [np.flatnonzero(labels == c) for c in range(task.num_classes)]
    rng = np.random.default_rng(0)
    kernel_fn = build.kernel(config)
    optimizer = optax.adam(config.method.learning_rate)

    def loss(x_s, y_s, x_t, y_t):
        k_ss, k_ts = kernel_fn(x_s, x_s), kernel_fn(x_t, x_s)
        ridge = config.method.reg * jnp.trace(k_ss) / len(k_ss) * jnp.eye(len(k_ss))
        return 0.5 * jnp.mean((y_t - k_ts @ jax.scipy.linalg.solve(k_ss + ridge, y_s, assume_a="pos")) ** 2)

    @jax.jit
    def update(x_s, opt_state, y_s, x_t, y_t):
        value, gradient = jax.value_and_grad(loss)(x_s, y_s, x_t, y_t)
        updates, opt_state = optimizer.update(gradient, opt_state)
        return optax.apply_updates(x_s, updates), opt_state, value

    with jax.enable_x64(True):
        x_s, y_s = (jnp.asarray(np.asarray(a, np.float64)) for a in experiment.start[:2])
        at = {"x": x_s, "opt": optimizer.init(x_s)}

    def run():
        with jax.enable_x64(True):
            began = time.perf_counter()
            for _ in range(FLAGS.steps):
                per_class = config.batch.size // len(members)
                rows = np.concatenate([rng.choice(rows, per_class, replace=False) for rows in members])
                at["x"], at["opt"], value = update(at["x"], at["opt"], y_s, x[rows], y[rows])
                float(value)
            return (time.perf_counter() - began) / FLAGS.steps

    return run


if __name__ == "__main__":
    cli.run(main)
