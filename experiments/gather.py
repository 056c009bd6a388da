"""Finds what runs have left under some folders: run folders, sweeps, tables of scores, curves, other rows."""

import glob
import json
import os
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import ml_collections

from experiments import build
from kipjax import checks

__all__ = [
    "OF_NO_WEIGHT",
    "Found",
    "Run",
    "below",
    "flat",
    "groups",
    "label",
    "origin",
    "pooled",
    "read",
    "settings",
    "spread",
]

OF_NO_WEIGHT = (
    "seed", "num_seeds", "devices", "data_on", "log_every", "eval_every", "checkpoint_every", "checkpoints_kept",
    "data.data_dir", "init.base_dir", "pretrain.data_dir", "experts.path", "evaluation.block_size",
    "evaluation.full_size", "evaluation.subset_seeds", "evaluation.seeds", "evaluation.kernels", "method.block_size",
)  # fmt: skip
"""Fields of a config that repeat a run or arrange its work, and do not make it another experiment."""


class Run(NamedTuple):
    """A run folder: its ``name`` below the folder that was searched, ``path``, ``config`` and ``summary``."""

    name: str
    path: str
    config: dict[str, Any]
    summary: dict[str, Any]

    def artifacts(self) -> list[str]:
        """Paths of its distilled sets, one for each seed."""
        return sorted(glob.glob(os.path.join(glob.escape(self.path), "distilled*.npz")))


class Found(NamedTuple):
    """By name: finished ``runs``; ``cells`` of sweeps; rows of ``matrices`` (kernel or network transfer), of
    ``corruption``, of sets ``scored`` by other protocols, and of any ``others`` (exact distillation, benchmarks); the
    tables, as text, of ``studies`` (continual learning, search, attacks, robustness)."""

    runs: list[Run]
    sweeps: dict[str, list[dict[str, Any]]]
    matrices: dict[str, list[dict[str, Any]]]
    corruption: dict[str, list[dict[str, Any]]]
    scored: dict[str, list[dict[str, Any]]]
    others: dict[str, list[dict[str, Any]]]
    studies: dict[str, str]


def below(roots: Sequence[str]) -> Found:
    """Everything under ``roots``, in order of names; a folder or file that cannot be read is an error.

    Raises:
      InputError: a root does not exist, or a file of a run is damaged.
    """
    found = Found([], {}, {}, {}, {}, {}, {})
    for root in roots:
        checks.require(os.path.isdir(root), "--runs", f"there is no folder {root}; give the folder of the run folders")
        for folder, inside, files in os.walk(root):
            inside.sort()
            name = os.path.relpath(folder, root).replace(os.sep, "/")
            name = os.path.basename(os.path.abspath(root)) if name == "." else name
            _folder(found, name, folder, set(files))
    return found


def read(path: str) -> Any:
    """What a JSON file holds."""
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except ValueError as error:
        raise checks.InputError(f"{path}: not a whole JSON file ({error}); run again what wrote it") from error


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """``{"section.field": value}`` of a nested config."""
    if not isinstance(tree, dict):
        return {prefix[:-1]: tree}
    return {name: value for key, part in tree.items() for name, value in flat(part, f"{prefix}{key}.").items()}


def settings(config: dict[str, Any]) -> dict[str, Any]:
    """The fields that make it this experiment, by name; what is off is left out, as older configs lack newer fields.

    >>> settings({"seed": 3, "steps": 10, "method": {"name": "dc", "rho": 0.0}})
    {'steps': 10, 'method.name': 'dc'}
    """
    found = {name: value for name, value in flat(config).items() if name not in OF_NO_WEIGHT and value}
    for tested, made in (("evaluation.arch", "model.name"), ("evaluation.width", "model.width")):
        if found.get(tested) == found.get(made):
            found.pop(tested, None)  # as where it is not set
    return found


def groups(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs of one experiment, which differ in their seed alone, side by side."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(json.dumps(settings(run.config), sort_keys=True, default=str), []).append(run)
    return list(found.values())


def pooled(rows: Sequence[dict[str, Any]], name: Callable[[dict[str, Any]], str]) -> dict[str, dict[str, list[float]]]:
    """``{name(row): {test model: accuracies}}`` of the rows of a transfer table; sets of one name are put together.

    Subsets of one draw stand beside each set, and are counted once.
    """
    found: dict[str, dict[str, list[list[float]]]] = {}
    for row in rows:
        some = found.setdefault(name(row), {}).setdefault(row["model"], [])
        if row["trained_on"] == "distilled" or row["accuracies"] not in some:
            some.append(row["accuracies"])
    return {own: {model: list(chain(*some)) for model, some in by.items()} for own, by in found.items()}


def label(run: Run) -> str:
    """``METHOD and what it was told to be, DATA SET, KERNEL or NETWORK`` of a run."""
    method = run.config["method"]
    told = (method.get(choice) for choice in ("select", "start", "form", "curriculum"))
    words = [method["name"], *(str(word) for word in told if word)]
    words += ["with labels"] if method.get("learn_labels") else []
    words += [f"of images of {base}"] if (base := run.config["init"].get("base")) else []
    words += [f"rho {method['rho']:g}"] if method.get("rho") else []
    return f"{' '.join(words)}, {os.path.basename(run.config['data']['name'])}, {origin(run.config)}"


def origin(config: dict[str, Any]) -> str:
    """A short name of the kernel that a set was distilled through, or of the network."""
    whole = ml_collections.ConfigDict(config)
    if build.trains_networks(whole):
        return f"{whole.model.name} {whole.model.get('width', '')}".strip()
    return build.kernel_name(build.kernel_spec(whole))


def spread(accuracy: dict[str, Any]) -> str:
    """``mean ± std (n)`` in percent of a result's accuracy."""
    error = f" ± {100 * accuracy['std']:.2f}" if accuracy["n"] > 1 else ""
    return f"{100 * accuracy['mean']:.2f}{error} (n={accuracy['n']})"


def _folder(found, name, folder, files):
    if {"config.json", "summary.json"} <= files:
        config, summary = (read(os.path.join(folder, file)) for file in ("config.json", "summary.json"))
        found.runs.append(Run(name, folder, config, summary))
        return
    for file in sorted(files):
        if not file.endswith(".json") or file == "config.json":
            continue
        content = read(os.path.join(folder, file))
        own = name if file in ("table.json", "results.json") else f"{name}/{file.removesuffix('.json')}"
        if isinstance(content, dict) and "cells" in content:
            found.sweeps[own] = content["cells"]
            continue
        rows = content.get("rows") if isinstance(content, dict) else content
        if not (isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows)):
            continue
        if any("rho" in row for row in rows):
            found.corruption[own] = rows
        elif file == "results.json" and "table.txt" in files:
            with open(os.path.join(folder, "table.txt"), encoding="utf-8") as text:
                found.studies[own] = text.read().rstrip()
        elif rows[0].get("protocol") in ("kernel_transfer", "cross_arch"):
            found.matrices[own] = rows
        elif {"artifact", "accuracies"} <= set(rows[0]):
            found.scored[own] = rows
        else:
            found.others[own] = rows
