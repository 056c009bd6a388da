"""Results as text: lines for one set, a matrix for many sets and test models, and tables of all runs in a folder.

python -m experiments.tables --runs=runs [--format=tsv|json]

Prints, from what runs have left there: a table of every run folder's results, of each sweep, transfer table, table of
scores and corruption curve, and of the rows of any other script (exact distillation, benchmarks), in Markdown.
"""

import json
from collections.abc import Iterable, Mapping, Sequence

from absl import flags

from experiments import cli, gather
from kipjax.evaluation import Result, metrics, transfer

__all__ = ["everything", "grid", "lines", "markdown", "matrix", "of_runs", "sizes", "spread"]

COLUMNS = ("run", "set", "trained on", "images", "scored by", "test accuracy, %", "n", "seconds", "device")


def define() -> None:
    """The flags of the command."""
    flags.DEFINE_list("runs", ["runs"], "Folders of run folders, searched to the bottom.")
    flags.DEFINE_enum("format", "markdown", ["markdown", "tsv", "json"], "Of the tables; json has the numbers whole.")


def main() -> None:
    print(everything(gather.below(flags.FLAGS.runs), flags.FLAGS.format))


def everything(found: gather.Found, form: str = "markdown") -> str:
    """All tables of what runs have left, as ``markdown``, ``tsv`` or ``json``."""
    rows = of_runs(found.runs)
    if form == "json":
        names = ("sweeps", "matrices", "corruption", "scored", "others", "studies")
        return json.dumps({"runs": rows, **{name: getattr(found, name) for name in names}}, indent=1)
    table = markdown if form == "markdown" else _tabbed
    text = [table(COLUMNS, [[_text(row[column]) for column in COLUMNS] for row in rows])]
    parts = ((found.sweeps, _of_cells), (found.matrices, _of_matrix), (found.scored, _of_matrix))
    parts += ((found.corruption, _of_corruption), (found.others, _of_rows))
    text += [f"{name}\n\n{table(*make(some))}" for by_name, make in parts for name, some in by_name.items()]
    text += [f"{name}\n\n{study}" for name, study in found.studies.items()]
    return "\n\n".join(text)


def of_runs(runs: Sequence[gather.Run]) -> list[dict]:
    """A row for each result of each run folder; ``test accuracy, %`` is ``[mean, standard deviation or None]``."""
    rows = []
    for run in runs:
        for result in [*run.summary["results"], *run.summary.get("results_by_kernels", ())]:
            found = result["accuracy"]
            std = 100 * found["std"] if found["n"] > 1 else None
            own = (run.name, gather.label(run), result["trained_on"], result["size"], result["model"])
            rest = ([100 * found["mean"], std], found["n"], run.summary["seconds"], run.summary["device"])
            protocol = run.summary.get("protocol", "")
            rows.append(dict(zip(COLUMNS, own + rest)) | {"protocol": protocol})
    return rows


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    body = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in (columns, *rows)]
    return "\n".join(f"| {line} |" for line in [body[0], " | ".join(["---"] * len(columns)), *body[1:]])


def _tabbed(columns, rows):
    return "\n".join("\t".join(row) for row in (columns, *rows))


def _text(value):
    if isinstance(value, list):
        mean, std = value
        return f"{mean:.2f}" if std is None else f"{mean:.2f} ± {std:.2f}"
    if value is None:
        return ""
    return f"{value:.0f}" if isinstance(value, float) else str(value)


def _of_cells(cells):
    """A row for each combination of a sweep."""
    fields = list(cells[0]["fields"])
    rows = []
    for cell in cells:
        result = gather.spread(cell["results"][0]["accuracy"]) if "results" in cell else "diverged"
        rows.append([*(str(cell["fields"][field]) for field in fields), result])
    return [*fields, "test accuracy, %"], rows


def _of_matrix(some):
    """Artifacts and subsets against test kernels or networks."""
    columns = list(dict.fromkeys(row["model"] for row in some))
    found = gather.pooled(
        some, lambda row: row["artifact"] if row["trained_on"] == "distilled" else f"{row['trained_on']}, {row['size']}"
    )
    rows = [
        [own, *(f"{spread(by[c], scale=100)} (n={len(by[c])})" if c in by else "-" for c in columns)]
        for own, by in found.items()
    ]
    return ["trained with", *columns], rows


