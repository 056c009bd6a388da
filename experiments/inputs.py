"""From a config to its data: data set, preprocessing, task, targets, augmentation and the set to start from."""

from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from kipjax import checks, data
from kipjax.core import labels
from kipjax.evaluation import Task
from kipjax.methods import sldd
from kipjax.types import Batch, Distilled, Preprocess, Sampler

__all__ = [
    "augmentation",
    "foreign",
    "foreign_data",
    "load",
    "part",
    "prepare",
    "sampler",
    "start",
    "targets",
    "task",
    "tested_on",
    "validation",
]


def load(config: ml_collections.ConfigDict) -> data.Dataset:
    """The data set that ``config.data`` names, of whose training images some in a row may be all there are."""
    source = config.data
    dataset = data.load(source.name, data_dir=source.data_dir or None, image_size=source.image_size)
    return part(dataset, source.train_start, source.train_size)


def part(dataset: data.Dataset, start: int, size: int) -> data.Dataset:
    """The data set with its training images ``start .. start + size - 1`` alone; all from ``start`` on for size 0."""
    n = len(dataset.x_train)
    checks.whole("config.data", "train_start", start, 0)
    checks.whole("config.data", "train_size", size, 0)
    stop = start + size if size else n
    checks.require(
        start < stop <= n,
        "config.data",
        f"train_start is {start} and train_size {size}, and there are {n} training images; choose rows among them",
    )
    return dataset._replace(x_train=dataset.x_train[start:stop], y_train=dataset.y_train[start:stop])


def prepare(config: ml_collections.ConfigDict, dataset: data.Dataset) -> Preprocess:
    """The preprocessing fitted on the training images."""
    options = config.data.preprocess.to_dict()
    return data.preprocess.fit(dataset.x_train, options.pop("kind"), **options)


def task(dataset: data.Dataset, preprocess: Preprocess, *, lazily: bool = False) -> Task:
    """The data set in preprocessed space; ``lazily``, training images stay pixels on the host until asked for."""
    x_test = data.preprocess.apply(preprocess, dataset.x_test)
    if lazily:
        x_train: Any = data.streaming.Preprocessed(preprocess, dataset.x_train)
    else:
        x_train = data.preprocess.apply(preprocess, dataset.x_train)
    return Task(x_train, dataset.y_train, x_test, dataset.y_test, dataset.num_classes)


def tested_on(parts: Task, size: int) -> Task:
    """The task with its first ``size`` test examples alone, or all for 0."""
    checks.whole("config.data", "test_size", size, 0)
    return parts._replace(x_test=parts.x_test[:size], test_labels=parts.test_labels[:size]) if size else parts


def foreign_data(config: ml_collections.ConfigDict, name: str, data_dir: str) -> data.Dataset:
    """Another data set, from its own folder or from that of ``config.data``."""
    return data.load(name, data_dir=data_dir or config.data.data_dir or None)


def foreign(config: ml_collections.ConfigDict, name: str, data_dir: str, shape: tuple[int, ...]):
    """Training images of another data set, preprocessed as ``config`` says and brought to ``shape``, and labels."""
    dataset = foreign_data(config, name, data_dir)
    x = np.asarray(data.preprocess.apply(prepare(config, dataset), dataset.x_train))
    checks.require(
        x.ndim == 4 and len(shape) == 3, "config", f"{name} has examples of shape {x.shape[1:]}; images are needed"
    )
    if x.shape[-1] != shape[-1]:
        x = np.repeat(x.mean(axis=-1, keepdims=True), shape[-1], axis=-1)
    resized = jax.image.resize(x, (len(x), *shape), "linear") if x.shape[1:] != tuple(shape) else x
    return jnp.asarray(resized), dataset.y_train


def sampler(config: ml_collections.ConfigDict, parts: Task) -> Sampler:
    """``sample(key) -> Batch`` of centred one-hot targets."""
    y = labels.one_hot(parts.train_labels, parts.num_classes)
    options = {"labels": parts.train_labels, "num_classes": parts.num_classes}
    kinds = {
        "all": lambda: data.samplers.uniform(parts.x_train, y, batch_size=len(y)),
        "in_order": lambda: data.streaming.in_order(parts.x_train, y, batch_size=config.size),
        "uniform": lambda: data.samplers.uniform(parts.x_train, y, batch_size=config.size),
        "class_balanced": lambda: data.samplers.class_balanced(parts.x_train, y, batch_size=config.size, **options),
        "per_class": lambda: data.samplers.per_class(parts.x_train, y, batch_size=config.size, fill=True, **options),
    }
    checks.one_of("config.batch", "kind", config.kind, kinds)
    return kinds[config.kind]()


