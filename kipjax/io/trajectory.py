"""An expert's trajectory: one ``.npz`` file with the parameters of a network before and after each epoch of training.

The file holds plain arrays and no Python objects:

| key | content |
|---|---|
| ``parameters`` | ``[epochs + 1, p]``, each row all parameters as one vector |
| ``meta`` | UTF-8 bytes of a JSON object: ``format``, ``format_version``, and what the caller adds |

What a caller should put into ``meta``, so that a trajectory is not matched by another network or on other images:
``model`` (its options), ``dataset``, ``data_fingerprint``, ``preprocess`` and ``image_size``.
"""

import json
import os
from typing import Any, NamedTuple

import numpy as np

from kipjax import checks
from kipjax.io import _files, _npz
from kipjax.io.log import to_jsonable

__all__ = ["FORMAT", "FORMAT_VERSION", "Trajectory", "load", "require_same", "save"]

FORMAT = "kipjax-trajectory"
FORMAT_VERSION = 1


class Trajectory(NamedTuple):
    """``parameters [epochs + 1, p]`` float, and ``meta``, what JSON can hold."""

    parameters: np.ndarray
    meta: dict[str, Any]


def save(path: str | os.PathLike, trajectory: Trajectory) -> None:
    """Writes a trajectory, wholly or not at all: a file that was at ``path`` survives any failure.

    Raises:
      InputError: the parameters are no finite matrix of at least two rows, or the path cannot be written.

    >>> import tempfile
    >>> path = tempfile.mkdtemp() + "/expert.npz"
    >>> save(path, Trajectory(np.zeros((3, 7), np.float32), {"dataset": "digits"}))
    >>> load(path).parameters.shape, load(path).meta["dataset"]
    ((3, 7), 'digits')
    """
    where = "trajectory.save"
    parameters = _checked(where, trajectory.parameters)
    meta = to_jsonable(trajectory.meta, f"{where}: meta") | {"format": FORMAT, "format_version": FORMAT_VERSION}
    text = np.frombuffer(json.dumps(meta, allow_nan=False).encode(), np.uint8)
    _files.atomic_write(where, path, lambda file: np.savez(file, parameters=parameters, meta=text))


def load(path: str | os.PathLike) -> Trajectory:
    """Reads a trajectory; nothing in the file is ever executed or unpickled.

    Raises:
      InputError: the file is missing, cut off, damaged, foreign or of a newer format; the text says which.
    """
    where = f"trajectory.load: {os.fspath(path)}"
    members = _npz.members(where, path, kind="trajectory", example="expert_0000.npz")
    checks.require(
        set(members) == {"parameters", "meta"},
        where,
        f"an .npz, but no kipjax trajectory (it holds {', '.join(sorted(members)) or 'nothing'}); make the experts "
        "with python -m experiments.buffers",
    )
    meta = _meta(where, _npz.read_array(where, "meta", members["meta"]))
    return Trajectory(_checked(where, _npz.read_array(where, "parameters", members["parameters"])), meta)


def require_same(where: str, meta: dict[str, Any], expected: dict[str, Any]) -> None:
    """Every entry of ``expected`` must be in ``meta`` with the same value.

    Raises:
      InputError: one is not; the text names it, and what it is and should be.
    """
    found, wanted = _flat(meta), _flat(to_jsonable(expected, where))
    for name, value in wanted.items():
        checks.require(
            found.get(name) == value,
            where,
            f"the expert has {name} {found.get(name)!r} and this run {value!r}; use experts of the same network and "
            "data, or train others with python -m experiments.buffers",
        )


def _flat(tree, prefix=""):
    """The entries of nested dicts by dotted name."""
    if not isinstance(tree, dict):
        return {prefix[:-1]: tree}
    return {name: value for key, part in tree.items() for name, value in _flat(part, f"{prefix}{key}.").items()}


def _checked(where, parameters):
    parameters = np.asarray(parameters)
    checks.require(
        parameters.dtype.kind == "f" and parameters.ndim == 2 and len(parameters) > 1 and parameters.size > 0,
        where,
        f"parameters have dtype {parameters.dtype} and shape {parameters.shape}; expected floats [epochs + 1, p] with "
        "at least one epoch",
    )
    checks.finite(where, "parameters", parameters)
    return parameters


def _meta(where, raw):
    meta = _npz.meta_of(raw, FORMAT)
    if meta is None:
        raise checks.InputError(f"{where}: an .npz, but no kipjax trajectory (its meta does not say {FORMAT})")
    _npz.require_readable(where, meta, FORMAT_VERSION)
    return meta
