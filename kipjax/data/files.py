"""Readers of local files: IDX, CIFAR's binary version, ``.npz``, folders of class folders. No pickle is ever loaded.

Each reader takes a folder or file and returns ``(x_train, y_train, x_test, y_test, class_names or None)``; headers and
sizes are checked here, what holds for every data set (labels, shapes, finite pixels) in ``sources.from_arrays``.
"""

import gzip
import pathlib
import zipfile
import zlib
from typing import Any, NamedTuple

import numpy as np

from kipjax import checks

__all__ = ["Raw", "detect", "read", "read_cifar", "read_folder", "read_idx", "read_npz"]


class Raw(NamedTuple):
    """What a file holds: ``x [n, ...]``, ``y [n]``, and class names where the file gives them."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: tuple[str, ...] | None = None


IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_IDX_MAGIC = {3: 2051, 1: 2049}  # 0x08 (bytes) and the number of axes

_CIFAR10 = ("cifar-10-batches-bin", [f"data_batch_{i}.bin" for i in range(1, 6)], "test_batch.bin", "batches.meta.txt")
_CIFAR100 = ("cifar-100-binary", ["train.bin"], "test.bin", "fine_label_names.txt")
_CIFAR_SHAPE = (3, 32, 32)
_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")


def detect(path: pathlib.Path) -> str | None:
    """The format at ``path``: ``"npz"``, ``"idx"``, ``"cifar10"``, ``"cifar100"``, ``"folder"``, or ``None``."""
    if path.is_file():
        return "npz" if path.suffix == ".npz" else None
    if any(_find(path, name) for name in IDX_FILES):
        return "idx"
    for kind, (subfolder, train, test, _) in (("cifar10", _CIFAR10), ("cifar100", _CIFAR100)):
        if any((folder / name).is_file() for folder in (path, path / subfolder) for name in (*train, test)):
            return kind
    return "folder" if (path / "train").is_dir() else None


def read(path: pathlib.Path, kind: str) -> Raw:
    """Reads ``path`` as the format that ``detect`` names."""
    readers = {"npz": read_npz, "idx": read_idx, "cifar10": read_cifar, "cifar100": read_cifar, "folder": read_folder}
    return readers[kind](path)


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
    class_names = tuple((folder / names).read_text().split()) if (folder / names).is_file() else None
    return Raw(x_train, y_train, x_test, y_test, class_names)


def read_npz(path: pathlib.Path) -> Raw:
    """Arrays ``x_train``, ``y_train``, ``x_test``, ``y_test``, optionally ``class_names``; objects are refused."""
    keys = ("x_train", "y_train", "x_test", "y_test")
    try:
        checks.require(zipfile.is_zipfile(path), "data.load", f"{path} is not a whole .npz archive; write it again")
        with np.load(path, allow_pickle=False) as archive:
            missing = [key for key in keys if key not in archive.files]
            checks.require(
                not missing, "data.load", f"{path} lacks {', '.join(missing)}; it holds {', '.join(archive.files)}"
            )
            x_train, y_train, x_test, y_test = (archive[key] for key in keys)
            names = archive["class_names"].tolist() if "class_names" in archive.files else None
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, KeyError) as error:
        raise checks.InputError(f"data.load: {path} is not a whole .npz archive ({error}); write it again") from error
    except ValueError as error:
        if isinstance(error, checks.InputError):
            raise
        raise checks.InputError(
            f"data.load: {path} cannot be read without pickle, which is never loaded ({error}); "
            "save plain numeric and string arrays"
        ) from error
    return Raw(x_train, y_train, x_test, y_test, None if names is None else tuple(map(str, names)))


def read_folder(folder: pathlib.Path) -> Raw:
    """Images as ``{train,test}/CLASS/FILE``, all of one size; grey images give one channel, others three (Pillow).

    Classes are the folder names in sorted order; a class may be missing from ``test``.
    """
    for split in ("train", "test"):
        checks.require(
            (folder / split).is_dir(), "data.load", f"{folder} has no folder {split}/ with one folder per class"
        )
    names = tuple(sorted(path.name for path in (folder / "train").iterdir() if path.is_dir()))
    checks.require(bool(names), "data.load", f"{folder / 'train'} has no class folders; expected train/CLASS/image.png")
    strangers = {path.name for path in (folder / "test").iterdir() if path.is_dir()} - set(names)
    checks.require(
        not strangers, "data.load", f"{folder / 'test'} has classes that train/ lacks: {', '.join(sorted(strangers))}"
    )
    shape: list[Any] = []  # of the first image, which all others must have
    splits = [_read_split(folder / split, names, shape) for split in ("train", "test")]
    channels = max(image.shape[-1] for images, _ in splits for image in images)
    arrays = [(np.stack([np.broadcast_to(i, (*i.shape[:2], channels)) for i in images]), y) for images, y in splits]
    return Raw(*arrays[0], *arrays[1], names)


def _find(folder: pathlib.Path, name: str) -> pathlib.Path | None:
    """The file of that name, plain or gzipped."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _read_bytes(path: pathlib.Path) -> bytes:
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise checks.InputError(f"data.load: {path} cannot be read ({error}); fetch it again") from error


