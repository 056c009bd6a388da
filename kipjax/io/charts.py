"""Plots of results: curves with their spread, clouds of points, matrices. As in ``plots``, pyplot is never imported."""

import itertools
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from kipjax import checks
from kipjax.io import _files

__all__ = ["Curve", "curves", "matrix", "points"]


class Curve(NamedTuple):
    """``mean [n]`` over ``x [n]``, with a band of one ``std [n]`` (NaN for none) either way."""

    x: Sequence[float]
    mean: Sequence[float]
    std: Sequence[float] | None = None


def curves(
    path: str | os.PathLike,
    panels: Mapping[str, Mapping[str, Curve]],
    *,
    x_label: str,
    log_x: bool = False,
    level: float | None = None,
) -> None:
    """Writes a PNG with a panel for each quantity and in each a curve for each name.

    Args:
      path: the PNG file.
      panels: ``{y label: {name: Curve}}``; a name has the same colour in all panels. Curves that are called what their
        axis is called, one in each panel, need no legend.
      x_label: what all have on the x axis; ``log_x`` makes it logarithmic.
      level: a value of y to compare with, dashed in the last panel.

    Raises:
      InputError: there is nothing to plot, curves of unequal lengths, or a path that cannot be written.
    """
    names = _names("charts.curves", panels)
    figure, axes = _figure(len(panels))
    for axis, (y_label, some) in zip(axes, panels.items()):
        for name, curve in some.items():
            x, mean = (np.asarray(values, float) for values in curve[:2])
            checks.same_length("charts.curves", "x", x, f"{name}: mean", mean)
            std = np.nan_to_num(np.asarray(curve.std, float)) if curve.std is not None else np.zeros_like(mean)
            color = f"C{names.index(name) % 10}"
            axis.plot(x, mean, "o-" if len(x) <= 30 else "-", color=color, markersize=4, label=name)
            axis.fill_between(x, mean - std, mean + std, color=color, alpha=0.2, linewidth=0)
        if log_x:
            _log(axis, sorted({float(x) for curve in some.values() for x in curve.x}))
        elif all(float(x).is_integer() for curve in some.values() for x in curve.x):
            axis.xaxis.get_major_locator().set_params(integer=True)  # there is no phase 1.5
        _describe(axis, x_label, y_label)
    if level is not None:
        axes[-1].axhline(level, color="0.5", linestyle="--", linewidth=1)
    told = all(list(some) == [y_label] for y_label, some in panels.items())  # by the axes already
    _save("charts.curves", path, figure, axes[:0] if told else axes)


def points(
    path: str | os.PathLike,
    clouds: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    x_label: str,
    y_label: str,
    diagonal: bool = False,
) -> None:
    """Writes a PNG with a cloud of points for each name.

    Args:
      path: the PNG file.
      clouds: ``{name: (x [n], y [n])}``.
      x_label, y_label: of the axes.
      diagonal: draw the line where both are equal.

    Raises:
      InputError: there is nothing to plot, unequal lengths, or a path that cannot be written.
    """
    _names("charts.points", {"points": clouds})
    figure, (axis,) = _figure(1)
    for name, (x, y) in clouds.items():
        checks.same_length("charts.points", f"{name}: x", x, "y", y)
        axis.scatter(x, y, s=12, alpha=0.7, linewidth=0, label=name)
    if diagonal:
        axis.axline((0, 0), slope=1, color="0.5", linestyle="--", linewidth=1)
        values = np.concatenate([np.concatenate([np.asarray(x), np.asarray(y)]) for x, y in clouds.values()])
        room = 0.05 * (np.ptp(values) or 1.0)
        axis.set(xlim=(values.min() - room, values.max() + room), ylim=(values.min() - room, values.max() + room))
    _describe(axis, x_label, y_label)
    _save("charts.points", path, figure, [axis])


