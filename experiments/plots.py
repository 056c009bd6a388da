"""Draws every figure again from what runs have left under a folder.

python -m experiments.plots --runs=runs --out=figures

For each run: its images, its training curves, and where labels were learned their covariance with the original ones
(arXiv:2011.00050, figure 1b). Over all runs, for each
data set and what scores: accuracy against support size (figure 2). Of transfer tables
(experiments.evaluate --protocol=kernel_transfer --out=FILE.json under the folder): the matrix (figures A1 and A2). Of
experiments.corruption: its curves (figure A3). Of experiments.sweep with one or two grids: the matrix of accuracies,
such as that of inner against Hessian-inverse steps (arXiv:2302.06755, figures 1 and 2).
"""

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags

from experiments import build, cli, gather
from kipjax import checks, data
from kipjax.evaluation import metrics
from kipjax.io import artifact as artifacts
from kipjax.io import charts, log, plots

__all__ = ["corruption", "covariance", "draw", "images", "sizes", "sweep", "training", "transfer"]

FLAGS = flags.FLAGS
_POINTS = 200  # of a training curve
_BAND = "test accuracy, % ± std"


def define() -> None:
    """The flags of this script."""
    flags.DEFINE_list("runs", ["runs"], "Folders of run folders, searched to the bottom.")
    flags.DEFINE_string("out", None, "Folder for the figures.")
    flags.mark_flag_as_required("out")


def main() -> None:
    for path in draw(gather.below(FLAGS.runs), FLAGS.out):
        print(f"figure    {path}")


def draw(found: gather.Found, out: str) -> list[str]:
    """Writes all figures of what was found, and gives their paths.

    Raises:
      InputError: there is nothing to draw, or a file cannot be read or written.
    """
    os.makedirs(out, exist_ok=True)
    written: list[str] = []

    def path(name: str, kind: str) -> str:
        """A file of its own: runs of several folders may have one name."""
        stem, number = os.path.join(out, name.replace("/", "-")), 1
        while (file := f"{stem}{'' if number == 1 else f'_{number}'}-{kind}.png") in written:
            number += 1
        written.append(file)
        return file

    for run in found.runs:
        for number, file in enumerate(run.artifacts()):
            made = artifacts.load(file)
            suffix = "" if number == 0 else f"_{number}"
            if np.ndim(made.distilled.x) == 4:
                images(path(run.name, f"images{suffix}"), made)
            if made.meta.get("label_convention") == "learned":
                covariance(path(run.name, f"covariance{suffix}"), made)
        own_log = os.path.join(run.path, "metrics.jsonl")
        lines = log.read(own_log) if os.path.exists(own_log) else []  # stored runs may be their summaries alone
        if len(lines) > 1:
            training(path(run.name, "training"), lines)
    for name, curves in _curves(found.runs).items():
        sizes(path(name.replace(", ", "-").replace(" ", "_"), "sizes"), curves)
    for kind, some in (("sweep", found.sweeps), ("transfer", found.matrices), ("corruption", found.corruption)):
        for name, rows in some.items():
            {"sweep": sweep, "transfer": transfer, "corruption": corruption}[kind](path(name, kind), rows)
    checks.require(bool(written), "--runs", "nothing to draw there; give the folder of finished run folders")
    return written


def images(path: str, made: artifacts.Artifact) -> None:
    """The distilled images by class."""
    pixels = data.preprocess.to_pixels(made.preprocess, made.distilled.x)
    plots.image_grid(path, pixels, classes(made), class_names=made.meta.get("class_names"))


def classes(made: artifacts.Artifact) -> np.ndarray:
    """``[m]`` the class that each image started from: sets are grouped by class; else that of the largest target."""
    y = np.asarray(made.distilled.y)
    m, k = y.shape
    ipc = made.meta.get("config", {}).get("init", {}).get("ipc", 0)
    return np.arange(k).repeat(ipc) if ipc * k == m else y.argmax(axis=1)


