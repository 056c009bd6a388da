"""Kernel-to-kernel transfer: sets distilled with one kernel, scored with others (arXiv:2011.00050, section 4.2)."""

from collections.abc import Mapping
from typing import Any

import jax

from kipjax.evaluation import krr, metrics
from kipjax.evaluation.result import Result, Task
from kipjax.types import Distilled, KernelFn

__all__ = ["evaluate", "table"]


def evaluate(
    distilled: Distilled,
    task: Task,
    kernel_fns: Mapping[str, KernelFn],
    *,
    key: jax.Array | None = None,
    seeds: int = 5,
    **options: Any,
) -> list[Result]:
    """One distilled set and random subsets of its size, scored with every test kernel.

    Args:
      distilled: the set.
      task: the data set in the same space.
      kernel_fns: test kernels by name.
      key: draws the random subsets, the same for every kernel.
      seeds: number of random subsets.
      **options: of ``krr.evaluate``.

    Returns:
      The results of ``krr.evaluate`` without its full-data baseline, kernel after kernel.
    """
    options = {"full_size": 0, **options}
    return [
        result
        for name, kernel_fn in kernel_fns.items()
        for result in krr.evaluate(distilled, task, kernel_fn, model=name, key=key, seeds=seeds, **options)
    ]


def table(results: Mapping[str, list[Result]]) -> tuple[list[str], list[str], list[list[metrics.Summary | None]]]:
    """Transfer results as a matrix.

    Args:
      results: for each training set (named by its training kernel) what ``evaluate`` returned.

    Returns:
      ``(rows, columns, cells)``: a row for each training set and one for the random subsets of each size, a column for
      each test kernel; ``cells[row][column]`` is the accuracy's mean, standard deviation and n, ``None`` where a pair
      was not run. Random subsets of one size are those drawn for the first training set of that size.
    """
    found: dict[tuple[str, str], metrics.Summary] = {}
    for name, some in results.items():
        for result in some:
            row = name if result.trained_on == "distilled" else f"{result.trained_on}, {result.size}"
            found.setdefault((row, result.model), result.accuracy)
    rows = sorted(dict.fromkeys(row for row, _ in found), key=lambda row: row not in results)
    columns = list(dict.fromkeys(column for _, column in found))
    return rows, columns, [[found.get((row, column)) for column in columns] for row in rows]
