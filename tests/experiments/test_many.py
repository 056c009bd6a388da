"""Several devices, processes and seeds give what one gives; a run that is stopped, or loses a process, says so."""

import contextlib
import functools
import importlib
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from typing import NamedTuple

import jax
import ml_collections
import numpy as np
import pytest

import kipjax
from experiments import build, interruption, trainer
from kipjax import checks, methods
from kipjax.io import log

ROOT = pathlib.Path(__file__).parents[2]
FLAGS = [
    "--config=configs/kip/digits.py:tiny",
    "--config.batch.size=100",
    "--config.steps=12",
    "--config.checkpoint_every=6",
    "--config.evaluation.full_size=0",
]


def load(path, **changes):
    config = importlib.import_module(path.removesuffix(".py").replace("/", ".")).get_config("tiny")
    config.update_from_flattened_dict(changes)
    return config


# The driver, with two more metrics: checksums of the batch of each step and of its key. Sums of whole numbers, which
# are the same in any order, so that they can be compared exactly.
WITNESSED = """
import collections, jax, jax.numpy as jnp
from experiments import build, cli, distill

experiment = build.experiment


def checksum(*arrays):
    bits = jnp.concatenate([jax.lax.bitcast_convert_type(a, jnp.uint32).reshape(-1) for a in arrays])
    return (bits * (jnp.arange(len(bits), dtype=jnp.uint32) * 2 + 1) * jnp.uint32(2654435761)).sum(dtype=jnp.uint32)


def witnessed(config):
    made = experiment(config)

    def step(key, state, batch):
        state, info = made.method.step(key, state, batch)
        seen = {"batch": checksum(batch.x, batch.y), "key": checksum(jax.random.key_data(key))}
        return state, collections.namedtuple("Info", [*info._fields, *seen])(*info, **seen)

    return made._replace(method=made.method._replace(step=step))


build.experiment = witnessed
cli.run(distill.main)
"""


