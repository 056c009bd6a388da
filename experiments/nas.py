"""Architecture search on proxy sets: rank correlation with training on the whole set, time and stored images.

python -m experiments.nas --data=digits --artifact=RUN/distilled.npz --out=runs/nas --width=8,16 --depth=1,2 --norm=none
python -m experiments.nas --flagfile=configs/nas/cifar10.flags --artifact=RUN/distilled.npz --out=runs/nas

Proxies: every artifact (a coreset's or a distilled one, all in one preprocessed space), random images of the first
one's number per class, and early stopping. Writes results.json (every accuracy), table.txt and correlation.png.
"""

import itertools
import os

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments import cli, findings, tables
from kipjax import checks, data
from kipjax.evaluation import nas, protocols
from kipjax.io import charts

FLAGS = flags.FLAGS
findings.define_data("cifar10")
flags.DEFINE_list("artifact", [], "Proxy sets (.npz).")
for name, words in nas.WORDS.items():
    flags.DEFINE_list(name, [str(word) for word in words], f"Values of {name} in the space.")
flags.DEFINE_integer("random_ipc", 0, "Random images per class; 0 for as many as the first artifact, or 10.")
flags.DEFINE_bool("early_stopping", True, "Also search by early stopping.")
flags.DEFINE_integer("epochs", 200, "Epochs on a proxy; the rate falls in the middle.", lower_bound=1)
flags.DEFINE_integer("full_epochs", 100, "Epochs on the whole training set.", lower_bound=1)
flags.DEFINE_enum("training", "", ["", *sorted(protocols.NAMED)], "Train on proxies by this paper's protocol instead.")
flags.DEFINE_integer("full_size", 0, "The 'whole' training set: the first so many images; 0 for all.", lower_bound=0)
flags.DEFINE_integer("validation_size", 0, "Held-out training images that score proxies; 0: the test set.")
flags.DEFINE_float("top", 0.1, "The best share of the networks that is looked at again, or their number.")
flags.DEFINE_integer("seeds", 1, "Networks of each architecture.", lower_bound=1)
flags.DEFINE_integer("parallel", 0, "Networks at once; 0 for one on CPU and all of a shape elsewhere.", lower_bound=0)


def main() -> None:
    findings.folder()
    space = nas.space(
        width=findings.whole_numbers("width"), depth=findings.whole_numbers("depth"), norm=FLAGS.norm,
        activation=FLAGS.activation, pool=FLAGS.pool,
    )  # fmt: skip
    nas.correlation(range(len(space)), range(len(space)), top=FLAGS.top)  # refused now rather than after the search
    found = findings.inputs(FLAGS.artifact)
    task = findings.task(findings.dataset(0, FLAGS.full_size), _one_space(found))
    proxies = {item.name: jax.tree.map(jnp.asarray, item.made.distilled) for item in found}
    proxies["random"] = _random(task, proxies)
    short, full = _protocols()
    searches = nas.evaluate(
        task, space, proxies, protocol=short, full_protocol=full, early_stopping=FLAGS.early_stopping,
        validation_size=FLAGS.validation_size, key=jax.random.key(FLAGS.seed), seeds=FLAGS.seeds,
        parallel=FLAGS.parallel,
    )  # fmt: skip
    _plot(searches, os.path.join(FLAGS.out, "correlation.png"))
    rows = [search._asdict() | {"accuracies": search.accuracies.tolist()} for search in searches]
    findings.write(rows, _table(space, searches), architectures=[one._asdict() for one in space])


def _one_space(found):
    """The preprocessing that all artifacts share."""
    for first, other in itertools.pairwise(found):
        same = all(np.array_equal(a, b) for a, b in zip(first.made.preprocess, other.made.preprocess))
        checks.require(
            same, other.path, f"was distilled in another space than {first.path}; compare sets of one preprocessing"
        )
    return found[0].made.preprocess if found else None


def _random(task, proxies):
    """Random images of each class."""
    first = next(iter(proxies.values()), None)
    ipc = FLAGS.random_ipc or (max(1, len(first.x) // task.num_classes) if first is not None else 10)
    key = jax.random.fold_in(jax.random.key(FLAGS.seed), 1)
    return data.initial.real(key, task.x_train, task.train_labels, ipc=ipc, num_classes=task.num_classes)


def _protocols():
    short = nas.PROTOCOL._replace(epochs=FLAGS.epochs, drop_epoch=FLAGS.epochs // 2 + 1)
    if FLAGS.training:
        short = protocols.named(FLAGS.training, dataset=FLAGS.data)
    return short, nas.FULL._replace(epochs=FLAGS.full_epochs, drop_epoch=FLAGS.full_epochs // 2 + 1)


def _table(space, searches):
    """Correlations with the last search, and the whole-set accuracy of the network that each would select."""
    full = searches[-1].accuracies.mean(axis=1)
    columns = ["images", "selected, accuracy %", "Spearman", "Kendall", f"Spearman top {FLAGS.top:g}"]
    columns += [f"Kendall top {FLAGS.top:g}", "seconds", "compiling"]
    rows = {}
    for search in searches:
        mean = search.accuracies.mean(axis=1)
        best = int(mean.argmax())
        everywhere, top = nas.correlation(mean, full), nas.correlation(mean, full, top=FLAGS.top)
        values = [everywhere.spearman, everywhere.kendall, top.spearman, top.kendall]
        rows[search.proxy] = [str(search.images), tables.spread(searches[-1].accuracies[best], scale=100)]
        rows[search.proxy] += [f"{value:.2f}" for value in values]
        rows[search.proxy] += [f"{search.seconds:.1f}", f"{search.compile_seconds:.1f}"]
    size, held_out = nas.correlation(full, full, top=FLAGS.top).n, FLAGS.validation_size
    scored = f"{held_out} held-out training images" if held_out else "the test set"
    notes = [
        f"{len(space)} networks, n={FLAGS.seeds} of each; top: the {size} that the proxy ranks first",
        f"proxies scored on {scored}; NaN: one of the rankings is a single tie",
    ]
    return "\n".join([tables.grid("proxy", columns, rows), *notes])


def _plot(searches, path):
    full = 100 * searches[-1].accuracies.mean(axis=1)
    clouds = {search.proxy: (100 * search.accuracies.mean(axis=1), full) for search in searches[:-1]}
    charts.points(path, clouds, x_label="accuracy on the proxy, %", y_label="accuracy on the whole set, %")


if __name__ == "__main__":
    cli.run(main)
