"""Architecture search on proxy sets: rank correlation with training on the whole set, time and stored images.

python -m experiments.nas --data=digits --artifact=RUN/distilled.npz --out=runs/nas --width=8,16 --depth=1,2 --norm=none
python -m experiments.nas --flagfile=configs/nas/cifar10.flags --artifact=RUN/distilled.npz --out=runs/nas

Proxies: every artifact (a coreset's or a distilled one, all in one preprocessed space); of the size of each, or of
--random_ipc images a class, --random_sets draws of random images, and herding by a network trained on the whole set;
early stopping. Proxies are scored on training images that are held out before anything is drawn; such as no artifact
was distilled from, where all of them say of which part they are (config.data.train_size) and there are enough others.
--training=mtt trains on every set at its own learned rate (the mean of those of each step, where there are so many).
--training=unrolled trains on the sets of DD, SLDD or GTN as they were unrolled: in their batches, by the step sizes and
momenta learned with them; real images of the same number in the same way, by a step size of their own. Writes
results.json (every accuracy), table.txt and correlation.png.
"""

import itertools
import os

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import flags

from experiments import build, cli, findings, tables
from kipjax import checks, data, methods
from kipjax.core import labels
from kipjax.evaluation import krr, nas, protocols, train, unrolled
from kipjax.io import charts
from kipjax.types import Batch, Distilled

FLAGS = flags.FLAGS
findings.define_data("cifar10")
flags.DEFINE_list("artifact", [], "Proxy sets (.npz).")
for name, words in nas.WORDS.items():
    flags.DEFINE_list(name, [str(word) for word in words], f"Values of {name} in the space.")
flags.DEFINE_integer(
    "random_ipc", 0, "Random and herded images per class; 0: as many as each artifact, or 10.", lower_bound=0
)
flags.DEFINE_integer("random_sets", 3, "Sets of random images of each size; 0 for none.", lower_bound=0)
flags.DEFINE_string("herding", "dc_convnet", "Network that is trained to herd by its features; empty: no herding.")
flags.DEFINE_integer("herding_epochs", 20, "Epochs of that on the whole set.", lower_bound=1)
flags.DEFINE_bool("early_stopping", True, "Also search by early stopping.")
flags.DEFINE_integer(
    "epochs", 0, "Epochs on a proxy; the rate falls in the middle. 0: those of --training, or 200.", lower_bound=0
)
flags.DEFINE_integer("full_epochs", 100, "Epochs on the whole training set.", lower_bound=1)
flags.DEFINE_enum(
    "training", "", ["", "unrolled", *sorted(protocols.NAMED)], "Train on proxies by this paper's protocol instead."
)
flags.DEFINE_integer("full_size", 0, "The 'whole' training set: the first so many images; 0 for all.", lower_bound=0)
flags.DEFINE_integer("validation_size", 500, "Held-out training images that score proxies; 0: the test images.")
flags.DEFINE_float("top", 0.1, "The best share of the networks that is looked at again, or their number.")
flags.DEFINE_integer("seeds", 1, "Networks of each architecture.", lower_bound=1)
flags.DEFINE_integer("parallel", 0, "Networks at once; 0 for one on CPU and all of a shape elsewhere.", lower_bound=0)


def main() -> None:
    findings.folder()
    space = nas.space(
        width=findings.whole_numbers("width"), depth=findings.whole_numbers("depth"),
        **{name: findings.nonempty(name) for name in ("norm", "activation", "pool")},
    )  # fmt: skip
    nas.correlation(range(len(space)), range(len(space)), top=FLAGS.top)  # refused now rather than after the search
    short, full = _protocols()
    found = findings.inputs(FLAGS.artifact)
    parts, preprocess = _parts(found)
    task = findings.task(parts.rest, preprocess)
    nas.require_suits(space, task.x_train, task.num_classes)  # before a network is trained to herd
    by_curriculum = FLAGS.training == "unrolled"
    proxies, curricula = _as_unrolled(task, found) if by_curriculum else (_proxies(task, found), {})
    searches, rows, networks = [], [], [one._asdict() for one in space]
    for search in nas.searches(
        task, space, proxies, protocol=short, full_protocol=full, curricula=curricula,
        early_stopping=FLAGS.early_stopping, held=parts.held(preprocess),
        key=jax.random.key(FLAGS.seed), seeds=FLAGS.seeds, parallel=FLAGS.parallel,
    ):  # fmt: skip
        searches.append(search)
        rows.append(search._asdict() | {"accuracies": search.accuracies.tolist()})
        findings.save(rows, architectures=networks)  # now, so that what is done is not lost where the rest is
        print(
            f"done  {search.proxy}: {search.seconds:.0f} s, and {search.compile_seconds:.0f} s of compiling", flush=True
        )
    _plot(searches, os.path.join(FLAGS.out, "correlation.png"))
    how = protocols.describe(short, searches[0].images)
    how = f"{_UNROLLED}; early stopping as many steps of {how}" if by_curriculum else how
    about = [f"proxies scored on {parts.about}; {how}"]
    findings.write(rows, _table(space, searches, about), architectures=networks)


