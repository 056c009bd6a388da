"""Scores distilled sets, beside random subsets of the same size under the same protocol.

python -m experiments.evaluate --artifact=RUN/distilled.npz --protocol=krr
python -m experiments.evaluate --artifact=RUN/distilled.npz --protocol=worth --sizes=10,100,1000
python -m experiments.evaluate --artifact=RUN1/distilled.npz,RUN2/distilled.npz --protocol=kernel_transfer --kernels=...
python -m experiments.evaluate --artifact=RUN/distilled.npz --protocol=rcig --seeds=5
python -m experiments.evaluate --artifact=RUN/distilled.npz --protocol=cross_arch --training=dsa --arch=convnet,mlp

krr: kernel ridge regression with the kernel of the artifact, or with --kernels. worth: how many random real images each
set is worth under the first of these. kernel_transfer: a table of every artifact (rows) against every test kernel
(columns). unrolled: as the set was unrolled, on the networks it was made for, or fresh ones; beside it real images by
--baselines. neighbours: by the nearest of its images. rcig, frepo, dsa, ...: networks trained from scratch by the
protocol of that paper. cross_arch: a table of artifacts against networks, all trained by --training. flexibility: by
--training with --step_offsets more or fewer steps, and by each of --optimizers. Only what the artifact holds is used:
its images, labels and preprocessing, and what its config says of their use.
"""

from typing import NamedTuple

import jax
from absl import flags
from absl.flags import FLAGS

from experiments import build, cli, inputs, report, scoring, tables
from kipjax import checks, kernels, models
from kipjax.evaluation import (
    PROTOCOLS,
    Result,
    Task,
    cross_arch,
    flexibility,
    krr,
    neighbours,
    protocols,
    train,
    transfer,
    unrolled,
)
from kipjax.io import artifact as artifacts
from kipjax.io import log

TRANSFER_KERNELS = ",".join(
    f"{name}{depth}:{get}" for get in ("ntk", "nngp") for name in ("fc", "conv") for depth in (1, 2, 3)
)
MATRICES = ("kernel_transfer", "cross_arch")

flags.DEFINE_list("artifact", None, "Distilled sets (.npz), separated by commas.")
flags.DEFINE_enum("protocol", "krr", sorted([*PROTOCOLS, "flexibility"]), "How to score.")
flags.DEFINE_list(
    "kernels",
    None,
    f"Test kernels: NAME, NAME:ntk or NAME:nngp. Default: the artifact's own (krr), {TRANSFER_KERNELS} (transfer).",
)
flags.DEFINE_list(
    "arch",
    None,
    f"Networks to train: NAME, NAME:NORM or NAME:OPTION=VALUE (more of them, by colons), NAME one of "
    f"{', '.join(models.names())}. Default: that of the run, if it was scored by the network that it was distilled "
    f"through, else that of the protocol's paper; {','.join(cross_arch.ARCHITECTURES)} (cross_arch); "
    f"{','.join(cross_arch.MATCHING)} (cross_arch by the training of DC, DSA, DM or MTT).",
)
flags.DEFINE_enum("training", "rcig", sorted(protocols.NAMED), "cross_arch, flexibility: the protocol to train by.")
flags.DEFINE_integer("width", None, "Filters in the first layer of ConvNets. Default: the paper's.", lower_bound=1)
flags.DEFINE_integer("depth", None, "Blocks of ConvNets. Default: 3, more for images above 32 pixels.", lower_bound=1)
flags.DEFINE_integer("steps", None, "Training steps of networks. Default: the protocol's.", lower_bound=1)
flags.DEFINE_integer("parallel", 0, "Networks trained at once; 0 for one on CPU and all elsewhere.", lower_bound=0)
flags.DEFINE_integer("seeds", 5, "Random subsets to compare with, and networks for each set.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Draws the random subsets and the networks.", lower_bound=0, upper_bound=2**31 - 1)
flags.DEFINE_integer(
    "full_size",
    None,
    "Training images for the upper baseline; 0 for none. Default: 5000 for krr, else 0.",
    lower_bound=0,
)
flags.DEFINE_list(
    "baselines", ["random"], f"unrolled: real images to compare with, of {', '.join(unrolled.BASELINES)}."
)
flags.DEFINE_list(
    "epochs", [], "unrolled: passes over a baseline that are tried, as 1,3,5 of DD; none: as many as the set's."
)
flags.DEFINE_list("step_offsets", list(map(str, flexibility.OFFSETS)), "flexibility: steps more or fewer.")
flags.DEFINE_list(
    "optimizers", [f"{o}:{r:g}" for o, r in flexibility.OPTIMIZERS.values()], "flexibility: OPTIMIZER:LEARNING_RATE."
)
flags.DEFINE_integer("neighbours", 1, "neighbours: how many vote.", lower_bound=1)
flags.DEFINE_float("p", 2.0, "neighbours: distances are p-norms.")
flags.DEFINE_list("sizes", list(map(str, krr.SIZES)), "worth: sizes of the random subsets, ascending.")
flags.DEFINE_integer("test_size", 0, "Test images to use, the first ones; 0 for all.", lower_bound=0)
flags.DEFINE_float("reg", None, "Ridge. Default: that of the artifact's run, else 1e-6.", lower_bound=0.0)
flags.DEFINE_enum("reg_unit", None, ("trace", "absolute"), "Unit of the ridge. Default: that of the run, else trace.")
flags.DEFINE_enum("dtype", "float64", ("float32", "float64"), "Precision of kernels and solve.")
flags.DEFINE_integer("block_size", 1000, "Test images at once in the kernel matrix or a network.", lower_bound=1)
flags.DEFINE_string("data_dir", None, "Where the data set is, if not in a usual place.")
flags.DEFINE_string("out", None, "Also write the results to this JSON file.")
flags.mark_flag_as_required("artifact")


