"""What a finished run leaves behind: the artifact, pictures, a summary and a table on the terminal."""

import functools
import json
import os
from typing import NamedTuple

import jax
import numpy as np

from experiments import build, inputs, scoring
from kipjax import checks, data, kernels
from kipjax.evaluation import Result, krr, metrics, protocols
from kipjax.io import artifact as artifacts
from kipjax.io import log, plots
from kipjax.methods import tdd

__all__ = [
    "Source",
    "artifact",
    "as_dict",
    "by_kernels",
    "check",
    "evaluate",
    "fingerprint",
    "load",
    "pooled",
    "source",
    "table",
    "test_accuracy",
    "test_kernel",
    "write",
]


def artifact(config, experiment: build.Experiment, state, seed: int, steps: int) -> artifacts.Artifact:
    """The distilled set with everything that is needed to use and to score it; ``steps`` are those that were taken."""
    dataset = experiment.dataset
    made = jax.device_get(experiment.method.distilled(state))
    meta = {
        "method": config.method.name,
        **_through(config, state),
        "label_convention": "learned" if _learned_labels(experiment, made) else "centered one-hot",
        "dataset": config.data.name,
        "image_size": config.data.image_size,
        "data_fingerprint": fingerprint(dataset),
        "class_names": list(dataset.class_names),
        "train_size": len(dataset.x_train),
        "seed": seed,
        "steps": steps,
        **experiment.method.usage(state),
        "config": config.to_dict(),
    }
    return artifacts.Artifact(made, experiment.preprocess, meta)


def _through(config, state):
    """What the set was distilled through: a kernel or a network."""
    if build.trains_networks(config):
        return {"model": config.model.to_dict()}
    return {"kernel": build.kernel_spec(config, getattr(state, "kernel_params", None))}


class Source(NamedTuple):
    """The data that a set was distilled from: arguments of ``data.load``, and the part of the training images."""

    name: str
    image_size: int
    train_start: int
    train_size: int


def source(path: str, made: artifacts.Artifact) -> Source:
    """What the artifact says of it.

    Raises:
      InputError: it names no data set.
    """
    name, of_run = made.meta.get("dataset", ""), made.meta.get("config", {}).get("data", {})
    checks.require(bool(name), path, "names no data set to be scored on")
    return Source(name, made.meta.get("image_size", 0), of_run.get("train_start", 0), of_run.get("train_size", 0))


def load(found: Source, data_dir: str | None) -> data.Dataset:
    """That data set."""
    whole = data.load(found.name, data_dir=data_dir, image_size=found.image_size)
    return inputs.part(whole, found.train_start, found.train_size)


def fingerprint(dataset: data.Dataset) -> str:
    """Tells training sets apart."""
    return artifacts.fingerprint(dataset.x_train, dataset.y_train)


def _learned_labels(experiment, made):
    return not np.array_equal(np.asarray(made.y), np.asarray(experiment.start.y))


def test_kernel(spec):
    """``(name, kernel_fn)`` to score a set with: its own kernel, or the first of the family it was distilled with."""
    spec = dict(spec[0] if isinstance(spec, (list, tuple)) else spec)
    return build.kernel_name(spec), _kernel(json.dumps(spec))


@functools.lru_cache(maxsize=32)
def _kernel(spec):
    """One kernel function for each spec, so that it is compiled once however often it scores."""
    return kernels.get(**json.loads(spec))


def evaluate(config, experiment: build.Experiment, made: artifacts.Artifact) -> list[Result]:
    """Test results of the set and of random subsets of its size: by its own kernel, or by networks trained on them."""
    key = jax.random.key(made.meta["seed"] + 1)
    if build.trains_networks(config):
        return _trained(config, experiment, made.distilled, made.meta, key=key, **_seeds(config))
    return _by_kernel(made.meta["kernel"], config, experiment, made, key)


