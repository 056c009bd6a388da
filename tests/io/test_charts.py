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


def test_few_values_are_the_ticks_and_a_told_name_needs_no_legend(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(charts._files, "atomic_write", lambda where, path, write: None)
    make = charts._figure
    monkeypatch.setattr(charts, "_figure", lambda *args: figures.append(make(*args)) or figures[-1])
    charts.curves("a", {"loss": {"loss": charts.Curve([10, 100, 500], [3, 2, 1])}}, x_label="images", log_x=True)
    charts.curves("b", {"loss": {"kip": charts.Curve([10, 11], [3, 2])}}, x_label="images", log_x=True)
    (alone,), (named,) = figures[0][1], figures[1][1]
    assert [text.get_text() for text in alone.get_xticklabels()] == ["10", "100", "500"]
    assert alone.get_legend() is None and named.get_legend().get_texts()[0].get_text() == "kip"
    assert alone.get_xlabel() == "images" and alone.get_ylabel() == "loss"


def test_what_does_not_fit_is_refused(tmp_path):
    path = tmp_path / "none.png"
    with pytest.raises(checks.InputError, match="nothing to plot"):
        charts.curves(path, {"accuracy": {}}, x_label="steps")
    with pytest.raises(checks.InputError, match="same number of rows"):
        charts.curves(path, {"accuracy": {"a": charts.Curve([1, 2], [1])}}, x_label="steps")
    with pytest.raises(checks.InputError, match="same number of rows"):
        charts.points(path, {"a": ([1, 2], [1])}, x_label="x", y_label="y")
    assert not path.exists()
