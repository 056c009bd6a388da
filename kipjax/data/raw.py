"""What every reader returns, text of files, and images of one size from images of many."""

import pathlib
from typing import NamedTuple

import numpy as np

from kipjax import checks

__all__ = ["Raw", "resized", "text_of"]


class Raw(NamedTuple):
    """What a file holds: ``x [n, ...]``, ``y [n]``, and class names where the file gives them."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: tuple[str, ...] | None = None


def resized(image: np.ndarray, size: int) -> np.ndarray:
    """``[size, size, c]`` from an 8-bit image ``[h, w, c]``: the shorter side to ``size``, then the middle square.

    Bilinear with a filter as wide as the scale asks for (Pillow), as the papers prepare ImageNette and ImageWoof.

    References:
      arXiv:2203.11932, appendix (Resize, CenterCrop); arXiv:2206.00719.
    """
    from PIL import Image

    h, w, c = image.shape
    if (h, w) == (size, size):
        return image
    scale = size / min(h, w)
    height, width = max(round(h * scale), size), max(round(w * scale), size)
    picture = Image.fromarray(image[..., 0] if c == 1 else image).resize((width, height), Image.Resampling.BILINEAR)
    top, left = (height - size) // 2, (width - size) // 2
    return np.asarray(picture).reshape(height, width, c)[top : top + size, left : left + size]


def text_of(path: pathlib.Path) -> str:
    """The text of a UTF-8 file.

    Raises:
      InputError: it is none.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise checks.InputError(f"data.load: {path} is no UTF-8 text ({error}); fetch it again") from error
