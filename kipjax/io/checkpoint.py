"""Resumable state: any pytree to disk and back, bit for bit, safe against a kill at any moment.

orbax writes a step into a folder under a temporary name and renames it when it is complete, so an unfinished step is
never seen. Around that this module adds what a resumed run needs: leaves of every kind (typed PRNG keys, float64
without JAX's 64-bit mode, empty arrays, None, Python numbers) come back as they were, a checkpoint of another run is
told apart leaf by leaf, and damage is found by checksums. All leaves go to the disk as one array of bytes: that is
faster than a file each, and orbax reports a damaged one without noise from the threads that read the others.

A damaged step is reported, not skipped: going back to an older step is the user's decision, and deleting the damaged
step's folder is all it takes.
"""

import contextlib
import errno
import glob
import json
import logging
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from kipjax import checks
from kipjax.core import processes
from kipjax.io import _files, _leaves
from kipjax.io.log import to_jsonable
from kipjax.types import PyTree

__all__ = ["Checkpointer", "Restored", "checksum", "open"]

FORMAT = "kipjax-checkpoint"
FORMAT_VERSION = 1


class Restored(NamedTuple):
    """What ``Checkpointer.restore`` returns: the step, the state, and the dict given to ``save`` as ``extra``."""

    step: int
    state: PyTree
    extra: dict[str, Any]


def open(folder: str | os.PathLike, *, keep: int = 2, background: bool = True) -> "Checkpointer":
    """Opens a folder of checkpoints, creating it if needed.

    Args:
      folder: where each complete step has a folder named by its number.
      keep: how many of the newest steps stay.
      background: ``save`` copies the state and returns, while a thread writes; otherwise ``save`` returns when the step
        is on the disk. A failed write is then raised by the next ``save``, ``wait`` or ``close``.

    Raises:
      InputError: the folder cannot be created or read.
    """
    return Checkpointer(folder, keep=keep, background=background)


def checksum(state: PyTree) -> int:
    """CRC-32 of the bytes of all leaves of a state, to tell whether two are equal bit for bit.

    >>> checksum({"a": np.zeros(2)}) == checksum({"a": np.zeros(2)}) != checksum({"a": np.ones(2)})
    True
    """
    return zlib.crc32(_leaves.encode(state)[0].data)