def _parts(found):
    """The data without held-out images, and the preprocessing of the artifacts, else one fitted on the rest."""
    everything = findings.dataset()
    n = len(everything.x_train)
    checks.within("--full_size", "full_size", FLAGS.full_size, 0, n)
    for item in found:
        findings.require_of_data(item)
    kept, seen = np.arange(FLAGS.full_size or n), [findings.rows(item, n) for item in found]
    parts = findings.split(
        everything, FLAGS.validation_size, seed=FLAGS.seed, kept=kept, seen=np.concatenate([[], *seen]).astype(int)
    )
    return parts, _one_space(found) or data.preprocess.fit(parts.rest.x_train, FLAGS.preprocess)


def _one_space(found):
    """The preprocessing that all artifacts share."""
    for first, other in itertools.pairwise(found):
        same = all(np.array_equal(a, b) for a, b in zip(first.made.preprocess, other.made.preprocess))
        checks.require(
            same, other.path, f"was distilled in another space than {first.path}; compare sets of one preprocessing"
        )
    return found[0].made.preprocess if found else None


def _proxies(task, found):
    """Sets by name: the artifacts, and of the size of each (or --random_ipc) random and herded images."""
    proxies = {}
    for name, item in zip(findings.pooled(found), found):
        proxies.setdefault(name, []).append(_with_one_rate(jax.tree.map(jnp.asarray, item.made.distilled)))
    own = dict.fromkeys(len(made.x) for some in proxies.values() for made in some)
    sizes = [FLAGS.random_ipc * task.num_classes] if FLAGS.random_ipc else list(own) or [10 * task.num_classes]
    return proxies | {f"{name}, {size} images": sets for (name, size), sets in _real(task, sizes).items()}


def _real(task, sizes):
    """``{(kind, size): sets}`` of random and herded images."""
    if not (FLAGS.random_sets or FLAGS.herding):
        return {}
    n = len(task.x_train)
    text = (
        f"leaves {n} images to train on, of which a proxy of {max(sizes)} cannot be drawn; raise it or set --random_ipc"
    )
    checks.require(max(sizes) <= n, "--full_size", text)
    random_key, herding_key = jax.random.split(jax.random.fold_in(jax.random.key(FLAGS.seed), 1))
    herded = _herded(herding_key, task, max(sizes)) if FLAGS.herding else None
    found = {}
    for size in sizes:
        keys = jax.random.split(jax.random.fold_in(random_key, size), FLAGS.random_sets)
        found["random", size] = [krr.subset(key, task, size) for key in keys]
        found["herding", size] = [] if herded is None else [Distilled(herded.x[:size], herded.y[:size])]
    return {which: sets for which, sets in found.items() if sets}


def _as_unrolled(task, found):
    """``(proxies, curricula)``: the artifacts as they were unrolled, and beside each real images of its number."""
    checks.require(bool(found), "--training", "unrolled is for artifacts; give --artifact")
    curricula = {item.name: _curriculum(item) for item in found}
    proxies = {item.name: [jax.tree.map(jnp.asarray, item.made.distilled)] for item in found}
    real = _real(task, list(dict.fromkeys(len(made.x) for (made,) in proxies.values())))
    for item in found:
        (own,), curriculum = proxies[item.name], curricula[item.name]
        model = build.network(ml_collections.ConfigDict(item.made.meta["config"]), task)
        options = {"inner_steps": curriculum.inner_steps, "momentum": curriculum.momentum}
        for (kind, size), sets in real.items():
            if size == len(own.x):
                sets, name = [_ordered(some, own.lr) for some in sets], f"{kind}, as {item.name}"
                lr = unrolled.step_size_for(jax.random.key(FLAGS.seed), model, sets[0], task, **options).lr
                proxies[name], curricula[name] = [some._replace(lr=lr) for some in sets], curriculum
    return proxies, curricula


_UNROLLED = (
    "trained on as they were unrolled, real images in as many batches by the momentum of the set beside them and the "
    "step size that trains its own network best, on training images"
)


