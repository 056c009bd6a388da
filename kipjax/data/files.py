"""Readers of local files: IDX, CIFAR's binary version, ``.npz``; what a path holds. No pickle is ever loaded.

Each reader takes a folder or file and returns a ``Raw``; headers and sizes are checked here, what holds for every data
set (labels, shapes, finite pixels) in ``sources.from_arrays``.
"""

import gzip
import math
import pathlib
import sys
import zipfile
import zlib
from typing import Any

import numpy as np

from kipjax import checks
from kipjax.data import folders
from kipjax.data.raw import Raw, text_of

__all__ = ["detect", "read", "read_cifar", "read_idx", "read_npz"]


IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_ROOM = 2**30  # bytes that a small archive may grow to; arrays of zeros pack a thousandfold
_PIECE = 2**24  # bytes read at a time
_IDX_MAGIC = {3: 2051, 1: 2049}  # 0x08 (bytes) and the number of axes

_CIFAR10 = ("cifar-10-batches-bin", [f"data_batch_{i}.bin" for i in range(1, 6)], "test_batch.bin", "batches.meta.txt")
_CIFAR100 = ("cifar-100-binary", ["train.bin"], "test.bin", "fine_label_names.txt")
_CIFAR_SHAPE = (3, 32, 32)


def detect(path: pathlib.Path) -> str | None:
    """The format at ``path``, or ``None``: npz, idx, cifar10, cifar100, tiny_imagenet or folder."""
    if path.is_file():
        return "npz" if path.suffix == ".npz" else None
    if any(_find(path, name) for name in IDX_FILES):
        return "idx"
    for kind, (subfolder, train, test, _) in (("cifar10", _CIFAR10), ("cifar100", _CIFAR100)):
        if any((folder / name).is_file() for folder in (path, path / subfolder) for name in (*train, test)):
            return kind
    if not (path / "train").is_dir():
        return None
    return "tiny_imagenet" if (path / "val" / "val_annotations.txt").is_file() else "folder"


def read(path: pathlib.Path, kind: str, *, image_size: int = 0) -> Raw:
    """Reads ``path`` as the format that ``detect`` names; images in folders come in the size that is asked for."""
    in_folders = {"folder": folders.read_folder, "tiny_imagenet": folders.read_tiny_imagenet}
    if kind in in_folders:
        return in_folders[kind](path, image_size=image_size)
    return {"npz": read_npz, "idx": read_idx, "cifar10": read_cifar, "cifar100": read_cifar}[kind](path)


def read_idx(folder: pathlib.Path) -> Raw:
    """MNIST's IDX files, plain or gzipped: ``{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]``.

    References:
      http://yann.lecun.com/exdb/mnist (file formats); Debian's package dataset-fashion-mnist holds the same four.
    """
    paths = [path for name in IDX_FILES if (path := _find(folder, name))]
    missing = [name for name in IDX_FILES if not _find(folder, name)]
    checks.require(
        not missing, "data.load", f"{folder} lacks {', '.join(missing)} (or .gz); all four IDX files are needed"
    )
    x_train, y_train, x_test, y_test = (_read_idx_file(p, ndim) for p, ndim in zip(paths, (3, 1, 3, 1)))
    _check_pairs(folder, x_train, y_train, x_test, y_test)
    return Raw(x_train[..., None], y_train, x_test[..., None], y_test)


def read_cifar(folder: pathlib.Path) -> Raw:
    """The binary version of CIFAR-10, or of CIFAR-100 with its 100 fine labels.

    A record is the label byte (CIFAR-100: coarse, then fine) and 3072 bytes, channel by channel.

    References:
      https://www.cs.toronto.edu/~kriz/cifar.html (binary version).
    """
    subfolder, train, test, names = _CIFAR100 if detect(folder) == "cifar100" else _CIFAR10
    folder = folder / subfolder if (folder / subfolder).is_dir() else folder
    missing = [name for name in (*train, test) if not (folder / name).is_file()]
    checks.require(
        not missing, "data.load", f"{folder} lacks {', '.join(missing)}; unpack the whole binary archive again"
    )
    label_bytes = 2 if subfolder == _CIFAR100[0] else 1
    parts = [_read_cifar_file(folder / name, label_bytes) for name in train]
    x_test, y_test = _read_cifar_file(folder / test, label_bytes)
    x_train, y_train = (np.concatenate(part) for part in zip(*parts))
    class_names = tuple(text_of(folder / names).split()) if (folder / names).is_file() else None
    return Raw(x_train, y_train, x_test, y_test, class_names)