def start(*flags, devices=1, program=("-m", "experiments.distill"), x64="0", **options):
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".jax_cache"),
        "JAX_ENABLE_X64": x64,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    command = [sys.executable, *program, *flags]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def together(count, *flags, own=((),) * 4, **options):
    """So many processes of one program over loopback; ``own`` has a further flag of each."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    shared = [f"--coordinator=localhost:{port}", f"--num_processes={count}"]
    return [start(*flags, *shared, f"--process_id={i}", *own[i], **options) for i in range(count)]


def finished(processes, timeout=300):
    texts = [process.communicate(timeout=timeout) for process in processes]
    assert [p.returncode for p in processes] == [0] * len(processes), texts
    return texts


def wait_for(path, process, seconds=120):
    deadline = time.monotonic() + seconds
    while not (path.exists() and path.stat().st_size) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert path.exists() and process.poll() is None, process.communicate()


def losses(folder):
    return [line["loss"] for line in log.read(folder / "metrics.jsonl")]


def apart(x, expected):
    """The difference of two sets, by the size of the second; of single pixels see ``close``."""
    return np.linalg.norm(np.subtract(x, expected)) / np.linalg.norm(expected)


def close(x, expected, within=1e-6):
    """Equal to 1e-6 of the whole set. Single pixels are not: Adam divides a gradient by its size, so where that is next
    to nothing the order of a sum over targets decides, and a step moves the pixel by up to the learning rate, 0.04.
    """
    assert apart(x, expected) <= within
    np.testing.assert_allclose(x, expected, atol=10 * within)


def agree(found, expected, within=1e-6):
    """Two artifacts: what is learned as ``close`` says, the rest exactly."""
    close(found.distilled.x, expected.distilled.x, within)
    learned = expected.meta["label_convention"] == "learned"
    (close if learned else np.testing.assert_array_equal)(found.distilled.y, expected.distilled.y)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found.distilled.lr, expected.distilled.lr)
    jax.tree.map(np.testing.assert_array_equal, found.preprocess, expected.preprocess)


def outcome(folder):
    """What a run leaves that must not depend on what happened to it."""
    made = kipjax.load(folder / "distilled.npz").distilled
    return made.x.tobytes(), made.y.tobytes(), (folder / "metrics.jsonl").read_bytes()


def goes_on(folder, whole, *flags):
    """Two processes end a run of two that was cut off like one that was not."""
    done = max((int(path.name) for path in (folder / "checkpoints").iterdir() if path.name.isdigit()), default=0)
    flags = [*flags, f"--config.steps={done + 60}"]
    out = finished(together(2, *flags, f"--workdir={folder}", "--resume"))[0][0]
    assert (f"resuming at step {done} of" if done else "no checkpoint yet") in out
    finished(together(2, *flags, f"--workdir={whole}"))
    assert outcome(folder) == outcome(whole)


@contextlib.contextmanager
def told_to_stop_after(stretches):
    """A run in here is told to stop after so many stretches."""
    with pytest.MonkeyPatch.context() as patch:
        told = iter([*[False] * (stretches - 1), True])
        patch.setattr(interruption.Watch, "told", lambda self: next(told))
        yield


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    finished([start(*FLAGS, f"--workdir={folder}")])
    return folder


RUNS = {
    "kip": FLAGS,
    "kip, two seeds": [*FLAGS, "--config.num_seeds=2", "--config.steps=6"],
    "dm": [
        "--config=configs/dm/images.py:tiny",
        "--config.data.name=digits",
        "--config.batch.size=8",
        "--config.steps=2",
    ],
    "dd": ["--config=configs/dd/digits.py:tiny", "--config.steps=2"],
    "kip, divided": [*FLAGS, "--config.data_on=divided", "--config.steps=6"],
    "kip, labels": [*FLAGS, "--config.method.learn_labels=True", "--config.steps=6"],
    "kip, pooling": [
        "--config=configs/kip/digits_conv.py:tiny",
        "--config.kernel.name=convpool1",
        "--config.batch.size=40",
        "--config.steps=2",
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "counts"), [(name, (2, 4) if name == "kip" else (2,)) for name in RUNS])
def test_processes_over_loopback_agree_with_one(name, counts, tmp_path):
    """The seeds and the batches of each step exactly, what is computed from them to 1e-6.

    With pooling the losses too; its images end 5.6e-6 apart, in single pixels 1.1e-4, where either run is 1.4e-3 off
    that in float64.
    """
    flags, program = [*RUNS[name], "--config.log_every=1"], ["-c", WITNESSED]
    finished([start(*flags, f"--workdir={tmp_path / '1'}", program=program)])
    alone = log.read(tmp_path / "1" / "metrics.jsonl")
    assert len({line["batch"] for line in alone}) == len({line["key"] for line in alone}) == len(alone) > 1
    for count in counts:
        folder = tmp_path / str(count)
        texts = finished(together(count, *flags, f"--workdir={folder}", program=program))
        lines = log.read(folder / "metrics.jsonl")
        for field in ("step", "batch", "key"):
            assert [line[field] for line in lines] == [line[field] for line in alone]
        np.testing.assert_allclose(losses(folder), losses(tmp_path / "1"), rtol=1e-6)
        paths = sorted((tmp_path / "1").glob("distilled*.npz"))
        assert len(paths) == 1 + (name == "kip, two seeds")
        for one, many in ((kipjax.load(path), kipjax.load(folder / path.name)) for path in paths):
            agree(many, one, 1e-4 if name == "kip, pooling" else 1e-6)
            assert all(many.meta[field] == one.meta[field] for field in ("seed", "steps", "data_fingerprint"))
        assert "test accuracy" in texts[0][0] and not any("test accuracy" in out for out, _ in texts[1:])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "steps", "tolerance"), [("dm", 4, 1e-12), ("kip, pooling", 2, 1e-9)])
def test_processes_differ_from_one_by_rounding_alone(name, steps, tolerance, tmp_path):
    """In float32 DM's images end 1.6e-6 apart after four steps, and either run is 2e-6 off that in float64.

    With pooling Adam divides gradients next to nothing by their size: the images agree to 1e-10.
    """
    flags = [*RUNS[name], f"--config.steps={steps}", "--config.log_every=1"]
    finished([start(*flags, f"--workdir={tmp_path / '1'}", x64="1")])
    finished(together(2, *flags, f"--workdir={tmp_path / '2'}", x64="1"))
    one, two = (kipjax.load(tmp_path / name / "distilled.npz").distilled.x for name in "12")
    assert one.dtype == np.float64 and apart(two, one) < tolerance
    np.testing.assert_allclose(losses(tmp_path / "2"), losses(tmp_path / "1"), rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("where", "devices"), [("each", 1), ("host", 1), ("divided", 1), ("divided", 2)])
def test_label_solve_adds_its_normal_matrix_up_over_processes(where, devices, tmp_path):
    parts = ["--config.batch.kind=in_order", "--config.batch.size=400", "--config.data.train_size=1200"]
    parts += ["--config.steps=3", "--config.method.accumulate=3", "--config.evaluation.full_size=0"]
    flags = ["--config=configs/label_solve/digits.py:tiny", *parts, f"--config.data_on={where}"]
    finished([start(*flags, f"--workdir={tmp_path / 'one'}")])
    finished(together(2, *flags, f"--workdir={tmp_path / 'two'}", devices=devices))
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), rtol=1e-6)
    one, two = (kipjax.load(tmp_path / name / "distilled.npz").distilled for name in ("one", "two"))
    np.testing.assert_array_equal(two.x, one.x)
    np.testing.assert_allclose(two.y, one.y, rtol=1e-6, atol=1e-6)


EIGHT = """
import importlib, jax, numpy as np
from experiments import build
from kipjax.core import loop

