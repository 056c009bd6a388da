"""What a run reports: one JSON object a line in a file, and its progress on the terminal.

JSON has no word for NaN or infinity, so here they are the strings ``"NaN"``, ``"Infinity"`` and ``"-Infinity"``, which
``float(...)`` reads back in Python, as ``Number(...)`` does in JavaScript; ``read`` gives them back as floats.
"""

import contextlib
import dataclasses
import json
import math
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, TextIO

import jax
import jax.numpy as jnp
import numpy as np

from kipjax import checks
from kipjax.io import _files

__all__ = ["MetricsLog", "Progress", "read", "to_jsonable", "write_json"]

_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def to_jsonable(value: Any, name: str = "value") -> Any:
    """The same value in plain JSON types.

    NumPy and JAX scalars become numbers, arrays and tuples lists, named tuples, dataclasses and configs
    (anything with ``to_dict``, such as ``ml_collections.ConfigDict``) objects, paths and dtypes strings, and
    non-finite floats ``"NaN"``, ``"Infinity"``, ``"-Infinity"``.

    Args:
      value: what to convert.
      name: what to call it in an error.

    Raises:
      InputError: a part of it (named by its path) has no JSON form, such as a function.

    >>> to_jsonable({"lr": np.float32(0.5), "shape": (2, 3), "loss": float("nan")})
    {'lr': 0.5, 'shape': [2, 3], 'loss': 'NaN'}
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, np.generic | np.ndarray | jax.Array):
        return to_jsonable(_array(value, name), name)
    if isinstance(value, type | np.dtype):
        return _dtype_name(value, name)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list | tuple | set | frozenset) and not hasattr(value, "_asdict"):
        return [to_jsonable(item, f"{name}[{i}]") for i, item in enumerate(value)]
    return {str(key): to_jsonable(item, f"{name}.{key}") for key, item in _mapping(value, name).items()}


def _float(value: float) -> float | str:
    """A float, or the word for one that JSON lacks."""
    if math.isfinite(value):
        return float(value)
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _array(value: Any, name: str) -> Any:
    """An array as nested lists of Python numbers, or one number."""
    checks.require(
        not checks.is_traced(value), name, "is a traced array, which has no value yet; convert it outside of jit"
    )
    dtype = value.dtype
    if not any(jnp.issubdtype(dtype, kind) for kind in (np.number, np.bool_, np.str_)):
        raise checks.InputError(f"{name}: an array of dtype {dtype} has no JSON form; pass numbers, strings or bools")
    array = np.asarray(value)
    if jnp.issubdtype(dtype, np.floating):
        array = array.astype(np.float64)  # the narrow float types have no list of Python floats of their own
    elif jnp.issubdtype(dtype, np.complexfloating):
        raise checks.InputError(f"{name}: complex numbers have no JSON form; pass real and imaginary parts")
    return array.tolist()


def _dtype_name(value: Any, name: str) -> str:
    """``float32`` for ``jnp.float32`` and its like."""
    with contextlib.suppress(TypeError):
        if not np.dtype(value).hasobject:
            return np.dtype(value).name
    raise checks.InputError(f"{name}: the type {value!r} has no JSON form; pass its name")


def _mapping(value: Any, name: str) -> Mapping:
    """The mapping behind a dict, named tuple, dataclass or config."""
    if isinstance(value, Mapping):
        return value
    if hasattr(value, "_asdict"):
        return value._asdict()
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if hasattr(value, "to_dict"):
        return value.to_dict()
    raise checks.InputError(
        f"{name}: a {type(value).__name__} has no JSON form; pass numbers, strings, lists, dicts or arrays"
    )


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes ``value`` (see ``to_jsonable``) as an indented JSON file, wholly or not at all."""
    text = json.dumps(to_jsonable(value, os.path.basename(os.fspath(path))), indent=2, allow_nan=False) + "\n"
    _files.atomic_write("log.write_json", path, lambda file: file.write(text.encode()))


class MetricsLog:
    """A file of metrics, one JSON object a line, ``step`` first; each line is handed to the system when it is written.

    A last line cut off by a kill is dropped on opening. Use it as a context manager, or ``close`` it.

    Args:
      path: the file, appended to if it exists.

    Raises:
      InputError: the file cannot be written, or is not such a log.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = os.fspath(path)
        if _is_cut(self.path):
            _rewrite(self.path, lambda line: True)
        self._file = self._open()

    def _open(self) -> TextIO:
        try:
            return open(self.path, "a", encoding="utf-8")
        except OSError as error:
            raise _files.path_error("log.MetricsLog", "write", self.path, error) from error

    def append(self, step: int, metrics: Any) -> None:
        """Adds one line: ``{"step": step, **metrics}``. ``metrics`` is a dict or named tuple of scalars or arrays."""
        line = json.dumps({"step": int(step), **to_jsonable(metrics, "metrics")}, allow_nan=False)
        try:
            self._file.write(line + "\n")
            self._file.flush()
        except OSError as error:
            raise _files.path_error("log.MetricsLog", "write", self.path, error) from error

    def truncate(self, step: int) -> None:
        """Keeps only the lines up to and including ``step``, for a run that goes on from there."""
        self._file.close()
        _rewrite(self.path, lambda line: line["step"] <= step)
        self._file = self._open()

    def close(self) -> None:
        """Closes the file; what was appended is already in it, or its ``append`` has raised."""
        with contextlib.suppress(OSError):
            self._file.close()

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read(path: str | os.PathLike) -> list[dict[str, Any]]:
    """All lines of a metrics file, oldest first, with ``"NaN"`` and its like as floats. A cut last line is left out.

    Raises:
      InputError: there is no such file, or a line before the last is not a JSON object with a ``step``.
    """
    return [{k: _NON_FINITE.get(v, v) if isinstance(v, str) else v for k, v in line.items()} for line in _lines(path)]


def _lines(path: str | os.PathLike) -> list[dict[str, Any]]:
    """The complete lines, as parsed."""
    try:
        with open(path, "rb") as file:
            rows = file.read().split(b"\n")
    except OSError as error:
        raise _files.path_error("log.read", "read", path, error) from error
    parsed = [_parse(row) for row in rows]
    broken = [i for i, line in enumerate(parsed[:-1]) if line is None]
    if broken:
        raise checks.InputError(
            f"log.read: line {broken[0] + 1} of {os.fspath(path)} is not a JSON object with a step; "
            "remove that line, or move the file away and start a new log"
        )
    return [line for line in parsed if line is not None]


def _parse(row: bytes) -> dict[str, Any] | None:
    """One line, or None if it is no JSON object with an integer step (the last line may be empty or cut)."""
    try:
        line = json.loads(row)
    except (ValueError, RecursionError):  # the second of brackets in brackets, thousands deep
        return None
    return line if isinstance(line, dict) and isinstance(line.get("step"), int) else None


def _is_cut(path: str) -> bool:
    """Whether a file exists and does not end with a line break."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            return size > 0 and (file.seek(size - 1), file.read())[1] != b"\n"
    except OSError:
        return False


