"""What there is to choose from, by name: for ``--list`` and ``--help``."""

import pathlib

from kipjax import data, evaluation, kernels, methods, models

__all__ = ["configs", "lines"]

_ROOT = pathlib.Path(__file__).parent.parent


def lines() -> list[str]:
    """``KIND, tab, NAME`` of every method, kernel, network, data set, protocol and config."""
    kinds = {
        "method": sorted(methods.METHODS),
        "kernel": kernels.names(),
        "network": models.names(),
        "data set": [*data.KNOWN, "tfds:<name>", "<path>"],
        "protocol": sorted(evaluation.PROTOCOLS),
        "config": configs(),
    }
    return [f"{kind}\t{name}" for kind, names in kinds.items() for name in names]


def configs() -> list[str]:
    """The config files, as ``--config`` takes them."""
    found = (path for path in (_ROOT / "configs").glob("*/*.py") if path.name != "__init__.py")
    return sorted(str(path.relative_to(_ROOT)) for path in found)