assert len(jax.devices()) == 8
for path, changes in {
    "configs.kip.digits": {"batch.size": 80, "method.block_size": 16},
    "configs.label_solve.digits": {"data.train_size": 800, "method.block_size": 80},
}.items():
    found = {}
    for count in (1, 2, 4, 8):
        config = importlib.import_module(path).get_config("tiny")
        config.update_from_flattened_dict({**changes, "devices": count})
        experiment = build.experiment(config)
        batch = jax.device_get(jax.jit(lambda s, key: s(key))(experiment.sample, jax.random.key(7)))
        run = jax.jit(loop.steps(experiment.method, 2))
        state, infos = run(experiment.sample, jax.random.key(0), experiment.method.init(None, experiment.start), 0)
        found[count] = batch, jax.device_get(infos), jax.device_get(experiment.method.distilled(state))[:2]
    for count in (2, 4, 8):
        jax.tree.map(np.testing.assert_array_equal, found[count][0], found[1][0])
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found[count][1], found[1][1])
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found[count][2], found[1][2])
print("same")
"""


@pytest.mark.slow
def test_eight_devices_draw_the_batches_of_one_and_agree_with_it():
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    run = [sys.executable, "-c", EIGHT]
    done = subprocess.run(run, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "same", done.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("counts", [(2, 1), (1, 2)], ids=str)
def test_a_run_goes_on_from_a_checkpoint_of_another_number_of_processes(counts, alone, tmp_path):
    for count, steps in zip(counts, (6, 12)):
        flags = [*FLAGS, f"--config.steps={steps}", f"--workdir={tmp_path}", *["--resume"] * (steps == 12)]
        texts = finished(together(count, *flags) if count > 1 else [start(*flags)])
    assert "resuming at step 6 of 12" in texts[0][0]
    np.testing.assert_allclose(losses(tmp_path), losses(alone), rtol=1e-6)
    agree(*(kipjax.load(folder / "distilled.npz") for folder in (tmp_path, alone)))


@pytest.mark.slow
@pytest.mark.parametrize("dead", [0, 1])
def test_when_a_process_is_killed_the_other_says_so_and_stops(dead, tmp_path):
    """Checkpoints are written all the time; the first process is the one that holds the program together."""
    flags = [*FLAGS, "--config.log_every=60", "--config.checkpoint_every=60"]
    processes = together(2, *flags, "--config.steps=100000000", f"--workdir={tmp_path / 'cut'}")
    wait_for(tmp_path / "cut" / "metrics.jsonl", processes[0])
    processes[dead].kill()
    out, error = processes[1 - dead].communicate(timeout=60)
    processes[dead].communicate()
    assert processes[1 - dead].returncode == 5, (out, error)
    said = error.strip().splitlines()[-1]
    assert "another process is gone" in said and "--resume" in said and "Traceback" not in error
    goes_on(tmp_path / "cut", tmp_path / "whole", *flags)


@pytest.mark.slow
def test_what_one_process_was_told_or_cannot_do_ends_both(tmp_path):
    """The configs differ; then the first alone finds a run in the folder."""
    processes = together(2, *FLAGS, f"--workdir={tmp_path}")
    finished(processes)
    with_other = together(2, *FLAGS, f"--workdir={tmp_path / 'new'}", own=([], ["--config.seed=7"]))
    for process in with_other:
        _, error = process.communicate(timeout=120)
        assert process.returncode == 2
        assert "process 1 has config.seed 7 and process 0 0; start all processes alike" in error
    assert not (tmp_path / "new").exists()
    again = together(2, *FLAGS, f"--workdir={tmp_path}")
    texts = [process.communicate(timeout=120)[1] for process in again]
    assert [process.returncode for process in again] == [2, 5]
    assert "already holds a run" in texts[0] and "process 0 has ended (--workdir: " in texts[1]


@pytest.mark.slow
def test_sigterm_to_one_of_two_processes_saves_and_stops_both(tmp_path):
    flags, cut = [*FLAGS, "--config.log_every=60", "--config.checkpoint_every=60000000"], tmp_path / "cut"
    processes = together(2, *flags, "--config.steps=100000000", f"--workdir={cut}")
    wait_for(cut / "metrics.jsonl", processes[0])
    processes[1].send_signal(signal.SIGTERM)
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [75, 75], errors
    step = int(errors[0].split("saved at step ")[1].split(",")[0])
    assert step % 60 == 0 and (cut / "checkpoints" / str(step)).is_dir() and f"saved at step {step}," in errors[1]
    goes_on(cut, tmp_path / "whole", *flags)


# The driver, which stays for a while in the function NAME of OWNER, and says when it is there.
PAUSED = """
import time
from experiments import build, cli, distill, report
from kipjax.io import checkpoint

