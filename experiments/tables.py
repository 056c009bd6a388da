"""Results of evaluations as text: lines for one set, a matrix for many sets and test models."""

from collections.abc import Iterable, Mapping, Sequence

from kipjax.evaluation import Result, metrics, transfer

__all__ = ["grid", "lines", "matrix", "sizes", "spread"]


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
