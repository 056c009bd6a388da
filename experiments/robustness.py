"""How far a distilled set carries: hyperparameters, networks, sizes, classes.

python -m experiments.robustness --artifact=RUN/distilled.npz --out=runs/scatter
python -m experiments.robustness --config=configs/kip/digits.py --ipc=1,10 --study=size --out=runs/size
python -m experiments.robustness --artifact=RUN/distilled.npz --study=bias --networks=fc1 --out=runs/bias

Sets are artifacts, beside random images of the same number; or made here by a config at each of --ipc images a class,
--runs times each, beside the images that they started from, corrupted alike by KIP_rho.

scatter: natural against distilled accuracy over a grid of settings (arXiv:2011.00050, figure 3), the best of each, and
how often it is ahead. size: the best setting by size of the set. bias: accuracy by class, or other groups of
test images, of networks trained on the set, random images, full data. Writes results.json, table.txt and a plot.
"""

import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import config_flags

from experiments import build, cli, findings, inputs, report, tables
from kipjax import checks, models
from kipjax.evaluation import Task, krr, metrics, robustness
from kipjax.io import charts
from kipjax.types import Distilled

FLAGS = flags.FLAGS
findings.define_out()
flags.DEFINE_list("artifact", [], "Distilled sets (.npz).")
config_flags.DEFINE_config_file("config", None, "Or how to make them: FILE.py or FILE.py:VARIANT.", lock_config=True)
flags.DEFINE_string("data_dir", None, "Where the data of the artifacts are, if not in a usual place.")
flags.DEFINE_integer("test_size", 0, "Test images to use, the first ones; 0 for all.", lower_bound=0)
findings.define_seed("Draws random images and networks.")
flags.DEFINE_list("ipc", [], "With a config: images per class; the config's own unless given.")
flags.DEFINE_integer("runs", 1, "With a config: sets of each size.", lower_bound=1)
flags.DEFINE_enum("study", "scatter", ("scatter", "size", "bias"), "What to look at.")
flags.DEFINE_list("networks", list(robustness.NETWORKS), f"Of {', '.join(robustness.NETWORKS)}, or NAME[:NORM].")
flags.DEFINE_float("scale", 1.0, "Factor on the width of these networks.")
for name in ("optimizer", "loss", "learning_rate", "weight_decay"):
    flags.DEFINE_list(name, [str(value) for value in robustness.GRID[name]], f"Values of {name} in the grid.")
flags.DEFINE_integer("steps", 1000, "Steps of every training.", lower_bound=1)
flags.DEFINE_integer(
    "validation_size", 500, "Training images to choose settings by, of which nothing is made; 0: the test images."
)
flags.DEFINE_integer("seeds", 5, "Networks at every point.", lower_bound=1)
flags.DEFINE_integer("parallel", 0, "Networks at once; 0 for one on CPU and all elsewhere.", lower_bound=0)
flags.DEFINE_enum("group", "class", ("class", "brightness", "cluster"), "bias: groups of test images.")
flags.DEFINE_integer("parts", 4, "bias: parts of brightness, or clusters of each class.", lower_bound=1)
flags.DEFINE_integer("full_size", 0, "bias: real training images of 'full data'; 0 for all.", lower_bound=0)
flags.DEFINE_integer("full_steps", 0, "bias: steps on them; 0 for as many as on a set.", lower_bound=0)


class Set(NamedTuple):
    """A set by name, ``natural`` ones to compare it with (or none), and the data that both are from.

    ``held`` are images and classes that settings are chosen by, ``about`` says which; ``kernels`` are the names of
    those that it was distilled with, ``None`` if unknown.
    """

    name: str
    made: Distilled
    natural: list[Distilled]
    task: Task
    held: Any
    about: str
    kernels: tuple[str, ...] | None


def main() -> None:
    findings.folder()
    settings = _grid()
    for name in findings.nonempty("networks"):  # refused now rather than after sets were made
        known = [*robustness.NETWORKS, *models.names()]
        checks.one_of("--networks", "network", name.partition(":")[0], known)
    checks.require(
        bool(FLAGS.artifact) != (FLAGS.config is not None),
        "--artifact",
        "give either artifacts or a --config to make sets by",
    )
    sets = _given() if FLAGS.artifact else _made()
    rows, table, about = (_bias if FLAGS.study == "bias" else _points)(sets, settings)
    findings.write(rows, table, **about)


def _grid():
    rates = {name: findings.numbers(name) for name in ("learning_rate", "weight_decay")}
    words = {name: findings.nonempty(name) for name in ("optimizer", "loss")}
    return robustness.grid(**words, **rates)


def _given():
    """Those of the artifacts."""
    found = findings.inputs(findings.nonempty("artifact"))
    sets = []
    for name, item in zip(findings.pooled(found), found):
        whole = report.load(item.source._replace(train_start=0, train_size=0), FLAGS.data_dir)
        seen = findings.rows(item, len(whole.x_train))
        parts = findings.split(whole, FLAGS.validation_size, seed=FLAGS.seed, kept=seen, seen=seen)
        made = jax.tree.map(jnp.asarray, item.made.distilled)
        sets.append(_set(name, made, [], parts, item.made.preprocess, item.source.name, item.made.meta.get("kernel")))
    return sets


