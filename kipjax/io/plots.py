"""Pictures of a distilled set: its images by class, and its learned labels.

matplotlib is used through its figure objects only; pyplot, with its global state and its choice of a backend, is never
imported, so a notebook's own plotting is not touched.
"""

import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from kipjax import checks
from kipjax.io import _files

__all__ = ["image_grid", "label_plot"]

_DPI = 100
_GAP, _MARGIN, _WIDEST = 4, 12, 1600  # pixels
_ROWS_SHOWN = 60  # images in the per-image label panel


class _Layout(NamedTuple):
    """Where the images go: every class is a block of ``rows x columns`` cells, blocks stand in ``panels`` columns."""

    scale: int
    cell: tuple[int, int]
    columns: int
    rows: int
    panels: int
    name_width: int


def image_grid(
    path: str | os.PathLike,
    images: Any,
    labels: Any = None,
    *,
    class_names: Sequence[str] | None = None,
    max_per_class: int = 100,
) -> None:
    """Writes the images as one PNG: a row for each class, its name at the left, every pixel crisp.

    Rows that would be too wide wrap; a single image or two per class stand in several columns of classes, so that the
    picture stays about square.

    Args:
      path: the PNG file.
      images: ``[m, h, w]``, ``[m, h, w, 1]`` (grey) or ``[m, h, w, 3]`` (RGB), uint8.
      labels: ``[m]`` integer class of each image; without labels the images fill a square.
      class_names: a name for each class; the numbers unless given.
      max_per_class: how many images of a class are shown; the first ones.

    Raises:
      InputError: shapes or dtypes that do not fit, or a path that cannot be written.
    """
    where = "plots.image_grid"
    images = _rgb(where, np.asarray(images))
    groups = _groups(where, len(images), labels, class_names)
    groups = [(name, images[index[:max_per_class]]) for name, index in groups]
    figure, layout = _canvas(groups, images.shape[1:3], square=labels is None)
    pixels = np.full((*_size(layout, len(groups)), 3), 255, np.uint8)
    for number, (name, members) in enumerate(groups):
        top, left = _block(layout, number, len(groups))
        for i, image in enumerate(members):
            y = top + i // layout.columns * (layout.cell[0] + _GAP)
            x = left + i % layout.columns * (layout.cell[1] + _GAP)
            big = image.repeat(layout.scale, axis=0).repeat(layout.scale, axis=1)
            pixels[y : y + layout.cell[0], x : x + layout.cell[1]] = big
        _write_name(figure, name, left - 8, top + (layout.rows * (layout.cell[0] + _GAP) - _GAP) / 2, pixels.shape)
    _save(where, path, figure, pixels)


def label_plot(
    path: str | os.PathLike,
    y: Any,
    labels: Any = None,
    *,
    class_names: Sequence[str] | None = None,
) -> None:
    """Writes a heat map of learned labels: the mean label of each class of origin, and each image's if they are few.

    Without classes of origin, as images of another data set have none, those of the largest entries stand in.

    Args:
      path: the PNG file.
      y: ``[m, k]`` learned labels, finite.
      labels: ``[m]`` integer class that each image started from; the largest entry of its label unless given.
      class_names: ``k`` names; the numbers unless given.

    Raises:
      InputError: shapes that do not fit, or a path that cannot be written.
    """
    where = "plots.label_plot"
    y = np.asarray(y, np.float64)
    checks.require(y.ndim == 2 and y.size > 0, where, f"y has shape {y.shape}; expected [points, classes]")
    checks.finite(where, "y", y)
    k = y.shape[1]
    names = _names(where, class_names, k)
    by = "largest entry" if labels is None else "class of origin"
    labels = y.argmax(axis=1) if labels is None else np.asarray(labels)
    checks.require(labels.shape == (len(y),), where, f"labels has shape {labels.shape} and y {y.shape}; expected [m]")
    checks.labels_within(where, "labels", labels, k)

    present = np.unique(labels)
    means = np.stack([y[labels == c].mean(axis=0) for c in present])
    panels = [(f"mean label by {by}", means, [names[c] for c in present])]
    if len(present) < len(y) <= _ROWS_SHOWN:
        order = np.argsort(labels, kind="stable")
        panels.append(("label of each image", y[order], [names[c] for c in labels[order]]))
    _save(where, path, _heat_maps(panels, names))


