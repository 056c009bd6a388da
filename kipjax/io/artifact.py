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
import importlib.metadata
import io
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from kipjax import checks
from kipjax.io import _files
from kipjax.io.log import to_jsonable
from kipjax.types import Distilled, Preprocess

__all__ = ["FORMAT", "FORMAT_VERSION", "Artifact", "fingerprint", "load", "save"]

FORMAT = "kipjax-distilled"
FORMAT_VERSION = 1

_BROKEN = (OSError, ValueError, KeyError, EOFError, RuntimeError, OverflowError, MemoryError)
_UNREADABLE = (*_BROKEN, zipfile.BadZipFile, zlib.error, struct.error)


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
    _require_types(where, artifact)
    artifact = _checked(where, artifact._replace(meta=_described(where, artifact.meta)))
    arrays = _to_arrays(artifact)
    _files.atomic_write(where, path, lambda file: np.savez(file, **arrays))


def load(path: str | os.PathLike) -> Artifact:
    """Reads an artifact; nothing in the file is ever executed or unpickled.

    Arrays come back as NumPy arrays, so that float64 stays float64 whether or not JAX's 64-bit mode is on.

    Raises:
      InputError: the file is missing, empty, cut off, damaged, foreign, or of a newer format; the text says which.
    """
    where = f"artifact.load: {os.fspath(path)}"
    members = _members(where, path)
    meta = _read_meta(where, members)
    arrays = {name: _read_array(where, name, read) for name, read in members.items() if name != "meta"}
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
    versions = {"kipjax": _version("kipjax"), "jax": jax.__version__, "numpy": np.__version__}
    own = {"format": FORMAT, "format_version": FORMAT_VERSION, "versions": versions}
    return to_jsonable(meta, f"{where}: meta") | own


def _version(package: str) -> str:
    """The installed version, or ``unknown`` when the package runs from a source tree that is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


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


def _to_arrays(artifact: Artifact) -> dict[str, np.ndarray]:
    """The members of the file by name."""
    fields = artifact.distilled._asdict()
    fields |= {f"preprocess.{name}": value for name, value in artifact.preprocess._asdict().items()}
    text = json.dumps(artifact.meta, allow_nan=False).encode()
    arrays = {name: np.asarray(value) for name, value in fields.items() if value is not None}
    return arrays | {"meta": np.frombuffer(text, np.uint8)}


def _from_arrays(where: str, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> Artifact:
    """The inverse of ``_to_arrays``."""
    split = len("preprocess.")
    fields = {name[split:]: array for name, array in arrays.items() if name.startswith("preprocess.")}
    missing = {"x", "y"} - set(arrays) | {"mean", "std", "low", "high", "per_image"} - set(fields)
    unknown = {n for n in arrays if not n.startswith("preprocess.")} - {"x", "y", "lr"} | set(fields) - set(
        Preprocess._fields
    )
    if missing or unknown:
        what = f"lacks {_listed(missing)}" if missing else f"has the unknown arrays {_listed(unknown)}"
        raise checks.InputError(f"{where} is damaged: it {what}; make the artifact again or take another copy")
    per_image = bool(np.all(fields.pop("per_image")))
    preprocess = Preprocess(**fields, per_image=per_image)
    return Artifact(Distilled(arrays["x"], arrays["y"], arrays.get("lr")), preprocess, meta)


def _listed(names: set[str]) -> str:
    """Names in a fixed order."""
    return ", ".join(sorted(names))


def _checked(where: str, artifact: Artifact) -> Artifact:
    """The artifact with NumPy arrays, or an error if its values cannot be a distilled set."""
    distilled = Distilled(*(None if value is None else np.asarray(value) for value in artifact.distilled))
    stages = {name: None if v is None else np.asarray(v) for name, v in artifact.preprocess._asdict().items()}
    per_image = bool(stages.pop("per_image"))
    _check_distilled(where, distilled)
    _check_preprocess(where, stages, distilled.x.shape[1:])
    names = artifact.meta.get("class_names")
    checks.require(
        names is None or len(names) == distilled.y.shape[1],
        where,
        f"meta has {0 if names is None else len(names)} class_names and y has {distilled.y.shape[1]} columns; "
        "both need one per class",
    )
    return Artifact(distilled, Preprocess(**stages, per_image=per_image), artifact.meta)


def _check_distilled(where: str, distilled: Distilled) -> None:
    """``x [m, ...]`` and ``y [m, k]`` of equal length, finite, with at least one point."""
    x, y, lr = distilled
    for name, value in (("x", x), ("y", y), ("lr", lr)):
        _check_numbers(where, name, value)
    checks.require(x.ndim >= 2 and len(x) > 0, where, f"x has shape {x.shape}; expected [points, ...] and a point")
    checks.require(y.ndim == 2 and y.shape[1] > 0, where, f"y has shape {y.shape}; expected [points, classes]")
    checks.same_length(where, "x", x, "y", y)
    checks.require(lr is None or lr.ndim < 2, where, f"lr has shape {np.shape(lr)}; expected [] or [steps]")


def _check_preprocess(where: str, stages: dict[str, np.ndarray | None], example: tuple[int, ...]) -> None:
    """Stages must be finite and fit one example of shape ``example``."""
    for name, value in stages.items():
        checks.require(
            value is not None or name in ("centre", "zca", "zca_inverse"),
            where,
            f"preprocess.{name} is None; it is needed",
        )
        _check_numbers(where, f"preprocess.{name}", value)
    size = int(np.prod(example))
    for name, value in stages.items():
        if value is None:
            continue
        expected = (size, size) if name.startswith("zca") else () if name in ("low", "high") else example
        fits = _broadcasts(value.shape, expected) if name in ("mean", "std", "centre") else value.shape == expected
        checks.require(
            fits, where, f"preprocess.{name} has shape {value.shape}; examples of shape {example} need {expected}"
        )
    checks.require(bool(np.all(stages["std"] > 0)), where, "preprocess.std must be positive; it divides the pixels")
    checks.require(
        (stages["zca"] is None) == (stages["zca_inverse"] is None),
        where,
        "preprocess has only one of zca and zca_inverse; give both or neither",
    )


def _check_numbers(where: str, name: str, value: np.ndarray | None) -> None:
    """An array of real numbers in a type that ``.npz`` can hold, all finite."""
    if value is None:
        return
    checks.require(
        value.dtype.kind in "fiub",
        where,
        f"{name} has dtype {value.dtype}; an artifact holds real numbers in NumPy's own types, convert to float32",
    )
    checks.finite(where, name, value)


def _broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Whether an array of ``shape`` acts on one of ``target`` without enlarging it."""
    try:
        return np.broadcast_shapes(shape, target) == target
    except ValueError:
        return False


