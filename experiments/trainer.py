"""One run: from a config to its folder, in compiled stretches, with checkpoints that it can go on from."""

import functools
import math
import os
import time

import jax
import jax.numpy as jnp
import numpy as np

from experiments import build, report, run_folder
from kipjax import checks, kernels
from kipjax.core import loop, sharding
from kipjax.io import checkpoint, log

__all__ = ["compiled", "run", "train"]

_LONG = 10**9


def run(config, workdir: str, *, resume: bool = False, overwrite: bool = False) -> None:
    """One experiment from its config to its run folder."""
    run_folder.check_schedule(config)
    run_folder.prepare(workdir, config, resume=resume, overwrite=overwrite)
    began = time.monotonic()
    experiment = build.experiment(config)
    report.check(config, experiment)
    run_folder.claim(workdir, config, overwrite=overwrite)
    _announce(config, experiment)
    state = train(config, experiment, workdir, resume=resume)
    made = report.artifact(config, experiment, state)
    report.write(workdir, made, experiment, config, seconds=time.monotonic() - began)


def compiled(experiment: build.Experiment, count: int):
    """The compiled program of ``count`` steps; the data set is an argument of it, and the state is donated.

    Raises:
      InputError: it needs more memory than there is.
    """
    key = jax.random.key(0)
    state = jax.eval_shape(experiment.method.init, key, experiment.start)
    program = jax.jit(loop.steps(experiment.method, count), donate_argnums=2)
    program = program.lower(experiment.sample, key, state, jnp.asarray(0)).compile()
    plan, free = program.memory_analysis(), sharding.free_memory()
    need = plan.output_size_in_bytes + plan.temp_size_in_bytes if plan else 0  # the arguments are there already
    checks.require(
        free is None or need <= free,
        "experiments.distill",
        f"a step needs {need / 1e6:.1f} MB of memory and {(free or 0) / 1e6:.1f} MB are free; lower "
        "--config.batch.size, or --config.method.block_size where the method has it",
    )
    return program


def train(config, experiment: build.Experiment, workdir: str, *, resume: bool, chunk=None):
    """Steps from the start, or from the last checkpoint, to ``config.steps``; returns the method's final state.

    A method that says ``stopped`` in its Info, as RFAD does once its validation loss no longer falls, ends the run.
    ``chunk(count)`` gives the program of ``count`` steps, of which a run needs one, or two for a shorter last stretch.
    """
    chunk = chunk or functools.cache(functools.partial(compiled, experiment))
    run_key, init_key = jax.random.split(jax.random.key(config.seed))
    data = report.fingerprint(experiment.dataset)
    fresh = jax.jit(experiment.method.init)

    with (
        checkpoint.open(os.path.join(workdir, "checkpoints")) as checkpoints,
        log.MetricsLog(os.path.join(workdir, "metrics.jsonl")) as metrics,
    ):
        restored = checkpoints.restore(jax.eval_shape(fresh, init_key, experiment.start)) if resume else None
        step, state = (restored.step, restored.state) if restored else (0, fresh(init_key, experiment.start))
        if restored:
            _require_continues(restored, config, data)
        metrics.truncate(step)
        if resume:
            print(f"resuming at step {step} of {config.steps}" if restored else "no checkpoint yet; starting anew")
        with log.Progress(config.steps, start=step) as progress:
            stopped = False
            while step < config.steps and not stopped:
                count = min(config.log_every - step % config.log_every, config.steps - step)
                state, infos = chunk(count)(experiment.sample, run_key, state, jnp.asarray(step))
                step += count
                line = {name: float(np.mean(values)) for name, values in infos._asdict().items()}
                _require_finite(line, step, checkpoints)
                stopped = line.get("stopped") == 1
                if config.eval_every and step % config.eval_every == 0:
                    line["test_accuracy"] = report.test_accuracy(config, experiment, state)
                metrics.append(step, line)
                progress.update(step, line)
                if step % config.checkpoint_every == 0 or step == config.steps or stopped:
                    checkpoints.save(step, state, {"fingerprint": data})
        if stopped:
            print(f"stopped at step {step}: {config.method.name} has found no better set for long enough")
    return state


def _announce(config, experiment):
    """What a matrix of the targets' kernel will take, where that may be long; refused if memory does not suffice."""
    if build.trains_networks(config):
        return
    name, kernel_fn = report.test_kernel(build.kernel_spec(config))
    targets, support = jax.eval_shape(experiment.sample, jax.random.key(0)).x, experiment.start.x
    pixel_pairs = len(support) * targets.shape[0] * math.prod(support.shape[1:3]) ** 2
    if getattr(kernel_fn, "backend", None) == "tiled" and pixel_pairs > _LONG:
        memory = sharding.free_memory()
        takes = kernels.batching.estimate(kernel_fn, targets.shape, support.shape, memory=memory)
        print(
            f"kernel {name}, {kernel_fn.backend} engine: {targets.shape[0]} x {len(support)} pairs take about "
            f"{takes.bytes / 1e6:.0f} MB and {takes.seconds:.1f} s, in float32 and without the gradient",
            flush=True,
        )


def _require_continues(restored, config, data):
    """A checkpoint must be of the same data and not past the end of the run."""
    checks.require(
        restored.step <= config.steps,
        "--resume",
        f"the last checkpoint is at step {restored.step} and config.steps is {config.steps}; raise it, or start anew",
    )
    checks.require(
        restored.extra.get("fingerprint") == data,
        "--resume",
        f"the training data of {config.data.name} are not those of the run so far; bring them back, or start anew",
    )


def _require_finite(line, step, checkpoints):
    bad = [name for name, value in line.items() if not np.isfinite(value)]
    if bad:
        good = checkpoints.steps()
        raise checks.NumericalError(
            f"experiments.distill: {', '.join(bad)} not finite by step {step}; the last good checkpoint is "
            f"{f'step {good[-1]}' if good else 'none'}. Likely a kernel matrix that does not factorise (raise "
            "--config.method.reg and solve in float64) or too large a step size"
        )
