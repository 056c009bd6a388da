"""Metrics survive kills and come back as written; progress is readable with and without a terminal."""

import errno
import io
import json
import math
import os
import pathlib
import subprocess
import sys
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import pytest

from kipjax.checks import InputError
from kipjax.io import log


class Info(NamedTuple):
    loss: object
    accuracy: object


@dataclass
class Point:
    x: int
    where: pathlib.Path


# --- to_jsonable -----------------------------------------------------------------------------------------------------

PLAIN = [
    (np.float32(0.1), float(np.float32(0.1))),
    (np.int64(3), 3),
    (np.bool_(True), True),
    (np.array([[1.5, np.nan], [np.inf, -np.inf]]), [[1.5, "NaN"], ["Infinity", "-Infinity"]]),
    (jnp.asarray(2.5), 2.5),
    (jnp.asarray([1, 2], jnp.bfloat16), [1.0, 2.0]),
    (np.array(["a", "b"]), ["a", "b"]),
    (float("nan"), "NaN"),
    (np.float64("-inf"), "-Infinity"),
    (Info(jnp.float32(0.5), 1), {"loss": 0.5, "accuracy": 1}),
    (Point(1, pathlib.Path("a/b")), {"x": 1, "where": "a/b"}),
    ((1, [None, True], {"k": ("v",)}), [1, [None, True], {"k": ["v"]}]),
    ({3: np.uint8(4)}, {"3": 4}),
    (jnp.float32, "float32"),
    (np.dtype("int8"), "int8"),
    (ml_collections.ConfigDict({"a": {"b": (1, 2)}, "c": None}), {"a": {"b": [1, 2]}, "c": None}),
]


@pytest.mark.parametrize("value, expected", PLAIN)
def test_to_jsonable(value, expected):
    got = log.to_jsonable(value)
    assert got == expected
    json.dumps(got, allow_nan=False)
    assert type(got) is type(expected)


@pytest.mark.parametrize(
    "value, words",
    [
        ({"a": [1, print]}, r"config.a\[1\]: a builtin_function_or_method has no JSON form"),
        (1j, "config: a complex has no JSON form"),
        (np.array([1j]), "complex"),
        (jax.random.key(0), "dtype key<fry>"),
        (np.array([None]), "dtype object"),
        ({"kind": dict}, "config.kind: the type .*dict.* has no JSON form"),
    ],
)
def test_to_jsonable_names_what_has_no_json_form(value, words):
    with pytest.raises(InputError, match=words):
        log.to_jsonable(value, "config")


def test_to_jsonable_of_a_traced_value():
    with pytest.raises(InputError, match="outside of jit"):
        jax.jit(lambda x: log.to_jsonable(x))(1.0)


# --- write_json ------------------------------------------------------------------------------------------------------


def test_write_json_round_trip_and_overwrite(tmp_path):
    path = tmp_path / "summary.json"
    log.write_json(path, {"accuracy": 0.1})
    log.write_json(path, {"accuracy": np.float32(0.25), "names": ["凉鞋"]})
    assert json.loads(path.read_text()) == {"accuracy": 0.25, "names": ["凉鞋"]}
    assert os.listdir(tmp_path) == ["summary.json"]


def test_write_json_is_whole_or_absent(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "config.json"
    log.write_json(path, [1])
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"log.write_json: cannot write .*config.json: the disk is full; free"):
        log.write_json(path, [2])
    with pytest.raises(InputError, match=r"config.json.a: a builtin_function"):
        log.write_json(path, {"a": print})
    assert json.loads(path.read_text()) == [1] and os.listdir(tmp_path) == ["config.json"]


# --- MetricsLog ------------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path):
    return tmp_path / "metrics.jsonl"


def fill(path, steps):
    with log.MetricsLog(path) as metrics:
        for step in steps:
            metrics.append(step, {"loss": step / 3})


def steps_of(path):
    return [line["step"] for line in log.read(path)]


def test_lines_are_json_and_there_at_once(path):
    metrics = log.MetricsLog(path)
    metrics.append(np.int64(5), Info(jnp.float32(0.1), np.nan))
    line = path.read_text()
    assert json.loads(line) == {"step": 5, "loss": float(np.float32(0.1)), "accuracy": "NaN"} and line.endswith("}\n")
    metrics.close()


def test_read_gives_floats_back_exactly(path):
    values = {"a": 0.1, "b": 1e-300, "c": math.nan, "d": math.inf, "e": -math.inf, "f": 3, "g": "text", "h": [1.5]}
    with log.MetricsLog(path) as metrics:
        metrics.append(1, values)
    (line,) = log.read(path)
    assert math.isnan(line.pop("c")) and math.isnan(values.pop("c"))
    assert line == {"step": 1, **values}


def test_reopening_appends(path):
    fill(path, [1, 2])
    fill(path, [3])
    assert steps_of(path) == [1, 2, 3]


@pytest.mark.parametrize("cut", ['{"step": 3, "lo', '{"step"', "{", '{"step": 3, "loss": 1', "\x00\x00"])
def test_a_cut_last_line_is_left_out_and_dropped_on_opening(path, cut):
    fill(path, [1, 2])
    with path.open("a") as file:
        file.write(cut)
    assert steps_of(path) == [1, 2]
    fill(path, [3, 4])
    assert steps_of(path) == [1, 2, 3, 4]
    assert len(path.read_text().splitlines()) == 4


def test_a_whole_last_line_without_line_break_is_kept(path):
    path.write_text('{"step": 1}\n{"step": 2}')
    fill(path, [3])
    assert steps_of(path) == [1, 2, 3]


