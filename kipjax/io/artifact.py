"""The artifact: one self-describing ``.npz`` file with a distilled set and everything needed to use it.

The file holds plain arrays and no Python objects, so it opens with ``numpy.load(path)`` alone, anywhere:

| key | content |
|---|---|
| ``x`` | ``[m, ...]`` examples in preprocessed space |
| ``y`` | ``[m, k]`` targets |
| ``lr`` | ``[]`` or ``[steps]`` learned step sizes; absent if there are none |
| ``preprocess.NAME`` | the fields of ``Preprocess``; absent where ``None`` |
| ``meta`` | UTF-8 bytes of a JSON object: ``format``, ``format_version``, versions, and what the caller adds |

What a caller should put into ``meta``, so that an evaluation can be repeated: ``method``, ``config``,
``label_convention`` (such as ``"centred one-hot"``), ``class_names``, ``seed``, ``dataset`` and ``data_fingerprint``.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

import kipjax
from kipjax import checks
from kipjax.io import _files, _npz
from kipjax.io.log import to_jsonable
from kipjax.types import Distilled, Preprocess

__all__ = ["FORMAT", "FORMAT_VERSION", "Artifact", "fingerprint", "from_arrays", "load", "save", "to_arrays"]

FORMAT = "kipjax-distilled"
FORMAT_VERSION = 1


class Artifact(NamedTuple):
    """A distilled set with its context.

    Attributes:
      distilled: ``x [m, ...]``, ``y [m, k]`` and ``lr``.
      preprocess: the map from pixels to the space of ``x``.
      meta: what JSON can hold; ``load`` adds ``format``, ``format_version`` and ``versions``.
    """

    distilled: Distilled
    preprocess: Preprocess
    meta: dict[str, Any]


def save(path: str | os.PathLike, artifact: Artifact) -> None:
    """Writes an artifact, wholly or not at all: a file that was at ``path`` survives any failure.

    The same artifact gives the same bytes. Values and dtypes are kept bit for bit.

    Args:
      path: the file, used as given; by custom it ends in ``.npz``.
      artifact: what to write. Arrays must be finite and fit each other; ``meta`` must have a JSON form.

    Raises:
      InputError: a value that is refused, or a path that cannot be written.

    >>> import tempfile
    >>> one = np.ones(1, np.float32)
    >>> made = Artifact(Distilled(np.ones((2, 3)), np.eye(2)), Preprocess(one, one, 0 * one[0], one[0]), {"seed": 0})
    >>> path = tempfile.mkdtemp() + "/set.npz"
    >>> save(path, made)
    >>> load(path).distilled.x.shape, load(path).meta["seed"]
    ((2, 3), 0)
    """
    where = "artifact.save"
    arrays = to_arrays(artifact, where)
    _files.atomic_write(where, path, lambda file: np.savez(file, **arrays))


def load(path: str | os.PathLike) -> Artifact:
    """Reads an artifact; nothing in the file is ever executed or unpickled.

    Arrays come back as NumPy arrays, so that float64 stays float64 whether or not JAX's 64-bit mode is on.

    Raises:
      InputError: the file is missing, empty, cut off, damaged, foreign, or of a newer format; the text says which.
    """
    where = f"artifact.load: {os.fspath(path)}"
    members = _npz.members(where, path)
    meta = _read_meta(where, members)
    arrays = {name: _npz.read_array(where, name, read) for name, read in members.items() if name != "meta"}
    return from_arrays(arrays, meta, where)


def to_arrays(artifact: Artifact, where: str = "artifact.to_arrays") -> dict[str, Any]:
    """The members of an artifact's file by name, as the table above has them.

    Args:
      artifact: as ``save`` takes it.
      where: what error messages start with.

    Raises:
      InputError: a value that ``save`` refuses.
    """
    _require_types(where, artifact)
    artifact = _checked(where, artifact._replace(meta=_described(where, artifact.meta)))
    fields = artifact.distilled._asdict()
    fields |= {f"preprocess.{name}": value for name, value in artifact.preprocess._asdict().items()}
    text = json.dumps(artifact.meta, allow_nan=False).encode()
    arrays = {name: np.asarray(value) for name, value in fields.items() if value is not None}
    return arrays | {"meta": np.frombuffer(text, np.uint8)}


def from_arrays(arrays: dict[str, Any], meta: dict[str, Any], where: str = "artifact.from_arrays") -> Artifact:
    """The artifact of such members, checked; ``arrays`` are all but ``meta``.

    Args:
      arrays: NumPy arrays by name.
      meta: the JSON object.
      where: what error messages start with.

    Raises:
      InputError: an array is missing, unknown, or has values that no artifact has.
    """
    return _checked(where, _from_arrays(where, arrays, meta))


def fingerprint(*arrays: Any) -> str:
    """Sixteen hex digits that tell data sets apart: SHA-256 over the shape, dtype and bytes of each array, in order.

    >>> fingerprint(np.zeros((2, 3), np.uint8)) == fingerprint(np.zeros((3, 2), np.uint8))
    False
    """
    digest = hashlib.sha256()
    for array in arrays:
        array = np.asarray(array)
        checks.require(
            not array.dtype.hasobject,
            "artifact.fingerprint",
            f"an array has dtype {array.dtype}; pass arrays of numbers, booleans or fixed-width strings",
        )
        digest.update(f"{array.dtype.str}{array.shape};".encode())
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()[:16]


def _described(where: str, meta: Any) -> dict[str, Any]:
    """``meta`` in JSON types, with the format and the versions that wrote it."""
    checks.require(isinstance(meta, dict), where, f"meta is a {type(meta).__name__}; expected a dict")
    versions = {"kipjax": kipjax.__version__, "jax": jax.__version__, "numpy": np.__version__}
    own = {"format": FORMAT, "format_version": FORMAT_VERSION, "versions": versions}
    return to_jsonable(meta, f"{where}: meta") | own


def _require_types(where: str, artifact: Any) -> None:
    """The three parts must be what their names say, and hold values."""
    for name, kind in (("distilled", Distilled), ("preprocess", Preprocess)):
        part = getattr(artifact, name, None)
        checks.require(
            isinstance(part, kind),
            where,
            f"{name} is a {type(part).__name__}; expected a kipjax.types.{kind.__name__} inside an Artifact",
        )
    checks.require(
        not checks.is_traced(artifact.distilled, artifact.preprocess),
        where,
        "the arrays are traced and have no values yet; save outside of jit",
    )


def _from_arrays(where: str, arrays: dict[str, Any], meta: dict[str, Any]) -> Artifact:
    """The inverse of ``to_arrays``, unchecked."""
    needed = {"x", "y", *(f"preprocess.{name}" for name in ("mean", "std", "low", "high", "per_image"))}
    known = {"x", "y", "lr", *(f"preprocess.{name}" for name in Preprocess._fields)}
    missing, unknown = needed - set(arrays), set(arrays) - known
    if missing or unknown:
        what = f"lacks {_listed(missing)}" if missing else f"has the unknown arrays {_listed(unknown)}"
        raise checks.InputError(f"{where}: the file {what}; make the artifact again with kipjax.save")
    stages: dict[str, Any] = {name: arrays.get(f"preprocess.{name}") for name in Preprocess._fields}
    return Artifact(Distilled(arrays["x"], arrays["y"], arrays.get("lr")), Preprocess(**stages), meta)


def _listed(names: set[str]) -> str:
    """Names in a fixed order."""
    return ", ".join(sorted(names))


def _checked(where: str, artifact: Artifact) -> Artifact:
    """The artifact with NumPy arrays, or an error if its values cannot be a distilled set."""
    parts: dict[str, Any] = {n: None if v is None else np.asarray(v) for n, v in artifact.distilled._asdict().items()}
    stages: dict[str, Any] = {n: None if v is None else np.asarray(v) for n, v in artifact.preprocess._asdict().items()}
    stages["per_image"] = bool(np.any(stages["per_image"]))
    _check_distilled(where, **parts)
    _check_preprocess(where, stages, parts["x"].shape[1:])
    names, k = artifact.meta.get("class_names"), parts["y"].shape[1]
    checks.require(
        names is None or (isinstance(names, list) and len(names) == k),
        where,
        f"meta has class_names {names} and y has {k} columns; give a list with one name per class, or none",
    )
    return Artifact(Distilled(**parts), Preprocess(**stages), artifact.meta)


def _check_distilled(where: str, x: Any, y: Any, lr: Any) -> None:
    """``x [m, ...]`` and ``y [m, k]`` of equal length, finite, with at least one point."""
    _check_numbers(where, "x", x)
    _check_numbers(where, "y", y)
    checks.require(x.ndim >= 2 and x.size > 0, where, f"x has shape {x.shape}; expected [points, ...], not empty")
    checks.require(y.ndim == 2 and y.size > 0, where, f"y has shape {y.shape}; expected [points, classes], not empty")
    checks.same_length(where, "x", x, "y", y)
    if lr is not None:
        _check_numbers(where, "lr", lr)
        checks.require(lr.ndim < 2, where, f"lr has shape {lr.shape}; expected [] or [steps]")


def _check_preprocess(where: str, stages: dict[str, Any], example: tuple[int, ...]) -> None:
    """Stages must be finite and fit one example of shape ``example``."""
    size = _whitened(stages["zca"], example)
    expected = {"low": (), "high": (), "zca": (size, size), "zca_inverse": (size, size)}
    for name in ("mean", "std", "low", "high", "centre", "zca", "zca_inverse"):
        if stages[name] is None and name in ("centre", "zca", "zca_inverse"):
            continue
        value, shape = stages[name], expected.get(name, example)
        _check_numbers(where, f"preprocess.{name}", value)
        fits = value.shape == shape if name in expected else _broadcasts(value.shape, shape)
        checks.require(fits, where, f"preprocess.{name} has shape {value.shape}; examples {example} need {shape}")
    checks.require(bool(np.all(stages["std"] > 0)), where, "preprocess.std must be positive; it divides the pixels")
    checks.require(
        (stages["zca"] is None) == (stages["zca_inverse"] is None),
        where,
        "preprocess has only one of zca and zca_inverse; give both or neither",
    )


def _whitened(matrix: Any, example: tuple[int, ...]) -> int:
    """Numbers that are whitened together: an example's, or those of every ``stride``-th pixel, as the matrix says."""
    size = int(np.prod(example))
    if matrix is None or matrix.ndim != 2 or not matrix.size or len(example) != 3:
        return size
    stride = math.isqrt(size // len(matrix))
    fits = stride > 0 and example[0] % stride == example[1] % stride == 0
    return size // stride**2 if fits else size


def _check_numbers(where: str, name: str, value: Any) -> None:
    """An array of real numbers in a type that ``.npz`` can hold, all finite."""
    kind = "None" if value is None else f"an array of dtype {value.dtype}"
    checks.require(
        value is not None and value.dtype.kind in "fiu",
        where,
        f"{name} is {kind}; an artifact holds real numbers in NumPy's own types, such as float32",
    )
    checks.finite(where, name, value)


def _broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Whether an array of ``shape`` acts on one of ``target`` without enlarging it."""
    try:
        return np.broadcast_shapes(shape, target) == target
    except ValueError:
        return False


def _read_meta(where: str, members: dict[str, Callable[[], bytes]]) -> dict[str, Any]:
    """The JSON object, if the file is an artifact of a format that this version reads."""
    foreign = checks.InputError(
        f"{where}: an .npz, but no kipjax artifact (it holds {_listed(set(members)) or 'nothing'}, and no meta with "
        f"format {FORMAT}); wrap its arrays in kipjax.io.artifact.Artifact and save them"
    )
    if "meta" not in members:
        raise foreign
    meta = _npz.meta_of(_npz.read_array(where, "meta", members["meta"]), FORMAT)
    if meta is None:
        raise foreign
    _npz.require_readable(where, meta, FORMAT_VERSION)
    return meta
