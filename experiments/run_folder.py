"""The folder of one run: made, recognised and refused before any work is done."""

import contextlib
import errno
import fcntl
import glob
import json
import os
import shutil
from collections.abc import Iterator
from typing import Any

import ml_collections

from kipjax import checks
from kipjax.core import krr
from kipjax.io import log

__all__ = ["MAY_CHANGE", "check_schedule", "claim", "common", "owned", "prepare", "require_identical"]

MAY_CHANGE = ("steps", "log_every", "eval_every", "evaluation", "checkpoint_every", "checkpoints_kept", "devices")
MAY_CHANGE += ("data_on",)
"""Fields that a resumed run may change: they do not touch what was computed so far.

``steps`` does where the learning rate falls over all of them, and may not change then.
"""

FOLDERS = ("data.data_dir", "init.base_dir", "pretrain.data_dir", "experts.path")
"""Fields in which the processes of a run, and its parts, may differ: what they read there is compared instead."""

FILES = ("config.json", "metrics.jsonl", "summary.json", "distilled.npz", "distilled.png")
FILES += ("labels.png", "sentences.txt")


def check_schedule(config: ml_collections.ConfigDict) -> None:
    """The step counts of a config must fit each other, and its evaluation must be one that can run."""
    evaluation = config.evaluation
    for name, least in (("seeds", 1), ("full_size", 0), ("block_size", 1), ("reg", 0)):
        checks.at_least("config.evaluation", name, evaluation[name], least)
    checks.one_of("config.evaluation", "reg_unit", evaluation.reg_unit, krr.REG_UNITS)
    checks.one_of("config.evaluation", "dtype", evaluation.dtype, ("float32", "float64"))
    for name in ("steps", "log_every", "checkpoint_every", "checkpoints_kept", "num_seeds"):
        checks.at_least("config", name, config[name], 1)
    checks.whole("config", "devices", config.devices, 0)
    checks.at_least("config", "eval_every", config.eval_every, 0)
    for name in ("eval_every", "checkpoint_every"):
        checks.require(
            config[name] % config.log_every == 0,
            "config",
            f"{name} is {config[name]}, which is no multiple of log_every ({config.log_every}); steps are dispatched "
            f"log_every at a time, so set --config.{name} to a multiple of it",
        )


@contextlib.contextmanager
def owned(workdir: str) -> Iterator[None]:
    """Makes the folder, in which no other run can write meanwhile; a process that dies gives it back.

    Raises:
      InputError: another run is writing there, or the folder cannot be made.
    """
    try:
        os.makedirs(workdir, exist_ok=True)
        folder = os.open(workdir, os.O_RDONLY)
    except OSError as error:
        why = "it is a file" if os.path.isfile(workdir) else error.strerror
        reason = f"{workdir} cannot be made ({why}); choose a folder that you may write to"
        raise checks.InputError(f"--workdir: {reason}") from error
    try:
        checks.require(
            _locked(folder),
            "--workdir",
            f"a run is writing in {workdir}; wait for its end, or stop it, or choose another folder",
        )
        yield
    finally:
        os.close(folder)


def _locked(folder):
    """Whether this process has the folder to itself, or the file system cannot tell."""
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno != errno.EWOULDBLOCK
    return True


def prepare(workdir: str, config: ml_collections.ConfigDict, *, resume: bool, overwrite: bool = False) -> None:
    """Checks that the folder, which is there, holds no run, or the one that is to be resumed.

    Args:
      workdir: the folder.
      config: of the run.
      resume: the folder may hold a run, and must be of the same config.
      overwrite: the folder may hold a run, which ``claim`` will delete.

    Raises:
      InputError: the folder holds a run and neither flag is set, or holds a run of another config.
    """
    path = os.path.join(workdir, "config.json")
    checks.require(
        not os.path.exists(os.path.join(workdir, "checkpoints")) or os.path.exists(path) or overwrite,
        "--workdir",
        f"{workdir} holds checkpoints without a config.json; pass --overwrite to delete them, or another folder",
    )
    if os.path.exists(path) and not overwrite:
        checks.require(
            resume,
            "--workdir",
            f"{workdir} already holds a run; pass --resume to go on, --overwrite to delete it, or another folder",
        )
        before = _read(path)
        _require_same(path, before, log.to_jsonable(config))
        checks.require(
            config.method.get("decay_steps") != -1 or before.get("steps") == config.steps,
            "--resume",
            f"{path} is of {before.get('steps')} steps and config.steps is {config.steps}; the learning rate falls "
            "over all steps (method.decay_steps is -1), so those done followed another curve: keep config.steps, or "
            "start anew in another --workdir",
        )


def claim(workdir: str, config: ml_collections.ConfigDict, *, overwrite: bool = False) -> None:
    """Writes ``config.json``, which makes the folder that of this run; called once the run is known to start.

    With ``overwrite`` the files of the run before are deleted first, and no others.
    """
    if overwrite:
        _delete_run(workdir)
    log.write_json(os.path.join(workdir, "config.json"), config)


def common(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """What the processes of one run must have in common, by the name of the field; folders may be others on each."""
    return {f"config.{name}": value for name, value in _fields(log.to_jsonable(config)) if name not in FOLDERS}


def require_identical(workdir: str, config: ml_collections.ConfigDict) -> None:
    """The finished run in the folder must be of this very config.

    Raises:
      InputError: it is not.
    """
    path = os.path.join(workdir, "config.json")
    _require_same(path, _read(path), log.to_jsonable(config), may_change=())


def _delete_run(workdir):
    shutil.rmtree(os.path.join(workdir, "checkpoints"), ignore_errors=True)
    for name in FILES:
        stem, suffix = os.path.splitext(name)
        for path in (
            os.path.join(workdir, name),
            *glob.glob(os.path.join(glob.escape(workdir), f"{stem}_seed*{suffix}")),
        ):
            with contextlib.suppress(FileNotFoundError):
                os.remove(path)


def _read(path):
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (ValueError, RecursionError) as error:  # the second of brackets in brackets, thousands deep
        raise checks.InputError(f"{path}: not a JSON file ({error}); choose another --workdir") from error
    checks.require(isinstance(found, dict), path, "is not the config of a run; choose another --workdir")
    return found


def _require_same(path, before, wanted, may_change=(*MAY_CHANGE, *FOLDERS)):
    differing = [
        f"{name} was {old!r} and is {new!r}"
        for name, old, new in _differences(before, wanted)
        if name not in may_change and name.split(".")[0] not in may_change
    ]
    checks.require(
        not differing,
        "--resume",
        f"{path} is of another run: {'; '.join(differing[:3])}; use the same config, or another --workdir",
    )


def _fields(values, prefix=""):
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _fields(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _differences(before, wanted, prefix=""):
    """Fields that differ; one that an older run did not have, and that is off now, does not."""
    for name in sorted(set(before) | set(wanted)):
        old, new = before.get(name), wanted.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{prefix}{name}.")
        elif old != new and (name in before or new not in (0, "", [])):
            yield prefix + name, old, new