def check(config, experiment: build.Experiment) -> None:
    """Refuses, before the run, an evaluation that could not be done after it.

    Raises:
      InputError: a protocol, network or kernel does not exist.
    """
    for spec in config.evaluation.kernels:
        test_kernel(build.kernel_arguments(spec))
    if build.trains_networks(config):
        if config.evaluation.protocol != "unrolled":
            scoring.network(config, experiment.task)
            protocols.for_task(config.evaluation.protocol, experiment.task, len(experiment.start.x))
        checks.whole("config.evaluation", "subset_seeds", config.evaluation.subset_seeds, 0)


def by_kernels(config, experiment: build.Experiment, made: artifacts.Artifact) -> list[Result]:
    """Test results of a network method's set under each kernel of ``config.evaluation.kernels``."""
    key = jax.random.key(made.meta["seed"] + 1)
    kernels = [build.kernel_arguments(spec) for spec in config.evaluation.kernels]
    return [result for spec in kernels for result in _by_kernel(spec, config, experiment, made, key)]


def _by_kernel(spec, config, experiment, made, key):
    name, kernel_fn = test_kernel(spec)
    options = _kernel_options(config, made.meta)
    return krr.evaluate(made.distilled, experiment.task, kernel_fn, model=name, key=key, **options)


def _trained(config, experiment, made, meta, **options):
    evaluation, task = config.evaluation, experiment.task
    if evaluation.protocol == "unrolled":
        return scoring.unrolled_results(config, made, task, meta, **options)
    name, model = scoring.network(config, task)
    protocol = scoring.protocol(evaluation.protocol, task, len(made.x), config, meta, model)
    return scoring.trained_results(config, made, task, model, protocol=protocol, name=name, **options)


def _seeds(config):
    return {"seeds": config.evaluation.seeds, "subset_seeds": config.evaluation.subset_seeds}


def _kernel_options(config, meta):
    """Those of the config; a set that was made for one ridge is used with that."""
    names = ("reg", "reg_unit", "seeds", "full_size", "block_size", "dtype")
    options = {name: config.evaluation[name] for name in names}
    return options | ({"reg": meta["reg"], "reg_unit": "absolute"} if "reg" in meta else {})


def test_accuracy(config, experiment: build.Experiment, state) -> float:
    """Test accuracy in 0..1 on the way; reported, never used."""
    made, task, usage = experiment.method.distilled(state), experiment.task, experiment.method.usage(state)
    if build.trains_networks(config):
        return _trained(config, experiment, made, usage, seeds=1, subset_seeds=0)[0].accuracies[0]
    _, kernel_fn = test_kernel(build.kernel_spec(config, getattr(state, "kernel_params", None)))
    options = _kernel_options(config, usage)
    options = {name: value for name, value in options.items() if name not in ("seeds", "full_size")}
    return krr.score(kernel_fn, made, task.x_test, task.test_labels, **options).accuracy


def as_dict(result: Result) -> dict:
    """A result with the mean, standard deviation and n of its repetitions."""
    close = result.approximation and result.approximation._asdict()
    return result._asdict() | {
        "accuracy": result.accuracy._asdict(),
        "mse": result.mse._asdict(),
        "approximation": close,
    }


def _protocol(config, experiment, size, meta):
    """How the set is scored, in words."""
    if not build.trains_networks(config):
        return "kernel ridge regression"
    if config.evaluation.protocol == "unrolled":
        return "networks trained as the set was unrolled"
    model = scoring.network(config, experiment.task)[1]
    protocol = scoring.protocol(config.evaluation.protocol, experiment.task, size, config, meta, model)
    return f"networks trained by {scoring.described(config, protocol, size)}"


def table(results: list[Result], test_size: int, *, by: str = "kernel ridge regression") -> str:
    """The results as lines of text, each with mean, standard deviation and n."""
    lines = [f"test accuracy by {by} on {test_size} test images"]
    width = max(len(f"{r.trained_on}, {r.size} images") for r in results)
    for r in results:
        lines.append(f"  {f'{r.trained_on}, {r.size} images':<{width}}  {r.model:<10}  {r.accuracy.percent()}")
    close = results[0].approximation
    if close:
        lines.append(
            f"  against {close.reference_size} real images: weak epsilon "
            f"{metrics.Interval(close.weak_epsilon, *close.weak_interval)}, strong epsilon "
            f"{metrics.Interval(close.strong_epsilon, *close.strong_interval)}, compression ratio "
            f"{close.compression_ratio:g}, r_M {close.distillation_ratio:.1f} %"
        )
    return "\n".join(lines)


