"""The experts of MTT as a run reads them: trajectories in a folder, of its own network, data set and preprocessing."""

import dataclasses
import os

import ml_collections
import numpy as np
from flax import linen as nn

from kipjax import checks, data
from kipjax.io import artifact, trajectory
from kipjax.types import Sampler

__all__ = ["identity", "sampler"]

_NOT_OF_NETWORK = ("parent", "name", "lowering")


def sampler(config: ml_collections.ConfigDict, model: nn.Module, dataset: data.Dataset) -> Sampler:
    """``sample(key) -> Batch`` of trajectories ``x [b, epochs + 1, p]`` in ``config.experts.path``; ``y`` is unused.

    Raises:
      InputError: there are fewer experts than ``config.experts.count``, or they are of another network or data set, or
        trained for too few epochs.
    """
    folder = config.experts.path
    make = "train experts with python -m experiments.buffers and name their folder in --config.experts.path"
    checks.require(bool(folder), "config.experts", f"path is empty; {make}")
    checks.require(os.path.isdir(folder), "config.experts", f"path {folder} is no folder; {make}")
    paths = sorted(os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(".npz"))
    checks.require(bool(paths), "config.experts", f"path {folder} holds no experts; {make}")
    count = config.experts.count
    checks.whole("config.experts", "count", count)
    checks.require(
        len(paths) >= count,
        "config.experts",
        f"path {folder} holds {len(paths)} experts and count is {count}; go on with python -m experiments.buffers, or "
        f"take what is there with --config.experts.count={len(paths)}",
    )
    needed = config.method.max_start_epoch + config.method.expert_epochs
    expected = identity(config, model, dataset)
    rows = np.stack([_epochs(path, expected, needed) for path in paths[:count]])
    return data.samplers.uniform(rows, np.zeros((len(rows), 1), rows.dtype), batch_size=config.batch.size)


def identity(config: ml_collections.ConfigDict, model: nn.Module, dataset: data.Dataset) -> dict:
    """What a trajectory and the run that matches it must have in common."""
    options = {f.name: getattr(model, f.name) for f in dataclasses.fields(model) if f.name not in _NOT_OF_NETWORK}
    return {
        "model": {"class": type(model).__name__} | options,
        "dataset": config.data.name,
        "data_fingerprint": artifact.fingerprint(dataset.x_train, dataset.y_train),
        "preprocess": config.data.preprocess.to_dict(),
        "image_size": config.data.image_size,
    }


def _epochs(path, expected, needed):
    """The first ``needed`` rows of a trajectory."""
    expert = trajectory.load(path)
    trajectory.require_same(path, expert.meta, expected)
    have = len(expert.parameters)
    checks.require(
        have >= needed,
        path,
        f"the expert was trained for {have - 1} epochs, and config.method needs {needed - 1} (max_start_epoch - 1 + "
        "expert_epochs); lower one of them, or train for longer",
    )
    return expert.parameters[:needed]
