"""From a config to the parts of an experiment: data, starting set, kernel, method, sampler."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections

from kipjax import checks, data, kernels, methods
from kipjax.core import labels
from kipjax.evaluation import Task
from kipjax.types import Distilled, Method, Preprocess, Sampler

__all__ = ["Experiment", "augmentation", "experiment", "kernel", "kernel_name", "prepare", "sampler", "task"]


class Experiment(NamedTuple):
    """The parts of one run."""

    dataset: data.Dataset
    preprocess: Preprocess
    task: Task
    method: Method
    start: Distilled
    sample: Sampler


def experiment(config: ml_collections.ConfigDict) -> Experiment:
    """Everything that a run needs, from its config. The starting set depends on ``config.seed`` alone."""
    dataset = data.load(config.data.name, data_dir=config.data.data_dir or None)
    preprocess = prepare(config, dataset)
    parts = task(dataset, preprocess)
    options = _options(config.method)
    if len(config.augment):
        options["augment"] = augmentation(config.augment, preprocess)
    method = _call("method", methods.METHODS, config.method.name, kernel(config, options), options)
    start = _start(config, parts)
    return Experiment(dataset, preprocess, parts, method, start, sampler(config.batch, parts))


def prepare(config: ml_collections.ConfigDict, dataset: data.Dataset) -> Preprocess:
    """The preprocessing fitted on the training images."""
    options = _options(config.data.preprocess, name="kind")
    return data.preprocess.fit(dataset.x_train, config.data.preprocess.kind, **options)


def task(dataset: data.Dataset, preprocess: Preprocess) -> Task:
    """The data set in preprocessed space."""
    x_train, x_test = (data.preprocess.apply(preprocess, x) for x in (dataset.x_train, dataset.x_test))
    return Task(x_train, dataset.y_train, x_test, dataset.y_test, dataset.num_classes)


def kernel(config: ml_collections.ConfigDict, options: dict[str, Any] | None = None):
    """The kernel, family or parametric kernel that ``config.kernel`` names.

    Args:
      config: the experiment.
      options: the method's keyword arguments; learned kernel hyperparameters are added to them.
    """
    specs = config.kernel
    if isinstance(specs, (list, tuple)):
        return [kernels.get(**dict(spec)) for spec in specs]
    spec = specs.to_dict()
    if not config.learn_kernel:
        return kernels.get(**spec)
    missing = [name for name in config.learn_kernel if name not in spec]
    checks.require(
        not missing, "config.learn_kernel", f"{missing} not in config.kernel; give their starting values there"
    )
    if options is not None:
        options["kernel_params"] = {name: float(spec[name]) for name in config.learn_kernel}
    return lambda params: kernels.get(**{**spec, **params})


def kernel_name(spec: Any) -> str:
    """A short name such as ``fc1 ntk`` of one kernel's config, or of a family's."""
    if isinstance(spec, (list, tuple)):
        return "+".join(dict(one)["name"] for one in spec)
    spec = dict(spec)
    return " ".join(str(spec[field]) for field in ("name", "get") if field in spec)


def sampler(config: ml_collections.ConfigDict, parts: Task) -> Sampler:
    """``sample(key) -> Batch`` of centred one-hot targets."""
    y = labels.one_hot(parts.train_labels, parts.num_classes)
    options = {"labels": parts.train_labels, "num_classes": parts.num_classes}
    kinds = {
        "all": lambda: data.samplers.uniform(parts.x_train, y, batch_size=len(y)),
        "uniform": lambda: data.samplers.uniform(parts.x_train, y, batch_size=config.size),
        "class_balanced": lambda: data.samplers.class_balanced(parts.x_train, y, batch_size=config.size, **options),
        "per_class": lambda: data.samplers.per_class(parts.x_train, y, batch_size=config.size, **options),
    }
    checks.one_of("config.batch", "kind", config.kind, kinds)
    return kinds[config.kind]()


def augmentation(config: ml_collections.ConfigDict, preprocess: Preprocess):
    """``augment(key, x) -> x`` from the fields of ``config.augment``; values in pixel units are applied to pixels."""
    options = {"rotation": 0.0, "shift": 0.0, "flip": False, "channel_shift": 0.0, "fraction": 1.0}
    for name, value in config.items():
        checks.one_of("config.augment", "field", name, options)
        options[name] = value
    stages = []
    if options["rotation"] or options["shift"]:  # in one interpolation, as Keras' ImageDataGenerator does it
        shift = options["shift"]
        stages.append(data.augment.warp(max_degrees=options["rotation"], height=shift, width=shift))
    if options["flip"]:
        stages.append(data.augment.flip())
    if options["channel_shift"]:
        stages.append(data.augment.channel_shift(options["channel_shift"]))
    augment = data.augment.compose(*stages)
    if preprocess.zca is not None or options["channel_shift"]:
        augment = data.augment.in_pixel_space(preprocess, augment)
    return data.augment.on_fraction(augment, options["fraction"])


def _start(config, parts):
    key = jax.random.fold_in(jax.random.key(config.seed), 0)
    ipc, k = config.init.ipc, parts.num_classes
    kinds = {
        "real": lambda: data.initial.real(key, parts.x_train, parts.train_labels, ipc=ipc, num_classes=k),
        "noise": lambda: data.initial.noise(key, parts.x_train.shape[1:], ipc=ipc, num_classes=k),
        "class_means": lambda: data.initial.class_means(parts.x_train, parts.train_labels, num_classes=k),
    }
    checks.one_of("config.init", "kind", config.init.kind, kinds)
    return jax.tree.map(jnp.asarray, kinds[config.init.kind]())


def _options(config, name="name"):
    return {field: value for field, value in config.to_dict().items() if field != name}


def _call(what, table, name, first, options):
    """``table[name](first, **options)`` with unknown names and options reported as input errors."""
    import inspect

    checks.one_of("config", f"{what}.name", name, table)
    known = [p.name for p in inspect.signature(table[name]).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for option in options:
        checks.one_of(f"config.{what}", f"option of {name}", option, known)
    return table[name](first, **options)