def test_truncate_keeps_up_to_the_step_and_goes_on(path):
    fill(path, [10, 20, 30])
    with path.open("a") as file:
        file.write('{"step": 40, "l')
    with log.MetricsLog(path) as metrics:
        metrics.truncate(20)
        assert steps_of(path) == [10, 20]
        metrics.append(25, {"loss": 1.0})
    assert steps_of(path) == [10, 20, 25]
    assert os.listdir(path.parent) == [path.name]


def test_truncate_keeps_lines_byte_for_byte(path):
    fill(path, [1, 2, 3])
    before = path.read_text().splitlines()
    with log.MetricsLog(path) as metrics:
        metrics.append(4, {"loss": math.nan})
        last = path.read_text().splitlines()[-1]
        metrics.truncate(4)
    assert path.read_text().splitlines() == [*before, last]


def test_truncate_that_fails_leaves_the_old_lines(path, monkeypatch):
    fill(path, [1, 2])
    metrics = log.MetricsLog(path)
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
    with pytest.raises(InputError, match="the disk is full"):
        metrics.truncate(1)
    assert steps_of(path) == [1, 2] and os.listdir(path.parent) == [path.name]


def test_a_broken_line_before_the_last_is_an_error_with_its_number(path):
    path.write_text('{"step": 1}\nhello\n{"step": 2}\n')
    with pytest.raises(InputError, match=r"line 2 of .*metrics.jsonl is not a JSON object with a step; remove"):
        log.read(path)
    path.write_text('{"loss": 1}\n{"step": 2}\n')
    with pytest.raises(InputError, match="line 1"):
        log.MetricsLog(path).truncate(1)


def test_unusable_paths(tmp_path, path):
    with pytest.raises(InputError, match=r"cannot read .*metrics.jsonl: no such file; check the path"):
        log.read(path)
    with pytest.raises(InputError, match="its folder does not exist"):
        log.MetricsLog(tmp_path / "no" / "metrics.jsonl")
    fill(path, [1])
    with pytest.raises(InputError, match="is a file, not a folder"):
        log.MetricsLog(path / "metrics.jsonl")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_while_appending():
    metrics = log.MetricsLog("/dev/full")
    with pytest.raises(InputError, match="/dev/full: the disk is full; free some space"):
        metrics.append(1, {"loss": 1.0})
    metrics.close()


# --- Progress --------------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def run(stream, ticks, **options):
    """Updates at (seconds, step) pairs."""
    clock = Clock()
    with log.Progress(5000, stream=stream, clock=clock, **options) as progress:
        for seconds, step in ticks:
            clock.now = 100.0 + seconds
            progress.update(step, {"loss": jnp.float32(0.0123456), "acc": 0.81})
    return stream.getvalue()


def test_plain_lines_show_metrics_rate_and_remaining_time():
    text = run(io.StringIO(), [(30, 100), (31, 200), (33, 400), (80, 5000)])
    lines = text.splitlines()
    assert lines[0] == "step 100/5000  loss 0.0123  acc 0.81"
    assert (
        lines[1] == "step 400/5000  loss 0.0123  acc 0.81  100 steps/s  eta 46 s"
    )  # not slowed by the 30 s before 100
    assert lines[2] == "step 5000/5000  loss 0.0123  acc 0.81  98 steps/s"
    assert len(lines) == 3


def test_plain_lines_are_throttled_but_the_last_step_is_shown_once():
    ticks = [(0.01 * i, i) for i in range(1, 1001)] + [(10.001, 5000), (10.002, 5000)]
    lines = run(io.StringIO(), ticks, every=2.0).splitlines()
    assert [int(line.split("/")[0].split()[1]) for line in lines][1:] == [201, 401, 601, 801, 5000]


def test_a_resumed_run_counts_its_rate_from_where_it_began():
    text = run(io.StringIO(), [(0, 4000), (30, 4100), (31, 4200)], start=4000, every=0.5)
    assert text.splitlines()[-1].endswith("100 steps/s  eta 8 s")


def test_the_rate_follows_the_recent_updates():
    ticks = [(i, 10 * i) for i in range(1, 50)] + [(50 + i, 490 + 100 * i) for i in range(30)]
    assert "100 steps/s" in run(io.StringIO(), ticks).splitlines()[-1]


@pytest.mark.parametrize(
    "seconds, text", [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")]
)
def test_remaining_time_in_words(seconds, text):
    assert log._duration(seconds) == text


def test_slow_steps_keep_their_digits_and_odd_metrics_are_shown():
    clock, stream = Clock(), io.StringIO()
    progress = log.Progress(10, stream=stream, clock=clock, every=0)
    for step in (1, 2):
        clock.now += 40
        progress.update(step, {"loss": math.nan, "note": "ok"})
    assert stream.getvalue().splitlines()[-1] == "step 2/10  loss NaN  note ok  0.025 steps/s  eta 5 min 20 s"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_a_bar_and_is_given_back(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    text = run(Terminal(), [(1, 100), (2, 200), (52, 5000)])
    assert "step 5000/5000" in text and "━" in text and "loss 0.0123" in text and "steps/s" in text
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1  # the cursor is hidden, then shown again


def test_a_dumb_terminal_gets_plain_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    assert run(Terminal(), [(1, 100)]).startswith("step 100/5000  loss")


def test_progress_writes_to_standard_output(capsys):
    with log.Progress(10) as progress:
        progress.update(10)
    captured = capsys.readouterr()
    assert captured.out == "step 10/10\n" and captured.err == ""


def test_rich_is_not_imported_for_plain_lines():
    code = "from kipjax.io import log; log.Progress(1).update(1); import sys; print('rich' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "step 1/1\nFalse\n"
