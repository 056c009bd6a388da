"""Reading a ``.npz`` that anyone may have made: nothing in it is trusted, and an error says what the file is."""

import io
import json
import math
import os
import struct
import zipfile
import zlib
from collections.abc import Callable

import numpy as np

from kipjax import checks
from kipjax.io import _files

__all__ = ["members", "meta_of", "read_array", "require_readable"]

_ROOM = 2**30  # bytes that a small file may grow to; arrays of zeros pack a thousandfold
_BROKEN = (OSError, ValueError, KeyError, EOFError, RuntimeError, OverflowError, MemoryError)
_UNREADABLE = (*_BROKEN, zipfile.BadZipFile, zlib.error, struct.error)


def members(
    where: str, path: str | os.PathLike, *, kind: str = "artifact", example: str = "distilled.npz"
) -> dict[str, Callable[[], bytes]]:
    """The bytes of every array in an ``.npz`` by name, each checked against its CRC when read.

    ``kind`` and ``example`` say in messages what the file should have been.
    """
    try:
        with open(path, "rb") as file:
            content = file.read()
    except FileNotFoundError:
        raise checks.InputError(f"{where}: no such file; check the path, or make the {kind} first") from None
    except OSError as error:
        raise _files.path_error(f"{kind}.load", "read", path, error) from error
    checks.require(len(content) > 0, where, "the file is empty, its writing was cut off; make it again")
    checks.require(
        content[:2] == b"PK",
        where,
        f"this is no kipjax {kind} and no .npz at all (it begins with {content[:8]!r}); give the path of a {example}",
    )
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except _UNREADABLE as error:
        raise _damaged(where, error) from error
    declared = sum(info.file_size for info in archive.infolist())
    checks.require(
        declared <= max(_ROOM, 100 * len(content)),
        where,
        f"its {len(content)} bytes are to grow to {declared} when unpacked, which no {kind} does; take another copy",
    )
    return {info.filename.removesuffix(".npy"): lambda info=info: archive.read(info) for info in archive.infolist()}


def read_array(where: str, name: str, read: Callable[[], bytes]) -> np.ndarray:
    """One array, refusing Python objects; its bytes are whole before anything in them is parsed."""
    try:
        content = read()
        _require_declared_size(content)
        return np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except Exception as error:  # NumPy hands a header to Python's parser, which has errors of many kinds
        if "Object arrays" in str(error):
            raise checks.InputError(
                f"{where}: {name} holds pickled Python objects, which are never loaded because they can run code; "
                "ask for plain numeric arrays"
            ) from None
        raise _damaged(where, error) from error


def _require_declared_size(content: bytes) -> None:
    """The header must declare as many bytes as follow it, before memory is taken for them."""
    file = io.BytesIO(content)
    formats = {(1, 0): np.lib.format.read_array_header_1_0}
    shape, _, dtype = formats.get(np.lib.format.read_magic(file), np.lib.format.read_array_header_2_0)(file)
    declared = file.tell() + math.prod(shape) * dtype.itemsize
    if declared != len(content) and not dtype.hasobject:
        raise ValueError(f"it declares {dtype} of shape {shape}, {declared} bytes with its header of {len(content)}")


def meta_of(raw: np.ndarray, form: str) -> dict | None:
    """The JSON object behind ``meta`` bytes, if it says that it is of that format; else ``None``."""
    try:
        meta = json.loads(raw.tobytes().decode())
    except (ValueError, RecursionError):  # the second of brackets in brackets, thousands deep
        return None
    return meta if isinstance(meta, dict) and meta.get("format") == form else None


def require_readable(where: str, meta: dict, newest: int) -> None:
    """The file must be of a format version that this kipjax knows."""
    version = meta.get("format_version")
    checks.require(
        isinstance(version, int) and version <= newest,
        where,
        f"written in format version {version}, and this kipjax reads up to {newest}; upgrade kipjax",
    )


def _damaged(where: str, error: Exception) -> checks.InputError:
    return checks.InputError(
        f"{where}: the file is cut off or damaged ({_files.one_line(error, 80)}); make it again or take another copy"
    )
