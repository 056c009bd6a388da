"""What machines do to runs: killed at any moment, no room, no right to write, odd names, zones and clocks."""

import contextlib
import importlib
import json
import multiprocessing
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

import kipjax
from experiments import trainer
from kipjax.io import log

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = "configs/kip/digits.py:tiny"
KILLS = 20


def tiny(**changes):
    config = importlib.import_module("configs.kip.digits").get_config("tiny")
    config.evaluation.update(seeds=1, full_size=0)
    config.update_from_flattened_dict({"log_every": 5, "checkpoint_every": 5, **changes})
    return config


def outcome(folder):
    """What a run leaves that must not depend on what happened to it."""
    made = kipjax.load(folder / "distilled.npz").distilled
    return made.x.tobytes(), made.y.tobytes(), (folder / "metrics.jsonl").read_bytes()


def cli(*flags, **environment):
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(ROOT / ".jax_cache")} | environment
    command = [sys.executable, "-m", "experiments.distill", f"--config={CONFIG}", *flags]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True)


# --- kills -----------------------------------------------------------------------------------------------------------


def life(steps, folder):
    """A run in a process of its own, from wherever the one before was killed."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        trainer.run(tiny(steps=steps), str(folder), resume=True)


def unfinished(folder):
    return list((folder / "checkpoints").glob("*.orbax-checkpoint-tmp"))


def size(path):
    return path.stat().st_size if path.exists() else 0


def until(condition, process):
    deadline = time.monotonic() + 120
    while not condition() and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.0002)


@pytest.mark.slow
def test_killed_at_twenty_moments_it_ends_bit_for_bit_like_the_uninterrupted_run(tmp_path, monkeypatch):
    """At the start, between steps, and inside the write of a checkpoint, whose unfinished folder is then there."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".jax_cache"))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["experiments.trainer"])
    folder, seed, inside = tmp_path / "cut", time.time_ns(), 0
    rng = random.Random(seed)
    print(f"moments drawn from seed {seed}")  # shown where the test fails
    for number in range(KILLS):
        process = context.Process(target=life, args=(3000, folder))
        process.start()
        moment, before = ("start", "steps", "write", "write")[number % 4], size(folder / "metrics.jsonl")
        if moment == "start":
            time.sleep(rng.uniform(0, 2))
        else:
            until(lambda before=before: size(folder / "metrics.jsonl") > before, process)
            time.sleep(rng.uniform(0, 0.1))
        if moment == "write":
            until(lambda: not unfinished(folder), process)
            until(lambda: unfinished(folder), process)
            time.sleep(rng.uniform(0, 0.003))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        assert process.exitcode == -signal.SIGKILL, f"life {number} ended before it was killed"
        inside += bool(unfinished(folder))
    last = context.Process(target=life, args=(3000, folder))
    last.start()
    last.join()
    assert last.exitcode == 0 and inside >= KILLS // 5
    trainer.run(tiny(steps=3000), str(tmp_path / "whole"))
    assert outcome(folder) == outcome(tmp_path / "whole")


# --- disks -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path):
    """A file system of a megabyte, as a folder and a function that mounts it again with other options."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        return subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True)

    try:
        refused = mount("size=1m").returncode
    except OSError:
        refused = True
    if refused:
        pytest.skip("mounting a file system needs root; tests/io/test_checkpoint.py limits the size of files instead")
    yield folder, mount
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_on_a_full_disk_it_says_so_and_goes_on_once_there_is_room(disk, tmp_path):
    folder, _ = disk
    trainer.run(tiny(steps=5), str(folder / "run"))
    with open(folder / "filler", "wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(4096))
    before = kipjax.load(folder / "run" / "distilled.npz").distilled.x
    done = cli("--config.steps=20", *FIELDS, f"--workdir={folder / 'run'}", "--resume")
    error = done.stderr.decode()
    assert done.returncode in (2, 4) and "disk is full; free some space" in error and "Traceback" not in error
    assert (folder / "run" / "checkpoints" / "5").is_dir()
    assert kipjax.load(folder / "run" / "distilled.npz").distilled.x.tobytes() == before.tobytes()
    (folder / "filler").unlink()
    trainer.run(tiny(steps=20), str(folder / "run"), resume=True)
    trainer.run(tiny(steps=20), str(tmp_path / "whole"))
    assert outcome(folder / "run") == outcome(tmp_path / "whole")


FIELDS = ["--config.log_every=5", "--config.checkpoint_every=5"]
FIELDS += ["--config.evaluation.seeds=1", "--config.evaluation.full_size=0"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["new", "resumed"])
def test_a_folder_that_cannot_be_written_is_said_at_once(kind, disk):
    folder, mount = disk
    if kind == "resumed":
        trainer.run(tiny(steps=5), str(folder / "run"))
    mount("remount,ro")
    flags = ["--config.steps=10", "--resume"] if kind == "resumed" else []
    assert "ead-only" in refusal(folder / "run", *flags)


@pytest.mark.slow
@pytest.mark.skipif(
    os.geteuid() == 0, reason="root may write to any folder; a file system is mounted read-only instead"
)
@pytest.mark.parametrize("kind", ["new", "resumed"])
def test_a_folder_without_the_right_to_write_is_said_at_once(kind, tmp_path):
    if kind == "resumed":
        trainer.run(tiny(steps=5), str(tmp_path / "run"))
    folders = [tmp_path, *(path for path in tmp_path.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    flags = ["--config.steps=10", "--resume"] if kind == "resumed" else []
    try:
        assert "permission denied" in refusal(tmp_path / "run", *flags).lower()
    finally:
        for folder in folders:
            folder.chmod(0o755)


def refusal(workdir, *flags):
    """What a run says that cannot write there, in two lines at most."""
    done = cli(*FIELDS, *flags, f"--workdir={workdir}")
    error = done.stderr.decode()
    assert done.returncode in (2, 4) and "Traceback" not in error and len(error.strip().splitlines()) <= 2
    assert "choose a" in error
    return error


# --- names, zones and clocks -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_terminal_without_unicode_and_a_far_time_zone_change_nothing(tmp_path):
    """The table has a plus-minus sign, which such a terminal cannot show."""
    odd = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii:strict"}
    fields = [field.replace("evaluation.seeds=1", "evaluation.seeds=2") for field in FIELDS]
    done = cli(*fields, "--config.steps=10", f"--workdir={tmp_path / 'odd'}", TZ="Pacific/Kiritimati", **odd)
    assert done.returncode == 0, done.stderr
    assert b" ? " in done.stdout and done.stdout.isascii()
    trainer.run(tiny(steps=10), str(tmp_path / "plain Läufe 凉鞋 [1]"))
    assert outcome(tmp_path / "odd") == outcome(tmp_path / "plain Läufe 凉鞋 [1]")


def test_a_clock_that_runs_backwards_and_jumps_between_runs_changes_nothing(tmp_path, monkeypatch):
    trainer.run(tiny(steps=10), str(tmp_path / "plain"))
    now, start = time.time, time.time()
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: 2 * start - now())
        trainer.run(tiny(steps=5), str(tmp_path / "odd"))
        patch.setattr(time, "time", lambda: 1e6 - now() + start)
        trainer.run(tiny(steps=10), str(tmp_path / "odd"), resume=True)
    assert outcome(tmp_path / "odd") == outcome(tmp_path / "plain")
    assert json.loads((tmp_path / "odd" / "summary.json").read_text())["seconds"] > 0
    assert [line["step"] for line in log.read(tmp_path / "odd" / "metrics.jsonl")] == [5, 10]