def _made():
    """Those of a config."""
    config, sets = FLAGS.config, []
    parts = findings.split(inputs.load(config), FLAGS.validation_size, seed=FLAGS.seed)
    preprocess = inputs.prepare(config, parts.rest)
    task = inputs.task(parts.rest, preprocess)
    spec = None if build.trains_networks(config) else build.kernel_spec(config)
    for ipc in findings.whole_numbers("ipc") if FLAGS.ipc else [config.init.ipc]:
        config.init.ipc = ipc
        for run in range(FLAGS.runs):
            natural, made = build.before_and_after(config, task, preprocess, config.seed + run)
            sets.append(_set(config.method.name, made, [natural], parts, preprocess, config.data.name, spec))
    return sets


def _set(name, made, natural, parts, preprocess, data, spec):
    task = inputs.tested_on(inputs.task(parts.rest, preprocess), FLAGS.test_size)._replace(name=data)
    specs = [spec] if isinstance(spec, dict) else spec
    kernels = specs and tuple(one.get("name", "?") for one in specs)
    return Set(name, made, natural, task, parts.held(preprocess), parts.about, kernels)


def _models(task):
    return {name: robustness.build(name, task, scale=FLAGS.scale) for name in FLAGS.networks}


def _options(number):
    protocol = robustness.PROTOCOL._replace(steps=FLAGS.steps)
    key = jax.random.fold_in(jax.random.key(FLAGS.seed), number)
    return {"protocol": protocol, "key": key, "seeds": FLAGS.seeds, "parallel": FLAGS.parallel}


def _points(sets, settings):
    """The studies of hyperparameters and of sizes."""
    rows, plain = [], []
    for number, one in enumerate(sets):
        options = {"natural": one.natural, "held": one.held, **_options(number)}
        for network, model in _models(one.task).items():
            points = robustness.scatter(one.made, one.task, {network: model}, settings, **options)
            for point in points:
                values = {field: np.asarray(value).tolist() for field, value in point._asdict().items()
                          if field not in ("network", "setting")}  # fmt: skip
                row = {"set": one.name, "size": len(one.made.x), "number": number, "network": network, **values}
                row["in_family"] = None if one.kernels is None else network in one.kernels
                row["setting"] = point.setting._asdict()
                plain.append(row)
                rows.append(row | {"point": point})
            findings.save(plain)  # now, so that what is done is not lost where the rest is
    path = os.path.join(FLAGS.out, f"{FLAGS.study}.png")
    (_plot_sizes if FLAGS.study == "size" else _plot_scatter)(rows, path)
    return plain, _table(rows, len(settings), _chosen_on(sets)), {}


def _chosen(rows, which):
    """Accuracies of the best setting of every set among ``rows``, side by side."""
    found = []
    for number in sorted({row["number"] for row in rows}):
        best = robustness.best([row["point"] for row in rows if row["number"] == number], which)
        found += [float(value) for value in getattr(best, which)]
    return found


def _chosen_on(sets):
    """Which images settings are chosen by, in words."""
    return "; ".join(dict.fromkeys(one.about for one in sets))


def _table(rows, count, held):
    text = {}
    for line in dict.fromkeys((row["set"], row["size"], row["network"]) for row in rows):
        some = [row for row in rows if (row["set"], row["size"], row["network"]) == line]
        n = len(_chosen(some, "distilled"))
        text[f"{line[0]}, {line[1]} images, {line[2]}"] = [
            {None: "?", True: "yes", False: "no"}[some[0]["in_family"]],
            *(tables.spread(_chosen(some, which), scale=100) for which in ("natural", "distilled")),
            f"{100 * robustness.wins([row['point'] for row in some]):.0f}",
            str(n),
        ]
    notes = [
        f"test accuracy in % at the best of {count} settings, chosen on {held}; {FLAGS.steps} steps",
        "in family: whether the set was distilled with the network's kernel; ahead: share of settings, in %, at which "
        "the distilled set is; n: networks",
    ]
    return "\n".join([*notes, tables.grid("set, network", ["in family", "natural", "distilled", "ahead", "n"], text)])


def _plot_scatter(rows, path):
    clouds = {}
    for name, some in _by_set(rows, "network").items():
        points = [row["point"] for row in some]
        x, y = ([100 * float(np.mean(getattr(p, which))) for p in points] for which in ("natural", "distilled"))
        clouds[name] = (x, y)
    labels = {"x_label": "accuracy trained on natural images, %", "y_label": "accuracy trained on distilled images, %"}
    charts.points(path, clouds, diagonal=True, **labels)


