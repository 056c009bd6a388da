"""Formulas only: pure functions of arrays, without flags, models, data sets or files."""

from kipjax.core import krr, labels, loop, losses, precision

__all__ = ["krr", "labels", "loop", "losses", "precision"]
