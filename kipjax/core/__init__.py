"""Formulas only: pure functions of arrays, without flags, models, data sets or files."""

from kipjax.core import (
    exact,
    implicit,
    incremental,
    krr,
    labels,
    linear_solve,
    linearize,
    loop,
    losses,
    matching,
    pool,
    precision,
    selection,
    step_size,
    unroll,
)

__all__ = [
    "exact",
    "implicit",
    "incremental",
    "krr",
    "labels",
    "linear_solve",
    "linearize",
    "loop",
    "losses",
    "matching",
    "pool",
    "precision",
    "selection",
    "step_size",
    "unroll",
]