def read_npz(path: pathlib.Path) -> Raw:
    """Arrays ``x_train``, ``y_train``, ``x_test``, ``y_test``, optionally ``class_names``; objects are refused."""
    keys = ("x_train", "y_train", "x_test", "y_test")
    try:
        checks.require(zipfile.is_zipfile(path), "data.load", f"{path} is not a whole .npz archive; write it again")
        _require_declared_sizes(path)
        with np.load(path, allow_pickle=False) as archive:
            missing = [key for key in keys if key not in archive.files]
            checks.require(
                not missing, "data.load", f"{path} lacks {', '.join(missing)}; it holds {', '.join(archive.files)}"
            )
            x_train, y_train, x_test, y_test = (archive[key] for key in keys)
            names = archive["class_names"].tolist() if "class_names" in archive.files else None
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, KeyError) as error:
        raise checks.InputError(f"data.load: {path} is not a whole .npz archive ({error}); write it again") from error
    except Exception as error:  # NumPy hands a header to Python's parser, which has errors of many kinds
        if isinstance(error, checks.InputError):
            raise
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise checks.InputError(
            f"data.load: {path} cannot be read without pickle, which is never loaded ({reason}); "
            "save plain numeric and string arrays"
        ) from error
    return Raw(x_train, y_train, x_test, y_test, None if names is None else tuple(map(str, names)))


def _require_declared_sizes(path: pathlib.Path) -> None:
    """The header of each array must declare as many bytes as follow it, before memory is taken for them."""
    formats = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    with zipfile.ZipFile(path) as archive:
        size, unpacked = path.stat().st_size, sum(info.file_size for info in archive.infolist())
        checks.require(
            unpacked <= max(_ROOM, 100 * size),
            "data.load",
            f"{path} has {size} bytes, which are to grow to {unpacked} when unpacked; write it again, uncompressed",
        )
        for info in archive.infolist():
            with archive.open(info) as member:
                version = np.lib.format.read_magic(member)
                shape, _, dtype = formats.get(version, formats[2, 0])(member)
                declared = member.tell() + int(np.prod(shape, dtype=object)) * dtype.itemsize
            checks.require(
                dtype.hasobject or declared == info.file_size,
                "data.load",
                f"{path}: {info.filename} declares {dtype} of shape {shape}, {declared} bytes with its header, and has "
                f"{info.file_size}; write it again",
            )


def _find(folder: pathlib.Path, name: str) -> pathlib.Path | None:
    """The file of that name, plain or gzipped."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _read_bytes(path: pathlib.Path, most: int = sys.maxsize) -> bytearray:
    """The bytes of a file, unpacked, as far as so many: a small gzip file may grow a thousandfold."""
    content = bytearray()
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            while piece := file.read(min(most - len(content), _PIECE)):  # a file makes room for what it is asked for
                content += piece
    except (OSError, EOFError, zlib.error) as error:
        raise checks.InputError(f"data.load: {path} cannot be read ({error}); fetch it again") from error
    return content


def _read_idx_file(path: pathlib.Path, ndim: int) -> np.ndarray:
    header = 4 + 4 * ndim
    data = _read_bytes(path, header)
    magic = int.from_bytes(data[:4], "big")
    expected = _IDX_MAGIC[ndim]
    checks.require(
        len(data) >= header and magic == expected,
        "data.load",
        f"{path} has {len(data)} bytes and the magic number {magic}; an IDX file of {ndim} axes has {expected}: "
        "fetch it again",
    )
    shape = tuple(int.from_bytes(data[i : i + 4], "big") for i in range(4, header, 4))
    checks.require(0 not in shape, "data.load", f"{path} is of shape {shape}, which is empty: fetch it again")
    size = header + math.prod(shape)
    data = _read_bytes(path, size + 1)
    checks.require(
        len(data) == size,
        "data.load",
        f"{path} has {f'more than {size}' if len(data) > size else len(data)} bytes and its header says {size} for "
        f"shape {shape}; the file is damaged: fetch it again",
    )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def _check_pairs(folder: pathlib.Path, x_train: Any, y_train: Any, x_test: Any, y_test: Any) -> None:
    for split, x, y in (("train", x_train, y_train), ("t10k", x_test, y_test)):
        checks.require(
            len(x) == len(y),
            "data.load",
            f"{folder}: {split} has {len(x)} images and {len(y)} labels; they are not of one set: fetch both again",
        )


def _read_cifar_file(path: pathlib.Path, label_bytes: int) -> tuple[np.ndarray, np.ndarray]:
    data = np.frombuffer(_read_bytes(path), np.uint8)
    record = label_bytes + math.prod(_CIFAR_SHAPE)
    checks.require(
        data.size > 0 and data.size % record == 0,
        "data.load",
        f"{path} has {data.size} bytes, which is no multiple of its records' {record}; the file is damaged: "
        "fetch it again",
    )
    data = data.reshape(-1, record)
    images = data[:, label_bytes:].reshape(-1, *_CIFAR_SHAPE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), data[:, label_bytes - 1]
