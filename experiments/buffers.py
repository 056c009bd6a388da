"""Trains the experts that MTT matches, and stores their trajectories.

python -m experiments.buffers --config=configs/mtt/images.py:cifar10,10 --config.experts.path=experts/cifar10

The folder gets one ``expert_0000.npz`` after the other, ``config.experts.count`` in all, each with its network, data
set and preprocessing inside; a run that was killed goes on with the first that is missing. Distillation by the same
config reads them: ``python -m experiments.distill`` with the same ``--config.experts.path``.
"""

import functools
import os
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.flatten_util import ravel_pytree
from ml_collections import config_flags

from experiments import build, cli, experts, inputs
from kipjax import checks, data
from kipjax.core import losses
from kipjax.io import trajectory
from kipjax.methods import mtt
from kipjax.models import network

__all__ = ["train"]


def define() -> None:
    """The flags of this script."""
    text = "An experiment with experts: FILE.py:VARIANT."
    config_flags.DEFINE_config_file("config", None, text, lock_config=True)
    flags.mark_flags_as_required(["config"])


RECIPE = ("epochs", "learning_rate", "batch_size", "decay_epoch", "train_size", "seed")
"""Fields of ``config.experts`` that say how an expert is trained."""


def main() -> None:
    train(flags.FLAGS.config)


def train(config) -> None:
    """Trains the experts that the folder ``config.experts.path`` does not hold yet.

    Raises:
      InputError: the config has no experts, no folder is named, or it holds experts of another network, data set or
        training.
    """
    checks.require(
        "experts" in config, "--config", f"this experiment of {config.method.name} has no experts; take one of MTT"
    )
    folder, count = config.experts.path, config.experts.count
    checks.require(bool(folder), "config.experts", "path is empty; name the folder for the experts")
    checks.whole("config.experts", "count", count)
    dataset = inputs.load(config)
    preprocess = inputs.prepare(config, dataset)
    task = inputs.task(dataset, preprocess)
    _require_every_class(task)
    model = build.network(config, task)
    meta = experts.identity(config, model, dataset) | {"recipe": _recipe(config)}
    x, labels = _images(config, task)
    program = jax.jit(functools.partial(mtt.expert, model=model, **_options(config)))
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise checks.InputError(
            f"config.experts: {folder} cannot be made ({error.strerror}); choose another"
        ) from error
    for i in range(count):
        path = os.path.join(folder, f"expert_{i:04d}.npz")
        if os.path.exists(path):
            trajectory.require_same(path, trajectory.load(path).meta, meta)
            continue
        began = time.monotonic()
        key = jax.random.fold_in(jax.random.key(config.experts.seed), i)
        parameters = np.asarray(program(key, x=x, classes=labels))
        trajectory.save(path, trajectory.Trajectory(parameters, meta | {"number": i}))
        accuracy = _accuracy(model, parameters, task)
        print(f"{path}  test accuracy {100 * accuracy:.2f} %  {time.monotonic() - began:.0f} s", flush=True)


def _require_every_class(task):
    counts = np.bincount(np.asarray(task.train_labels), minlength=task.num_classes)
    checks.require(
        bool(counts.min() > 0),
        "config.data",
        f"class {int(counts.argmin())} has no training image; add some, or raise train_size",
    )


def _recipe(config):
    return {name: config.experts[name] for name in RECIPE} | {
        name: config.method[name] for name in ("strategy", "mode")
    }


def _options(config):
    recipe = _recipe(config)
    return {name: recipe[name] for name in recipe if name not in ("train_size", "seed")}


def _images(config, task):
    """All training images, or the same random ``train_size`` of them for every expert."""
    size, n = config.experts.train_size, len(task.x_train)
    checks.whole("config.experts", "train_size", size, 0)
    labels = jnp.asarray(task.train_labels)
    if not size or size >= n:
        return jnp.asarray(task.x_train), labels
    rows = data.draw.without_replacement(jax.random.key(config.experts.seed), size, n)
    return jnp.asarray(task.x_train)[rows], labels[rows]


def _accuracy(model, parameters, task):
    """Of the last epoch, on the first 1000 test images, in training mode (there are no running statistics); reported
    alone."""
    x, classes = jnp.asarray(task.x_test[:1000]), jnp.asarray(task.test_labels[:1000])
    variables = network.init(model, jax.random.key(0), x)
    params = ravel_pytree(variables["params"])[1](jnp.asarray(parameters[-1]))
    return float(losses.accuracy(network.train_forward(model, {**variables, "params": params}, x)[0], classes))


if __name__ == "__main__":
    cli.run(main, define)
