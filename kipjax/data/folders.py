"""Readers of images in folders: one folder per class, and Tiny-ImageNet's layout."""

import io
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from kipjax import checks
from kipjax.data.raw import Raw, resized, text_of

__all__ = ["read_folder", "read_tiny_imagenet"]

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
_ROOM = 2**26  # bytes that a small image file may grow to; one colour packs a thousandfold


def read_folder(folder: pathlib.Path, *, image_size: int = 0) -> Raw:
    """Images as ``{train,test}/CLASS/FILE``; grey images give one channel, others three (Pillow).

    Classes are the folder names in sorted order; a class may be missing from ``test``.

    Args:
      folder: holds ``train`` and ``test`` (or ``val``).
      image_size: side of the result, see ``raw.resized``; 0 for images that are all of one size already.
    """
    test = "test" if (folder / "test").is_dir() or not (folder / "val").is_dir() else "val"
    for split in ("train", test):
        checks.require(
            (folder / split).is_dir(), "data.load", f"{folder} has no folder {split}/ with one folder per class"
        )
    names = _class_names(folder / "train")
    strangers = {path.name for path in (folder / test).iterdir() if path.is_dir()} - set(names)
    checks.require(
        not strangers, "data.load", f"{folder / test} has classes that train/ lacks: {', '.join(sorted(strangers))}"
    )
    splits = [[(p, i) for i, name in enumerate(names) for p in _files(folder / s / name)] for s in ("train", test)]
    return _raw([folder / "train", folder / test], splits, names, image_size)


def read_tiny_imagenet(folder: pathlib.Path, *, image_size: int = 0) -> Raw:
    """``train/CLASS/images/FILE`` and ``val/images/FILE`` with ``val/val_annotations.txt``, the archive as published.

    Its labelled validation images are the test set, as in the papers; classes are WordNet ids in sorted order.

    References:
      http://cs231n.stanford.edu/tiny-imagenet-200.zip.
    """
    names = _class_names(folder / "train")
    number, annotations = {name: i for i, name in enumerate(names)}, folder / "val" / "val_annotations.txt"
    train = [(path, i) for i, name in enumerate(names) for path in _files(folder / "train" / name / "images")]
    test = []
    for line in text_of(annotations).splitlines():
        file, name, *_ = [*line.split("\t"), ""]
        checks.require(
            name in number,
            "data.load",
            f"{annotations} has the line {line[:80]!r}; expected FILE, tab, a class of train/",
        )
        test.append((folder / "val" / "images" / pathlib.Path(file).name, number[name]))
    return _raw([folder / "train", folder / "val"], [train, test], names, image_size)


def _class_names(folder: pathlib.Path) -> tuple[str, ...]:
    names = tuple(sorted(path.name for path in folder.iterdir() if path.is_dir()))
    checks.require(bool(names), "data.load", f"{folder} has no class folders; expected train/CLASS/image.png")
    return names


def _files(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    found = folder.iterdir() if folder.is_dir() else ()
    return iter(sorted(path for path in found if path.suffix.lower() in _SUFFIXES))


def _raw(folders: list, splits: list, names: tuple[str, ...], image_size: int) -> Raw:
    """All images, those of both splits of one shape."""
    shape: list[Any] = []  # of the first image, which all others must have
    read = []
    for folder, split in zip(folders, splits):
        kinds = " ".join(_SUFFIXES)
        checks.require(bool(split), "data.load", f"{folder} has no images in its class folders ({kinds})")
        read.append([_image(path, image_size, shape) for path, _ in split])
    channels = max(image.shape[-1] for images in read for image in images)
    x_train, x_test = (np.stack([np.broadcast_to(i, (*i.shape[:2], channels)) for i in images]) for images in read)
    y_train, y_test = (np.array([label for _, label in split]) for split in splits)
    return Raw(x_train, y_train, x_test, y_test, names)


def _image(path: pathlib.Path, image_size: int, shape: list[Any]) -> np.ndarray:
    """``[h, w, 1]`` or ``[h, w, 3]`` uint8; transparency is dropped."""
    from PIL import Image

    try:
        # From bytes, as Pillow asks a file for as many as a damaged length declares, and a file takes memory for them.
        with Image.open(io.BytesIO(path.read_bytes())) as image:  # decodes no more than the header
            _require_pixels(path, image, None if image_size else shape)
            pixels = np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
    except checks.InputError:
        raise
    except Exception as error:  # Pillow has errors of many kinds for damaged files
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise checks.InputError(
            f"data.load: {path} is not a readable image ({reason}); remove or replace it"
        ) from error
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    return resized(pixels, image_size) if image_size else pixels


def _require_pixels(path: pathlib.Path, image: Any, shape: list[Any] | None) -> None:
    """What the header of an image declares, before memory is taken for it; ``shape`` is that of the first image."""
    (width, height), size = image.size, path.stat().st_size
    checks.require(
        3 * width * height <= max(_ROOM, 100 * size),
        "data.load",
        f"{path} has {size} bytes, and its header declares {width} x {height} pixels; remove or replace it",
    )
    checks.require(
        not image.mode.startswith(("I", "F")),
        "data.load",
        f"{path} has {image.mode} pixels of more than 8 bits; convert it to 8 bits or pass an .npz",
    )
    if shape is not None:
        shape[:] = shape or [(height, width), path]
        checks.require(
            (height, width) == shape[0],
            "data.load",
            f"{path} is {width} x {height} pixels and {shape[1]} is {shape[0][1]} x {shape[0][0]}; "
            "say what size all should have (image_size=, or --config.data.image_size)",
        )
