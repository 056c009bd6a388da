"""Resumable state: any pytree to disk and back, bit for bit, safe against a kill at any moment.

orbax writes a step into a folder under a temporary name and renames it when it is complete, so an unfinished step is
never seen. Around that this module adds what a resumed run needs: leaves of every kind (typed PRNG keys, float64
without JAX's 64-bit mode, empty arrays, None, Python numbers) come back as they were, a checkpoint of another run is
told apart leaf by leaf, and damage is found by a checksum of every leaf.

A damaged step is reported, not skipped: going back to an older step is the user's decision, and deleting the damaged
step's folder is all it takes.
"""

import contextlib
import errno
import json
import logging
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from kipjax import checks
from kipjax.io import _files
from kipjax.io.log import to_jsonable
from kipjax.types import PyTree

__all__ = ["Checkpointer", "Restored", "open"]

FORMAT = "kipjax-checkpoint"
FORMAT_VERSION = 1


class Restored(NamedTuple):
    """What ``Checkpointer.restore`` returns: the step, the state, and the dict given to ``save`` as ``extra``."""

    step: int
    state: PyTree
    extra: dict[str, Any]


class _Leaf(NamedTuple):
    """How one leaf is recorded.

    Attributes:
      name: its path in the state, such as ``opt_state.0.mu``.
      kind: ``array``, ``key`` (typed PRNG keys), ``number`` (Python's own) or ``none``.
      shape, dtype: of the leaf; for keys those of the key array.
      crc: CRC-32 of its bytes; None in the description of a template.
      impl: the name of a key's generator.
    """

    name: str
    kind: str
    shape: tuple[int, ...] = ()
    dtype: str = ""
    crc: int | None = None
    impl: str | None = None

    def __str__(self) -> str:
        if self.kind in ("array", "key"):
            return f"shape {self.shape} and dtype {self.dtype}"
        return "None" if self.kind == "none" else f"a Python {self.dtype}"


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


class Checkpointer:
    """Saves and restores states in one folder; see ``open``. Use it as a context manager, or ``close`` it."""

    def __init__(self, folder: str | os.PathLike, *, keep: int = 2, background: bool = True):
        checks.at_least("checkpoint.open", "keep", keep, 1)
        self.folder = os.path.abspath(folder)
        self._background = background
        self._own: int | None = None
        self._quiet = _Quiet()
        try:
            os.makedirs(self.folder, exist_ok=True)
            tempfile.TemporaryFile(dir=self.folder).close()  # an unwritable folder shows now, not after hours
            self._manager = _manager(self.folder, keep, background)
        except OSError as error:
            self._quiet.stop()
            raise _files.path_error("checkpoint.open", "use the folder", self.folder, error) from error

    def steps(self) -> list[int]:
        """The complete steps in the folder, oldest first."""
        self.wait()
        return sorted(self._manager.all_steps(read=True))

    def save(self, step: int, state: PyTree, extra: dict[str, Any] | None = None) -> None:
        """Writes a state. Saving the step just saved or restored again does nothing.

        Args:
          step: number of steps done; above every step in the folder.
          state: a pytree of arrays, PRNG keys, Python numbers and None. It may be donated right after.
          extra: a dict that has a JSON form.

        Raises:
          InputError: the disk refuses, the folder holds this or a later step of another run, or a leaf cannot be saved.
        """
        if step == self._own:
            return
        latest = self._manager.latest_step()
        checks.require(
            latest is None or step > latest,
            "checkpoint.save",
            f"step is {step} and {self.folder} already holds step {latest}; resume from it or choose a new folder",
        )
        arrays, leaves = _encode(state)
        record = json.dumps({"leaves": leaves, "extra": to_jsonable(extra or {}, "checkpoint.save: extra")})
        with self._writing():
            self._manager.save(step, args=_save_args(arrays, record), force=True)
            self._own = step
            if not self._background:
                self._manager.wait_until_finished()

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
        leaves, extra = self._read_manifest(step, steps)
        _require_same(f"checkpoint.restore: {self._path(step)}", leaves, _describe(template))
        arrays = self._read_arrays(step, steps, leaves)
        self._own = step
        return Restored(step, _decode(arrays, leaves, template), extra)

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

    def __exit__(self, *_: object) -> None:
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
            for name in os.listdir(self.folder):
                if name.endswith(".orbax-checkpoint-tmp"):
                    shutil.rmtree(os.path.join(self.folder, name), ignore_errors=True)
            cause = error if isinstance(error, OSError) else OSError(_error_number(error), _files.one_line(error))
            raise _files.path_error("checkpoint.save", "write to", self.folder, cause) from error

    def _damaged(self, step: int, steps: list[int], why: str) -> checks.InputError:
        """What is wrong with a step, and the way out."""
        older = [s for s in steps if s < step]
        remedy = f"to resume from step {older[-1]}" if older else "to start anew"
        return checks.InputError(f"checkpoint.restore: {self._path(step)} {why}; delete that folder {remedy}")

    def _read_manifest(self, step: int, steps: list[int]) -> tuple[list[_Leaf], dict[str, Any]]:
        """The recorded leaves and the ``extra`` dict."""
        import orbax.checkpoint as ocp

        try:
            items = self._manager.restore(step, args=ocp.args.Composite(manifest=ocp.args.JsonRestore()))
            manifest = items["manifest"]
            known = manifest["format"] == FORMAT
        except Exception as error:  # see _writing
            why = f"is damaged or no kipjax checkpoint ({_files.one_line(error, 80)})"
            raise self._damaged(step, steps, why) from error
        if not known:
            raise self._damaged(step, steps, "is no kipjax checkpoint")
        checks.require(
            manifest["version"] <= FORMAT_VERSION,
            f"checkpoint.restore: {self._path(step)}",
            f"written in format version {manifest['version']}, and this kipjax reads up to {FORMAT_VERSION}; "
            "upgrade kipjax or start in a new folder",
        )
        if zlib.crc32(manifest["record"].encode()) != manifest["crc"]:
            raise self._damaged(step, steps, "is damaged (the checksum of its manifest is wrong)")
        record = json.loads(manifest["record"])
        leaves = [_Leaf(*row) for row in record["leaves"]]
        return [leaf._replace(shape=tuple(leaf.shape)) for leaf in leaves], record["extra"]

    def _read_arrays(self, step: int, steps: list[int], leaves: list[_Leaf]) -> dict[str, np.ndarray]:
        """The stored arrays by slot, each checked against its checksum."""
        import orbax.checkpoint as ocp

        arrays = {_slot(i): _empty(leaf) for i, leaf in enumerate(leaves) if leaf.kind != "none"}
        stored = {slot: array for slot, array in arrays.items() if array.size}
        try:
            if stored:
                items = self._manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(stored)))
                arrays |= {slot: np.asarray(array) for slot, array in items["state"].items()}
        except Exception as error:  # see _writing
            raise self._damaged(step, steps, f"is damaged ({_files.one_line(error, 80)})") from error
        for i, leaf in enumerate(leaves):
            if leaf.kind != "none" and _crc(arrays[_slot(i)]) != leaf.crc:
                raise self._damaged(step, steps, f"is damaged (the checksum of {leaf.name} is wrong)")
        return arrays


