"""What the scripts share that put distilled sets to use: their inputs by name, and the folder of their results."""

import json
import os
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags

from experiments import report
from kipjax import checks, data
from kipjax.data import draw
from kipjax.evaluation import Task
from kipjax.io import artifact as artifacts
from kipjax.io import log

__all__ = [
    "Input",
    "Split",
    "dataset",
    "define_data",
    "define_out",
    "define_seed",
    "folder",
    "inputs",
    "nonempty",
    "numbers",
    "pooled",
    "require_of_data",
    "rows",
    "save",
    "split",
    "task",
    "whole_numbers",
    "write",
]

FLAGS = flags.FLAGS


class Input(NamedTuple):
    """An artifact under the name that it has in tables."""

    name: str
    path: str
    made: artifacts.Artifact
    source: report.Source


def define_data(default: str) -> None:
    """The flags that name a data set, its preprocessing and the folder of results."""
    flags.DEFINE_string("data", default, "Data set, as kipjax.data.load names it.")
    flags.DEFINE_string("data_dir", None, "Where it is, if not in a usual place.")
    flags.DEFINE_integer("image_size", 0, "Side to which its images are resized; 0 leaves them.", lower_bound=0)
    flags.DEFINE_string("preprocess", "standardize", "Preprocessing of real images where no artifact says it.")
    flags.DEFINE_integer("test_size", 0, "Test images to use, the first ones; 0 for all.", lower_bound=0)
    define_seed("Draws everything.")
    define_out()


def define_seed(text: str) -> None:
    """The flag of the seed, whole numbers that a key can be made of."""
    flags.DEFINE_integer("seed", 0, text, lower_bound=0, upper_bound=2**31 - 1)


def define_out() -> None:
    """The flag that names the folder of results."""
    flags.DEFINE_string("out", None, "Folder for results.json, table.txt and the plot.")
    flags.mark_flag_as_required("out")


def inputs(paths: Sequence[str]) -> list[Input]:
    """The artifacts, named after their method, and their file too where two of them share it."""
    loaded = [(path, artifacts.load(path)) for path in paths]
    methods = [str(made.meta.get("method", "?")) for _, made in loaded]
    names = [name if methods.count(name) == 1 else f"{name} ({path})" for name, (path, _) in zip(methods, loaded)]
    return [Input(name, path, made, report.source(path, made)) for name, (path, made) in zip(names, loaded)]


def pooled(found: Sequence[Input]) -> list[str]:
    """For each artifact, the name under which those of one config share a row, whatever their seeds and chunks.

    That is the name of the method where all artifacts of the method share it, otherwise the names of all that do.
    """
    same = [_config_key(item) for item in found]
    methods = [item.made.meta.get("method", "?") for item in found]
    names = []
    for key, method in zip(same, methods):
        alone = all(other == key for other, name in zip(same, methods) if name == method)
        names.append(str(method) if alone else ", ".join(item.name for item, other in zip(found, same) if other == key))
    return names


def _config_key(item):
    """Equal for artifacts of one config but for seeds and where their chunk starts; a set without one is its own."""
    config = item.made.meta.get("config")
    if not config:
        return item.path
    kept = {name: value for name, value in config.items() if name not in ("seed", "num_seeds")}
    kept["data"] = {name: value for name, value in config.get("data", {}).items() if name != "train_start"}
    return json.dumps(kept, sort_keys=True, default=str)


def require_of_data(item: Input) -> None:
    """An artifact must be of the data set of ``--data`` at ``--image_size``.

    Raises:
      InputError: it is of another.
    """
    checks.require(
        (item.source.name, item.source.image_size) == (FLAGS.data, FLAGS.image_size),
        item.path,
        f"was distilled from {item.source.name} at image_size {item.source.image_size}; set --data and "
        "--image_size to those",
    )


def rows(item: Input, n: int) -> np.ndarray:
    """Which of ``n`` training images an artifact may have been distilled from: all, unless it says otherwise."""
    start, size = item.source.train_start, item.source.train_size
    return np.arange(start, min(start + size, n) if size else n)


class Split(NamedTuple):
    """A data set ``rest`` without held-out training images ``x [v, ...]`` of ``classes [v]``; in words, ``about``."""

    rest: data.Dataset
    x: np.ndarray
    classes: np.ndarray
    about: str

    def held(self, preprocess: Any) -> tuple[Any, np.ndarray] | None:
        """``(images [v, ...] in the space of preprocess, classes [v])``, or ``None`` without any."""
        return (data.preprocess.apply(preprocess, self.x), self.classes) if len(self.x) else None


