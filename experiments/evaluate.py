"""Scores distilled sets, beside random subsets of the same size under the same protocol.

python -m experiments.evaluate --artifact=RUN/distilled.npz --protocol=krr
python -m experiments.evaluate --artifact=RUN1/distilled.npz,RUN2/distilled.npz --protocol=kernel_transfer --kernels=...

krr: kernel ridge regression with the kernel of the artifact, or with --kernels. kernel_transfer: a table of every
artifact (rows) against every test kernel (columns). Only what the artifact holds is used: its images, labels and
preprocessing.
"""

import jax
from absl import flags
from absl.flags import FLAGS

from experiments import build, cli, report
from kipjax import checks, data, kernels
from kipjax.evaluation import PROTOCOLS, krr, metrics, transfer
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
flags.DEFINE_float("reg", None, "Ridge. Default: that of the artifact's run, else 1e-6.", lower_bound=0.0)
flags.DEFINE_enum("reg_unit", None, ("trace", "absolute"), "Unit of the ridge. Default: that of the run, else trace.")
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
        _print_sizes(list(results.values()))
    if FLAGS.out:
        _write(results, {path: len(task.x_test) for path, task in tasks.items()})


def _score(made, task):
    options = {name: FLAGS[name].value for name in ("seeds", "dtype", "block_size")}
    of_run = made.meta.get("config", {}).get("evaluation", {})
    for name, default in (("reg", 1e-6), ("reg_unit", "trace")):
        options[name] = of_run.get(name, default) if FLAGS[name].value is None else FLAGS[name].value
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


def _dataset(path, made):
    name = made.meta.get("dataset")
    checks.require(bool(name), path, "names no data set to be scored on")
    return data.load(name, data_dir=FLAGS.data_dir)


def _compare_data(path, made, dataset):
    expected = made.meta.get("data_fingerprint")
    if expected and expected != report.fingerprint(dataset):
        print(f"warning: {path} was distilled from other training data than {made.meta['dataset']} is here")


def _first(task, size):
    return task._replace(x_test=task.x_test[:size], test_labels=task.test_labels[:size]) if size else task


def _row_name(path, sets):
    """The training kernel, with the file where two artifacts share it."""
    names = {p: build.kernel_name(made.meta.get("kernel") or {"name": "?"}) for p, made in sets.items()}
    shared = list(names.values()).count(names[path]) > 1
    return f"{names[path]} ({path})" if shared else names[path]


def _print_table(results):
    rows, columns, cells = transfer.table(results)
    text = [[_cell(summary) for summary in line] for line in cells]
    width = max(len("trained with"), *(len(row) for row in rows))
    print("test accuracy in %, kernel ridge regression; rows: training kernel, columns: test kernel")
    print("  ".join([f"{'trained with':<{width}}", *(f"{column:>13}" for column in columns)]))
    for row, line in zip(rows, text):
        print("  ".join([f"{row:<{width}}", *(f"{cell:>13}" for cell in line)]))
    print(f"distilled sets: n=1; random subsets: mean ± standard deviation, n={FLAGS.seeds}")


def _cell(summary):
    if summary is None:
        return "-"
    return f"{100 * summary.mean:.2f}" + (f" ± {100 * summary.std:.2f}" if summary.n > 1 else "")


def _print_sizes(results):
    """d_A over artifacts of several sizes: the fewest distilled images that reach A percent of full accuracy."""
    scored = [(rows[0].size, rows[0].approximation.distillation_ratio) for rows in results if rows[0].approximation]
    if len({size for size, _ in scored}) > 1:
        sizes, ratios = zip(*sorted(scored))
        found = {percent: metrics.distillation_size(sizes, ratios, percent) for percent in (80, 90, 95, 99)}
        print("A% distillation size: " + ", ".join(f"d_{a} = {m or 'not reached'}" for a, m in found.items()))


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