def _rgb(where: str, images: np.ndarray) -> np.ndarray:
    """``[m, h, w, 3]`` from grey or RGB images."""
    checks.require(
        images.dtype == np.uint8,
        where,
        f"images has dtype {images.dtype}; expected uint8 pixels (undo the preprocessing first)",
    )
    grey = images.ndim == 3
    images = images[..., None] if grey else images
    checks.require(
        images.ndim == 4 and images.size > 0 and images.shape[3] in (1, 3),
        where,
        f"images has shape {images.shape[: 3 if grey else None]}; expected [m, h, w], [m, h, w, 1] or [m, h, w, 3]",
    )
    return np.broadcast_to(images, (*images.shape[:3], 3))


def _names(where: str, class_names: Sequence[str] | None, k: int) -> list[str]:
    """``k`` names."""
    if class_names is None:
        return [str(c) for c in range(k)]
    checks.require(
        len(class_names) == k, where, f"class_names has {len(class_names)} entries for {k} classes; give one per class"
    )
    return [str(name) for name in class_names]


def _groups(where: str, m: int, labels: Any, class_names: Sequence[str] | None) -> list[tuple[str, np.ndarray]]:
    """The name of each class that has images, and their positions."""
    if labels is None:
        return [("", np.arange(m))]
    labels = np.asarray(labels)
    checks.require(labels.shape == (m,), where, f"labels has shape {labels.shape} for {m} images; expected [{m}]")
    checks.require(m == 0 or labels.dtype.kind in "iu", where, f"labels has dtype {labels.dtype}; expected integers")
    k = len(class_names) if class_names is not None else int(labels.max()) + 1
    checks.labels_within(where, "labels", labels, k)
    names = _names(where, class_names, k)
    return [(names[c], np.flatnonzero(labels == c)) for c in np.unique(labels)]