real = OWNER.NAME


def paused(*args, **options):
    print("there", flush=True)
    time.sleep(4)
    return real(*args, **options)


OWNER.NAME = paused
cli.run(distill.main)
"""


def paused_in(owner, name):
    return ["-c", PAUSED.replace("OWNER", owner).replace("NAME", name)]


def wait_until_there(process):
    assert any(line == "there\n" for line in process.stdout), process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "stage", "words"),
    [
        (1, ("build", "experiment"), "told to stop; before the first step"),
        (1, ("checkpoint.Checkpointer", "close"), "told to stop; saved at step 12"),
        (1, ("report", "evaluate"), "told to stop; saved at step 12"),
        (2, ("build", "experiment"), "told to stop; before the first step"),
    ],
    ids=str,
)
def test_sigterm_is_heard_in_every_stage_of_a_run(count, stage, words, alone, tmp_path):
    flags = [*FLAGS, f"--workdir={tmp_path}"]
    begin = functools.partial(together, count) if count > 1 else lambda *flags, **options: [start(*flags, **options)]
    processes = begin(*flags, program=paused_in(*stage))
    for process in processes:
        wait_until_there(process)
    for process in processes:
        process.send_signal(signal.SIGTERM)
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [75] * count, errors
    assert all(words in error and "Traceback" not in error for error in errors)
    assert not (tmp_path / "summary.json").exists()
    finished(begin(*flags, "--resume"))
    agree(*(kipjax.load(folder / "distilled.npz") for folder in (tmp_path, alone)))


@pytest.mark.slow
def test_a_second_run_in_the_folder_of_a_live_one_is_refused(tmp_path):
    live = start(*FLAGS, f"--workdir={tmp_path}", program=paused_in("report", "write"))
    wait_until_there(live)
    live.send_signal(signal.SIGSTOP)
    second = start(*FLAGS, f"--workdir={tmp_path}", "--resume")
    _, error = second.communicate(timeout=120)
    assert second.returncode == 2 and f"a run is writing in {tmp_path}; wait for its end" in error
    live.kill()
    live.communicate()
    finished([start(*FLAGS, f"--workdir={tmp_path}", "--resume")])


# The driver, whose numbers are not finite once.
DIVERGES = """
from experiments import cli, distill, trainer

find, seen = trainer._first_not_finite, []


def diverges_once(config, infos, step):
    if step == 8 and not seen:
        seen.append(step)
        return "loss not finite at step 9"
    return find(config, infos, step)


