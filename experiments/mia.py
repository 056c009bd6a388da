"""Membership inference against networks trained on distilled sets, on the real images, a subset, and unrelated images.

python -m experiments.distill --config=configs/rcig/fashion_mnist.py:50 --config.data.train_size=10000 --workdir=RUN
python -m experiments.mia --artifact=RUN/distilled.npz --out=runs/mia
python -m experiments.mia --flagfile=configs/mia/fashion_mnist.flags --out=runs/mia

The members of chunk i are training images chunk_size i .. chunk_size (i + 1) - 1; the artifact must have been distilled
from those alone (``config.data.train_start`` and ``train_size``). The control is trained on the chunk after it (before,
for the last). Writes results.json, table.txt and curves.png: accuracy and AUC against training steps.
"""

import os
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments import cli, findings, tables
from kipjax import checks, data, models
from kipjax.evaluation import metrics, mia, train
from kipjax.io import charts

FLAGS = flags.FLAGS
findings.define_data("fashion_mnist")
flags.DEFINE_list("artifact", [], "Distilled sets (.npz), each distilled from one chunk.")
flags.DEFINE_list("chunk", ["0"], "Chunks of the training set, from 0.")
flags.DEFINE_integer("chunk_size", 10_000, "Training images of a chunk: the members.", lower_bound=12)
flags.DEFINE_integer("subset_size", 500, "Random members for the baseline 'subset'; 0 for none.", lower_bound=0)
flags.DEFINE_bool("real", True, "Train on all members too.")
flags.DEFINE_bool("control", True, "Train on another chunk too.")
flags.DEFINE_list("lengths", [str(length) for length in mia.LENGTHS], "Training steps after which to attack.")
flags.DEFINE_list("attacks", list(mia.ATTACKS), f"Attacks, of {', '.join(mia.ATTACKS)}.")
flags.DEFINE_enum("grid", "paper", sorted(mia.GRIDS), "Hyperparameters that the attacks choose among.")
flags.DEFINE_string("arch", "convnet", f"Network: NAME or NAME:NORM of {', '.join(models.names())}.")
flags.DEFINE_integer("width", 128, "Filters of the first layer of a ConvNet.", lower_bound=1)
flags.DEFINE_bool("augment", True, "Augment the images in training, as the papers do.")
flags.DEFINE_integer("seeds", 1, "Networks on each set and chunk (the papers: 5).", lower_bound=1)


def main() -> None:
    findings.folder()
    lengths, chunks, began = findings.whole_numbers("lengths"), findings.whole_numbers("chunk"), time.monotonic()
    findings.nonempty("attacks")
    found = findings.inputs(FLAGS.artifact)
    checks.require(
        bool(found or FLAGS.real or FLAGS.control or FLAGS.subset_size),
        "--artifact",
        "is empty and no baseline is on; there is no network to attack",
    )
    checks.require(
        FLAGS.subset_size <= FLAGS.chunk_size,
        "--subset_size",
        f"is {FLAGS.subset_size} of the {FLAGS.chunk_size} images of a chunk; lower it, or raise --chunk_size",
    )
    _require_placed(found, chunks)
    for number in chunks:  # refused now rather than after the chunks before it
        total = len(findings.dataset().x_train)
        mia.chunk(total, number, FLAGS.chunk_size)
        if FLAGS.control:
            _control(total, number)
    # Sets of one config, from several chunks or seeds, share a row of the table.
    named = [
        (f"{name}, {len(item.made.distilled.x)} images", item) for name, item in zip(findings.pooled(found), found)
    ]
    rows, audits = [], []
    for number in chunks:
        for audit in _chunk(number, named, lengths):
            audits.append(audit)
            rows.append({"chunk": number, **audit._asdict()})
            about = {"fprs": mia.FPRS, "seconds": time.monotonic() - began}
            findings.save(rows, **about)  # now, so that what is done is not lost where the rest is
    _plot(audits, os.path.join(FLAGS.out, "curves.png"))
    findings.write(rows, _table(audits, lengths[-1]), **about)


def _chunk(number, named, lengths):
    """The audits of one chunk: of the sets distilled from it, each in its own space, then the baselines."""
    whole = findings.dataset()
    members = mia.chunk(len(whole.x_train), number, FLAGS.chunk_size)
    options = {"lengths": lengths, "seeds": FLAGS.seeds, "attacks": FLAGS.attacks, "grid": FLAGS.grid}
    options |= {"protocol": _protocol(), "key": jax.random.fold_in(jax.random.key(FLAGS.seed), number)}
    chunk = findings.dataset(int(members[0]), FLAGS.chunk_size)
    for name, item in named:
        if _members(item) != (members[0], FLAGS.chunk_size):
            continue
        task, distilled = findings.task(chunk, item.made.preprocess), jax.tree.map(jnp.asarray, item.made.distilled)
        yield from mia.audits(
            task, np.arange(FLAGS.chunk_size), distilled={name: distilled}, subset_size=0, real=False,
            model=_model(task), **options,
        )  # fmt: skip
    yield from _baselines(whole, members, number, options)