BY = {"unrolled": "networks trained as the set was unrolled", "neighbours": "nearest neighbours"}


class Scored(NamedTuple):
    """One artifact, the task that it was scored on, and its results."""

    path: str
    made: artifacts.Artifact
    task: Task
    results: list[Result]


def main() -> None:
    artifact = {path: artifacts.load(path) for path in FLAGS.artifact}
    dataset, scored = {}, []
    for path, made in artifact.items():
        source = report.source(path, made)
        if source not in dataset:
            dataset[source] = report.load(source, FLAGS.data_dir)
        name = source.name
        _compare_data(path, made, dataset[source])
        task = inputs.tested_on(inputs.task(dataset[source], made.preprocess), FLAGS.test_size)._replace(name=name)
        scored.append(Scored(path, made, task, []))
        for result in _score(made, task):
            scored[-1].results.append(result)
            if FLAGS.out:  # now, so that what is done is not lost where the rest is
                _write(scored)
    print(_matrix(scored) if FLAGS.protocol in MATRICES else _lines(scored))
    if FLAGS.out:
        print(f"results   {FLAGS.out}")


def _score(made, task):
    """The results, those of trained networks as they come."""
    options = {"key": jax.random.key(FLAGS.seed), "seeds": FLAGS.seeds, "block_size": FLAGS.block_size}
    if FLAGS.protocol == "neighbours":
        choice = {"neighbours": FLAGS.neighbours, "p": FLAGS.p}
        return neighbours.evaluate(made.distilled, task, key=options["key"], seeds=FLAGS.seeds, **choice)
    if FLAGS.protocol == "unrolled":
        return _score_unrolled(made, task, options)
    if FLAGS.protocol == "flexibility":
        return _score_flexibility(made, task, options)
    return (_score_networks if _training() else _score_kernels)(made, task, options)


def _score_networks(made, task, options):
    config = scoring.of_artifact(made.meta)
    options |= {"full_size": FLAGS.full_size or 0, "parallel": FLAGS.parallel}
    for name, model in _networks(made, task).items():
        protocol = _protocol(made, task, model)
        yield from scoring.trained_results(config, made.distilled, task, model, protocol=protocol, name=name, **options)