def _rewrite(path: str, keep: Callable[[dict[str, Any]], bool]) -> None:
    """Replaces the file by those of its complete lines that ``keep`` accepts."""
    text = "".join(json.dumps(line) + "\n" for line in _lines(path) if keep(line))
    _files.atomic_write("log.MetricsLog", path, lambda file: file.write(text.encode()))


class Progress:
    """How far a run has come: a bar with rate and remaining time on a terminal, plain lines anywhere else.

    A plain line reads ``step 200/5000  loss 0.0123  acc 0.81  212 steps/s  eta 22 s``. ``update`` may be called as
    often as one likes: a bar is redrawn at most ten times a second, a line is written at most every ``every`` seconds,
    and the last step is always shown. The rate is that between the last 20 updates, so that compilation, which
    comes before the first, is left out.

    Args:
      total: the last step.
      start: the step that the run begins or goes on at.
      every: seconds between plain lines.
      stream: where to write; standard output unless given.
      clock: seconds, monotonic; replaced in tests.
    """

    def __init__(
        self,
        total: int,
        *,
        start: int = 0,
        every: float = 2.0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._total, self._clock = total, clock
        self._stream = sys.stdout if stream is None else stream
        self._bar = _bar(self._stream, total, start)
        self._every = 0.1 if self._bar else every
        self._marks: deque[tuple[float, int]] = deque(maxlen=20)
        self._start = start
        self._shown_at, self._shown_step = -math.inf, None

    def update(self, step: int, metrics: Mapping[str, Any] | None = None) -> None:
        """Tells that ``step`` steps are done, with scalars to show beside it."""
        now = self._clock()
        if step > (self._marks[-1][1] if self._marks else self._start):
            self._marks.append((now, step))
        due = now - self._shown_at >= self._every or step >= self._total
        if due and step != self._shown_step:
            self._shown_at, self._shown_step = now, step
            self._show(step, "  ".join(f"{name} {_short(value)}" for name, value in (metrics or {}).items()))

    def _show(self, step: int, metrics: str) -> None:
        rate, eta = self._rate(step)
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=step, metrics=metrics, rate=rate, eta=eta)
            self._bar.refresh()
        else:
            parts = [f"step {step}/{self._total}", metrics, rate, eta]
            print("  ".join(part for part in parts if part), file=self._stream, flush=True)

    def _rate(self, step: int) -> tuple[str, str]:
        """``212 steps/s`` and ``eta 22 s``; empty before the second update, and no eta at the end."""
        if len(self._marks) < 2:
            return "", ""
        (t0, step0), (t1, step1) = self._marks[0], self._marks[-1]
        rate = (step1 - step0) / max(t1 - t0, 1e-9)
        text = f"{rate:.0f} steps/s" if rate >= 10 else f"{rate:.2g} steps/s"
        return text, f"eta {_duration((self._total - step) / rate)}" if step < self._total else ""

    def close(self) -> None:
        """Leaves the last state of the bar on the screen and gives the terminal back."""
        if self._bar:
            self._bar.stop()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _short(value: Any) -> str:
    """A scalar in three significant digits, anything else as it is."""
    value = to_jsonable(value, "metrics")
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _duration(seconds: float) -> str:
    """``22 s``, ``3 min 05 s`` or ``2 h 10 min``."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60:02d} min"


def _bar(stream: TextIO, total: int, start: int) -> Any:
    """A started rich progress bar without a refresh thread of its own, or None where the stream is no terminal."""
    if not (hasattr(stream, "isatty") and stream.isatty()) or os.environ.get("TERM") == "dumb":
        return None
    from rich import console, progress

    columns = [
        progress.TextColumn("step {task.completed}/{task.total}"),
        progress.BarColumn(),
        progress.TextColumn("{task.fields[metrics]}  {task.fields[rate]}  {task.fields[eta]}"),
    ]
    bar = progress.Progress(*columns, console=console.Console(file=stream), auto_refresh=False)
    bar.add_task("run", total=total, completed=start, metrics="", rate="", eta="")
    bar.start()
    return bar
