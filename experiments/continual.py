"""Continual learning with memories of several makes: classes in phases, or data sets one after the other.

python -m experiments.continual --data=fashion_mnist --phases=5 --ipc=10 --builder=random,configs/dm/images.py:cpu \\
    --out=runs/continual
python -m experiments.continual --flagfile=configs/continual/fashion_mnist_mnemonics.flags --out=runs/mnemonics
python -m experiments.continual --domains=svhn,mnist,kmnist --image_size=32 --ipc=10 --learner=rehearsal \\
    --out=runs/domains

What is kept is "random", chosen by the features of the networks that learn ("herding"), learned through them
("mnemonics"), or made by a config as experiments.distill takes it, whose method is run on the data of each phase:
anything distilled, or a coreset. It is written FILE.py:WORD+WORD@FIELD=VALUE; its data set and number of images are not
used, its steps and augmentation are. Writes results.json, table.txt and accuracy.png: accuracy on all that was seen,
after each phase.
"""

import itertools
import os

import jax
import numpy as np
from absl import flags

from experiments import cli, findings, memory, report, tables
from kipjax import checks, data
from kipjax.evaluation import Task, continual, metrics
from kipjax.io import charts

FLAGS = flags.FLAGS
findings.define_data("fashion_mnist")
memory.define()
flags.DEFINE_integer("phases", 5, "Phases of equally many classes.", lower_bound=1)
flags.DEFINE_integer("first", 0, "Classes in a phase before those; Mnemonics has half of all.", lower_bound=0)
flags.DEFINE_list("order_seed", ["0"], "Seeds of class orders; -1 for ascending classes.")
flags.DEFINE_list("domains", [], "Data sets with the same classes, one after the other, instead of classes in phases.")
flags.DEFINE_integer("train_size", 0, "Training images to use, the first of each class; 0 for all.", lower_bound=0)
flags.DEFINE_integer("memories", 1, "Memories of each make for each class order, from other draws.", lower_bound=1)
flags.DEFINE_integer("networks", 3, "Networks for each memory.", lower_bound=1)


def main() -> None:
    findings.folder()
    sequences = _sequences()
    phases = sequences[0][0]
    slots = sum(len(phase.classes) for phase in phases)
    continual.memory_per_class(slots, ipc=FLAGS.ipc, total=FLAGS.total)  # refused now rather than after a while
    task = Task(*phases[0][3:])
    learners = memory.learners(task, FLAGS.domains[0] if FLAGS.domains else FLAGS.data)
    builders, sizes = memory.builders(), {"ipc": FLAGS.ipc, "total": FLAGS.total}
    memory.require_suits(phases)
    for make in builders.values():  # refused now rather than after the first of them
        for how in learners.values():
            continual.require_fits(phases, make(sequences[0][1]), how, **sizes)
    runs, rows = {}, []
    for builder, make in builders.items():
        for learner, how in learners.items():
            name = builder if len(learners) == 1 else f"{learner}, {builder}"
            for order, draw in itertools.product(range(len(sequences)), range(FLAGS.memories)):
                phases, preprocesses = sequences[order]
                key = jax.random.fold_in(jax.random.key(FLAGS.seed), order + draw * len(sequences))
                run = continual.evaluate(
                    phases, make(preprocesses), learner=how, key=key, networks=FLAGS.networks, **sizes
                )
                runs.setdefault(name, []).append(run)
                rows.append({"builder": builder, "learner": learner, "order": order, "draw": draw, **_row(run)})
                findings.save(rows)
    _plot(runs, os.path.join(FLAGS.out, "accuracy.png"))
    findings.write(rows, _table(runs))


def _row(run):
    row = {"phases": run.names, "memory": run.memory.tolist(), "accuracies": run.accuracies.tolist()}
    return row | {"test_sizes": run.sizes.tolist()}


def _sequences():
    """``[(phases, preprocessing of each), ...]``, one for each class order."""
    if FLAGS.domains:
        for name in ("phases", "first", "order_seed"):
            text = "is of classes in phases; leave it out beside --domains"
            checks.require(bool(FLAGS[name].using_default_value), f"--{name}", text)
        names = findings.nonempty("domains")
        sources = {name: report.Source(name, FLAGS.image_size, 0, 0) for name in names}
        loaded = {name: _balanced(report.load(source, FLAGS.data_dir)) for name, source in sources.items()}
        shapes = {found.x_train.shape[1:-1] for found in loaded.values()}
        text = f"images are of {' and '.join(f'{h} x {w}' for h, w in sorted(shapes))}; give --image_size"
        checks.require(len(shapes) == 1, "--domains", text)
        channels = max(found.x_train.shape[-1] for found in loaded.values())
        fitted, tasks = [], {}
        for name, found in loaded.items():
            found = _with_channels(found, channels)
            fitted.append(data.preprocess.fit(found.x_train, FLAGS.preprocess))
            tasks[name] = findings.task(found, fitted[-1])
        return [(continual.domains(tasks), fitted)]
    found = _balanced(findings.dataset())
    # Fitted on all classes, as the papers' fixed constants are.
    preprocess = data.preprocess.fit(found.x_train, FLAGS.preprocess)
    task, sequences = findings.task(found, preprocess), []
    for seed in findings.whole_numbers("order_seed"):
        checks.require(seed >= -1, "--order_seed", f"is {seed}; expected a seed from 0, or -1 for ascending classes")
        order = None if seed < 0 else continual.class_order(task.num_classes, seed)
        phases = continual.split(task, phases=FLAGS.phases, first=FLAGS.first, order=order)
        sequences.append((phases, [preprocess] * len(phases)))
    return sequences


def _balanced(found):
    """The first images of each class, ``--train_size`` in all: phases of one size are one compiled program."""
    if not FLAGS.train_size:
        return found
    checks.divides("--train_size", "train_size", FLAGS.train_size, "classes", found.num_classes)
    each = FLAGS.train_size // found.num_classes
    rows = [np.flatnonzero(found.y_train == c)[:each] for c in range(found.num_classes)]
    fewest = min(map(len, rows))
    checks.require(fewest == each, "--train_size", f"a class has {fewest} images of {each}; lower it")
    rows = np.sort(np.concatenate(rows))
    return found._replace(x_train=found.x_train[rows], y_train=found.y_train[rows])


def _with_channels(found, channels):
    """Grey images with as many equal channels as the coloured ones have."""
    x_train, x_test = (
        x if x.shape[-1] == channels else np.repeat(x, channels, axis=-1) for x in (found.x_train, found.x_test)
    )
    return found._replace(x_train=x_train, x_test=x_test)


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
    some = next(iter(runs.values()))
    n, orders = len(_seen(some)), len(some) // FLAGS.memories
    how = f"{', '.join(FLAGS.learner)}, {FLAGS.training}"
    kinds = f"{orders} class orders x {FLAGS.memories} memories x {FLAGS.networks} networks"
    notes = [f"accuracy in %, {what}; {how}; n={n}: {kinds}"]
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