def write(
    workdir: str, made: list[artifacts.Artifact], experiment: build.Experiment, config, *, seconds: float
) -> None:
    """Writes the artifacts of all seeds, pictures and summary.json into the run folder and prints the table."""
    names = _names(made)
    paths = [os.path.join(workdir, f"distilled{name}.npz") for name in names]
    for path, one in zip(paths, made):
        artifacts.save(path, one)
    pictures = [
        p
        for one, start, name in zip(made, experiment.starts, names)
        for p in _pictures(workdir, one, start, experiment, name)
    ]
    if config.data.name.startswith("text:"):
        pictures += [_sentences(workdir, one, config, name) for one, name in zip(made, names)]
    results = pooled([evaluate(config, experiment, one) for one in made])
    by = _protocol(config, experiment, len(made[0].distilled.x), made[0].meta)
    besides = pooled([by_kernels(config, experiment, one) for one in made])
    log.write_json(
        os.path.join(workdir, "summary.json"),
        {
            "results": [as_dict(result) for result in results],
            "protocol": by,
            **({"results_by_kernels": [as_dict(result) for result in besides]} if besides else {}),
            "seeds": [one.meta["seed"] for one in made],
            "seconds": seconds,
            "device": jax.devices()[0].device_kind,
            "versions": artifacts.load(paths[0]).meta["versions"],
        },
    )
    print(table(results, len(experiment.task.x_test), by=by))
    for remark in dict.fromkeys(text for one in made for text in one.meta.get("remarks", ())):
        print(f"note: {remark}")
    if besides:
        print(table(besides, len(experiment.task.x_test)))
    for path in paths:
        print(f"artifact  {path}")
    for picture in pictures:
        print(f"picture   {picture}")


def pooled(results: list[list[Result]]) -> list[Result]:
    """The results of several seeds as one: accuracies and errors side by side, how close it comes for the first."""
    return [
        rows[0]._replace(
            accuracies=tuple(a for r in rows for a in r.accuracies), mses=tuple(e for r in rows for e in r.mses)
        )
        for rows in zip(*results)
    ]


def _names(made):
    """What is added to the names of files: nothing for one seed."""
    return [""] if len(made) == 1 else [f"_seed{one.meta['seed']}" for one in made]


def _sentences(workdir, made, config, suffix):
    """``sentences.txt``: each distilled sentence by its nearest words, after its label."""
    dataset, vectors = data.text.load(config.data.name, config.data.data_dir or None)
    in_words = data.preprocess.invert(made.preprocess, made.distilled.x)  # not to_pixels, which rounds to bytes
    found = tdd.sentences(made.distilled._replace(x=in_words), vectors)
    names = dataset.class_names
    lines = [", ".join(f"{n} {v:.2f}" for n, v in zip(names, s.label)) + "\t" + s.words for s in found]
    path = os.path.join(workdir, f"sentences{suffix}.txt")
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    return path


def _pictures(workdir, made, start, experiment, suffix):
    names = list(experiment.dataset.class_names)
    x, y = np.asarray(made.distilled.x), np.asarray(made.distilled.y)
    foreign = made.meta["config"]["init"]["base"]  # images of another data set are of no class of this one
    rows = np.asarray(y if foreign else start.y).argmax(axis=1)  # the class each example started from
    written = []
    if x.ndim == 4:
        written.append(os.path.join(workdir, f"distilled{suffix}.png"))
        plots.image_grid(written[-1], data.preprocess.to_pixels(made.preprocess, x), rows, class_names=names)
    if made.meta["label_convention"] == "learned":
        written.append(os.path.join(workdir, f"labels{suffix}.png"))
        plots.label_plot(written[-1], y, None if foreign else rows, class_names=names)
    return written
