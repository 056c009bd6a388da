"""Formulas only: pure functions of arrays, without flags, models, data sets or files."""

from kipjax.core import (
    implicit,
    krr,
    labels,
    linear_solve,
    linearize,
    loop,
    losses,
    matching,
    pool,
    precision,
    step_size,
    unroll,
)

__all__ = [
    "implicit",
    "krr",
    "labels",
    "linear_solve",
    "linearize",
    "loop",
    "losses",
    "matching",
    "pool",
    "precision",
    "step_size",
    "unroll",
]