trainer._first_not_finite = diverges_once
cli.run(distill.main)
"""


@pytest.mark.slow
def test_two_processes_go_back_together_with_half_the_rate(alone, tmp_path):
    flags, program = [*FLAGS, "--on_divergence=rollback"], ["-c", DIVERGES]
    finished([start(*flags, f"--workdir={tmp_path / '1'}", program=program)])
    out = finished(together(2, *flags, f"--workdir={tmp_path / '2'}", program=program))[0][0]
    assert "going back to it once, with half the learning rate" in out and "resuming at step 6 of 12" in out
    np.testing.assert_allclose(losses(tmp_path / "2"), losses(tmp_path / "1"), rtol=1e-6)
    assert losses(tmp_path / "1")[:3] == losses(alone)[:3] and losses(tmp_path / "1")[3:] != losses(alone)[3:]
    agree(*(kipjax.load(tmp_path / name / "distilled.npz") for name in "21"))


@pytest.mark.slow
def test_sigterm_saves_and_the_resumed_run_is_the_uninterrupted_one(tmp_path):
    flags = [*FLAGS, "--config.steps=3000", "--config.log_every=30", "--config.checkpoint_every=3000"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    process = start(*flags, f"--workdir={cut}")
    wait_for(cut / "metrics.jsonl", process)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=120)
    assert process.returncode == 75, error
    step = int(error.split("saved at step ")[1].split(",")[0])
    assert step < 3000 and step % 30 == 0 and "go on with --resume" in error
    assert (cut / "checkpoints" / str(step)).is_dir()
    finished([start(*flags, f"--workdir={cut}", "--resume")])
    finished([start(*flags, f"--workdir={whole}")])
    a, b = (kipjax.load(folder / "distilled.npz").distilled.x for folder in (whole, cut))
    np.testing.assert_array_equal(a, b)
    assert (whole / "metrics.jsonl").read_bytes() == (cut / "metrics.jsonl").read_bytes()


@pytest.mark.skipif(jax.device_count() < 4, reason="needs four devices; tests force four CPU devices")
@pytest.mark.parametrize(
    ("path", "changes"),
    [
        ("configs/kip/digits.py", {"batch.size": 40, "steps": 2}),
        ("configs/kip/digits.py", {"batch.size": 40, "steps": 2, "method.block_size": 16}),
        ("configs/label_solve/digits.py", {"method.block_size": 64, "batch.kind": "class_balanced", "batch.size": 400}),
        pytest.param("configs/rcig/digits.py", {"batch.size": 20, "steps": 2}, marks=pytest.mark.slow),
        ("configs/kip/digits.py", {"batch.kind": "all", "data.train_size": 203, "steps": 2, "method.block_size": 16}),
    ],
)
def test_devices_agree_with_one(path, changes, tmp_path):
    found = {}
    for count in (1, 2, 4):
        config = load(path, **changes, devices=count)
        experiment = build.experiment(config)
        assert (experiment.mesh is None) == (count == 1)
        state = trainer.train(config, experiment, str(tmp_path / str(count)), resume=False)[0][0]
        found[count] = (jax.device_get(experiment.method.distilled(state)), losses(tmp_path / str(count)))
    for count in (2, 4):
        np.testing.assert_allclose(found[count][1], found[1][1], rtol=1e-5)
        assert apart(found[count][0].x, found[1][0].x) < 1e-6
        assert apart(found[count][0].y, found[1][0].y) < 1e-6


def work(jaxpr):
    """Numbers that a program computes on each device: loops as often as they run, pieces inside shard_map alone."""
    total = 0
    for equation in jaxpr.eqns:
        inner = [work(part) for part in jax.core.jaxprs_in_params(equation.params)]
        times = equation.params["length"] if equation.primitive.name == "scan" else 1
        total += times * sum(inner) if inner else sum(np.prod(out.aval.shape) for out in equation.outvars)
    return total


@pytest.mark.skipif(jax.device_count() < 4, reason="needs four devices; tests force four CPU devices")
@pytest.mark.parametrize(
    "changes",
    [{}, *(pytest.param(more, marks=pytest.mark.slow) for more in ({"method.block_size": 16}, {"num_seeds": 2}))],
    ids=str,
)
def test_devices_share_the_tiles_of_a_kernel_with_pooling(changes, tmp_path):
    found, planned = {}, {}
    for count in (1, 4):
        options = {"kernel.name": "convpool1", "batch.size": 40, "steps": 2, **changes, "devices": count}
        config = load("configs/kip/digits_conv.py", **options)
        experiment = build.experiment(config)
        state, batch = jax.eval_shape(
            lambda e=experiment: (e.method.init(jax.random.key(0), e.start), e.sample(jax.random.key(0)))
        )
        planned[count] = work(jax.make_jaxpr(experiment.method.step)(jax.random.key(0), state, batch).jaxpr)
        states, _ = trainer.train(config, experiment, str(tmp_path / str(count)), resume=False)
        found[count] = [experiment.method.distilled(one).x for one in states], losses(tmp_path / str(count))
    assert planned[4] < 0.4 * planned[1]
    np.testing.assert_allclose(found[4][1], found[1][1], rtol=1e-5)
    assert apart(found[4][0], found[1][0]) < 1e-4


PLACES = {
    "kip": ("configs/kip/digits.py", {"batch.size": 40, "steps": 5}),
    "kip, two seeds": ("configs/kip/digits.py", {"batch.size": 40, "steps": 4, "num_seeds": 2}),
    "kip, all": ("configs/kip/digits.py", {"batch.kind": "all", "data.train_size": 401, "method.block_size": 64}),
    "dm": ("configs/dm/images.py", {"data.name": "digits", "batch.size": 8, "steps": 2}),
    "label_solve": (
        "configs/label_solve/digits.py",
        {"batch.kind": "in_order", "batch.size": 400, "data.train_size": 1200, "steps": 3, "method.accumulate": 3},
    ),
}


@pytest.mark.slow
@pytest.mark.skipif(jax.device_count() < 4, reason="needs four devices; tests force four CPU devices")
@pytest.mark.parametrize("name", PLACES)
def test_targets_on_the_host_or_divided_give_the_run_with_a_copy_on_each_device(name, tmp_path):
    path, changes = PLACES[name]
    found = {}
    for where in ("each", "host", "divided"):
        config, folder = load(path, **changes, devices=4, data_on=where), tmp_path / where
        experiment = build.experiment(config)
        states, _ = trainer.train(config, experiment, str(folder), resume=False)
        found[where] = [jax.device_get(experiment.method.distilled(state)[:2]) for state in states], losses(folder)
    for where in ("host", "divided"):
        np.testing.assert_allclose(found[where][1], found["each"][1], rtol=1e-6)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found[where][0], found["each"][0])


def test_label_solve_over_batches_is_label_solve_at_once(tmp_path):
    """The normal matrix adds up in the state: interrupted between batches, it goes on where it was."""
    whole = load("configs/label_solve/digits.py", **{"data.train_size": 1200})
    trainer.run(whole, str(tmp_path / "whole"))
    parts = load(PLACES["label_solve"][0], **PLACES["label_solve"][1], data_on="host", log_every=1, checkpoint_every=1)
    experiment = build.experiment(parts)
    with told_to_stop_after(2), pytest.raises(interruption.Interrupted):
        trainer.train(parts, experiment, str(tmp_path / "parts"), resume=False)
    state = trainer.train(parts, experiment, str(tmp_path / "parts"), resume=True)[0][0]
    expected = kipjax.load(tmp_path / "whole" / "distilled.npz").distilled.y
    np.testing.assert_allclose(state.y, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data_on": "cloud"}, "choose one of each, divided, host"),
        ({"method.accumulate": 3}, "set --config.batch.kind=in_order, --config.batch.size to 1200 / 3"),
        ({"batch.kind": "in_order", "batch.size": 500}, "accumulate is 1: the 1200 targets must come in order"),
    ],
)
def test_what_cannot_be_streamed_says_what_to_set(changes, words):
    with pytest.raises(checks.InputError, match=words):
        build.experiment(load("configs/label_solve/digits.py", **{"data.train_size": 1200}, **changes))


def test_a_streamed_step_that_does_not_fit_is_refused_with_the_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer.sharding, "free_memory", lambda: 1000)
    with pytest.raises(checks.InputError, match=r"a step needs [\d.]+ [kM]B of memory and 1 kB are free; lower"):
        trainer.run(load("configs/kip/digits.py", data_on="host"), str(tmp_path))


def test_missing_devices_are_refused(tmp_path):
    config = load("configs/kip/digits.py", devices=100)
    with pytest.raises(checks.InputError, match="count is 100"):
        trainer.run(config, str(tmp_path / "b"))


@pytest.mark.slow
def test_several_seeds_at_once_are_the_runs_of_each(tmp_path):
    trainer.run(load("configs/kip/digits.py", num_seeds=2, seed=3), str(tmp_path / "both"))
    summary = json.loads((tmp_path / "both" / "summary.json").read_text())
    assert summary["seeds"] == [3, 4]
    accuracies = []
    for seed in (3, 4):
        trainer.run(load("configs/kip/digits.py", seed=seed), str(tmp_path / str(seed)))
        together, alone = (
            kipjax.load(path)
            for path in (tmp_path / "both" / f"distilled_seed{seed}.npz", tmp_path / str(seed) / "distilled.npz")
        )
        np.testing.assert_allclose(together.distilled.x, alone.distilled.x, atol=1e-5)
        assert together.meta["seed"] == alone.meta["seed"] == seed
        assert (tmp_path / "both" / f"distilled_seed{seed}.png").exists()
        accuracies += json.loads((tmp_path / str(seed) / "summary.json").read_text())["results"][0]["accuracies"]
    np.testing.assert_allclose(summary["results"][0]["accuracies"], accuracies, atol=1e-6)
    trainer.run(load("configs/kip/digits.py"), str(tmp_path / "both"), overwrite=True)
    assert not list((tmp_path / "both").glob("*seed*"))


@pytest.mark.slow
def test_a_diverged_run_goes_back_once_with_half_the_rate(tmp_path, monkeypatch, capsys):
    find, seen, built = trainer._first_not_finite, [], []
    monkeypatch.setattr(build, "slower", lambda *a, real=build.slower: built.append(a[2]) or real(*a))

    def diverges_once(config, infos, step):
        seen.append(step)
        return "loss not finite at step 6" if step == 4 and not built else find(config, infos, step)

    monkeypatch.setattr(trainer, "_first_not_finite", diverges_once)
    config = load("configs/kip/digits.py", log_every=2, checkpoint_every=4, steps=8)
    trainer.run(config, str(tmp_path), on_divergence="rollback")
    assert seen == [0, 2, 4, 4, 6] and built == [0.5]
    printed = capsys.readouterr().out
    assert "loss not finite at step 6" in printed and "resuming at step 4 of 8" in printed
    config.steps = 12  # resumed once more, it stays at half the rate
    trainer.run(config, str(tmp_path), resume=True)
    assert built == [0.5, 0.5] and [line["step"] for line in log.read(tmp_path / "metrics.jsonl")] == [
        2,
        4,
        6,
        8,
        10,
        12,
    ]


class Info(NamedTuple):
    loss: jax.Array
    stopped: jax.Array


def stands_in(monkeypatch, info):
    """Steps that change nothing, with the ``info(number)`` of each, in the place of the compiled ones."""

    def compiled(config, experiment, count):
        return lambda sample, keys, state, first: (
            state,
            jax.tree.map(lambda *values: np.stack(values, axis=-1), *(info(int(first) + i) for i in range(count))),
        )

    monkeypatch.setattr(trainer, "compiled", compiled)


def test_what_is_not_finite_is_said_with_the_first_step_and_the_seed(tmp_path, monkeypatch):
    def info(number):
        return Info(np.array([1.0, np.nan if number >= 3 else 1.0]), np.array([np.nan if number == 5 else 0.0, 0.0]))

    stands_in(monkeypatch, info)
    config = load("configs/kip/digits.py", seed=7, num_seeds=2, log_every=6, checkpoint_every=6, steps=12)
    said = r"distill: loss not finite at step 4 of seed 8; the last good checkpoint is none. Likely a kernel matrix"
    with pytest.raises(interruption.Diverged, match=said):
        trainer.run(config, str(tmp_path))


def test_a_set_of_one_seed_that_is_not_finite_is_named(tmp_path):
    config = load("configs/kip/digits.py", seed=7, num_seeds=2)
    experiment = build.experiment(config)
    state = trainer._first_states(config, experiment)
    spoiled = state._replace(x=state.x.at[1, 0].set(np.nan))
    assert trainer._health(config, experiment, spoiled, 3) == "the distilled set not finite by step 3 of seed 8"


@pytest.mark.parametrize(
    ("name", "updated", "cause"),
    [
        ("kip", False, "a kernel matrix that does not factorise (raise --config.method.reg and solve in float64) or "),
        ("kip", True, "too large a step size (lower --config.method.learning_rate)"),
        ("label_solve", True, "a kernel matrix that does not factorise"),
        ("dc", False, "a network that diverges while it is trained inside a step (lower --config.method.network_learn"),
        ("mtt", False, "a network that diverges while it is trained inside a step (lower --config.method.lr_learning"),
        ("dm", False, "too large a step size (lower --config.method.learning_rate)"),
    ],
)
def test_the_likely_cause_is_of_what_the_method_does(name, updated, cause):
    config = ml_collections.ConfigDict({"method": {"name": name}})
    found = interruption.likely_cause(build.method_options(config), updated=updated)
    assert found.startswith(cause) and ("kernel" in found) == ("kernel" in cause)


def test_every_method_has_a_likely_cause():
    for name in methods.METHODS:
        options = build.method_options(ml_collections.ConfigDict({"method": {"name": name}}))
        assert all(interruption.likely_cause(options, updated=updated) for updated in (False, True)), name


def test_a_method_without_a_rate_to_lower_is_refused_before_the_run(tmp_path):
    with pytest.raises(checks.InputError, match="label_solve has no learning_rate to lower; choose 'stop'"):
        trainer.run(load("configs/label_solve/digits.py"), str(tmp_path / "run"), on_divergence="rollback")
    assert not (tmp_path / "run").exists()


def test_a_run_that_stops_early_says_how_many_steps_it_took_and_takes_no_more(tmp_path, monkeypatch):
    stands_in(monkeypatch, lambda number: Info(np.array(1.0), np.array(float(number >= 3))))
    config = load("configs/kip/digits.py", log_every=2, checkpoint_every=6, steps=12)
    for resume in (False, True):
        trainer.run(config, str(tmp_path), resume=resume)
        assert kipjax.load(tmp_path / "distilled.npz").meta["steps"] == 6
        assert [line["step"] for line in log.read(tmp_path / "metrics.jsonl")] == [2, 4, 6]


def test_steps_may_not_change_where_the_rate_falls_over_all_of_them(tmp_path):
    changes = {"method.decay_steps": -1, "log_every": 2, "checkpoint_every": 2}
    trainer.run(load("configs/kip/digits.py", steps=4, **changes), str(tmp_path))
    trainer.run(load("configs/kip/digits.py", steps=4, **changes), str(tmp_path), resume=True)
    with pytest.raises(checks.InputError, match=r"is of 4 steps and config.steps is 6; the learning rate falls over"):
        trainer.run(load("configs/kip/digits.py", steps=6, **changes), str(tmp_path), resume=True)


def test_a_set_that_is_not_finite_is_no_good_checkpoint(tmp_path):
    """The loss is that before the update, so a single step that ruins the set has a finite one."""
    config = load("configs/kip/digits.py", **{"steps": 1, "log_every": 1, "method.learning_rate": 1e39})
    config.checkpoint_every = 1
    with pytest.raises(interruption.Diverged, match=r"the distilled set not finite by step 1; .* checkpoint is none"):
        trainer.run(config, str(tmp_path))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_state_that_is_not_finite_is_no_good_checkpoint_though_the_set_is(value):
    """Moments of the optimizer that are not finite ruin the first step after the restart."""
    config = load("configs/kip/digits.py")
    experiment = build.experiment(config)
    state = trainer._first_states(config, experiment)
    assert trainer._health(config, experiment, state, 3) == ""
    spoiled = jax.tree.map(lambda leaf: leaf.at[(0,) * leaf.ndim].set(value) if leaf.ndim else leaf, state.opt_state)
    found = trainer._health(config, experiment, state._replace(opt_state=spoiled), 3)
    assert found.startswith("state.opt_state") and found.endswith(" not finite by step 3")


def test_a_single_number_of_a_state_may_be_infinite_but_not_nan():
    """Such as the best loss so far, before there was one."""
    state = {"best": np.float32(np.inf), "all": np.array([1, np.inf])}
    assert trainer._not_finite(state) == ["state['all']"]
    assert trainer._not_finite({"best": np.float32(np.nan), "n": 3}) == ["state['best']"]


def test_a_stretch_that_is_too_long_to_be_told_to_stop_in_says_so_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(interruption, "NOTICE", 1e-6)
    trainer.run(load("configs/kip/digits.py"), str(tmp_path))
    printed = capsys.readouterr().out
    assert printed.count("SIGTERM is heard between them alone") == 1 and "--config.log_every=1" in printed


@pytest.mark.parametrize(
    ("steps", "seconds", "words", "absent"),
    [
        (10, 100, "resume with --config.log_every=1", "checkpoint_every"),
        (1, 20, "one step is too long to end in time, so at most the steps since the last checkpoint are", "log_every"),
        (4, 90, "resume with a lower --config.checkpoint_every and --config.log_every=1", "nothing"),
    ],
)
def test_a_long_stretch_says_what_shortens_it(steps, seconds, words, absent, monkeypatch, capsys):
    times = iter([0, seconds])
    monkeypatch.setattr(interruption.time, "monotonic", lambda: next(times))
    watch = interruption.Watch()
    for _ in range(2):
        watch.after(steps, steps)
    printed = capsys.readouterr().out
    assert words in printed and absent not in printed


@pytest.mark.slow
def test_a_resumed_run_may_have_shorter_stretches(tmp_path):
    trainer.run(load("configs/kip/digits.py", steps=4), str(tmp_path / "cut"))
    trainer.run(load("configs/kip/digits.py", log_every=1), str(tmp_path / "cut"), resume=True)
    trainer.run(load("configs/kip/digits.py"), str(tmp_path / "whole"))
    assert [line["step"] for line in log.read(tmp_path / "cut" / "metrics.jsonl")] == [2, 4, 5, 6]
    cut, whole = (kipjax.load(tmp_path / name / "distilled.npz").distilled.x for name in ("cut", "whole"))
    np.testing.assert_allclose(cut, whole, atol=1e-6)


def test_one_that_diverges_again_stops(tmp_path, capsys):
    config = load("configs/kip/digits.py", **{"method.learning_rate": 1e30})
    with pytest.raises(interruption.Diverged) as caught:
        trainer.run(config, str(tmp_path), on_divergence="rollback")
    assert caught.value.rolled_back and "going back to it once" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("coordinator", "words"),
    [([], "go together; pass all or none"), (["--coordinator=auto"], "auto finds the other two out; leave them")],
)
def test_processes_that_do_not_come_together_are_told_how(coordinator, words):
    process = start(*FLAGS, "--workdir=unused", *coordinator, "--num_processes=2", "--process_id=0")
    _, error = process.communicate(timeout=120)
    assert process.returncode == 2 and words in error and "Traceback" not in error