def matrix(
    path: str | os.PathLike,
    values: Any,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    x_label: str = "",
    y_label: str = "",
    unit: str = "test accuracy, %",
    diverging: bool = False,
    digits: int = 1,
) -> None:
    """Writes a PNG with a field for each entry of a matrix, its value on it.

    Args:
      path: the PNG file.
      values: ``[rows, columns]``; NaN for what there is not, which stays grey.
      rows, columns: their names.
      x_label, y_label: of the axes.
      unit: of the colours.
      diverging: blue below zero, red above, as for covariances; else from dark to light.
      digits: after the point.

    Raises:
      InputError: names that do not fit, no value at all, or a path that cannot be written.
    """
    where, values = "charts.matrix", np.asarray(values, float)
    checks.require(
        values.shape == (len(rows), len(columns)) and bool(np.isfinite(values).any()),
        where,
        f"values have shape {values.shape} and there are {len(rows)} rows and {len(columns)} columns; expected one "
        "value for each, and at least one that is finite",
    )
    size = (
        2.5 + 0.7 * len(columns) + 0.07 * max(map(len, rows)),
        1.5 + 0.4 * len(rows) + 0.05 * max(map(len, columns)),
    )
    figure, (axis,) = _figure(1, size)
    limit = float(np.nanmax(np.abs(values))) or 1.0
    low, high = (-limit, limit) if diverging else (float(np.nanmin(values)), float(np.nanmax(values)))
    axis.set_facecolor("0.8")
    drawn = axis.imshow(values, cmap="RdBu_r" if diverging else "viridis", vmin=low, vmax=high, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            strong = abs(value) > 0.6 * limit if diverging else value < (low + high) / 2
            color = "white" if strong else "0.1"
            axis.text(j, i, f"{round(value, digits) + 0.0:.{digits}f}", ha="center", va="center", size=8, color=color)
    axis.set_xticks(range(len(columns)), columns, rotation=45 if max(map(len, columns)) > 4 else 0, ha="right", size=9)
    axis.set_yticks(range(len(rows)), rows, size=9)
    for text in (*axis.get_xticklabels(), *axis.get_yticklabels()):
        text.set_parse_math(False)
    axis.set_xlabel(x_label, parse_math=False)
    axis.set_ylabel(y_label, parse_math=False)
    figure.colorbar(drawn, ax=axis, label=unit)
    _files.atomic_write(where, path, lambda file: figure.savefig(file, format="png"))


def _names(where: str, panels: Mapping[str, Mapping[str, Any]]) -> list[str]:
    names = list(dict.fromkeys(name for some in panels.values() for name in some))
    checks.require(bool(names), where, "there is nothing to plot; give at least one curve or cloud")
    return names


def _figure(panels: int, size: tuple[float, float] = (4.8, 3.8)) -> tuple[Any, list[Any]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size[0] * panels, size[1]), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, panels, squeeze=False)[0])


def _log(axis: Any, values: list[float]) -> None:
    """A logarithmic x axis, with a tick at each value where they are few and apart."""
    axis.set_xscale("log")
    if 1 < len(values) <= 8 and all(0 < 1.3 * a <= b for a, b in itertools.pairwise(values)):
        axis.set_xticks(values, [f"{value:g}" for value in values])
        axis.set_xticks([], minor=True)


def _describe(axis: Any, x_label: str, y_label: str) -> None:
    axis.set_xlabel(x_label, parse_math=False)
    axis.set_ylabel(y_label, parse_math=False)
    axis.grid(alpha=0.3)


def _save(where: str, path: str | os.PathLike, figure: Any, axes: list[Any]) -> None:
    for axis in axes[:1]:
        for text in _legend(figure, axis).get_texts():
            text.set_parse_math(False)
    _files.atomic_write(where, path, lambda file: figure.savefig(file, format="png"))


def _legend(figure: Any, axis: Any) -> Any:
    """Inside of the axes, or beside them where it would cover the curves."""
    handles, names = axis.get_legend_handles_labels()
    longest = max(map(len, names))
    if len(names) <= 6 and longest <= 40:
        return axis.legend(fontsize=8)
    figure.set_size_inches(figure.get_figwidth() + 0.5 + 0.065 * longest, max(figure.get_figheight(), 0.2 * len(names)))
    return figure.legend(handles, names, fontsize=8, loc="outside right upper")