def _by_set(rows, field):
    """The rows by what their field says, and by the name of the set where there are several."""
    several, found = len({row["set"] for row in rows}) > 1, {}
    for row in rows:
        found.setdefault(f"{row['set']}, {row[field]}" if several else row[field], []).append(row)
    return found


def _plot_sizes(rows, path):
    """A panel for each network and kind of set: accuracy against size, distilled and natural."""
    panels = {}
    for name, some in _by_set(rows, "network").items():
        panel = panels[f"{name}: test accuracy, %"] = {}
        for which in ("distilled", "natural"):
            sizes = sorted({row["size"] for row in some})
            found = [
                metrics.summarize(100 * a for a in _chosen([row for row in some if row["size"] == size], which))
                for size in sizes
            ]
            panel[which] = charts.Curve(sizes, [s.mean for s in found], [s.std for s in found])
    charts.curves(path, panels, x_label="images", log_x=True)


def _bias(sets, settings):
    """The study of groups, each training by the best setting of the grid."""
    rows, names = [], []
    for number, (name, made, natural, task, held, _, _) in enumerate(sets):
        names, group = robustness.groups(task, FLAGS.group, parts=FLAGS.parts, seed=FLAGS.seed)
        options = _options(number)
        key, full_key = jax.random.split(options["key"])
        natural = natural or [krr.subset(k, task, len(made.x)) for k in jax.random.split(key, FLAGS.seeds)]
        full = krr.subset(full_key, task, min(FLAGS.full_size or len(task.x_train), len(task.x_train)))
        longer = {"protocol": options["protocol"]._replace(steps=FLAGS.full_steps or FLAGS.steps)}
        trainings = {
            f"{name}, {len(made.x)} images": ([made], options),
            f"natural, {len(made.x)} images": (natural, options),
            f"full data, {len(full.x)} images": ([full], options | longer),
        }
        for network, model in _models(task).items():
            for trained_on, (some, how) in trainings.items():
                setting, said = _best_setting(some, task, held, model, settings, how)
                found = robustness.fairness(said, np.asarray(task.test_labels), group, len(names))
                rows.append({"trained_on": trained_on, "network": network, "setting": setting._asdict()})
                rows[-1] |= {"accuracies": found.accuracies.tolist(), "overall": found.overall.tolist()}
                findings.save(rows, groups=names)
    _plot_bias(rows, names, os.path.join(FLAGS.out, "bias.png"))
    return rows, _bias_table(rows, names, len(settings), _chosen_on(sets)), {"groups": names}


def _best_setting(sets, task, held, model, settings, options):
    """``(setting, classes said of the test images)`` of the best on held-out images, or on the test images."""
    x, classes = held or (task.x_test, task.test_labels)
    probes, n = np.concatenate([np.asarray(task.x_test), np.asarray(x)]), len(task.x_test)
    said = robustness.predictions(sets, probes, model, settings, **options)
    best = int((said[:, :, n:] == np.asarray(classes)).mean(axis=(1, 2)).argmax())
    return settings[best], said[best, :, :n]


def _fairness(rows):
    """The accuracies of rows of one kind, side by side."""
    stacked = (np.concatenate([np.array(row[field]) for row in rows]) for field in ("accuracies", "overall"))
    return robustness.Fairness(*stacked)


def _lines(rows):
    return list(dict.fromkeys((row["network"], row["trained_on"]) for row in rows))


def _pooled(rows, line):
    return _fairness([row for row in rows if (row["network"], row["trained_on"]) == line])


def _bias_table(rows, names, count, held):
    text = {}
    for line in _lines(rows):
        found = _pooled(rows, line)
        values = [found.overall, found.worst(), found.gap(), found.spread(), *found.accuracies.T]
        text[", ".join(line)] = [*(tables.spread(value, scale=100) for value in values), str(len(found.overall))]
    notes = [
        f"test accuracy in % by {FLAGS.group} at the best of {count} settings, chosen on {held}",
        f"{FLAGS.steps} steps, {FLAGS.full_steps or FLAGS.steps} on full data; gap: best less worst; spread: standard "
        "deviation; n: networks",
    ]
    return "\n".join([*notes, tables.grid("trained on", ["all", "worst", "gap", "spread", *names, "n"], text)])


def _plot_bias(rows, names, path):
    """Accuracy by group, groups in the order of the first network on full data, best first."""
    lines = _lines(rows)
    reference = next(line for line in lines if line[1].startswith("full data"))
    order = np.argsort(-np.nanmean(_pooled(rows, reference).accuracies, axis=0))
    panels = {}
    for line in lines:
        values = 100 * _pooled(rows, line).accuracies[:, order]
        found = [metrics.summarize(column) for column in values.T]
        curve = charts.Curve(list(range(1, len(names) + 1)), [s.mean for s in found], [s.std for s in found])
        panels.setdefault(f"{line[0]}: test accuracy, %", {})[line[1]] = curve
    charts.curves(path, panels, x_label="group, from the best on full data")


if __name__ == "__main__":
    cli.run(main)