def augmentation(config: ml_collections.ConfigDict, preprocess: Preprocess):
    """``augment(key, x) -> x`` from the fields of ``config.augment``; values in pixel units are applied to pixels."""
    options = {"rotation": 0.0, "shift": 0.0, "flip": False, "channel_shift": 0.0, "fraction": 1.0}
    options |= {"crop": 0, "crop_mode": "reflect"}
    for name, value in config.items():
        checks.one_of("config.augment", "field", name, options)
        options[name] = value
    stages = []
    if options["rotation"] or options["shift"]:  # in one interpolation, as Keras' ImageDataGenerator does it
        shift = options["shift"]
        stages.append(data.augment.warp(max_degrees=options["rotation"], height=shift, width=shift))
    if options["crop"]:
        stages.append(data.augment.pad_crop(options["crop"], mode=options["crop_mode"]))
    if options["flip"]:
        stages.append(data.augment.flip())
    if options["channel_shift"]:
        stages.append(data.augment.channel_shift(options["channel_shift"]))
    augment = data.augment.compose(*stages)
    black = bool(options["crop"]) and options["crop_mode"] == "constant"  # what is padded is 0 in pixels
    if preprocess.zca is not None or options["channel_shift"] or black:
        augment = data.augment.in_pixel_space(preprocess, augment)
    return data.augment.on_fraction(augment, options["fraction"])


def start(config: ml_collections.ConfigDict, parts: Task, seed: int) -> Distilled:
    """The set that a method starts from with that seed."""
    key = jax.random.fold_in(jax.random.key(seed), 0)
    one = config.init.kind != "class_means" or config.init.ipc == 1
    checks.require(one, "config.init", f"ipc is {config.init.ipc}; class_means has one image per class, set ipc to 1")
    ipc, k = config.init.ipc, parts.num_classes
    options = {"num_classes": k, "scale": config.init.scale, "centered": config.init.centered}
    std = config.init.std or None
    kinds = {
        "real": lambda: data.initial.real(key, parts.x_train, parts.train_labels, ipc=ipc, **options),
        "noise": lambda: data.initial.noise(key, parts.x_train.shape[1:], ipc=ipc, std=std, **options),
        "class_means": lambda: data.initial.class_means(parts.x_train, parts.train_labels, **options),
    }
    checks.one_of("config.init", "kind", config.init.kind, kinds)
    if config.init.base:
        x, _ = foreign(config, config.init.base, config.init.base_dir, parts.x_train.shape[1:])
        checks.within("config.init", "ipc times the classes", ipc * k, 1, len(x))
        checks.require(
            config.method.name != "ld" or config.method.learn_labels,
            "config.init",
            f"images are of {config.init.base}, whose true labels are none of {config.data.name}; leave base empty, or "
            "learn the labels",
        )
        rows = data.draw.without_replacement(key, ipc * k, len(x))
        classes = np.arange(k).repeat(ipc)
        y = labels.one_hot(classes, k, centered=config.init.centered, scale=config.init.scale)
        return _labelled(key, config.init, Distilled(x[rows], y))
    return _labelled(key, config.init, jax.tree.map(jnp.asarray, kinds[config.init.kind]()))


def _labelled(key, init, start):
    """The rows of the first ``init.classes`` classes, with starting labels by ``init.labels``."""
    k, labels_of = start.y.shape[1], init.get("labels", "")
    kept = init.get("classes", 0) or k
    checks.whole("config.init", "classes", kept)
    checks.within("config.init", "classes", kept, 1, k)
    start = start._replace(x=start.x[: kept * init.ipc], y=start.y[: kept * init.ipc])
    if not labels_of:
        return start
    classes = np.asarray(labels.classes(start.y))
    return start._replace(y=sldd.initial_labels(jax.random.fold_in(key, 1), classes, k, labels_of))


def validation(config: ml_collections.ConfigDict, parts: Task) -> Batch:
    """Random training images on which a method picks its step."""
    rows = _validation_rows(config, parts)
    return Batch(jnp.asarray(parts.x_train[rows]), labels.one_hot(parts.train_labels[rows], parts.num_classes))


def targets(config: ml_collections.ConfigDict, parts: Task) -> Task:
    """The task whose training images are those that batches are drawn from: all, or all but ``validation``."""
    if not (config.validation_ipc and config.validation_held_out):
        return parts
    rest = np.setdiff1d(np.arange(len(parts.x_train)), _validation_rows(config, parts))
    return parts._replace(x_train=parts.x_train[rest], train_labels=parts.train_labels[rest])


def _validation_rows(config, parts):
    key, numbers = jax.random.fold_in(jax.random.key(config.seed), 1), np.arange(len(parts.x_train))
    options = {"ipc": config.validation_ipc, "num_classes": parts.num_classes}
    return np.asarray(data.initial.real(key, numbers, parts.train_labels, **options).x)