def split(
    whole: data.Dataset, size: int, *, seed: int, kept: Sequence[int] | None = None, seen: Sequence[int] = ()
) -> Split:
    """Holds out ``size`` random training images, before anything is drawn, fitted or distilled from the others.

    Args:
      whole: the data set.
      size: how many; 0 for none, in which case the test images are looked at instead.
      seed: draws them.
      kept: rows of the training images that, less those held out, remain; all unless given.
      seen: rows that a given set may have been distilled from. Others are held out where there are enough of them.

    Raises:
      InputError: too few images would remain.
    """
    n = len(whole.x_train)
    checks.within("--validation_size", "validation_size", size, 0, n - 1)
    kept, unseen = np.arange(n) if kept is None else np.asarray(kept), np.setdiff1d(np.arange(n), seen)
    among = unseen if len(unseen) >= size else np.arange(n)
    rows = among[np.asarray(draw.without_replacement(jax.random.key(seed), size, len(among)))]
    kept = np.setdiff1d(kept, rows)
    checks.require(len(kept) > 0, "--validation_size", f"{size} images held out leave none to train on; lower it")
    about = f"{size} held-out training images" if size else "the test images, as papers do"
    about += ", which the given sets may have been distilled from" if size and len(unseen) < size else ""
    rest = whole._replace(x_train=whole.x_train[kept], y_train=whole.y_train[kept])
    return Split(rest, whole.x_train[rows], whole.y_train[rows], about)


def dataset(train_start: int = 0, train_size: int = 0) -> data.Dataset:
    """The data set that the flags name, or a part of its training images."""
    return report.load(report.Source(FLAGS.data, FLAGS.image_size, train_start, train_size), FLAGS.data_dir)


def task(found: data.Dataset, preprocess: Any = None) -> Task:
    """A data set in the space of ``preprocess``; in that of the flags, fitted on its training images, without one."""
    if preprocess is None:
        preprocess = data.preprocess.fit(found.x_train, FLAGS.preprocess)
    x_train, x_test = (data.preprocess.apply(preprocess, x) for x in (found.x_train, found.x_test))
    size = FLAGS.test_size or len(x_test)
    return Task(x_train, found.y_train, x_test[:size], found.y_test[:size], found.num_classes, FLAGS.data)


def folder() -> str:
    """The folder ``--out``, made if need be before anything is computed."""
    try:
        os.makedirs(FLAGS.out, exist_ok=True)
    except OSError as error:
        raise checks.InputError(f"--out: {FLAGS.out} cannot be made ({error.strerror}); choose another") from error
    return FLAGS.out


def write(rows: Sequence[Any], table: str, **about: Any) -> None:
    """Prints the table; writes it, and ``results.json``."""
    path = save(rows, **about)
    with open(os.path.join(FLAGS.out, "table.txt"), "w", encoding="utf-8") as file:
        file.write(table + "\n")
    print(f"{table}\nresults   {path}")


def save(rows: Sequence[Any], **about: Any) -> str:
    """Writes ``results.json`` with the rows so far and all that was set, and returns its path."""
    path = os.path.join(folder(), "results.json")
    modules = FLAGS.flags_by_module_dict()
    own = [name for name in modules if name == sys.argv[0] or name.startswith("experiments.")]
    chosen = {flag.name: flag.value for name in own for flag in modules[name]}
    device = jax.devices()[0].device_kind
    log.write_json(path, {"flags": chosen, "device": device, "jax": jax.__version__, **about, "rows": list(rows)})
    return path


def nonempty(flag: str) -> list[str]:
    """The values of a list flag.

    Raises:
      InputError: there is none, or one twice.
    """
    values = FLAGS[flag].value
    checks.require(len(values) > 0, f"--{flag}", "is empty; give at least one value")
    checks.require(len(set(values)) == len(values), f"--{flag}", f"{','.join(values)}; give every value once")
    return values


def whole_numbers(flag: str) -> list[int]:
    """The values of a list flag as whole numbers; ``nonempty``."""
    return _converted(flag, int, "whole numbers")


def numbers(flag: str) -> list[float]:
    """The values of a list flag as numbers; ``nonempty``."""
    return _converted(flag, float, "numbers")


def _converted(flag, kind, words):
    values = nonempty(flag)
    try:
        return [kind(value) for value in values]
    except ValueError:
        raise checks.InputError(f"--{flag}: {','.join(values)}; expected {words}") from None
