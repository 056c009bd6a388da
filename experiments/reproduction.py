"""The reproduction report: every row of the papers that a config runs, beside what has been run.

python -m experiments.reproduction --runs=runs --out=REPRODUCTION.md

The papers' figures are in experiments/paper_rows.json, each with where it was taken from and the config (and the fields
to set) that runs it at the paper's scale. Run folders under --runs are matched by method, data set, images per class,
kernel and what is learned; what else differs from the row's config is read off the two configs. Runs that differ in
their seed alone are one line. A row without a run is "not run"; runs without a row have a table of their own, as have
the figures of experiments/paper_others.json: transfer, corruption, continual learning, search, attacks.
"""

import importlib
import itertools
import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import ml_collections
import numpy as np
from absl import flags

from experiments import build, cli, gather, tables
from kipjax import checks
from kipjax.io import log

__all__ = ["Row", "command", "config", "differences", "matches", "others", "report", "rows"]

_ROOT = pathlib.Path(__file__).parent.parent
_SOURCES = {
    "read": "read in the paper",
    "quoted": "quoted elsewhere",
    "recalled": "recalled, not read again",
}
_CHOICES = ("learn_images", "learn_labels", "rho", "start", "form", "curriculum", "select", "labels", "images")


class Row(NamedTuple):
    """A figure of a paper: test accuracy in percent, ``std`` None where there is none, and what runs it."""

    method: str
    paper: str
    where: str
    source: str
    dataset: str
    ipc: int
    mean: float
    std: float | None
    config: str
    set: dict[str, Any]


def define() -> None:
    """The flags of this script."""
    flags.DEFINE_list("runs", ["runs"], "Folders of run folders, searched to the bottom.")
    flags.DEFINE_string("out", None, "The report (Markdown). Default: print it.")


def main() -> None:
    text = report(rows(), gather.below(flags.FLAGS.runs).runs, others())
    if not flags.FLAGS.out:
        print(text)
        return
    with open(flags.FLAGS.out, "w", encoding="utf-8") as file:
        file.write(text + "\n")
    print(f"report    {flags.FLAGS.out}")


def rows() -> list[Row]:
    """The figures of the papers."""
    text = (_ROOT / "experiments" / "paper_rows.json").read_text(encoding="utf-8")
    return [Row(**row) for row in json.loads(text)]


def others() -> list[dict[str, str]]:
    """What the papers report that is not the accuracy of one set by its own method."""
    return json.loads((_ROOT / "experiments" / "paper_others.json").read_text(encoding="utf-8"))


def config(row: Row) -> ml_collections.ConfigDict:
    """The config that runs a row, as the command line would make it.

    Raises:
      InputError: it does not exist, or has no such variant or field.
    """
    path, _, variant = row.config.partition(":")
    checks.require((_ROOT / path).is_file(), "paper_rows.json", f"there is no config {path}")
    made = importlib.import_module(path.removesuffix(".py").replace("/", ".")).get_config(variant)
    for name in row.set:
        node = made
        for part in name.split("."):
            checks.require(part in node, "paper_rows.json", f"{row.config} has no field {name}")
            node = node[part]
    made.update_from_flattened_dict(row.set)
    return made


def command(row: Row) -> str:
    """What runs it."""
    fields = "".join(f" --config.{name}={value}" for name, value in row.set.items())
    if "experts" not in config(row):
        return f"python -m experiments.distill --config={row.config}{fields} --workdir=RUN"
    shared = f"--config={row.config}{fields} --config.experts.path=EXPERTS"
    return f"python -m experiments.buffers {shared} && python -m experiments.distill {shared} --workdir=RUN"


def matches(wanted: ml_collections.ConfigDict, run: gather.Run) -> bool:
    """Whether a run is of the same method, data set, size, kernel and choices."""
    ours, theirs = run.config, log.to_jsonable(wanted)
    same = [("method", "name"), ("data", "name"), ("init", "ipc"), ("init", "base"), *(("method", c) for c in _CHOICES)]
    if any(
        b in ours[a] and not _same(ours[a][b], theirs[a].get(b)) for a, b in same
    ):  # older configs have fewer fields
        return False
    return build.trains_networks(wanted) or gather.origin(ours) == gather.origin(theirs)