def _of_corruption(some):
    """Networks and sets against fractions."""
    fractions = sorted({row["rho"] for row in some})
    rows = []
    for arch, name in dict.fromkeys((row["arch"], row["set"]) for row in some):
        values = [
            [a for row in some if (row["arch"], row["set"], row["rho"]) == (arch, name, rho) for a in row["accuracies"]]
            for rho in fractions
        ]
        rows.append([f"{arch}, {name}", *(spread(v, scale=100) for v in values)])
    return ["trained on", *(f"{100 * rho:g} % corrupt" for rho in fractions)], rows


def _of_rows(some):
    """The single values of the rows; what is a list or an object is in the file alone."""
    columns = list(dict.fromkeys(name for row in some for name in row))
    columns = [name for name in columns if not any(isinstance(row.get(name), (list, dict)) for row in some)]
    text = [[row.get(name, "-") for name in columns] for row in some]
    return columns, [[f"{v:.4g}" if isinstance(v, float) else str(v) for v in row] for row in text]


def grid(corner: str, columns: Sequence[str], rows: Mapping[str, Sequence[str]]) -> str:
    """Named rows of ready text under column names, all aligned."""
    width = max(map(len, [corner, *rows]))
    widths = [max(len(name), *(len(row[i]) for row in rows.values())) for i, name in enumerate(columns)]
    text = [(corner, columns), *rows.items()]
    return "\n".join("  ".join([f"{name:<{width}}", *map(str.rjust, cells, widths)]) for name, cells in text)


def spread(values: Iterable[float], *, scale: float = 1.0, digits: int = 2) -> str:
    """``mean ± std`` of repeated values, the mean alone of a single one, ``-`` of none."""
    values = list(values)
    if not values:
        return "-"
    found = metrics.summarize(values)
    error = f" ± {scale * found.std:.{digits}f}" if found.n > 1 else ""
    return f"{scale * found.mean:.{digits}f}{error}"


def lines(results: Sequence[Result]) -> str:
    """One line for each result, with mean, standard deviation and n of its accuracy."""
    named = [(f"{r.trained_on}, {r.size} images", r) for r in results]
    width, model = (max(map(len, column)) for column in ([name for name, _ in named], [r.model for r in results]))
    return "\n".join(f"  {name:<{width}}  {r.model:<{model}}  {r.accuracy.percent()}" for name, r in named)


def matrix(results: Mapping[str, list[Result]]) -> str:
    """A row for each training set, a column for each test model; accuracies in percent."""
    rows, columns, cells = transfer.table(results)
    width = max(len("trained with"), *(len(row) for row in rows))
    text = ["  ".join([f"{'trained with':<{width}}", *(f"{column:>14}" for column in columns)])]
    for row, line in zip(rows, cells):
        text.append("  ".join([f"{row:<{width}}", *(f"{_cell(summary):>14}" for summary in line)]))
    return "\n".join(text)


def sizes(results: Sequence[Sequence[Result]]) -> str:
    """d_A over sets of several sizes: the fewest distilled images that reach A percent of full accuracy; or nothing."""
    scored = [(rows[0].size, rows[0].approximation.distillation_ratio) for rows in results if rows[0].approximation]
    if len({size for size, _ in scored}) < 2:
        return ""
    counts, ratios = zip(*sorted(scored))
    found = {percent: metrics.distillation_size(counts, ratios, percent) for percent in (80, 90, 95, 99)}
    return "A% distillation size: " + ", ".join(f"d_{a} = {m or 'not reached'}" for a, m in found.items())


def _cell(summary: metrics.Summary | None) -> str:
    if summary is None:
        return "-"
    return f"{100 * summary.mean:.2f}" + (f" ± {100 * summary.std:.2f}" if summary.n > 1 else "")


if __name__ == "__main__":
    cli.run(main, define)