class _Quiet(logging.Filter):
    """Keeps orbax's log records (every file it touches; a traceback for each error it also raises) off the screen."""

    def __init__(self):
        super().__init__()
        logging.getLogger("absl").addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Everything passes that another package wrote."""
        return f"{os.sep}orbax{os.sep}" not in record.pathname

    def stop(self) -> None:
        """Lets orbax speak again."""
        logging.getLogger("absl").removeFilter(self)


def _manager(folder: str, keep: int, background: bool) -> Any:
    """orbax's manager, which removes what a killed run left half-written."""
    import orbax.checkpoint as ocp

    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep, enable_async_checkpointing=background, cleanup_tmp_directories=True
    )
    return ocp.CheckpointManager(folder, options=options)


def _save_args(arrays: dict[str, np.ndarray], record: str) -> Any:
    """A step as orbax takes it: the arrays, if any, and the manifest."""
    import orbax.checkpoint as ocp

    manifest = {"format": FORMAT, "version": FORMAT_VERSION, "record": record, "crc": zlib.crc32(record.encode())}
    items: dict[str, Any] = {"manifest": ocp.args.JsonSave(manifest)}
    if arrays:
        items["state"] = ocp.args.StandardSave(arrays)
    return ocp.args.Composite(**items)


def _error_number(error: Exception) -> int:
    """The system's error number inside tensorstore's text, or 0."""
    found = re.search(r"os_error_code='(\d+)'", str(error))
    if found:
        return int(found[1])
    return errno.ENOSPC if "No space left" in str(error) else 0


def _slot(index: int) -> str:
    """The name that a leaf's array has in the file."""
    return f"{index:05d}"


def _crc(array: np.ndarray) -> int:
    """CRC-32 of an array's bytes in C order."""
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _flatten(state: PyTree) -> list[tuple[str, Any]]:
    """Leaves with their names; None counts as one."""
    pairs = jax.tree_util.tree_flatten_with_path(state, is_leaf=lambda leaf: leaf is None)[0]
    return [(jax.tree_util.keystr(path, simple=True, separator=".") or "state", leaf) for path, leaf in pairs]


def _describe(state: PyTree) -> list[_Leaf]:
    """The leaves of a state or of a template of shapes and dtypes."""
    return [_describe_leaf(name, leaf) for name, leaf in _flatten(state)]


