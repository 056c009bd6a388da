"""Speed, as ratios taken in one run on one machine.

python -m experiments.benchmark [--only=kip,driver,import] [--out=benchmark.json]

A row of times runs two programs in turn, a b a b ..., and reports the median of the pairwise ratios, so that a machine
whose speed drifts does not decide the result. A row of memory compares what the compiler plans for both programs. A row
of a bound compares a time with the least that this machine could take. The rows are printed as they come and, at the
end, as a table in Markdown. Nothing here is a test.
"""

import os
import pathlib
import platform
import shlex
import sys

import jax
from absl import flags

from experiments import cli, tables
from experiments.benchmarks import devices, driver, harness, kernels, methods, pytorch, unrolled
from kipjax import checks
from kipjax.io import log

FLAGS = flags.FLAGS
flags.DEFINE_list("only", [], "Rows to run, by name; all unless given.")
flags.DEFINE_integer("pairs", 5, "Pairs of timings per row.", lower_bound=1)
flags.DEFINE_integer("steps", 20, "Training steps per timing.", lower_bound=1)
flags.DEFINE_string("out", None, "Also write the rows to this JSON file.")


ROWS: harness.Rows = driver.ROWS | kernels.ROWS | methods.ROWS | pytorch.ROWS | unrolled.ROWS | devices.ROWS


COLUMNS = ("row", "ours", "other", "unit", "ours / other (range)", "pairs", "aim")


def main() -> None:
    unknown = [name for name in FLAGS.only if name not in ROWS]
    checks.require(not unknown, "--only", f"{', '.join(unknown)} unknown; choose from {', '.join(ROWS)}")
    machine = _machine()
    print("  ".join(f"{name} {value}" for name, value in machine.items()))
    rows, skipped = [], {}
    command = shlex.join(["python", "-m", "experiments.benchmark", *sys.argv[1:]])
    for name in FLAGS.only or ROWS:
        try:
            rows.append(ROWS[name]())
            print("  ".join(_cells(rows[-1])), flush=True)
        except harness.Skipped as reason:
            skipped[name] = str(reason)
            print(f"{name}: not run, {reason}")
        if FLAGS.out:  # now, so that a run that is cut off leaves what it measured
            report = {"command": command, "machine": machine, "rows": rows, "skipped": skipped}
            log.write_json(FLAGS.out, report)
    print(f"\n{tables.markdown(COLUMNS, [_cells(r) for r in rows])}")


def _machine():
    """What the timings are of: the device, the processor, its threads and how many of them this process may use."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = {"device": jax.devices()[0].device_kind, "processor": _processor(), "cores": os.cpu_count()}
    found |= {"threads": usable, "jax": jax.__version__, "python": platform.python_version()}
    return found | {"system": platform.platform()}


def _processor():
    """The model of the CPU as Linux names it, else as Python does."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _cells(row):
    """A row of the table as text."""
    spread = f"{row.ratio:.3f} ({row.smallest_ratio:.3f}..{row.largest_ratio:.3f})"
    return [row.name, f"{row.ours:.4g}", f"{row.other:.4g}", row.unit, spread, str(row.pairs), row.aim]


if __name__ == "__main__":
    cli.run(main)
