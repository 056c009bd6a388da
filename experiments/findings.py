"""What the scripts share that put distilled sets to use: their inputs by name, and the folder of their results."""

import os
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from absl import flags

from experiments import report
from kipjax import checks, data
from kipjax.evaluation import Task
from kipjax.io import artifact as artifacts
from kipjax.io import log

__all__ = [
    "Input",
    "dataset",
    "define_data",
    "define_out",
    "folder",
    "inputs",
    "save",
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
    flags.DEFINE_integer("seed", 0, "Draws everything.")
    define_out()


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


def whole_numbers(flag: str) -> list[int]:
    """The values of a list flag as whole numbers."""
    try:
        return [int(value) for value in FLAGS[flag].value]
    except ValueError:
        raise checks.InputError(f"--{flag}: {','.join(FLAGS[flag].value)}; expected whole numbers") from None