def _describe_leaf(name: str, leaf: Any) -> _Leaf:
    if leaf is None:
        return _Leaf(name, "none")
    if isinstance(leaf, bool | int | float | complex) and not isinstance(leaf, np.generic):
        return _Leaf(name, "number", (), type(leaf).__name__)
    dtype = getattr(leaf, "dtype", None)
    if dtype is not None and jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key):
        return _Leaf(name, "key", tuple(leaf.shape), str(dtype))
    if (
        dtype is not None
        and (jax.dtypes.issubdtype(dtype, np.bool_) or jax.dtypes.issubdtype(dtype, np.number))
        and dtype.isnative
    ):
        return _Leaf(name, "array", tuple(leaf.shape), str(dtype))
    what = type(leaf).__name__ + ("" if dtype is None else f" of dtype {dtype}")
    raise checks.InputError(
        f"checkpoint: leaf {name} of the state is a {what}; a state holds arrays of numbers, PRNG keys, Python numbers "
        "and None"
    )


def _encode(state: PyTree) -> tuple[dict[str, np.ndarray], list[_Leaf]]:
    """Copies of the arrays by slot (orbax refuses empty ones: their shape says all), and the record of every leaf."""
    checks.require(
        not checks.is_traced(state), "checkpoint.save", "the state is traced and has no values yet; save outside of jit"
    )
    arrays, leaves = {}, _describe(state)
    for i, (_, value) in enumerate(_flatten(state)):
        leaf = leaves[i]
        if leaf.kind == "none":
            continue
        array = np.array(jax.random.key_data(value) if leaf.kind == "key" else value)
        checks.require(not array.dtype.hasobject, "checkpoint.save", f"leaf {leaf.name} is {value}, beyond 64 bits")
        impl = str(jax.random.key_impl(value)) if leaf.kind == "key" else None
        leaves[i] = leaf._replace(crc=_crc(array), impl=impl)
        if array.size:
            arrays[_slot(i)] = array
    return arrays, leaves


def _require_same(where: str, saved: list[_Leaf], needed: list[_Leaf]) -> None:
    """The checkpoint must have the leaves that the run needs, in the same shapes and dtypes."""
    remedy = "resume with the configuration that wrote it, or start in a new folder"
    by_name, needed_names = {leaf.name: leaf for leaf in saved}, {leaf.name for leaf in needed}
    for leaf in needed:
        got = by_name.get(leaf.name)
        checks.require(got is not None, where, f"it has no leaf {leaf.name}, which this run's state has; {remedy}")
        if got is not None and str(got) != str(leaf):
            raise checks.InputError(f"{where}: leaf {leaf.name} has {got}, and this run needs {leaf}; {remedy}")
    extra = [leaf.name for leaf in saved if leaf.name not in needed_names]
    checks.require(not extra, where, f"it has a leaf {extra[:1]}, which this run's state has not; {remedy}")
    checks.require([leaf.name for leaf in saved] == [leaf.name for leaf in needed], where, f"order differs; {remedy}")


def _empty(leaf: _Leaf) -> np.ndarray:
    """An array of the shape and dtype that a leaf is stored in."""
    if leaf.kind == "key":
        data = jax.eval_shape(
            lambda: jax.random.key_data(jax.random.split(jax.random.key(0, impl=leaf.impl), leaf.shape))
        )
        return np.empty(data.shape, data.dtype)
    if leaf.kind == "number":
        return np.empty(
            (), {"bool": np.bool_, "int": np.int64, "float": np.float64, "complex": np.complex128}[leaf.dtype]
        )
    return np.empty(leaf.shape, jnp.dtype(leaf.dtype))


def _decode(arrays: dict[str, np.ndarray], leaves: list[_Leaf], template: PyTree) -> PyTree:
    """The state: every leaf of the kind that the template has in its place."""
    treedef = jax.tree.structure(template, is_leaf=lambda leaf: leaf is None)
    values = [
        None if like is None else _decode_leaf(arrays[_slot(i)], leaves[i], like)
        for i, (_, like) in enumerate(_flatten(template))
    ]
    return jax.tree.unflatten(treedef, values)


def _decode_leaf(array: np.ndarray, leaf: _Leaf, like: Any) -> Any:
    """One leaf from its array."""
    if leaf.kind == "number":
        return array.item()
    if isinstance(like, np.ndarray | np.generic):
        return array if isinstance(like, np.ndarray) else array[()]
    with jax.enable_x64(array.dtype in (np.int64, np.uint64, np.float64, np.complex128)):
        value = jnp.array(array)  # a copy: the state will be donated
        if leaf.kind == "key":
            value = jax.random.wrap_key_data(value, impl=leaf.impl)
        elif getattr(like, "weak_type", False):  # a strong type in its place would compile, and promote, differently
            value = jnp.full(array.shape, array.dtype.type(0).item()).at[...].set(value)
        placed = getattr(like, "committed", True) and getattr(like, "sharding", None)
        return jax.device_put(value, placed) if placed else value