def _members(where: str, path: str | os.PathLike) -> dict[str, Callable[[], bytes]]:
    """The bytes of every array in an ``.npz`` by name, each checked against its CRC when read."""
    try:
        with open(path, "rb") as file:
            content = file.read()
    except FileNotFoundError:
        raise checks.InputError(f"{where}: no such file; check the path, or distil a set first") from None
    except OSError as error:
        raise _files.path_error("artifact.load", "read", path, error) from error
    checks.require(len(content) > 0, where, "the file is empty, its writing was cut off; make the artifact again")
    checks.require(
        content[:2] == b"PK",
        where,
        f"this is no kipjax artifact and no .npz at all (it begins with {content[:8]!r}); give the path of a "
        "distilled.npz",
    )
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except _UNREADABLE as error:
        raise _damaged(where, error) from error
    return {info.filename.removesuffix(".npy"): lambda info=info: archive.read(info) for info in archive.infolist()}


def _read_array(where: str, name: str, read: Callable[[], bytes]) -> np.ndarray:
    """One array, refusing Python objects; its bytes are whole before anything in them is parsed."""
    try:
        return np.lib.format.read_array(io.BytesIO(read()), allow_pickle=False)
    except _UNREADABLE as error:
        if "Object arrays" in str(error):
            raise checks.InputError(
                f"{where}: {name} holds pickled Python objects, which are never loaded because they can run code; "
                "ask for the set as plain numeric arrays"
            ) from None
        raise _damaged(where, error) from error


def _damaged(where: str, error: Exception) -> checks.InputError:
    return checks.InputError(
        f"{where}: the file is cut off or damaged ({_files.one_line(error, 80)}); make the artifact again or take "
        "another copy"
    )


def _read_meta(where: str, members: dict[str, Callable[[], bytes]]) -> dict[str, Any]:
    """The JSON object, if the file is an artifact of a format that this version reads."""
    foreign = checks.InputError(
        f"{where}: an .npz, but no kipjax artifact (it holds {_listed(set(members)) or 'nothing'}, and no meta with "
        f"format {FORMAT}); wrap its arrays in kipjax.io.artifact.Artifact and save them"
    )
    if "meta" not in members:
        raise foreign
    try:
        meta = json.loads(_read_array(where, "meta", members["meta"]).tobytes().decode())
    except checks.InputError:
        raise
    except ValueError:
        raise foreign from None
    if not isinstance(meta, dict) or meta.get("format") != FORMAT:
        raise foreign
    version = meta.get("format_version")
    checks.require(
        isinstance(version, int) and version <= FORMAT_VERSION,
        where,
        f"written in format version {version}, and this kipjax reads up to {FORMAT_VERSION}; upgrade kipjax",
    )
    return meta
