"""Corruption as privacy: sets of which most coordinates are noise, against natural images with the same noise.

python -m experiments.corruption --config=configs/kip/fashion_mnist.py --rho=0,0.5,0.75,0.9 --out=runs/corruption

For every fraction rho the config's method (KIP_rho, or RFAD with its rho) is run from real images, and networks are
trained on the result and on the images that it started from, corrupted in the same coordinates by the same values:
arXiv:2011.00050, section 4.3 and tables A5 to A10. Writes results.json, table.txt and corruption.png.
"""

import os

import jax
from absl import flags
from ml_collections import config_flags

from experiments import build, cli, findings, inputs, plots, tables
from kipjax import checks, models
from kipjax.evaluation import metrics, protocols, train

FLAGS = flags.FLAGS
findings.define_out()
config_flags.DEFINE_config_file("config", None, "The experiment: FILE.py or FILE.py:VARIANT.", lock_config=True)
flags.DEFINE_list("rho", ["0", "0.5", "0.75", "0.9"], "Fractions of corrupted coordinates.")
flags.DEFINE_list("arch", ["mlp"], f"Networks: NAME or NAME:NORM of {', '.join(models.names())}.")
flags.DEFINE_integer("width", 128, "Filters of the first layer of a ConvNet.", lower_bound=1)
flags.DEFINE_enum("training", "rcig", sorted(protocols.NAMED), "Protocol of their training.")
flags.DEFINE_integer("runs", 1, "Distilled sets for each fraction, each with noise of its own.", lower_bound=1)
flags.DEFINE_integer("seeds", 5, "Networks on each set.", lower_bound=1)
flags.mark_flag_as_required("config")


def main() -> None:
    findings.folder()
    config, fractions = FLAGS.config, _fractions()
    checks.require("rho" in config.method, "--config", f"{config.method.name} has no rho; choose kip or rfad")
    dataset = inputs.load(config)
    preprocess = inputs.prepare(config, dataset)
    task = inputs.tested_on(inputs.task(dataset, preprocess), config.data.test_size)._replace(name=config.data.name)
    rows = []
    for rho in fractions:
        config.method.rho = rho
        for run in range(FLAGS.runs):
            seed = config.seed + run
            sets = dict(zip(("natural", config.method.name), build.before_and_after(config, task, preprocess, seed)))
            for (name, made), arch in ((pair, arch) for pair in sets.items() for arch in FLAGS.arch):
                (found,) = train.evaluate(
                    made, task, train.build(arch, task, width=FLAGS.width), protocol=FLAGS.training, name=arch,
                    key=jax.random.key(seed), seeds=FLAGS.seeds, subset_seeds=0,
                )  # fmt: skip
                rows.append({"set": name, "size": found.size, "arch": arch, "rho": rho, "run": run})
                rows[-1]["accuracies"] = found.accuracies
    plots.corruption(os.path.join(FLAGS.out, "corruption.png"), rows)
    findings.write(rows, _table(rows, fractions), config=config.to_dict())


def _fractions():
    try:
        found = [float(value) for value in FLAGS.rho]
    except ValueError:
        raise checks.InputError(f"--rho: {','.join(FLAGS.rho)}; expected fractions such as 0,0.5,0.9") from None
    for value in found:
        checks.within("--rho", "fraction", value, 0.0, 1.0)
    return found


def _values(rows, line, rho):
    return [a for row in rows if (row["arch"], row["set"], row["rho"]) == (*line, rho) for a in row["accuracies"]]


def _lines(rows):
    return list(dict.fromkeys((row["arch"], row["set"]) for row in rows))


def _table(rows, fractions):
    columns = [*(f"{100 * rho:g} % corrupt" for rho in fractions), "lost, first to last"]
    text = {}
    for line in _lines(rows):
        values = [_values(rows, line, rho) for rho in fractions]
        lost = metrics.summarize(values[0]).mean - metrics.summarize(values[-1]).mean
        text[", ".join(line)] = [*(tables.spread(some, scale=100) for some in values), f"{100 * lost:.2f}"]
    note = f"test accuracy in %, {rows[0]['size']} images, {FLAGS.training}; n={FLAGS.runs * FLAGS.seeds}"
    return f"{note}\n{tables.grid('trained on', columns, text)}"


if __name__ == "__main__":
    cli.run(main)
