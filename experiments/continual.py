"""Continual learning with memories of several makes: classes in phases, or data sets one after the other.

python -m experiments.continual --data=fashion_mnist --phases=5 --ipc=10 --builder=random,configs/dm/images.py:cpu \\
    --out=runs/continual
python -m experiments.continual --domains=svhn,mnist,kmnist --image_size=32 --ipc=10 --learner=rehearsal \\
    --out=runs/domains

A builder is "random", or a config as experiments.distill takes it (FILE.py or FILE.py:VARIANT), whose method is run on
the data of each phase: anything distilled, or a coreset. Its data set and number of images are not used. Writes
results.json, table.txt and accuracy.png: accuracy on all that was seen, after each phase.
"""

import importlib
import os
import pathlib

import jax
import numpy as np
from absl import flags

from experiments import build, cli, findings, report, tables
from kipjax import checks, data, models
from kipjax.evaluation import Task, continual, metrics, protocols, train
from kipjax.io import charts

FLAGS = flags.FLAGS
findings.define_data("fashion_mnist")
flags.DEFINE_list("builder", ["random"], "What is kept of a phase: random, or a config FILE.py[:VARIANT].")
flags.DEFINE_integer("phases", 5, "Phases of equally many classes.", lower_bound=1)
flags.DEFINE_integer("first", 0, "Classes in a phase before those; Mnemonics has half of all.", lower_bound=0)
flags.DEFINE_list("order_seed", ["0"], "Seeds of class orders; -1 for ascending classes.")
flags.DEFINE_list("domains", [], "Data sets with the same classes, one after the other, instead of classes in phases.")
flags.DEFINE_integer("ipc", 0, "Images kept of each class of a phase.", lower_bound=0)
flags.DEFINE_integer("total", 0, "Images in memory at most, instead.", lower_bound=0)
flags.DEFINE_enum("learner", "gdumb", continual.LEARNERS, "How the memory is used.")
flags.DEFINE_float("distillation", 0.0, "Weight of what the network said before a phase; not for gdumb.")
flags.DEFINE_enum("training", "dm", sorted(protocols.NAMED), "Protocol of every training.")
flags.DEFINE_integer("epochs", 0, "Epochs instead of the protocol's; the rate falls in the middle.", lower_bound=0)
flags.DEFINE_string("arch", "dc_convnet", f"Network: NAME or NAME:NORM of {', '.join(models.names())}.")
flags.DEFINE_integer("width", 128, "Filters of the first layer of a ConvNet.", lower_bound=1)
flags.DEFINE_integer("networks", 3, "Networks for each class order.", lower_bound=1)


def main() -> None:
    findings.folder()
    sequences = _sequences()
    slots = sum(len(phase.classes) for phase in sequences[0][0])
    continual.memory_per_class(slots, ipc=FLAGS.ipc, total=FLAGS.total)  # refused now rather than after a while
    configs = {name: None if name == "random" else _config(name) for name in FLAGS.builder}
    runs = {}
    for name, config in configs.items():
        for number, (phases, preprocesses) in enumerate(sequences):
            builder = continual.random if config is None else _builder(config, preprocesses)
            key = jax.random.fold_in(jax.random.key(FLAGS.seed), number)
            runs.setdefault(name, []).append(_run(phases, builder, key))
    _plot(runs, os.path.join(FLAGS.out, "accuracy.png"))
    rows = [
        {"builder": name, "order": number, "phases": run.names, "memory": run.memory.tolist()}
        | {"accuracies": run.accuracies.tolist(), "test_sizes": run.sizes.tolist()}
        for name, some in runs.items()
        for number, run in enumerate(some)
    ]
    findings.write(rows, _table(runs))


def _sequences():
    """``[(phases, preprocessing of each), ...]``, one for each class order."""
    if FLAGS.domains:
        loaded = {
            name: report.load(report.Source(name, FLAGS.image_size, 0, 0), FLAGS.data_dir) for name in FLAGS.domains
        }
        channels = max(found.x_train.shape[-1] for found in loaded.values())
        fitted, tasks = [], {}
        for name, found in loaded.items():
            found = _with_channels(found, channels)
            fitted.append(data.preprocess.fit(found.x_train, FLAGS.preprocess))
            tasks[name] = findings.task(found, fitted[-1])
        return [(continual.domains(tasks), fitted)]
    found = findings.dataset()
    # Fitted on all classes, as the papers' fixed constants are.
    preprocess = data.preprocess.fit(found.x_train, FLAGS.preprocess)
    task, sequences = findings.task(found, preprocess), []
    for seed in findings.whole_numbers("order_seed"):
        order = None if seed < 0 else continual.class_order(task.num_classes, seed)
        phases = continual.split(task, phases=FLAGS.phases, first=FLAGS.first, order=order)
        sequences.append((phases, [preprocess] * len(phases)))
    return sequences


