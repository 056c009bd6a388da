"""Corruption as privacy: sets of which most coordinates are noise, against natural images with the same noise.

python -m experiments.corruption --config=configs/kip/fashion_mnist.py --rho=0,0.5,0.75,0.9 --out=runs/corruption
python -m experiments.corruption --flagfile=configs/corruption/fashion_mnist_cpu.flags --out=runs/corruption

For every fraction rho KIP_rho is run from real images, and networks are trained on the result and on the images that it
started from, corrupted in the same coordinates by the same values: arXiv:2011.00050, section 4.3. Tables A7 to A10 are
--arch=fc1 --scale=4 (width 4096) by Adam at 4e-4, with --loss=half_mse or soft_cross_entropy. Writes results.json,
table.txt and corruption.png.
"""

import os

import jax
from absl import flags
from ml_collections import config_flags

from experiments import build, cli, findings, inputs, plots, tables
from kipjax import checks
from kipjax.evaluation import metrics, protocols, robustness, train

FLAGS = flags.FLAGS
findings.define_out()
config_flags.DEFINE_config_file("config", None, "The experiment: FILE.py or FILE.py:VARIANT.", lock_config=True)
flags.DEFINE_list("rho", ["0", "0.5", "0.75", "0.9"], "Fractions of corrupted coordinates.")
flags.DEFINE_list("arch", ["fc1"], f"Networks: of {', '.join(robustness.NETWORKS)}, or NAME[:NORM].")
flags.DEFINE_float("scale", 1.0, "Factor on the width of the former: fc1 is 1024 wide.")
flags.DEFINE_enum("optimizer", "adam", ("adam", "sgd"), "That of their training.")
flags.DEFINE_enum("loss", "half_mse", sorted(protocols.LOSSES), "What they are trained by.")
flags.DEFINE_float("learning_rate", 4e-4, "Constant learning rate.", lower_bound=0.0)
flags.DEFINE_integer("steps", 1000, "Steps of every training.", lower_bound=1)
flags.DEFINE_integer("runs", 1, "Distilled sets for each fraction, each with noise of its own.", lower_bound=1)
flags.DEFINE_integer("seeds", 5, "Networks on each set.", lower_bound=1)
flags.mark_flag_as_required("config")


def main() -> None:
    findings.folder()
    config, fractions, archs = FLAGS.config, _fractions(), findings.nonempty("arch")
    checks.at_least("--learning_rate", "learning_rate", FLAGS.learning_rate, 0.0, strict=True)
    checks.require(
        config.method.name == "kip",
        "--config",
        f"its method is {config.method.name}; choose kip, which fills corrupted coordinates with noise (rfad keeps "
        "entries of the set that it starts from, here real pixels)",
    )
    dataset = inputs.load(config)
    preprocess = inputs.prepare(config, dataset)
    task = inputs.tested_on(inputs.task(dataset, preprocess), config.data.test_size)._replace(name=config.data.name)
    networks = {arch: robustness.build(arch, task, scale=FLAGS.scale) for arch in archs}
    rows = []
    for rho in fractions:
        config.method.rho = rho
        for run in range(FLAGS.runs):
            seed = config.seed + run
            sets = dict(zip(("natural", config.method.name), build.before_and_after(config, task, preprocess, seed)))
            for (name, made), arch in ((pair, arch) for pair in sets.items() for arch in archs):
                (found,) = train.evaluate(
                    made, task, networks[arch], protocol=_protocol(), name=arch, key=jax.random.key(seed),
                    seeds=FLAGS.seeds, subset_seeds=0,
                )  # fmt: skip
                rows.append({"set": name, "size": found.size, "arch": arch, "rho": rho, "run": run})
                rows[-1]["accuracies"] = found.accuracies
                findings.save(rows, config=config.to_dict())  # now, so that what is done is not lost where the rest is
    plots.corruption(os.path.join(FLAGS.out, "corruption.png"), rows)
    findings.write(rows, _table(rows, fractions), config=config.to_dict())


def _protocol():
    momentum = 0.9 if FLAGS.optimizer == "sgd" else 0.0
    return robustness.PROTOCOL._replace(
        name="corruption", optimizer=FLAGS.optimizer, momentum=momentum, loss=FLAGS.loss, steps=FLAGS.steps,
        learning_rate=FLAGS.learning_rate,
    )  # fmt: skip


def _fractions():
    found = findings.numbers("rho")
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
    size = rows[0]["size"]
    note = f"test accuracy in %, {size} images, {protocols.describe(_protocol(), size)}"
    note += f"\n{FLAGS.runs} sets x {FLAGS.seeds} networks; mean ± standard deviation over all of them"
    return f"{note}\n{tables.grid('trained on', columns, text)}"


if __name__ == "__main__":
    cli.run(main)