def _baselines(whole, members, number, options):
    if not (FLAGS.real or FLAGS.control or FLAGS.subset_size):
        return
    control = _control(len(whole.x_train), number) if FLAGS.control else None
    used = members if control is None else np.concatenate([members, control])
    # Preprocessing is fitted on the members, so that nothing else is known of them.
    preprocess = data.preprocess.fit(whole.x_train[members], FLAGS.preprocess)
    task = findings.task(whole._replace(x_train=whole.x_train[used], y_train=whole.y_train[used]), preprocess)
    rows = np.arange(len(used))
    yield from mia.audits(
        task, rows[: len(members)], control=rows[len(members) :], subset_size=FLAGS.subset_size, real=FLAGS.real,
        model=_model(task), **options,
    )  # fmt: skip


def _control(total, number):
    """The chunk after it, or before it for the last."""
    count = total // FLAGS.chunk_size
    checks.require(count > 1, "--control", "there is no second chunk; lower --chunk_size, or pass --nocontrol")
    return mia.chunk(total, number + 1 if number + 1 < count else number - 1, FLAGS.chunk_size)


def _model(task):
    return train.build(FLAGS.arch, task, width=FLAGS.width)


def _protocol():
    protocol = mia.PROTOCOL._replace(steps=findings.whole_numbers("lengths")[-1])
    return protocol if FLAGS.augment else protocol._replace(augment=("none", "none"))


def _members(item):
    return item.source.train_start, item.source.train_size


def _require_placed(found, numbers):
    chunks = [(number * FLAGS.chunk_size, FLAGS.chunk_size) for number in numbers]
    for item in found:
        findings.require_of_data(item)
        start, size = _members(item)
        checks.require(
            _members(item) in chunks,
            item.path,
            f"was distilled from {f'{size} images from row {start} on' if size else 'all images'}, which is none of "
            f"the chunks {','.join(FLAGS.chunk)} of {FLAGS.chunk_size}; distil with --config.data.train_start and "
            "--config.data.train_size",
        )


def _table(audits, length):
    last = [audit for audit in audits if audit.steps == length]
    names = list(dict.fromkeys(audit.trained_on for audit in last))
    attacks = list(dict.fromkeys(audit.attack for audit in last))

    def grid(title, cell):
        rows = {}
        for name in names:
            of_name = {which: [a for a in last if (a.trained_on, a.attack) == (name, which)] for which in attacks}
            n, accuracy = len(of_name[attacks[0]]), [a.accuracy for a in of_name[attacks[0]]]
            row = [tables.spread(accuracy, scale=100), *(tables.spread(cell(some)) for some in of_name.values())]
            rows[name] = [str(n), *row]
        return f"{title}\n{tables.grid('trained on', ['n', 'accuracy %', *attacks], rows)}"

    parts = [grid(f"AUC after {length} steps; 0.5 is guessing", lambda some: [a.auc for a in some])]
    parts.append(
        grid("AUC over the members really in the training set", lambda some: [a.used_auc for a in some if a.used])
    )
    for i, fpr in enumerate(mia.FPRS):
        title = f"share of members found at {100 * fpr:g} % false alarms"
        parts.append(grid(title, lambda some, i=i: [a.tpr[i] for a in some]))
    parts.append("n: networks, over chunks and seeds; mean ± standard deviation")
    return "\n\n".join(parts)


def _plot(audits, path):
    """Figure 3 of RCIG: accuracy, and the AUC of the MLP attack (or the last one), against training steps."""
    which = "mlp" if "mlp" in FLAGS.attacks else FLAGS.attacks[-1]
    panels = {"test accuracy": "accuracy", f"AUC, {which}": "auc"}
    drawn = {label: {} for label in panels}
    for name in dict.fromkeys(audit.trained_on for audit in audits):
        some = [a for a in audits if (a.trained_on, a.attack) == (name, which)]
        steps = sorted({a.steps for a in some})
        for label, field in panels.items():
            found = [metrics.summarize(getattr(a, field) for a in some if a.steps == step) for step in steps]
            drawn[label][name] = charts.Curve(steps, [s.mean for s in found], [s.std for s in found])
    charts.curves(path, drawn, x_label="training steps", log_x=True, level=0.5)


if __name__ == "__main__":
    cli.run(main)