class Checkpointer:
    """Saves and restores states in one folder; see ``open``. Use it as a context manager, or ``close`` it."""

    def __init__(self, folder: str | os.PathLike, *, keep: int = 2, background: bool = True):
        checks.at_least("checkpoint.open", "keep", keep, 1)
        self.folder = os.path.abspath(folder)
        self._own: int | None = None
        self._quiet = _Quiet()
        try:
            os.makedirs(self.folder, exist_ok=True)
            tempfile.TemporaryFile(dir=self.folder).close()  # an unwritable folder shows now, not after hours
            self._manager = _manager(self.folder, keep, background)
        except Exception as error:  # see _writing
            self._quiet.stop()
            if processes.is_loss(error):
                raise
            if not isinstance(error, OSError):
                error = OSError(_error_number(error), _files.one_line(error))
            raise _files.path_error("checkpoint.open", "use the folder", self.folder, error) from error

    def steps(self) -> list[int]:
        """The complete steps in the folder, oldest first."""
        self.wait()
        return sorted(self._manager.all_steps())

    def save(self, step: int, state: PyTree, extra: dict[str, Any] | None = None) -> None:
        """Writes a state. Saving the step just saved or restored again does nothing.

        Args:
          step: number of steps done; above every step in the folder.
          state: a pytree of arrays, PRNG keys, Python numbers and None. It may be donated right after.
          extra: a dict that has a JSON form.

        Raises:
          InputError: the disk refuses, the folder holds this or a later step of another run, or a leaf cannot be saved.
        """
        step = int(step)
        if step == self._own:
            return
        latest = self._manager.latest_step()
        checks.require(
            latest is None or step > latest,
            "checkpoint.save",
            f"step is {step} and {self.folder} already holds step {latest}; resume from it or choose a new folder",
        )
        content, leaves = _leaves.encode(state)
        extra = to_jsonable(extra or {}, "checkpoint.save: extra")
        record = json.dumps({"leaves": leaves, "crc": zlib.crc32(content.data), "extra": extra})
        with self._writing():
            self._manager.save(step, args=_save_args(content, record), force=True)
            self._own = step

    def restore(self, template: PyTree) -> Restored | None:
        """Reads the newest complete step, or returns None where there is none.

        Args:
          template: a state with the structure, shapes and dtypes that the run needs, such as its initial state or
            ``jax.eval_shape`` of it. Each leaf comes back as what the template has there: JAX array (same sharding),
            NumPy array, Python number or key.

        Raises:
          InputError: the checkpoint is of another run (the text names the first leaf that differs), or damaged.
        """
        steps = self.steps()
        if not steps:
            return None
        step = steps[-1]
        record = self._read_manifest(step, steps)
        leaves = [_leaves.Leaf(*row)._replace(shape=tuple(row[2])) for row in record["leaves"]]
        _leaves.require_same(f"checkpoint.restore: {self._path(step)}", leaves, _leaves.describe(template))
        content = self._read_content(step, steps, sum(map(_leaves.byte_count, leaves)))
        if zlib.crc32(content.data) != record["crc"]:
            raise self._damaged(step, steps, "is damaged (the checksum of the state is wrong)")
        self._own = step
        return Restored(step, _leaves.decode(content, leaves, template), record["extra"])

    def wait(self) -> None:
        """Returns when everything saved is on the disk; raises if that failed."""
        with self._writing():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for what is being written and gives all resources back."""
        try:
            with self._writing():
                self._manager.close()
        finally:
            self._quiet.stop()

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with contextlib.suppress(*[checks.InputError] * (kind is not None)):  # the first error is the one to report
            self.close()

    def _path(self, step: int) -> str:
        return os.path.join(self.folder, str(step))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns whatever orbax raises while it writes into one line, and removes what it left half-written."""
        try:
            yield
        except checks.InputError:
            raise
        except Exception as error:  # orbax and tensorstore raise their own and many built-in types for a full disk
            self._own = None
            if processes.is_loss(error):
                raise  # nothing is wrong with the disk
            for unfinished in glob.glob(os.path.join(glob.escape(self.folder), "*.orbax-checkpoint-tmp")):
                shutil.rmtree(unfinished, ignore_errors=True)
            cause = error if isinstance(error, OSError) else OSError(_error_number(error), _files.one_line(error))
            raise _files.path_error("checkpoint.save", "write to", self.folder, cause) from error

    def _damaged(self, step: int, steps: list[int], why: str) -> checks.InputError:
        """What is wrong with a step, and the way out."""
        older = [s for s in steps if s < step]
        remedy = f"to resume from step {older[-1]}" if older else "to start anew"
        return checks.InputError(f"checkpoint.restore: {self._path(step)} {why}; delete that folder {remedy}")

    def _read_manifest(self, step: int, steps: list[int]) -> dict[str, Any]:
        """The record of a step: its leaves, the checksum of their bytes, and the ``extra`` dict."""
        import orbax.checkpoint as ocp

        try:
            items = self._manager.restore(step, args=ocp.args.Composite(manifest=ocp.args.JsonRestore()))
            manifest = items["manifest"]
            sound = manifest["format"] == FORMAT and zlib.crc32(manifest["record"].encode()) == manifest["crc"]
            version = int(manifest["version"])
        except Exception as error:  # see _writing
            if processes.is_loss(error):
                raise
            why = f"is damaged or no kipjax checkpoint ({_files.one_line(error, 80)})"
            raise self._damaged(step, steps, why) from error
        if not sound:
            raise self._damaged(step, steps, "is damaged or no kipjax checkpoint (its manifest is not in order)")
        checks.require(
            version <= FORMAT_VERSION,
            f"checkpoint.restore: {self._path(step)}",
            f"written in format version {version}, and this kipjax reads up to {FORMAT_VERSION}; upgrade kipjax or "
            "start in a new folder",
        )
        return json.loads(manifest["record"])

    def _read_content(self, step: int, steps: list[int], size: int) -> np.ndarray:
        """The bytes of the state, ``[size]`` uint8."""
        import orbax.checkpoint as ocp

        template = {"content": np.empty(size, np.uint8)}
        if not size:
            return template["content"]
        try:
            items = self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(template)))
            return np.asarray(items["state"]["content"])
        except Exception as error:  # see _writing
            if processes.is_loss(error):
                raise
            raise self._damaged(step, steps, f"is damaged ({_files.one_line(error, 80)})") from error


class _Quiet(logging.Filter):
    """Keeps orbax's log records (every file it touches; a traceback for each error it also raises) off the screen."""

    def __init__(self):
        from absl import logging as absl_logging

        super().__init__()
        self._logger = (
            absl_logging.get_absl_logger()
        )  # asked of logging itself before absl is loaded, it would be another
        self._logger.addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Everything passes that another package wrote."""
        return f"{os.sep}orbax{os.sep}" not in record.pathname

    def stop(self) -> None:
        """Lets orbax speak again."""
        self._logger.removeFilter(self)


def _manager(folder: str, keep: int, background: bool) -> Any:
    """orbax's manager, which removes what a killed run left half-written."""
    import orbax.checkpoint as ocp

    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep, enable_async_checkpointing=background, cleanup_tmp_directories=True
    )
    return ocp.CheckpointManager(folder, options=options)


def _save_args(content: np.ndarray, record: str) -> Any:
    """A step as orbax takes it: the manifest, and the bytes if there are any (it refuses empty arrays)."""
    import orbax.checkpoint as ocp

    manifest = {"format": FORMAT, "version": FORMAT_VERSION, "record": record, "crc": zlib.crc32(record.encode())}
    items: dict[str, Any] = {"manifest": ocp.args.JsonSave(manifest)}
    if content.size:
        items["state"] = ocp.args.StandardSave({"content": content})
    return ocp.args.Composite(**items)


def _error_number(error: Exception) -> int:
    """The system's error number inside tensorstore's text, or 0."""
    found = re.search(r"os_error_code='(\d+)'", str(error))
    if found:
        return int(found[1])
    return errno.ENOSPC if "No space left" in str(error) else 0