def differences(wanted: ml_collections.ConfigDict, ours: dict[str, Any]) -> list[str]:
    """``FIELD OURS instead of THEIRS`` for every field that tells on results."""
    found, expected = (
        gather.flat(ours),
        gather.flat(log.to_jsonable(wanted)),
    )  # an older run has nothing to say on newer fields
    names = [n for n in sorted(found) if n not in gather.OF_NO_WEIGHT and not _same(found[n], expected.get(n))]
    return [f"{name} {_word(found[name])} instead of {_word(expected.get(name))}" for name in names]


def report(figures: Sequence[Row], runs: Sequence[gather.Run], besides: Sequence[dict[str, str]] = ()) -> str:
    """The Markdown: a table for each paper, one of the runs that belong to no row, and one of other figures."""
    parts, joined = [_HEAD.format(rows=len(figures))], set()
    for paper, some in itertools.groupby(figures, key=lambda row: row.paper):
        lines, notes = [], []
        for row in some:
            wanted = config(row)
            theirs = f"{row.mean:g}" + ("" if row.std is None else f" ± {row.std:g}")
            start = [row.method, row.dataset, str(row.ipc), theirs, f"{_SOURCES[row.source]} ({row.where})"]
            groups = gather.groups([run for run in runs if matches(wanted, run)])
            if not groups:
                lines.append([*start, "not run", "", _needs(row), "", f"`{command(row)}`"])
            for group in groups:
                joined |= {run.name for run in group}
                lines.append([*start, *_ours(group)])
                found = differences(wanted, group[0].config)
                reason = "; ".join(found) if found else "the same config: seeds, precision, and how the paper selects"
                notes.append(f"- {row.method}, {row.dataset}, {row.ipc} a class ({lines[-1][-1]}): {reason}.")
        parts.append(f"## {paper}\n\n{tables.markdown(_COLUMNS, lines)}")
        parts += ["What differs from the row's config:\n\n" + "\n".join(notes)] if notes else []
    groups = gather.groups([run for run in runs if run.name not in joined])
    if groups:
        lines = [[gather.label(group[0]), str(group[0].config["init"]["ipc"]), *_ours(group)] for group in groups]
        parts.append(f"{_ALONE}\n\n{tables.markdown(('set', _COLUMNS[2], *_COLUMNS[5:]), lines)}")
    if besides:
        columns = ("what", "paper", "source", "quantity", "data", "paper's figures", "flags or config")
        lines = [[*_others(row), f"`{row['flagfile']}`" if row["flagfile"] else "no config"] for row in besides]
        parts.append(f"{_OTHERS}\n\n{tables.markdown(columns, lines)}")
    return "\n\n".join(parts)


_COLUMNS = (
    "method", "data set", "images a class", "paper, %", "source", "ours, %", "n", "scored by", "device, time", "runs",
)  # fmt: skip

_HEAD = """# Reproduction report

Written by `python -m experiments.reproduction`, not edited by hand: {rows} rows of papers that a config runs. Figures
are test accuracies in percent, mean ± standard deviation. Ours are of the last step, without selection; n counts seeds
where kernels score, trained networks otherwise. Rows that are not run show their command at the paper's scale, and
what they need that was not at hand: the data, or an accelerator."""

_ALONE = """## Runs of no row

What the papers do not report with this method, data set, size and kernel."""

_OTHERS = """## Other figures of the papers

Accuracies of several networks, rank correlations, attacks. The flags run them at the paper's scale by the script that
their first lines name; what was run of them at a smaller one is in RESULTS.md."""


def _needs(row):
    """What it would take to run a row."""
    return "time, on data at hand" if row.dataset in ("digits", "fashion_mnist") else "the data, and time"


def _others(row):
    return [row["what"], row["paper"], _SOURCES[row["source"]], row["quantity"], row["data"], row["figures"]]


def _ours(group):
    values = [100 * a for run in group for a in run.summary["results"][0]["accuracies"]]
    summary = group[0].summary
    by = summary.get("protocol", "")
    seconds = [run.summary["seconds"] for run in group if run.summary["seconds"] is not None]
    lasted = (
        f"{min(seconds):.0f}{f' to {max(seconds):.0f}' if len(seconds) > 1 else ''} s" if seconds else "time not known"
    )
    time = f"{summary['device']}, {lasted}"
    return [tables.spread(values), str(len(values)), by, time, ", ".join(run.name for run in group)]


def _same(a, b):
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return bool(np.isclose(a, b, rtol=1e-9))
    return a == b or (a in (None, "", []) and b in (None, "", []))


def _word(value):
    return "nothing" if value in (None, "") else str(value)


if __name__ == "__main__":
    cli.run(main, define)