def _with_channels(found, channels):
    """Grey images with as many equal channels as the coloured ones have."""
    x_train, x_test = (
        x if x.shape[-1] == channels else np.repeat(x, channels, axis=-1) for x in (found.x_train, found.x_test)
    )
    return found._replace(x_train=x_train, x_test=x_test)


def _config(name):
    """The config ``FILE.py[:VARIANT]``."""
    path, _, variant = name.partition(":")
    here = pathlib.Path(path)
    checks.require(
        here.suffix == ".py" and here.exists() and here.parts[0] == "configs",
        "--builder",
        f"{name!r} is neither 'random' nor a config such as configs/dm/images.py",
    )
    return importlib.import_module(".".join(here.with_suffix("").parts)).get_config(variant)


def _builder(config, preprocesses):
    """Runs the config's method on the images of a phase, whose classes are 0, 1, ... inside it."""
    config = config.copy_and_resolve_references()

    def make(key, phase, ipc):
        seed = int(jax.random.randint(key, (), 0, 2**31 - 1))
        config.init.ipc = ipc
        columns = np.sort(phase.classes)
        own = np.searchsorted(columns, phase.train_labels)
        parts = Task(phase.x_train, own, phase.x_test[:1], np.zeros(1, int), len(columns), FLAGS.data)
        return continual.place(build.memory(config, parts, preprocesses[phase.number], seed), phase)

    return make


def _run(phases, builder, key):
    first = phases[0]
    task = Task(first.x_train, first.train_labels, first.x_test, first.test_labels, first.num_classes)
    protocol = protocols.named(FLAGS.training, dataset=FLAGS.domains[0] if FLAGS.domains else FLAGS.data)
    if FLAGS.epochs:
        protocol = protocol._replace(epochs=FLAGS.epochs, steps=0, drop_epoch=FLAGS.epochs // 2 + 1)
    return continual.evaluate(
        phases, builder, train.build(FLAGS.arch, task, width=FLAGS.width), ipc=FLAGS.ipc, total=FLAGS.total,
        learner=FLAGS.learner, distillation=FLAGS.distillation, protocol=protocol, key=key, networks=FLAGS.networks,
    )  # fmt: skip


def _seen(some):
    """``[values, T]`` of all class orders and networks; every data set counts alike, every image of a class split."""
    return np.concatenate([run.seen(weighted=not FLAGS.domains) for run in some])


def _table(runs):
    columns = ["memory", *(f"phase {t + 1}" for t in range(len(next(iter(runs.values()))[0].names)))]
    columns += ["average", "forgetting", "mean forgetting"]
    rows = {}
    for name, some in runs.items():
        seen = _seen(some)
        lost, mean_lost = (
            np.concatenate([getattr(run, f)() for run in some]) for f in ("forgetting", "mean_forgetting")
        )
        values = [*seen.T, seen.mean(axis=1), lost, mean_lost]
        rows[name] = [str(some[0].memory[-1]), *(tables.spread(value, scale=100) for value in values)]
    what = "mean over data sets so far" if FLAGS.domains else "all test images of the classes so far"
    n = len(_seen(next(iter(runs.values()))))
    notes = [f"accuracy in %, {what}; {FLAGS.learner}, {FLAGS.training}; n={n} class orders times networks"]
    return "\n".join([*notes, tables.grid("memory by", columns, rows)])


def _plot(runs, path):
    found = {}
    for name, some in runs.items():
        values = [metrics.summarize(column) for column in 100 * _seen(some).T]
        number = list(range(1, len(values) + 1))
        found[name] = charts.Curve(number, [value.mean for value in values], [value.std for value in values])
    charts.curves(path, {"accuracy on what was seen, %": found}, x_label="phase")


if __name__ == "__main__":
    cli.run(main)
