"""The driver: its steps against the notebook's loop, what it costs above them, and how long the import takes."""

import contextlib
import functools
import io
import subprocess
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from configs.kip import fashion_mnist
from experiments import build, trainer
from experiments.benchmarks import harness

__all__ = ["ROWS"]


def kip_against_the_notebooks_loop() -> harness.Row:
    """KIP FC1, 100 images, 6000 targets: the compiled loop against float64 with one dispatch and host batch a step."""
    config = _config(images_per_class=10)
    experiment = build.experiment(config)
    ours = harness.scanned(experiment, harness.FLAGS.steps)
    return harness.compare(
        "KIP step, FC1, 100 images, 6000 targets / notebook loop",
        "ms/step",
        ours,
        _notebook(config, experiment),
        "<= 0.333",
    )


def driver_overhead() -> harness.Row:
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

    return harness.compare(
        "driver / its compiled steps, FC1, 10 images, 6000 targets",
        "ms/step",
        driver,
        bare,
        "<= 1.05",
    )


def import_time() -> harness.Row:
    """``import kipjax`` against ``import jax``, each timed inside a fresh interpreter."""

    def timed(module):
        code = f"import time; began = time.perf_counter(); import {module}; print(time.perf_counter() - began)"
        return lambda: float(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout)

    return harness.compare("import kipjax / import jax", "ms/import", timed("kipjax"), timed("jax"), "< 1500 ms")


def _config(images_per_class):
    config = fashion_mnist.get_config()
    config.init.ipc = images_per_class
    return config


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
            for _ in range(harness.FLAGS.steps):
                per_class = config.batch.size // len(members)
                rows = np.concatenate([rng.choice(rows, per_class, replace=False) for rows in members])
                at["x"], at["opt"], value = update(at["x"], at["opt"], y_s, x[rows], y[rows])
                float(value)
            return (time.perf_counter() - began) / harness.FLAGS.steps

    return run


ROWS: harness.Rows = {
    "kip": kip_against_the_notebooks_loop,
    "driver": driver_overhead,
    "import": import_time,
}
