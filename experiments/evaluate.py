"""Scores distilled sets, beside random subsets of the same size under the same protocol.

python -m experiments.evaluate --artifact=RUN/distilled.npz --protocol=krr
python -m experiments.evaluate --artifact=RUN1/distilled.npz,RUN2/distilled.npz --protocol=kernel_transfer --kernels=...

krr: kernel ridge regression with the kernel of the artifact, or with --kernels. kernel_transfer: a table of every
artifact (rows) against every test kernel (columns). Only what the artifact holds is used: its images, labels and
preprocessing.
"""

import os

import jax
from absl import flags
from absl.flags import FLAGS

from experiments import build, cli, report
from kipjax import checks, data, kernels
from kipjax.evaluation import PROTOCOLS, krr, transfer
from kipjax.io import artifact as artifacts
from kipjax.io import log

TRANSFER_KERNELS = ",".join(
    f"{name}{depth}:{get}" for get in ("ntk", "nngp") for name in ("fc", "conv") for depth in (1, 2, 3)
)

flags.DEFINE_list("artifact", None, "Distilled sets (.npz), separated by commas.")
flags.DEFINE_enum("protocol", "krr", sorted(PROTOCOLS), "How to score.")
flags.DEFINE_list(
    "kernels",
    None,
    f"Test kernels: NAME, NAME:ntk or NAME:nngp. Default: the artifact's own (krr), {TRANSFER_KERNELS} (transfer).",
)
flags.DEFINE_integer("seeds", 5, "Random subsets of the same size to compare with.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Draws the random subsets.")
flags.DEFINE_integer("full_size", 5000, "krr: training images for the upper baseline; 0 for none.", lower_bound=0)
flags.DEFINE_integer("test_size", 0, "Test images to use, the first ones; 0 for all.", lower_bound=0)
flags.DEFINE_float("reg", 1e-6, "Ridge.", lower_bound=0.0)
flags.DEFINE_enum("reg_unit", "trace", ("trace", "absolute"), "Unit of the ridge.")
flags.DEFINE_enum("dtype", "float64", ("float32", "float64"), "Precision of kernels and solve.")
flags.DEFINE_integer("block_size", 1000, "Test images per block of the kernel matrix.", lower_bound=1)
flags.DEFINE_string("data_dir", None, "Where the data set is, if not in a usual place.")
flags.DEFINE_string("out", None, "Also write the results to this JSON file.")
flags.mark_flag_as_required("artifact")


def main() -> None:
    sets = {path: artifacts.load(path) for path in FLAGS.artifact}
    dataset, tasks = {}, {}
    results = {}
    for path, made in sets.items():
        name = made.meta.get("dataset", "")
        if name not in dataset:
            dataset[name] = _dataset(path, made)
        _compare_data(path, made, dataset[name])
        tasks[path] = _first(build.task(dataset[name], made.preprocess), FLAGS.test_size)
        results[path] = _score(made, tasks[path])
    if FLAGS.protocol == "kernel_transfer":
        _print_table({_row_name(path, sets): rows for path, rows in results.items()})
    else:
        for path, rows in results.items():
            print(path)
            print(report.table(rows, len(tasks[path].x_test)))
    if FLAGS.out:
        _write(results, {path: len(task.x_test) for path, task in tasks.items()})


def _score(made, task):
    options = {name: FLAGS[name].value for name in ("seeds", "reg", "reg_unit", "dtype", "block_size")}
    options["key"] = jax.random.key(FLAGS.seed)
    if FLAGS.protocol == "kernel_transfer":
        chosen = _kernels(FLAGS.kernels or TRANSFER_KERNELS.split(","), made)
        return transfer.evaluate(made.distilled, task, chosen, **options)
    chosen = _kernels(FLAGS.kernels, made) if FLAGS.kernels else dict([report.test_kernel(_spec(made))])
    rows = [
        krr.evaluate(made.distilled, task, fn, model=name, full_size=FLAGS.full_size, **options)
        for name, fn in chosen.items()
    ]
    return [result for some in rows for result in some]


def _spec(made):
    spec = made.meta.get("kernel")
    checks.require(
        spec is not None, "--kernels", "this artifact names no kernel of its own; name the kernels to score with"
    )
    return spec


def _kernels(names, made):
    """Test kernels by name; options such as b_std follow the artifact's kernel where both have them."""
    spec = made.meta.get("kernel") or {}
    own = dict(spec[0] if isinstance(spec, list) else spec)
    shared = {name: own[name] for name in ("w_std", "b_std", "parameterization") if name in own}
    chosen = {}
    for text in names:
        name, _, get = text.partition(":")
        options = ({"get": get} if get else {}) | (shared if name not in ("rbf", "linear") else {})
        chosen[f"{name} {get}".strip()] = kernels.get(name, **options)
    return chosen


def _dataset(path, made):
    name = made.meta.get("dataset")
    checks.require(bool(name), path, "names no data set to be scored on")
    return data.load(name, data_dir=FLAGS.data_dir)


def _compare_data(path, made, dataset):
    expected = made.meta.get("fingerprint")
    if expected and expected != artifacts.fingerprint(dataset.x_train, dataset.y_train):
        print(f"warning: {path} was distilled from other training data than {made.meta['dataset']} is here")


def _first(task, size):
    return task._replace(x_test=task.x_test[:size], test_labels=task.test_labels[:size]) if size else task


def _row_name(path, sets):
    """The training kernel, with the path where two artifacts share it."""
    names = {p: build.kernel_name(made.meta.get("kernel") or {"name": "?"}) for p, made in sets.items()}
    shared = list(names.values()).count(names[path]) > 1
    return f"{names[path]} ({os.path.dirname(path) or path})" if shared else names[path]


def _print_table(results):
    rows, columns, accuracies = transfer.table(results)
    width = max(len("trained with"), *(len(row) for row in rows))
    print("test accuracy in %, kernel ridge regression; rows: training kernel, columns: test kernel")
    print("  ".join([f"{'trained with':<{width}}", *(f"{column:>10}" for column in columns)]))
    for row, line in zip(rows, accuracies):
        print("  ".join([f"{row:<{width}}", *(f"{100 * value:>10.2f}" for value in line)]))
    print(f"distilled sets: n=1; random subset: mean of n={FLAGS.seeds}")


def _write(results, test_sizes):
    rows = [
        {"artifact": path, "protocol": FLAGS.protocol, "test_size": test_sizes[path], **report.as_dict(result)}
        for path, some in results.items()
        for result in some
    ]
    log.write_json(FLAGS.out, rows)
    print(f"results   {FLAGS.out}")


if __name__ == "__main__":
    cli.run(main)
