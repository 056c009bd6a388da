"""A distilled set as a folder of PNG files and ``labels.csv``, for looking at and for other tools.

``labels.csv`` has a line for each picture: ``file,class,name`` and its target ``y``, a column for each class, whose
name is its title; the class of a picture is the largest entry of its target. Pictures have 8 bits and no values outside
those of pixels; ``interchange`` keeps every bit.
"""

import csv
import io
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from kipjax import checks
from kipjax.io import _files

__all__ = ["Pictures", "read", "write"]

_COLUMNS = ["file", "class", "name"]


class Pictures(NamedTuple):
    """What a folder holds: ``pixels [m, h, w, 1 or 3]`` uint8, targets ``y [m, k]`` float32 and ``k`` class names."""

    pixels: np.ndarray
    y: np.ndarray
    class_names: tuple[str, ...]


def write(folder: str | os.PathLike, pixels: Any, y: Any, *, class_names: Sequence[str] | None = None) -> None:
    """Writes a folder of PNG files and ``labels.csv``, with a line for each: file, class, its name, and its target.

    Args:
      folder: made if need be; it must not hold anything yet.
      pixels: ``[m, h, w, 1]`` or ``[m, h, w, 3]`` uint8 (``data.preprocess.to_pixels``).
      y: ``[m, k]`` targets; the class of a line is the largest entry.
      class_names: ``k`` names; the numbers unless given. Files are numbered, so a name may be any text.

    Raises:
      InputError: shapes or dtypes that do not fit, a folder that holds something, or that cannot be written.
    """
    from PIL import Image

    where, folder, y = "image_folder.write", pathlib.Path(folder), np.asarray(y)
    pixels = _checked_pixels(where, np.asarray(pixels), y)
    y = y.astype(np.float64)  # whose text is exact whatever they were
    names = [str(n) for n in (range(y.shape[1]) if class_names is None else class_names)]
    checks.require(len(names) == y.shape[1], where, f"class_names has {len(names)} entries and y {y.shape[1]} columns")
    for name in names:
        checks.require(
            _is_text(name), where, f"the class name {name!r} has characters that no file can hold; rename it"
        )
    _make_empty(where, folder)
    digits = max(len(str(len(pixels) - 1)), 4)
    rows = [[*_COLUMNS, *names]]
    for i, (image, target) in enumerate(zip(pixels, y)):
        name = f"{i:0{digits}d}.png"
        picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
        _files.atomic_write(where, folder / name, lambda file, picture=picture: picture.save(file, format="PNG"))
        best = int(target.argmax())
        rows.append([name, str(best), names[best], *map(str, target)])
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    content = text.getvalue().encode()
    _files.atomic_write(where, folder / "labels.csv", lambda file: file.write(content))


def read(folder: str | os.PathLike) -> Pictures:
    """Reads a folder that ``write`` wrote; no file outside of it is ever opened.

    Args:
      folder: with ``labels.csv`` and the PNG files that it names, all of one size.

    Raises:
      InputError: a file is missing, no picture, of another size, or outside; a line that is damaged. The text says
        which.
    """
    folder = pathlib.Path(folder)
    where = f"image_folder.read: {folder}"
    rows = _csv_rows(where, folder / "labels.csv")
    images, targets, named = [], [], {}
    for number, row in enumerate(rows[1:], start=2):
        checks.require(
            len(row) == len(rows[0]), where, f"labels.csv, line {number} has {len(row)} fields, expected {len(rows[0])}"
        )
        try:
            best, target = int(row[1]), np.array(row[3:], np.float32)
        except ValueError as error:
            raise checks.InputError(f"{where}: labels.csv, line {number}: {_files.one_line(error)}") from error
        images.append(_picture(where, folder, row[0]))
        checks.same_example_shape(where, rows[1][0], images[0][None], row[0], images[-1][None])
        named[best] = row[2]
        targets.append(target)
    y = np.stack(targets)
    checks.finite(where, "labels.csv", y)
    return Pictures(np.stack(images), y, tuple(named.get(i, title) for i, title in enumerate(rows[0][3:])))


def _checked_pixels(where: str, pixels: np.ndarray, y: np.ndarray) -> np.ndarray:
    checks.require(
        pixels.dtype == np.uint8 and pixels.ndim == 4 and pixels.shape[-1] in (1, 3) and pixels.size > 0,
        where,
        f"pixels have dtype {pixels.dtype} and shape {pixels.shape}; expected uint8 [m, h, w, 1] or [m, h, w, 3]",
    )
    checks.require(
        y.ndim == 2 and y.size > 0 and y.dtype.kind in "fiu",
        where,
        f"y has dtype {y.dtype} and shape {y.shape}; expected numbers [m, k]",
    )
    checks.finite(where, "y", y)
    checks.same_length(where, "pixels", pixels, "y", y)
    return pixels


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _make_empty(where: str, folder: pathlib.Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        found = next(folder.iterdir(), None)
    except OSError as error:
        raise _files.path_error(where, "make", folder, error) from error
    checks.require(found is None, where, f"{folder} already holds {found and found.name}; choose a new folder")


def _csv_rows(where: str, path: pathlib.Path) -> list[list[str]]:
    try:
        rows = [row for row in csv.reader(io.StringIO(path.read_bytes().decode(), newline=""), strict=True) if row]
    except OSError as error:
        raise _files.path_error(where, "read", path, error) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise checks.InputError(f"{where}: labels.csv is damaged ({_files.one_line(error)}); write it again") from error
    ok = len(rows) > 1 and rows[0][:3] == _COLUMNS and len(rows[0]) > 3
    checks.require(
        ok,
        where,
        f"labels.csv begins with {str(rows[0] if rows else '')[:80]}; expected file,class,name,CLASS,... and rows",
    )
    return rows


def _picture(where: str, folder: pathlib.Path, name: str) -> np.ndarray:
    """One PNG file of the folder itself; a link that leads out of it is refused like a path that does."""
    from PIL import Image

    checks.require(
        bool(name) and name == pathlib.PurePath(name).name and "\\" not in name and "\0" not in name
        and (folder / name).resolve().parent == folder.resolve(),
        where, f"labels.csv names the file {name[:80]!r}, which is not in the folder; only files in it are read",
    )  # fmt: skip
    try:
        # From bytes, as Pillow asks a file for as many as a damaged length declares, and a file takes memory for them.
        with Image.open(io.BytesIO((folder / name).read_bytes()), formats=["PNG"]) as image:
            pixels = np.asarray(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        text = _files.one_line(error, 80)
        raise checks.InputError(f"{where}: {name} is missing or no readable PNG ({text}); write it again") from error
    return pixels if pixels.ndim == 3 else pixels[..., None]
