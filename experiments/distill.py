"""Distils a data set with any method.

python -m experiments.distill --config=configs/kip/digits.py --workdir=RUN [--config.FIELD=VALUE ...] [--resume]

The run folder holds config.json, metrics.jsonl, checkpoints/, distilled.npz (the artifact), distilled.png, labels.png
where labels were learned, and summary.json.
"""

import functools
import os
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import config_flags

from experiments import build, cli, report, run_folder
from kipjax import checks
from kipjax.core import loop
from kipjax.io import checkpoint, log

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file("config", None, "The experiment: FILE.py or FILE.py:VARIANT.", lock_config=True)
flags.DEFINE_string("workdir", None, "The run folder.")
flags.DEFINE_bool("resume", False, "Go on from the last checkpoint in the run folder.")
flags.DEFINE_bool("overwrite", False, "Delete a run that is in the run folder and start anew.")
flags.mark_flags_as_required(["config", "workdir"])


def main() -> None:
    run(FLAGS.config, FLAGS.workdir, resume=FLAGS.resume, overwrite=FLAGS.overwrite)


def run(config, workdir: str, *, resume: bool = False, overwrite: bool = False) -> None:
    """One experiment from its config to its run folder."""
    run_folder.check_schedule(config)
    run_folder.prepare(workdir, config, resume=resume, overwrite=overwrite)
    began = time.monotonic()
    experiment = build.experiment(config)
    run_folder.claim(workdir, config)
    state = train(config, experiment, workdir, resume=resume)
    made = report.artifact(config, experiment, state)
    report.write(workdir, made, experiment, config, seconds=time.monotonic() - began)


def train(config, experiment: build.Experiment, workdir: str, *, resume: bool):
    """Steps from the start, or from the last checkpoint, to ``config.steps``; returns the method's final state."""
    run_key, init_key = jax.random.split(jax.random.key(config.seed))
    fresh = jax.jit(experiment.method.init)

    @functools.cache
    def chunk(count):  # one program, or two where the last stretch is shorter
        return jax.jit(loop.steps(experiment.method, count), donate_argnums=2)

    with (
        checkpoint.open(os.path.join(workdir, "checkpoints")) as checkpoints,
        log.MetricsLog(os.path.join(workdir, "metrics.jsonl")) as metrics,
    ):
        restored = checkpoints.restore(jax.eval_shape(fresh, init_key, experiment.start)) if resume else None
        step, state = (restored.step, restored.state) if restored else (0, fresh(init_key, experiment.start))
        metrics.truncate(step)
        if resume:
            print(f"resuming at step {step} of {config.steps}" if restored else "no checkpoint yet; starting anew")
        with log.Progress(config.steps, start=step) as progress:
            while step < config.steps:
                count = min(config.log_every - step % config.log_every, config.steps - step)
                state, infos = chunk(count)(experiment.sample, run_key, state, jnp.asarray(step))
                step += count
                line = {name: float(np.mean(values)) for name, values in infos._asdict().items()}
                _require_finite(line, step, checkpoints)
                if config.eval_every and step % config.eval_every == 0:
                    line["test_accuracy"] = report.test_accuracy(config, experiment, state)
                metrics.append(step, line)
                progress.update(step, line)
                if step % config.checkpoint_every == 0 or step == config.steps:
                    checkpoints.save(step, state)
    return state


def _require_finite(line, step, checkpoints):
    bad = [name for name, value in line.items() if not np.isfinite(value)]
    if bad:
        good = checkpoints.steps()
        raise checks.NumericalError(
            f"experiments.distill: {', '.join(bad)} not finite by step {step}; the last good checkpoint is "
            f"{f'step {good[-1]}' if good else 'none'}. Likely a kernel matrix that does not factorise (raise "
            "--config.method.reg, keep solve_dtype float64) or a step size too large (lower "
            "--config.method.learning_rate)"
        )


if __name__ == "__main__":
    cli.run(main)