def _score_flexibility(made, task, options):
    """Each network by other numbers of steps, then by other optimizers."""
    protocol, rates = _protocol(made, task), [word.partition(":") for word in FLAGS.optimizers]
    for optimizer, _, rate in rates:
        checks.require(_is_number(rate), "--optimizers", f"{optimizer}:{rate} has no learning rate; give adam:0.001")
    choices = {f"{optimizer} {rate}": (optimizer, float(rate)) for optimizer, _, rate in rates}
    offsets, models = _numbers("step_offsets"), _networks(made, task)
    config = scoring.of_artifact(made.meta)
    return scoring.flexibility_results(config, made.distilled, task, models, protocol, offsets, choices, **options)


def _is_number(text):
    try:
        return float(text) > 0
    except ValueError:
        return False


def _networks(made, task):
    """Networks by name: those of --arch, or the artifact's own, or the protocol's."""
    config, protocol = scoring.of_artifact(made.meta), _protocol(made, task)
    own = config.get("evaluation", {}).get("arch") == "" and not (FLAGS.width or FLAGS.depth)
    if FLAGS.arch is None and FLAGS.protocol != "cross_arch" and own:
        return dict([scoring.network(config, task)])
    default: tuple[str, ...] = (protocol.model,)
    if FLAGS.protocol == "cross_arch":
        of_matching = protocol.model.startswith("dc_convnet")
        default = cross_arch.MATCHING if of_matching else cross_arch.ARCHITECTURES
    return {name: _network(name, protocol, task) for name in FLAGS.arch or default}


def _score_unrolled(made, task, options):
    """By the network that the artifact names, on the starts that it was made for; or by --arch, started afresh."""
    config = scoring.of_artifact(made.meta)
    chosen = {name: _network(name, protocols.NAMED["ld"], task) for name in FLAGS.arch or ()} or {"": None}
    options |= {"baselines": FLAGS.baselines, "epochs": _numbers("epochs")}
    return [
        result
        for name, model in chosen.items()
        for result in scoring.unrolled_results(
            config, made.distilled, task, made.meta, model=model, name=name, **options
        )
    ]


def _score_kernels(made, task, options):
    of_run = made.meta.get("config", {}).get("evaluation", {})
    if "reg" in made.meta:
        of_run = {"reg": made.meta["reg"], "reg_unit": "absolute"}
    for name, default in (("reg", 1e-6), ("reg_unit", "trace")):
        options[name] = of_run.get(name, default) if FLAGS[name].value is None else FLAGS[name].value
    options["dtype"] = FLAGS.dtype
    if FLAGS.protocol == "kernel_transfer":
        chosen = _kernels(FLAGS.kernels or TRANSFER_KERNELS.split(","), made)
        return transfer.evaluate(made.distilled, task, chosen, **options)
    chosen = _kernels(FLAGS.kernels, made) if FLAGS.kernels else dict([report.test_kernel(_spec(made))])
    if FLAGS.protocol == "worth":
        name, fn = next(iter(chosen.items()))
        return krr.curve(made.distilled, task, fn, model=name, sizes=_numbers("sizes"), **options)
    full_size = 5000 if FLAGS.full_size is None else FLAGS.full_size
    rows = [
        krr.evaluate(made.distilled, task, fn, model=name, full_size=full_size, **options)
        for name, fn in chosen.items()
    ]
    return [result for some in rows for result in some]


def _numbers(flag):
    """The whole numbers of a list; those of offsets may have a sign."""
    words, sign = FLAGS[flag].value, "-" if flag == "step_offsets" else ""
    whole = all(word.removeprefix(sign).isdigit() for word in words)
    checks.require(whole, f"--{flag}", f"{words} are not all whole numbers")
    return [int(word) for word in words]


def _training():
    """The name of the protocol that networks are trained by; nothing for kernels."""
    if FLAGS.protocol in ("cross_arch", "flexibility"):
        return FLAGS.training
    return FLAGS.protocol if FLAGS.protocol in protocols.NAMED else ""


def _protocol(made, task, model=None):
    """That protocol with its settings for this set and network."""
    config = scoring.of_artifact(made.meta)
    found = scoring.protocol(_training(), task, len(made.distilled.x), config, made.meta, model)
    if FLAGS.steps is None:
        return found
    checks.require(
        not found.epochs,
        "--steps",
        f"protocol {found.name} counts {found.epochs} epochs; leave --steps out, or take another",
    )
    return found._replace(steps=FLAGS.steps)