def _curriculum(item):
    """How the set was unrolled, which must be in one order and from any network."""
    made, config = item.made.distilled, item.made.meta.get("config", {})
    method = config.get("method", {})
    checks.require(
        "inner_steps" in method and np.ndim(made.lr) == 1,
        item.path,
        "was not distilled through a training with a step size for each step; --training=unrolled is for sets of DD, "
        "SLDD or GTN",
    )
    order, start = method.get("curriculum", "full"), method.get("start", "random")
    known = config.get("pretrain", {}).get("name", "")
    for value, usual in ((order, "full"), (start, "random"), (known, "")):
        text = f"was unrolled by {value!r} and not {usual!r}, for which no other network can be trained as it was"
        checks.require(value == usual, item.path, f"{text}; leave --training out")
    return nas.Curriculum(method["inner_steps"], np.asarray(item.made.meta.get("momentum", 0.0), np.float32))


def _ordered(some, lr):
    """Class after class and with labels that sum to one, as a curriculum has every class in every batch."""
    order = jnp.argsort(labels.classes(some.y))
    return Distilled(some.x[order], labels.uncentred(some.y)[order], lr)


def _with_one_rate(made):
    """Protocols with a learned rate take one; of a set with one for each step it is their mean."""
    return made if made.lr is None else made._replace(lr=made.lr.mean())


def _herded(key, task, size):
    """At least ``size`` images by herding, best first, so that the first ones are a smaller set of the same kind.

    The features are those of a network trained on the whole set, as in arXiv:2006.05929.
    """
    k = task.num_classes
    model = train.build(FLAGS.herding, task)
    method = methods.network_coreset.make(model, select="herding", epochs=FLAGS.herding_epochs)
    whole = Batch(jnp.asarray(task.x_train), labels.one_hot(task.train_labels, k))
    some = krr.subset(key, task, -(-size // k) * k)  # of this the method takes the size alone
    state = jax.jit(lambda key, start: method.step(key, method.init(key, start), whole)[0])(key, some)
    made = method.distilled(state)
    by_rank = np.arange(len(made.x)).reshape(k, -1).T.ravel()
    return Distilled(made.x[by_rank], made.y[by_rank])


def _protocols():
    """Of proxies and of the whole set."""
    by_curriculum = FLAGS.training == "unrolled"
    for name in ("epochs", "random_ipc") if by_curriculum else ():
        checks.require(
            not FLAGS[name].value,
            f"--{name}",
            "--training=unrolled takes steps and sizes of the sets; leave it out",
        )
    named = FLAGS.training and not by_curriculum
    short = protocols.named(FLAGS.training, dataset=FLAGS.data) if named else nas.PROTOCOL
    if FLAGS.epochs:
        counts = f"{FLAGS.training} counts steps, not epochs; leave --epochs out"
        checks.require(short.epochs > 0, "--epochs", counts)
        short = _for_epochs(short, FLAGS.epochs)
    return short, _for_epochs(nas.FULL, FLAGS.full_epochs)


def _for_epochs(protocol, epochs):
    return protocol._replace(epochs=epochs, drop_epoch=epochs // 2 + 1)


def _table(space, searches, about):
    """Correlations with the last search, and the whole-set accuracy of the networks that would be selected."""
    full = searches[-1].accuracies.mean(axis=1)
    columns = ["sets", "images", "selected, accuracy %", "Spearman", "Kendall", f"Spearman top {FLAGS.top:g}"]
    columns += [f"Kendall top {FLAGS.top:g}", "seconds", "compiling"]
    rows = {}
    for name in dict.fromkeys(search.proxy for search in searches):
        some = [search for search in searches if search.proxy == name]
        means = [search.accuracies.mean(axis=1) for search in some]
        selected = np.concatenate([searches[-1].accuracies[mean.argmax()] for mean in means])
        found = [(*nas.correlation(m, full)[:2], *nas.correlation(m, full, top=FLAGS.top)[:2]) for m in means]
        rows[name] = [str(len(some)), str(some[0].images), tables.spread(selected, scale=100)]
        rows[name] += [tables.spread(values) for values in zip(*found)]
        seconds = ([getattr(search, field) for search in some] for field in ("seconds", "compile_seconds"))
        rows[name] += [f"{np.mean(values):.1f}" for values in seconds]
    notes = [
        f"{len(space)} networks, n={FLAGS.seeds} of each; top: the {nas.correlation(full, full, top=FLAGS.top).n} that "
        "the proxy ranks first; NaN: one of the rankings is a single tie",
        "mean ± standard deviation over sets (selected: over sets and networks); seconds: of one set",
    ]
    return "\n".join([tables.grid("proxy", columns, rows), *about, *notes])


def _plot(searches, path):
    full = 100 * searches[-1].accuracies.mean(axis=1)
    clouds: dict[str, tuple[list[float], list[float]]] = {}
    for search in searches[:-1]:
        x, y = clouds.setdefault(search.proxy, ([], []))
        x += (100 * search.accuracies.mean(axis=1)).tolist()
        y += full.tolist()
    charts.points(path, clouds, x_label="accuracy on the proxy, %", y_label="accuracy on the whole set, %")


if __name__ == "__main__":
    cli.run(main)
