"""Speed, as ratios taken in one run on one machine.

python -m experiments.benchmark [--only=kip,driver,import] [--out=benchmark.json]

A row of times runs two programs in turn, a b a b ..., and reports the median of the pairwise ratios, so that a machine
whose speed drifts does not decide the result. A row of memory compares what the compiler plans for both programs. A row
of a bound compares a time with the least that this machine could take. Nothing here is a test.
"""

import os
import platform

import jax
from absl import flags

from experiments import cli
from experiments.benchmarks import devices, driver, harness, kernels, methods, unrolled
from kipjax import checks
from kipjax.io import log

FLAGS = flags.FLAGS
flags.DEFINE_list("only", [], "Rows to run, by name; all unless given.")
flags.DEFINE_integer("pairs", 5, "Pairs of timings per row.", lower_bound=1)
flags.DEFINE_integer("steps", 20, "Training steps per timing.", lower_bound=1)
flags.DEFINE_string("out", None, "Also write the rows to this JSON file.")


ROWS: harness.Rows = driver.ROWS | kernels.ROWS | methods.ROWS | unrolled.ROWS | devices.ROWS


def main() -> None:
    unknown = [name for name in FLAGS.only if name not in ROWS]
    checks.require(not unknown, "--only", f"{', '.join(unknown)} unknown; choose from {', '.join(ROWS)}")
    machine = {"device": jax.devices()[0].device_kind, "cores": os.cpu_count(), "jax": jax.__version__}
    machine |= {"python": platform.python_version(), "system": platform.platform()}
    print("  ".join(f"{name} {value}" for name, value in machine.items()))
    rows, skipped = [], {}
    for name in FLAGS.only or ROWS:
        try:
            r = ROWS[name]()
        except harness.Skipped as reason:
            skipped[name] = str(reason)
            print(f"{name}: not run, {reason}")
            continue
        rows.append(r)
        spread = f"({r.smallest_ratio:.3f}..{r.largest_ratio:.3f})"
        print(f"{r.name:<66} {r.ours:9.3f} {r.other:9.3f} {r.unit:<9} ratio {r.ratio:.3f} {spread}  {r.aim}")
    if FLAGS.out:
        log.write_json(FLAGS.out, {"machine": machine, "rows": rows, "skipped": skipped})


if __name__ == "__main__":
    cli.run(main)
