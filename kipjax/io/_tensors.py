"""Named arrays in ``.npz`` and ``.safetensors`` files, and the refusal of files that only pickle could read."""

import os
from typing import Any

import numpy as np

from kipjax import checks
from kipjax.io import _files, _npz

__all__ = ["SUFFIXES", "read", "write"]

SUFFIXES = (".npz", ".safetensors")
_PICKLED = (".pt", ".pth", ".pkl", ".pickle", ".bin", ".ckpt", ".npy")
_CONVERT = (
    "where you trust the file, run: import torch, numpy; images, labels = torch.load(FILE)['data'][-1] (DC, DSA, DM), "
    "or torch.load of images_best.pt and of labels_best.pt (MTT); "
    "numpy.savez('set.npz', images=images.numpy(), labels=labels.numpy())"
)


def read(where: str, path: str | os.PathLike) -> dict[str, Any]:
    """The arrays of a file by name, and ``meta``, its bytes, where it has them.

    Raises:
      InputError: it is missing, cut off, damaged, of another kind, or would have to be unpickled.
    """
    name = os.fspath(path)
    _refuse_pickle(where, name.endswith(_PICKLED))
    if name.endswith(".safetensors"):
        return _read_safetensors(where, path)
    _refuse_pickle(where, _begins_like_pickle(path))
    members = _npz.members(where, path, kind="set of images and labels", example="file made by numpy.savez")
    _refuse_pickle(where, any(os.path.basename(member) == "data.pkl" for member in members))  # as PyTorch zips them
    return {name: _npz.read_array(where, name, one) for name, one in members.items()}


def write(where: str, path: str | os.PathLike, arrays: dict[str, Any]) -> None:
    """Writes the arrays, ``meta`` among them as bytes of JSON; the format is that of the suffix.

    Raises:
      InputError: another suffix, or a path that cannot be written.
    """
    suffix = os.path.splitext(os.fspath(path))[1]
    checks.one_of(where, f"the suffix of {os.fspath(path)}", suffix, SUFFIXES)
    if suffix == ".npz":
        _files.atomic_write(where, path, lambda file: np.savez(file, **arrays))
        return
    text = {"meta": arrays["meta"].tobytes().decode()}
    rows = {name: np.array(array, order="C") for name, array in arrays.items() if name != "meta"}
    for name, array in rows.items():
        known = array.dtype.itemsize <= 8 and array.dtype.kind in "fiub"
        checks.require(known, where, f"{name} has dtype {array.dtype}, which safetensors lack; give float64 or float32")
    content = _safetensors(where).save(rows, metadata=text)
    _files.atomic_write(where, path, lambda file: file.write(content))


def _refuse_pickle(where: str, pickled: bool) -> None:
    checks.require(not pickled, where, f"a pickle or of a kind that may hold one, and pickles can run code; {_CONVERT}")


def _begins_like_pickle(path: str | os.PathLike) -> bool:
    """Whether the first byte is that of every pickle since protocol 2, which no zip archive has."""
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return file.read(1) == b"\x80"


def _read_safetensors(where: str, path: str | os.PathLike) -> dict[str, Any]:
    """Through the package, which checks the header against the file before it takes memory."""
    _safetensors(where)
    import safetensors

    try:
        with open(path, "rb") as file:
            checks.require(bool(file.read(1)), where, "the file is empty, its writing was cut off; make it again")
        with safetensors.safe_open(path, framework="numpy") as opened:
            arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (it is no dict)
            text = (opened.metadata() or {}).get("meta")
    except FileNotFoundError:
        raise checks.InputError(f"{where}: no such file; check the path") from None
    except checks.InputError:
        raise
    except OSError as error:
        raise _files.path_error(where, "read", path, error) from error
    except (safetensors.SafetensorError, TypeError, ValueError, KeyError, AttributeError, MemoryError) as error:
        raise checks.InputError(
            f"{where}: cut off, damaged, or with numbers that NumPy does not have ({_files.one_line(error, 80)}); "
            "make it again with float32 tensors, or take another copy"
        ) from error
    return arrays if text is None else arrays | {"meta": np.frombuffer(text.encode(), np.uint8)}


def _safetensors(where: str) -> Any:
    try:
        import safetensors.numpy
    except ImportError as error:
        raise checks.InputError(
            f"{where}: .safetensors files need the package safetensors ({error}); pip install safetensors, or use .npz"
        ) from error
    return safetensors.numpy