def covariance(path: str, made: artifacts.Artifact) -> None:
    """``cov(original label, learned label) [k, k]`` over the images; rows are original classes."""
    y = np.asarray(made.distilled.y, float)
    k = y.shape[1]
    original = np.eye(k)[classes(made)]
    names = [str(name) for name in made.meta.get("class_names") or range(k)]
    charts.matrix(
        path, (original - original.mean(axis=0)).T @ (y - y.mean(axis=0)) / len(y), rows=names, columns=names,
        x_label="learned label", y_label="original label", unit=f"covariance over {len(y)} images",
        diverging=True, digits=3,
    )  # fmt: skip


def training(path: str, lines: Sequence[dict[str, Any]]) -> None:
    """A panel for each number of the log that changes: losses, accuracies, residuals."""
    names = [name for name in lines[-1] if name not in ("step", "seconds") and _numbers(lines, name)]
    panels = {}
    for name in names[:4]:
        points = _numbers(lines, name)
        steps, values = zip(*points[:: -(-len(points) // _POINTS)])
        own, scale = (f"{name}, %", 100) if "accuracy" in name else (name.replace("_", " "), 1)
        panels[own] = {own: charts.Curve(steps, [scale * value for value in values])}
    checks.require(bool(panels), path, "the log has no numbers to draw")
    charts.curves(path, panels, x_label="step")


def _numbers(lines, name):
    found = [(line["step"], line[name]) for line in lines if isinstance(line.get(name), (int, float))]
    return [(step, value) for step, value in found if np.isfinite(value)]


def _curves(runs):
    """``{data set and what scores: {name: {size: accuracies}}}`` of experiments that were run at two sizes at least.

    Runs share a curve if their settings differ in the size alone; what tells curves of one name apart is said in it.
    Random subsets have curves too.
    """
    found: dict[str, tuple[str, str, dict[str, Any], dict[int, list]]] = {}
    for run in runs:
        for result in run.summary["results"][:2]:
            figure, name, own = _curve(run, result)
            key = json.dumps([figure, name, own], sort_keys=True, default=str)
            some = found.setdefault(key, (figure, name, own, {}))[-1].setdefault(result["size"], [])
            if result["trained_on"] == "distilled" or result["accuracies"] not in some:  # subsets of one draw recur
                some.append(result["accuracies"])
    kept = [curve for curve in found.values() if len(curve[-1]) > 1]
    figures: dict[str, dict[str, dict[int, list[float]]]] = {}
    for figure, name, own, by_size in kept:
        apart = _apart(own, [others for at, its, others, _ in kept if (at, its) == (figure, name)])
        points = {size: [a for some in by_size[size] for a in some] for size in by_size}
        figures.setdefault(figure, {})[name + apart] = points
    return figures


def _curve(run, result):
    """The figure and the name of the curve that a result is on, and the settings that its points have in common."""
    own = {name: value for name, value in gather.settings(run.config).items() if name != "init.ipc"}
    protocol = run.summary.get("protocol", "kernel ridge regression").partition(":")[0]
    by_kernel = protocol == "kernel ridge regression"
    by = "" if by_kernel else f", {protocol.removeprefix('networks trained ')}"
    figure = f"{os.path.basename(run.config['data']['name'])}, {result['model']}{by}"
    if result["trained_on"] == "distilled":
        return figure, gather.label(run), own
    sections = ("data.", "evaluation.reg") if by_kernel else ("data.", "evaluation.", "model.")
    return figure, result["trained_on"], {name: value for name, value in own.items() if name.startswith(sections)}


def _apart(own, others):
    """``, FIELD VALUE`` for every field in which settings of one name differ."""
    fields = sorted({name for some in others for name in some})
    names = [name for name in fields if any(some.get(name) != own.get(name) for some in others)]
    return "".join(f", {name} {own.get(name, 'off')}" for name in names)


def sizes(path: str, found: dict[str, dict[int, list[float]]]) -> None:
    """Accuracy against the number of images, a curve for each method and for random subsets."""
    curves = {}
    for name, by_size in found.items():
        at = sorted(by_size)
        some = [metrics.summarize(100 * a for a in by_size[size]) for size in at]
        curves[f"{name} ({_n(some)})"] = charts.Curve(at, [s.mean for s in some], [s.std for s in some])
    charts.curves(path, {_BAND: curves}, x_label="images in the set", log_x=True)


def _n(summaries):
    """``n=5``, or the fewest and the most values that were averaged."""
    low, high = min(s.n for s in summaries), max(s.n for s in summaries)
    return f"n={low}" if low == high else f"n={low}..{high}"


def transfer(path: str, rows: Sequence[dict[str, Any]]) -> None:
    """Rows are training kernels (or methods), columns test kernels (or networks)."""
    found = gather.pooled(rows, _trained_with)
    columns = list(dict.fromkeys(row["model"] for row in rows))
    scored = {own: {c: metrics.summarize(100 * a for a in some) for c, some in by.items()} for own, by in found.items()}
    values = [[by[column].mean if column in by else np.nan for column in columns] for by in scored.values()]
    charts.matrix(
        path, values, rows=list(found), columns=columns, x_label="tested with", y_label="trained with",
        unit=f"test accuracy, % ({_n([summary for by in scored.values() for summary in by.values()])})",
    )  # fmt: skip


def _trained_with(row):
    if row["trained_on"] != "distilled":
        return f"{row['trained_on']}, {row['size']}"
    if not os.path.exists(row["artifact"]):
        return row["artifact"]
    meta = artifacts.load(row["artifact"]).meta
    by_kernel = row["protocol"] == "kernel_transfer" and meta.get("kernel")
    return f"{build.kernel_name(meta['kernel']) if by_kernel else meta.get('method', '?')}, {row['size']}"


def corruption(path: str, rows: Sequence[dict[str, Any]]) -> None:
    """Accuracy against the fraction of corrupted coordinates, a curve for each network and set."""
    curves: dict[str, charts.Curve] = {}
    for arch, name in dict.fromkeys((row["arch"], row["set"]) for row in rows):
        own = [row for row in rows if (row["arch"], row["set"]) == (arch, name)]
        fractions = sorted({row["rho"] for row in own})
        values = [[100 * a for row in own if row["rho"] == rho for a in row["accuracies"]] for rho in fractions]
        found = [metrics.summarize(some) for some in values]
        own = f"{arch}, {name} ({_n(found)})"
        curves[own] = charts.Curve(fractions, [s.mean for s in found], [s.std for s in found])
    charts.curves(path, {_BAND: curves}, x_label="fraction of corrupted coordinates")


def sweep(path: str, cells: Sequence[dict[str, Any]]) -> None:
    """A field for each combination of one or two grids; a run that diverged stays grey."""
    fields = list(cells[0]["fields"])
    checks.require(len(fields) <= 2, path, f"a sweep over {len(fields)} fields has no matrix; sweep over one or two")
    *first, last = fields
    rows = list(dict.fromkeys(tuple(cell["fields"][f] for f in first) for cell in cells))
    columns = list(dict.fromkeys(cell["fields"][last] for cell in cells))
    values, scored = np.full((len(rows), len(columns)), np.nan), []
    for cell in cells:
        if "results" in cell:
            at = rows.index(tuple(cell["fields"][f] for f in first)), columns.index(cell["fields"][last])
            scored.append(metrics.summarize(100 * a for a in cell["results"][0]["accuracies"]))
            values[at] = scored[-1].mean
    checks.require(bool(scored), path, "every run of the sweep diverged; there is nothing to draw")
    charts.matrix(
        path, values, rows=[", ".join(map(str, row)) for row in rows], columns=[str(c) for c in columns],
        x_label=last, y_label=", ".join(first), unit=f"test accuracy, % ({_n(scored)})",
    )  # fmt: skip


if __name__ == "__main__":
    cli.run(main, define)
