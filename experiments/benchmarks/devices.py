"""Several seeds in one program, and several devices."""

import contextlib
import functools
import io
import json
import os
import subprocess
import sys
import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np

from configs.kip import digits
from experiments import build, trainer
from experiments.benchmarks import harness
from kipjax.core import sharding

__all__ = ["ROWS"]

SEEDS = 8


def seeds_steps() -> harness.Row:
    """The compiled steps of eight seeds at once against those of eight seeds one after the other."""
    name = f"KIP steps, FC1, digits, 10 images, {SEEDS} seeds by vmap / one after the other"
    return harness.compare(name, "ms/step", _steps(_config(SEEDS), 1), _steps(_config(1), SEEDS), "< 1")


def seeds_runs() -> harness.Row:
    """Whole runs, from the config to the artifacts: data, compilation, steps, checkpoints, scores."""
    name = f"KIP run, FC1, digits, 10 images, {SEEDS} seeds by vmap / {SEEDS} runs"
    return harness.compare(name, "ms", _runs(SEEDS, 1), _runs(1, SEEDS), "< 0.5")


def _config(seeds):
    config = digits.get_config()
    config.num_seeds, config.log_every = seeds, harness.FLAGS.steps
    config.steps = config.checkpoint_every = 10 * harness.FLAGS.steps
    config.eval_every = 0
    return config


def _steps(config, times):
    """Seconds of a step of all seeds, by the driver's own program, which runs ``times`` times."""
    seeds = config.num_seeds
    experiment = build.experiment(config)
    run = trainer.compiled(config, experiment, config.log_every)
    keys, starts = jax.random.key(0), experiment.start
    if seeds > 1:
        keys, starts = jax.random.split(keys, seeds), jax.tree.map(lambda *a: jnp.stack(a), *experiment.starts)
    init = jax.vmap(experiment.method.init) if seeds > 1 else experiment.method.init
    at = {i: sharding.on_every_device(init(keys, starts), experiment.mesh) for i in range(times)}
    keys = sharding.on_every_device(keys, experiment.mesh)

    def timed():
        began = time.perf_counter()
        for i in at:
            at[i], infos = run(experiment.sample, keys, at[i], jnp.asarray(0))
            {name: float(np.mean(values)) for name, values in infos._asdict().items()}
        return (time.perf_counter() - began) / config.log_every

    return timed


def _runs(seeds, times):
    """Seconds of runs as they are started: each compiles its own program."""
    config = _config(seeds)

    def timed():
        began = time.perf_counter()
        for i in range(times):
            config.seed = i
            jax.clear_caches()
            with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
                trainer.run(config, folder)
        return time.perf_counter() - began

    return timed


def scaling(count: int) -> harness.Row:
    """A KIP step on so many devices against one, and what that says: on a CPU, devices have to be forced.

    A program for one forced device uses all cores already, so the ratio shows what dividing the work costs, never what
    it gains; ``experiments.plan`` says what it would gain.

    Raises:
      Skipped: the machine has fewer accelerators.
    """
    if sharding.on_accelerator():
        there = len(jax.devices())
        if there < count:
            raise harness.Skipped(f"it takes {count} devices and there are {there}; see experiments.plan")
        return _scaling_row(count)
    environment = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={count}"}
    options = [str(count), str(harness.FLAGS.pairs), str(harness.FLAGS.steps)]
    command = [sys.executable, "-m", "experiments.benchmarks.devices", *options]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return harness.Row(*json.loads(done.stdout.splitlines()[-1]))


def _scaling_row(count):
    def steps(devices):
        config = _config(1)
        config.devices, config.batch.size = devices, 1200
        return _steps(config, 1)

    cores = os.cpu_count() or 1
    aim = f"{1 / count:.3f} by {count} accelerators"
    if not sharding.on_accelerator():
        aim = f"no speed-up to be had: {count} forced devices share the {cores} cores that one uses already"
    name = f"KIP step, FC1, digits, 10 images, 1200 targets, {count} devices / 1"
    return harness.compare(name, "ms/step", steps(count), steps(1), aim)


ROWS: harness.Rows = {
    "seeds": seeds_steps,
    "seeds_runs": seeds_runs,
    **{f"scaling_{count}": functools.partial(scaling, count) for count in (2, 4, 8)},
}


if __name__ == "__main__":
    from absl import flags

    number, pairs, steps = sys.argv[1:]
    flags.DEFINE_integer("pairs", int(pairs), "")
    flags.DEFINE_integer("steps", int(steps), "")
    harness.FLAGS.mark_as_parsed()
    print(json.dumps(_scaling_row(int(number))))