def _read_idx_file(path: pathlib.Path, ndim: int) -> np.ndarray:
    data = _read_bytes(path)
    header = 4 + 4 * ndim
    magic = int.from_bytes(data[:4], "big")
    expected = _IDX_MAGIC[ndim]
    checks.require(
        len(data) >= header and magic == expected,
        "data.load",
        f"{path} has {len(data)} bytes and the magic number {magic}; an IDX file of {ndim} axes has {expected}: "
        "fetch it again",
    )
    shape = tuple(int.from_bytes(data[i : i + 4], "big") for i in range(4, header, 4))
    size = header + int(np.prod(shape, dtype=np.int64))
    checks.require(
        len(data) == size,
        "data.load",
        f"{path} has {len(data)} bytes and its header says {size} for shape {shape}; the file is damaged: "
        "fetch it again",
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
    record = label_bytes + int(np.prod(_CIFAR_SHAPE))
    checks.require(
        data.size > 0 and data.size % record == 0,
        "data.load",
        f"{path} has {data.size} bytes, which is no multiple of its records' {record}; the file is damaged: "
        "fetch it again",
    )
    data = data.reshape(-1, record)
    images = data[:, label_bytes:].reshape(-1, *_CIFAR_SHAPE).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), data[:, label_bytes - 1]


def _read_split(folder: pathlib.Path, names: tuple[str, ...], shape: list[Any]) -> tuple[list[np.ndarray], np.ndarray]:
    """All images of ``folder/CLASS/`` and their class numbers."""
    images, labels = [], []
    for label, name in enumerate(names):
        found = (folder / name).iterdir() if (folder / name).is_dir() else ()
        for path in sorted(path for path in found if path.suffix.lower() in _IMAGE_SUFFIXES):
            image = _read_image(path)
            shape[:] = shape or [image.shape[:2], path]
            checks.require(
                image.shape[:2] == shape[0],
                "data.load",
                f"{path} is {image.shape[1]} x {image.shape[0]} pixels and {shape[1]} is "
                f"{shape[0][1]} x {shape[0][0]}; resize all images to one size",
            )
            images.append(image)
            labels.append(label)
    kinds = " ".join(_IMAGE_SUFFIXES)
    checks.require(bool(images), "data.load", f"{folder} has no images in its class folders ({kinds})")
    return images, np.array(labels)


def _read_image(path: pathlib.Path) -> np.ndarray:
    """``[h, w, 1]`` or ``[h, w, 3]`` uint8; transparency is dropped."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            checks.require(
                not image.mode.startswith(("I", "F")),
                "data.load",
                f"{path} has {image.mode} pixels of more than 8 bits; convert it to 8 bits or pass an .npz",
            )
            pixels = np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
    except (OSError, SyntaxError) as error:  # Pillow raises SyntaxError for some damaged PNG files
        raise checks.InputError(f"data.load: {path} is not a readable image ({error}); remove or replace it") from error
    return pixels if pixels.ndim == 3 else pixels[..., None]
