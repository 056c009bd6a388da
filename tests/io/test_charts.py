"""Plots of results are written, and refuse what does not fit."""

import pytest

from kipjax import checks
from kipjax.io import charts


def test_curves_and_points_are_pngs(tmp_path):
    curve = charts.Curve([1, 10, 100], [0.5, 0.6, 0.7], [float("nan"), 0.1, 0.1])
    panels = {"accuracy": {"a $x": curve, "b": charts.Curve([1, 2], [0.1, 0.2])}, "auc": {"b": curve}}
    charts.curves(tmp_path / "curves.png", panels, x_label="steps", log_x=True, level=0.5)
    charts.points(tmp_path / "points.png", {"a": ([0, 1], [1, 0])}, x_label="x", y_label="y", diagonal=True)
    for name in ("curves.png", "points.png"):
        assert (tmp_path / name).read_bytes()[1:4] == b"PNG"


def test_what_does_not_fit_is_refused(tmp_path):
    path = tmp_path / "none.png"
    with pytest.raises(checks.InputError, match="nothing to plot"):
        charts.curves(path, {"accuracy": {}}, x_label="steps")
    with pytest.raises(checks.InputError, match="same number of rows"):
        charts.curves(path, {"accuracy": {"a": charts.Curve([1, 2], [1])}}, x_label="steps")
    with pytest.raises(checks.InputError, match="same number of rows"):
        charts.points(path, {"a": ([1, 2], [1])}, x_label="x", y_label="y")
    assert not path.exists()