def _network(name, protocol, task):
    width = FLAGS.width or (protocol.width if name == protocol.model else 0)
    options = {"width": width, "depth": FLAGS.depth}
    return train.build(name, task, **{option: value for option, value in options.items() if value})


def _spec(made):
    spec = made.meta.get("kernel")
    checks.require(
        spec is not None, "--kernels", "this artifact names no kernel of its own; name the kernels to score with"
    )
    return spec


def _kernels(names, made):
    """Test kernels by name. The artifact's own keeps all its options, others its w_std, b_std and parameterization."""
    spec = made.meta.get("kernel") or {}
    own = dict(spec[0] if isinstance(spec, list) else spec)
    chosen = {}
    for text in names:
        name, _, get = text.partition(":")
        shared = ("w_std", "b_std", "parameterization") if name not in ("rbf", "linear") else ()
        options = {k: v for k, v in own.items() if k != "name" and (name == own.get("name") or k in shared)}
        chosen[text.replace(":", " ")] = kernels.get(name, **(options | ({"get": get} if get else {})))
    return chosen


def _compare_data(path, made, dataset):
    expected = made.meta.get("data_fingerprint")
    if expected and expected != report.fingerprint(dataset):
        print(f"warning: {path} was distilled from other training data than {made.meta['dataset']} is here")


def _lines(scored):
    text = []
    for path, made, task, results in scored:
        by = BY.get(FLAGS.protocol, "kernel ridge regression")
        table = _trained(made, task, results) if _training() else report.table(results, len(task.x_test), by=by)
        text += [path, table]
        if FLAGS.protocol == "worth":
            text.append(f"  {krr.worth(results)}")
    found = tables.sizes([one.results for one in scored])
    return "\n".join([*text, found] if found else text)


def _trained(made, task, results):
    caption = f"test accuracy of trained networks on {len(task.x_test)} test images"
    return "\n".join([caption, *(f"  {text}" for text in _descriptions(made, task)), tables.lines(results)])


def _descriptions(made, task):
    """What networks are trained by, a line for each protocol."""
    config, found = scoring.of_artifact(made.meta), (_protocol(made, task, m) for m in _networks(made, task).values())
    return list(dict.fromkeys(scoring.described(config, protocol, len(made.distilled.x)) for protocol in found))


def _matrix(scored):
    if FLAGS.protocol == "kernel_transfer":
        caption = ["test accuracy in %, kernel ridge regression; rows: training kernel, columns: test kernel"]
    else:
        caption = ["test accuracy in %, trained networks; rows: method, columns: network"]
        caption += dict.fromkeys(text for _, made, task, _ in scored for text in _descriptions(made, task))
    body = tables.matrix({_row_name(one, scored): one.results for one in scored})
    networks = FLAGS.seeds if _training() else 1
    return "\n".join(
        [*caption, body, f"distilled sets: n={networks}; random subsets: n={FLAGS.seeds}; mean ± standard deviation"]
    )


def _row_name(one, scored):
    """The training kernel or the method, with the file where two artifacts share it."""
    names = [_origin(other.made.meta) for other in scored]
    name = _origin(one.made.meta)
    return f"{name} ({one.path})" if names.count(name) > 1 else name


def _origin(meta):
    if FLAGS.protocol == "kernel_transfer":
        return build.kernel_name(meta.get("kernel") or {"name": "?"})
    return str(meta.get("method", "?"))


def _write(scored):
    rows = []
    for path, made, task, results in scored:
        start = {"artifact": path, "protocol": FLAGS.protocol, "test_size": len(task.x_test)}
        networks = _networks(made, task) if _training() else {}
        for result in results:
            training = {"training": _protocol(made, task, networks.get(result.model))._asdict()} if networks else {}
            rows.append(start | training | report.as_dict(result))
    log.write_json(FLAGS.out, rows)


if __name__ == "__main__":
    cli.run(main)
