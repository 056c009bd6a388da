"""Runs a config once for every combination of values of some of its fields, and tabulates the results.

python -m experiments.sweep --config=configs/rcig/fashion_mnist.py:cpu --config.method.solve=adam --workdir=RUNS \\
    --grid=method.inner_steps=0,2,20 --grid=method.hessian_steps=0,2,20

Each combination has its run folder under the workdir. One that is there and finished is read, one that was interrupted
goes on, so the same command finishes a sweep and shows it again. A run that diverges is a cell of the table, not the
end. table.json holds the cells: results, seconds, and means of the log over the second half of the steps. This is how
the ablations of the papers are run: RCIG's truncation (its figures 1 and 2), DC's and DSA's normalisation, activation,
depth and single augmentations.
"""

import copy
import itertools
import json
import os

import numpy as np
from absl import flags
from ml_collections import config_flags

from experiments import cli, fields, run_folder, trainer
from kipjax import checks
from kipjax.io import log

Choice = tuple[tuple[str, object], ...]


def define() -> None:
    """The flags of this script."""
    text = "The experiment: FILE.py or FILE.py:VARIANT."
    config_flags.DEFINE_config_file("config", None, text, lock_config=True)
    flags.DEFINE_string("workdir", None, "Folder of the run folders.")
    flags.DEFINE_multi_string("grid", None, "FIELD=VALUE,VALUE,...; several grids are combined.")
    flags.mark_flags_as_required(["config", "workdir", "grid"])


def main() -> None:
    print("\n" + sweep(flags.FLAGS.config, flags.FLAGS.grid, flags.FLAGS.workdir))


def sweep(config, grids: list[str], workdir: str) -> str:
    """Runs all combinations of the grids ``FIELD=VALUE,...`` that have not been run, and gives the table."""
    parsed = [fields.parse("--grid", text, config) for text in grids]
    cells = {}
    for choice in itertools.product(*parsed):
        print(f"\n{_name(choice)}", flush=True)
        cells[choice] = one(config, choice, workdir)
    rows = [{"fields": dict(choice), **cell} for choice, cell in cells.items()]
    log.write_json(os.path.join(workdir, "table.json"), {"cells": rows})
    return table(parsed, cells)


def one(config, choice: Choice, workdir: str) -> dict:
    """The cell of one combination: its results, or why there are none."""
    config = copy.deepcopy(config)
    config.update_from_flattened_dict(dict(choice))
    folder = os.path.join(workdir, _name(choice))
    summary = os.path.join(folder, "summary.json")
    if os.path.exists(summary):
        run_folder.require_identical(folder, config)
    else:
        try:
            trainer.run(config, folder, resume=os.path.exists(os.path.join(folder, "config.json")))
        except checks.NumericalError as error:
            print(f"diverged: {error}")
            return {"diverged": str(error)}
    with open(summary, encoding="utf-8") as file:
        found = json.load(file)
    return {"results": found["results"], "seconds": found["seconds"], "log": _means(folder, config.steps)}


def _means(folder, steps):
    """Mean of each number of a run's log over the second half of its steps: losses, residuals."""
    lines = [line for line in log.read(os.path.join(folder, "metrics.jsonl")) if line["step"] > steps // 2]
    names = [name for name, value in lines[-1].items() if name != "step" and isinstance(value, (int, float))]
    return {name: float(np.mean([line[name] for line in lines if name in line])) for name in names}


def table(grids, cells: dict[Choice, dict]) -> str:
    """Accuracy of the distilled sets in percent: a column for each value of the last grid, rows for the others."""
    *rest, last = grids
    header = ", ".join(values[0][0] for values in rest)
    rows = list(itertools.product(*rest))
    labels = [", ".join(str(value) for _, value in row) for row in rows]
    width = max(len(header), *map(len, labels))
    lines = [f"test accuracy in percent; columns: {last[0][0]}"]
    lines.append("  ".join([f"{header:<{width}}", *(f"{value!s:>14}" for _, value in last)]))
    for row, label in zip(rows, labels):
        lines.append("  ".join([f"{label:<{width}}", *(f"{_cell(cells[(*row, value)]):>14}" for value in last)]))
    return "\n".join(lines)


def _cell(cell):
    if "diverged" in cell:
        return "diverged"
    accuracy = cell["results"][0]["accuracy"]
    spread = f" ± {100 * accuracy['std']:.2f}" if accuracy["n"] > 1 else ""
    return f"{100 * accuracy['mean']:.2f}{spread}"


def _name(choice: Choice) -> str:
    return ",".join(f"{field}={value}" for field, value in choice).replace(os.sep, "_")


if __name__ == "__main__":
    cli.run(main, define)
