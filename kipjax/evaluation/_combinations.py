"""All combinations of words, for spaces of networks and grids of hyperparameters."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kipjax import checks

__all__ = ["combinations"]


def combinations(
    where: str, chosen: Mapping[str, Sequence[Any]], check: Callable[[str, Any], None]
) -> list[tuple[Any, ...]]:
    """Every choice of one value for each name, the last name running fastest.

    Args:
      where: the public function, for messages.
      chosen: values by name.
      check: ``check(name, value)`` raises what a value is refused with.

    Raises:
      InputError: a name has no value, or one twice, or ``check`` refuses one.
    """
    for name, values in chosen.items():
        checks.require(len(values) > 0, where, f"{name} is empty; give at least one value")
        checks.require(len(set(values)) == len(values), where, f"{name} is {list(values)}; give every value once")
        for value in values:
            check(name, value)
    return list(itertools.product(*chosen.values()))