def _canvas(groups: list[tuple[str, np.ndarray]], size: tuple[int, int], *, square: bool) -> tuple[Any, _Layout]:
    """An empty figure of the right size, and the layout."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(dpi=_DPI)
    FigureCanvasAgg(figure)
    most = max(len(members) for _, members in groups)
    total = sum(len(members) for _, members in groups)
    scale = max(1, round((72 if total <= 200 else 56 if total <= 600 else 40) / max(size)))
    cell = (size[0] * scale, size[1] * scale)
    name_width = max(_text_width(figure, name) + 8 if name else 0 for name, _ in groups)
    fitting = max(1, (_WIDEST - name_width) // (cell[1] + _GAP))
    rows = math.ceil(most / min(fitting, math.ceil(math.sqrt(most)) if square else most))
    layout = _Layout(scale, cell, math.ceil(most / rows), rows, 1, name_width)
    while (height := _size(layout, len(groups))[0]) > 1.2 * (width := _size(layout, len(groups))[1]):
        wider = layout._replace(panels=layout.panels + 1)
        if layout.panels >= len(groups) or _size(wider, len(groups))[1] > _WIDEST:
            break
        layout = wider
    height, width = _size(layout, len(groups))
    figure.set_size_inches(width / _DPI, height / _DPI)
    return figure, layout


def _text_width(figure: Any, text: str) -> int:
    """Width of a class name in pixels."""
    from matplotlib.font_manager import FontProperties

    if not text:
        return 0
    return math.ceil(
        figure.canvas.get_renderer().get_text_width_height_descent(text, FontProperties(size=10), False)[0]
    )


def _size(layout: _Layout, blocks: int) -> tuple[int, int]:
    """Height and width of the picture in pixels."""
    down = math.ceil(blocks / layout.panels)
    block_height = layout.rows * (layout.cell[0] + _GAP)
    block_width = layout.name_width + layout.columns * (layout.cell[1] + _GAP)
    gaps = (down - 1) * _row_gap(layout), (layout.panels - 1) * 2 * _MARGIN
    return down * block_height + gaps[0] - _GAP + 2 * _MARGIN, layout.panels * block_width + gaps[
        1
    ] - _GAP + 2 * _MARGIN


def _row_gap(layout: _Layout) -> int:
    """Room between classes, so that wrapped rows are seen to belong together."""
    return 2 * _GAP if layout.rows > 1 else 0


def _block(layout: _Layout, number: int, blocks: int) -> tuple[int, int]:
    """Top and left of the images of the class that comes at place ``number``; classes run down, then right."""
    down = math.ceil(blocks / layout.panels)
    row, panel = number % down, number // down
    top = _MARGIN + row * (layout.rows * (layout.cell[0] + _GAP) + _row_gap(layout))
    width = layout.name_width + layout.columns * (layout.cell[1] + _GAP) + 2 * _MARGIN
    return top, _MARGIN + panel * width + layout.name_width


def _write_name(figure: Any, name: str, right: float, middle: float, shape: tuple[int, ...]) -> None:
    """A class name, given in pixels from the left and the top."""
    height, width = shape[:2]
    figure.text(
        right / width, 1 - middle / height, name, size=10, ha="right", va="center", color="0.2", parse_math=False
    )


def _heat_maps(panels: list[tuple[str, np.ndarray, list[str]]], names: list[str]) -> Any:
    """A figure with one heat map a panel, all with the same colours: blue below zero, red above."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    k = len(names)
    rows = max(len(values) for _, values, _ in panels)
    side = 2.2 + min(0.42 * k, 8)
    figure = Figure(
        figsize=(side * len(panels) + 1, 1.8 + max(min(0.42 * k, 8), 0.13 * rows if rows <= _ROWS_SHOWN else 0)),
        dpi=_DPI,
        layout="constrained",
    )
    FigureCanvasAgg(figure)
    limit = max(float(np.abs(values).max()) for _, values, _ in panels) or 1.0
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, values, row_names) in zip(axes, panels):
        drawn = axis.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
        axis.set_title(title, size=11)
        _ticks(axis.set_xticks, names, rotation=90 if max(map(len, names)) > 2 else 0)
        _ticks(axis.set_yticks, row_names)
        if values.size <= 150:
            _write_values(axis, values, limit)
    figure.colorbar(drawn, ax=list(axes), label="label entry", fraction=0.04)
    return figure


def _ticks(setter: Any, names: list[str], **style: Any) -> None:
    """Names along an axis: a run of equal names once, in its middle, and at most about 40 of them."""
    starts = [i for i, name in enumerate(names) if i == 0 or name != names[i - 1]]
    ends = [*starts[1:], len(names)]
    step = math.ceil(len(starts) / 40)
    at = [(start + end - 1) / 2 for start, end in zip(starts, ends)][::step]
    setter(at, [names[start] for start in starts][::step], size=9, parse_math=False, **style)


def _write_values(axis: Any, values: np.ndarray, limit: float) -> None:
    """Each entry as a number on its field."""
    for (row, column), value in np.ndenumerate(values):
        color = "white" if abs(value) > 0.6 * limit else "0.2"
        axis.text(column, row, f"{round(value, 2) + 0.0:.2f}", ha="center", va="center", size=8, color=color)


def _save(where: str, path: str | os.PathLike, figure: Any, pixels: np.ndarray | None = None) -> None:
    """Writes the figure as PNG, over ``pixels`` shown one to one."""
    if pixels is not None:
        figure.figimage(pixels)
    _files.atomic_write(where, path, lambda file: figure.savefig(file, format="png", dpi=_DPI))
