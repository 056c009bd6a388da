"""A state comes back bit for bit, a kill at any moment leaves a sound checkpoint, and damage has its own line."""

import asyncio
import json
import logging
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import zlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from kipjax.checks import InputError
from kipjax.io import _leaves, checkpoint

ROOT = pathlib.Path(__file__).parents[2]


class State(NamedTuple):
    x: object
    opt: object = None
    key: object = None
    extra: object = None


def make_state(seed=0, m=4):
    key = jax.random.key(seed)
    x = jax.random.normal(key, (m, 3))
    opt = optax.chain(optax.clip(1.0), optax.adam(1e-2))
    grown = opt.update(x, opt.init(x))[1]
    return State(x, grown, key, {"mask": jnp.arange(m) > 1, "nothing": None})


def same(a, b):
    """Equal in structure, kind, dtype, shape, weak type and every bit."""
    is_none = {"is_leaf": lambda leaf: leaf is None}
    if jax.tree.structure(a, **is_none) != jax.tree.structure(b, **is_none):
        return False
    return all(map(_same_leaf, jax.tree.leaves(a, **is_none), jax.tree.leaves(b, **is_none)))


def _same_leaf(a, b):
    if a is None or isinstance(a, bool | int | float | complex):
        return type(a) is type(b) and (a == b or a != a)
    if isinstance(a, jax.Array) != isinstance(b, jax.Array) or a.dtype != b.dtype or a.shape != b.shape:
        return False
    if getattr(a, "weak_type", False) != getattr(b, "weak_type", False):
        return False
    if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
        a, b = jax.random.key_data(a), jax.random.key_data(b)
    return np.asarray(a).tobytes() == np.asarray(b).tobytes()


def save_one(folder, state, step=7, extra=None):
    with checkpoint.open(folder) as checkpointer:
        checkpointer.save(step, state, extra)


def restore(folder, template):
    with checkpoint.open(folder) as checkpointer:
        return checkpointer.restore(template)


def error_of(folder, template):
    """The text of the InputError of a restore, which must be one line."""
    with pytest.raises(InputError) as caught:
        restore(folder, template)
    text = str(caught.value)
    assert "\n" not in text and len(text) < 600
    return text


# --- round trips -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("background", [True, False])
def test_round_trip_of_an_optimizer_state(tmp_path, background):
    state = make_state()
    with checkpoint.open(tmp_path, background=background) as checkpointer:
        checkpointer.save(3, state, {"best": 0.1, "note": "凉鞋"})
        if not background:
            assert os.path.isdir(tmp_path / "3")
    got = restore(tmp_path, make_state(seed=1))
    assert got.step == 3 and got.extra == {"best": 0.1, "note": "凉鞋"}
    assert same(got.state, state)
    assert not same(got.state, make_state(seed=1))


def leaves_of_every_kind():
    with jax.enable_x64(True):
        wide = [jnp.arange(3) / 3, jnp.arange(3), jnp.array([1j])]
    special = np.array([np.nan, -np.nan, np.inf, -0.0, 1e-45], np.float32)
    return {
        "wide": wide,
        "special": jnp.asarray(special),
        "numpy": [np.arange(3.0), np.float64(0.1), np.arange(4, dtype=np.uint8).reshape(2, 2).T, np.array(True)],
        "narrow": [jnp.ones(2, jnp.bfloat16), jnp.ones(2, jnp.float16), jnp.ones(2, jnp.int8)],
        "weak": [jnp.asarray(1.5), jnp.full((2,), 0.25), jnp.asarray(3)],
        "empty": [jnp.zeros((0, 3)), np.zeros((2, 0), np.int64)],
        "numbers": [7, -0.1, True, 2j, float("inf"), -(2**63)],
        "none": None,
        "keys": [jax.random.key(1), jax.random.split(jax.random.key(2, impl="rbg"), (2, 3)), jax.random.PRNGKey(3)],
        "odd/name.with [brackets]": {"": jnp.ones(1), "3": [jnp.zeros(1)]},
    }


def test_leaves_of_every_kind_come_back_as_they_were(tmp_path):
    state = leaves_of_every_kind()
    save_one(tmp_path, state)
    template = jax.tree.map(lambda leaf: leaf, state)
    got = restore(tmp_path, template).state
    for name in state:
        assert same(got[name], state[name]), name


def test_a_restored_state_does_not_compile_again(tmp_path):
    step = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state))
    state = step((jnp.zeros(3), jnp.full((2,), 0.5), 1))
    save_one(tmp_path, state)
    step(state)
    before = step._cache_size()
    step(restore(tmp_path, state).state)
    assert step._cache_size() == before


@pytest.mark.parametrize("state", [jnp.ones(3), {}, (), None, {"only": None}, [np.zeros((0,))]])
def test_tiny_states(tmp_path, state):
    save_one(tmp_path, state)
    assert same(restore(tmp_path, state).state, state)


def test_a_template_of_shapes_is_enough(tmp_path):
    state = make_state()
    save_one(tmp_path, state)
    template = jax.eval_shape(make_state)
    assert same(restore(tmp_path, template).state, state)


def test_restored_arrays_keep_the_template_sharding(tmp_path):
    mesh = jax.make_mesh((len(jax.devices()),), ("i",))
    split = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("i"))
    state = jax.device_put(jnp.arange(8.0), split)
    save_one(tmp_path, state)
    got = restore(tmp_path, state).state
    assert got.sharding == split and same(got, state)
    assert not restore(tmp_path, jnp.arange(8.0)).state.committed


def test_the_state_may_be_donated_or_changed_right_after_save(tmp_path):
    state = {"jax": jnp.arange(200_000.0), "numpy": np.arange(200_000.0)}
    expected = jax.tree.map(np.array, state)
    double = jax.jit(lambda x: 2 * x, donate_argnums=0)
    with checkpoint.open(tmp_path, background=True) as checkpointer:
        checkpointer.save(1, state)
        state["numpy"] *= 2
        state["jax"] = double(state["jax"]).block_until_ready()
        got = checkpointer.restore(state).state
    assert all(np.array_equal(got[name], expected[name]) for name in expected)


def test_save_returns_before_the_step_is_on_the_disk(tmp_path, monkeypatch):
    """The writer is held up where it gives the finished step its name."""
    reached, release, rename = threading.Event(), threading.Event(), os.rename

    def held_up(*paths, **options):
        reached.set()
        release.wait(10)
        rename(*paths, **options)

    monkeypatch.setattr(os, "rename", held_up)
    with checkpoint.open(tmp_path, background=True) as checkpointer:
        checkpointer.save(1, make_state())
        assert reached.wait(10) and not (tmp_path / "1").exists()
        release.set()
        checkpointer.wait()
        assert (tmp_path / "1").is_dir()
    assert same(restore(tmp_path, make_state(1)).state, make_state())


def test_what_is_handed_to_the_writer_shares_no_memory_with_the_state():
    state = {"jax": jnp.arange(9.0), "numpy": np.arange(9.0)}
    for part in (state, state["jax"], state["numpy"]):
        content, _ = _leaves.encode(part)
        assert not any(np.shares_memory(content, np.asarray(leaf)) for leaf in state.values())


def test_inside_a_running_event_loop_as_in_a_notebook(tmp_path):
    async def cell():
        save_one(tmp_path, make_state())
        return restore(tmp_path, make_state(1))

    assert same(asyncio.run(cell()).state, make_state())


# --- steps -----------------------------------------------------------------------------------------------------------


def test_nothing_there_is_none(tmp_path):
    assert restore(tmp_path / "new" / "folder", make_state()) is None


def test_the_newest_steps_are_kept(tmp_path):
    with checkpoint.open(tmp_path, keep=2) as checkpointer:
        for step in (1, 2, 9, 10):
            checkpointer.save(step, jnp.float32(step))
        assert checkpointer.steps() == [9, 10]
        assert checkpointer.restore(jnp.float32(0)).state == 10
    assert sorted(os.listdir(tmp_path)) == ["10", "9"]


def test_saving_the_same_step_again_does_nothing(tmp_path):
    with checkpoint.open(tmp_path) as checkpointer:
        checkpointer.save(5, jnp.float32(1))
        checkpointer.save(5, jnp.float32(1))
    with checkpoint.open(tmp_path) as checkpointer:
        checkpointer.restore(jnp.float32(0))
        checkpointer.save(5, jnp.float32(1))
        checkpointer.save(6, jnp.float32(2))
    assert restore(tmp_path, jnp.float32(0)).step == 6


@pytest.mark.parametrize("step", [5, 4, 0])
def test_another_runs_steps_are_not_overwritten(tmp_path, step):
    save_one(tmp_path, jnp.float32(1), step=5)
    with (
        checkpoint.open(tmp_path) as checkpointer,
        pytest.raises(InputError, match=rf"step is {step} and .* already holds step 5; resume"),
    ):
        checkpointer.save(step, jnp.float32(2))
    assert restore(tmp_path, jnp.float32(0)).state == 1


def test_keep_must_be_positive(tmp_path):
    with pytest.raises(InputError, match="keep is 0"):
        checkpoint.open(tmp_path, keep=0)


# --- a checkpoint of another run -------------------------------------------------------------------------------------

OTHERS = {
    "shape": (make_state(m=6), r"leaf x has shape \(4, 3\) and dtype float32, and this run needs shape \(6, 3\)"),
    "dtype": (make_state()._replace(x=jnp.ones((4, 3), jnp.int32)), "leaf x has .*float32, .* needs .*int32"),
    "optimizer": (make_state()._replace(opt=optax.sgd(0.1, 0.9).init(make_state().x)), "it has no leaf opt.0.trace"),
    "fewer": (make_state()._replace(extra={"nothing": None}), "it has a leaf extra.mask"),
    "none": (make_state()._replace(extra={"mask": None, "nothing": None}), "leaf extra.mask has shape .* needs None"),
    "not none": (make_state()._replace(extra={"mask": jnp.ones(4, bool), "nothing": 1.5}), "needs a Python float"),
    "key": (make_state()._replace(key=jax.random.key(0, impl="rbg")), "leaf key has .*key<fry>.* needs .*key<rbg>"),
    "raw key": (make_state()._replace(key=jax.random.PRNGKey(0)), r"leaf key has .*key<fry>.* needs .*uint32"),
}


@pytest.mark.parametrize("template, words", OTHERS.values(), ids=OTHERS)
def test_another_runs_checkpoint_is_told_apart_by_leaf(tmp_path, template, words):
    save_one(tmp_path, make_state())
    text = error_of(tmp_path, template)
    with pytest.raises(InputError, match=words):
        restore(tmp_path, template)
    assert str(tmp_path / "7") in text and "resume with the configuration that wrote it" in text


def test_leaves_in_another_order_are_not_mixed_up(tmp_path):
    class Swapped(NamedTuple):
        opt: object
        x: object

    class Plain(NamedTuple):
        x: object
        opt: object

    save_one(tmp_path, Plain(jnp.ones(2), jnp.zeros(2)))
    assert "its leaves ['x', 'opt'] come in another order" in error_of(tmp_path, Swapped(jnp.ones(2), jnp.zeros(2)))
    got = restore(tmp_path, Plain(*jnp.ones((2, 2))))
    assert (got.state.x == 1).all() and (got.state.opt == 0).all()


@pytest.mark.parametrize(
    "leaf, words",
    [("text", "leaf x of the state is a str"), (np.array([None]), "dtype object"), (2**64, "must fit 64 bits")],
)
def test_leaves_that_cannot_be_saved_are_named(tmp_path, leaf, words):
    with checkpoint.open(tmp_path) as checkpointer, pytest.raises(InputError, match=words):
        checkpointer.save(1, State(leaf))
    assert restore(tmp_path, State(0)) is None


def test_extra_that_has_no_json_form(tmp_path):
    with checkpoint.open(tmp_path) as checkpointer, pytest.raises(InputError, match=r"extra.a: a builtin_function"):
        checkpointer.save(1, jnp.ones(1), {"a": print})


def test_save_inside_jit_says_so(tmp_path):
    with checkpoint.open(tmp_path) as checkpointer, pytest.raises(InputError, match="outside of jit"):
        jax.jit(lambda x: checkpointer.save(1, x))(1.0)


# --- damage ----------------------------------------------------------------------------------------------------------


def files_of(folder):
    return sorted(path for path in pathlib.Path(folder).rglob("*") if path.is_file())


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_any_damaged_file_is_found_or_harmless(tmp_path):
    """Every file of a step is emptied, cut, removed and altered in turn."""
    state = make_state()
    save_one(tmp_path / "good", state, extra={"best": 0.5})
    rng, found = random.Random(0), 0
    for file in files_of(tmp_path / "good"):
        content = file.read_bytes()
        flipped = [bytearray(content) for _ in range(3)]
        for other in flipped:
            if content:
                other[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        for changed in (b"", content[: len(content) // 2], None, *flipped):
            if changed == content:
                continue
            bad = tmp_path / "bad"
            shutil.copytree(tmp_path / "good", bad)
            target = bad / file.relative_to(tmp_path / "good")
            target.unlink() if changed is None else target.write_bytes(changed)
            try:
                got = restore(bad, state)
            except InputError as error:
                found += 1
                assert "\n" not in str(error) and str(bad) in str(error)
            else:
                assert got.step == 7 and same(got.state, state) and got.extra == {"best": 0.5}, file
            shutil.rmtree(bad)
    assert found >= 15


def test_damage_names_the_folder_and_the_way_out(tmp_path):
    with checkpoint.open(tmp_path) as checkpointer:
        checkpointer.save(1, jnp.arange(3.0))
        checkpointer.save(2, jnp.arange(3.0))
    for file in files_of(tmp_path / "2"):
        file.write_bytes(b"")
    text = error_of(tmp_path, jnp.arange(3.0))
    assert f"{tmp_path / '2'} is damaged" in text and text.endswith("delete that folder to resume from step 1")
    shutil.rmtree(tmp_path / "2")
    assert restore(tmp_path, jnp.arange(3.0)).step == 1
    for file in files_of(tmp_path / "1"):
        file.write_bytes(b"")
    assert error_of(tmp_path, jnp.arange(3.0)).endswith("delete that folder to start anew")


def test_wrong_numbers_in_sound_files_are_found_by_the_checksums(tmp_path, monkeypatch):
    crc32 = zlib.crc32
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.zlib, "crc32", lambda data: crc32(data) if type(data) is bytes else 0)
        save_one(tmp_path / "a", make_state())
    assert "the checksum of the state is wrong" in error_of(tmp_path / "a", make_state())
    save_one(tmp_path / "b", make_state(), extra={"seed": 3})
    file = tmp_path / "b" / "7" / "manifest" / "metadata"
    text = file.read_text()
    file.write_text(text.replace('seed\\": 3', 'seed\\": 4'))
    assert text != file.read_text()
    assert "its manifest is not in order" in error_of(tmp_path / "b", make_state())


def test_a_checkpoint_of_other_software(tmp_path):
    import orbax.checkpoint as ocp

    with ocp.CheckpointManager(tmp_path) as manager:
        manager.save(4, args=ocp.args.Composite(state=ocp.args.StandardSave({"x": np.ones(3)})))
    assert "no kipjax checkpoint" in error_of(tmp_path, {"x": np.ones(3)})
    os.makedirs(tmp_path / "8")
    assert f"{tmp_path / '8'} is damaged or no kipjax" in error_of(tmp_path, {"x": np.ones(3)})


def test_a_newer_format(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT_VERSION", 2)
    save_one(tmp_path, jnp.ones(1))
    monkeypatch.setattr(checkpoint, "FORMAT_VERSION", 1)
    assert "format version 2, and this kipjax reads up to 1; upgrade" in error_of(tmp_path, jnp.ones(1))


def test_files_that_are_no_steps_do_no_harm(tmp_path):
    save_one(tmp_path, jnp.ones(2))
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "99").write_text("a file, not a step")
    os.makedirs(tmp_path / "50.orbax-checkpoint-tmp" / "state")
    got = restore(tmp_path, jnp.ones(2))
    assert got.step == 7
    assert not (tmp_path / "50.orbax-checkpoint-tmp").exists()  # what a kill left behind is swept away


# --- disks and permissions -------------------------------------------------------------------------------------------


def test_unusable_folders(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"checkpoint.open: cannot use the folder .*file: a file of that name is in"):
        checkpoint.open(tmp_path / "file")
    with pytest.raises(InputError, match="is a file, not a folder"):
        checkpoint.open(tmp_path / "file" / "below")


def test_a_folder_that_may_not_be_written_shows_on_opening(tmp_path, monkeypatch):
    def refuse(**kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(checkpoint.tempfile, "TemporaryFile", refuse)
    with pytest.raises(InputError, match="permission denied; choose a folder that you may write to"):
        checkpoint.open(tmp_path)


DISK = """
import os, resource, sys
import numpy as np
from kipjax.checks import InputError
from kipjax.io import checkpoint
big = np.random.default_rng(0).normal(size=100_000)
small = np.ones_like(big)
try:
    with checkpoint.open(sys.argv[1], background=sys.argv[2] == "True") as checkpointer:
        checkpointer.save(1, small)
        checkpointer.wait()
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
        checkpointer.save(2, big)
except InputError as error:
    print(error)
print(os.listdir(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
with checkpoint.open(sys.argv[1]) as checkpointer:
    print(checkpointer.restore(small).step)
    checkpointer.save(2, big)
with checkpoint.open(sys.argv[1]) as checkpointer:
    print(np.array_equal(checkpointer.restore(small).state, big))
"""


@pytest.mark.parametrize("background", [True, False])
def test_a_disk_that_refuses_is_one_line_and_the_older_step_stays(tmp_path, background):
    command = [sys.executable, "-c", DISK, str(tmp_path), str(background)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    message, left, step, again = done.stdout.splitlines()
    assert message.startswith(f"checkpoint.save: cannot write to {tmp_path}: the file would be larger than the limit")
    assert (left, step, again) == ("['1']", "1", "True")
    assert done.stderr == ""
    assert sorted(os.listdir(tmp_path)) == ["1", "2"]


@pytest.mark.parametrize(
    "text, words",
    [
        ("RESOURCE_EXHAUSTED: write [os_error_code='28']", "the disk is full; free some space"),
        ("failed: No space left on device", "the disk is full; free some space"),
        ("PERMISSION_DENIED [os_error_code='13']", "permission denied; choose"),
        ("something\nelse", "something else; check the path"),
    ],
)
def test_what_the_writer_reports_becomes_one_line(tmp_path, monkeypatch, text, words):
    checkpointer = checkpoint.open(tmp_path)

    def refuse(*args, **kwargs):
        raise ValueError(text)

    with monkeypatch.context() as patch:
        patch.setattr(checkpointer._manager, "save", refuse)
        with pytest.raises(InputError, match=words):
            checkpointer.save(1, jnp.ones(1))
    checkpointer.save(1, jnp.ones(1))  # and the step was not taken for saved
    checkpointer.close()
    assert restore(tmp_path, jnp.ones(1)).step == 1


@pytest.mark.parametrize("method", ["save", "wait_until_finished", "close", "restore"])
def test_a_process_that_is_gone_is_no_fault_of_the_disk(method, tmp_path, monkeypatch):
    """Of several processes; the first may still be writing, so its unfinished step is left alone."""

    def lost(*args, **kwargs):
        raise ValueError("UNKNOWN: Gloo AllGather failed: Connection closed by peer [127.0.0.1]:13733")

    save_one(tmp_path, make_state())
    unfinished = tmp_path / "8.orbax-checkpoint-tmp"
    monkeypatch.setattr("kipjax.core.processes.is_loss", lambda error: "Gloo" in str(error))
    found = checkpoint.open(tmp_path)
    calls = {"save": lambda: found.save(9, make_state()), "restore": lambda: found.restore(make_state())}
    calls |= {"wait_until_finished": found.wait, "close": found.close}
    with monkeypatch.context() as patch:
        patch.setattr(found._manager, method, lost)
        unfinished.mkdir()
        with pytest.raises(ValueError, match="Gloo") as caught:
            calls[method]()
    assert not isinstance(caught.value, InputError) and unfinished.exists()
    found.close()


def test_a_checksum_tells_states_apart_by_any_bit():
    state = make_state()
    again = jax.tree.map(lambda leaf: leaf, state)
    assert checkpoint.checksum(again) == checkpoint.checksum(state) != checkpoint.checksum(make_state(seed=1))
    assert checkpoint.checksum({"a": np.float32(0.0)}) != checkpoint.checksum({"a": np.float32(-0.0)})


def test_a_step_that_failed_in_the_background_can_be_saved_again(tmp_path, monkeypatch):
    def refuse():
        raise ValueError("No space left on device")

    with checkpoint.open(tmp_path) as checkpointer:
        with monkeypatch.context() as patch:
            patch.setattr(checkpointer._manager, "save", lambda *args, **kwargs: True)
            patch.setattr(checkpointer._manager, "wait_until_finished", refuse)
            checkpointer.save(1, jnp.ones(1))
            with pytest.raises(InputError, match="the disk is full"):
                checkpointer.wait()
        checkpointer.save(1, jnp.ones(1))
    assert restore(tmp_path, jnp.ones(1)).step == 1


def test_the_first_error_of_a_with_block_is_the_one_raised(tmp_path, monkeypatch):
    with pytest.raises(ZeroDivisionError), checkpoint.open(tmp_path) as checkpointer:
        monkeypatch.setattr(checkpointer._manager, "close", lambda: int("no"))
        raise ZeroDivisionError


# --- kills -----------------------------------------------------------------------------------------------------------

WRITER = """
import sys
import numpy as np
from kipjax.io import checkpoint
with checkpoint.open(sys.argv[1], background=sys.argv[2] == "True") as checkpointer:
    restored = checkpointer.restore({"a": np.zeros(50_000), "b": np.zeros(7)})
    step = restored.step if restored else 0
    print("ready", step, flush=True)
    while True:
        step += 1
        checkpointer.save(step, {"a": np.full(50_000, step * np.pi), "b": np.full(7, float(step))}, {"step": step})
        print(step, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("background", [True, False])
def test_a_kill_at_any_moment_leaves_a_sound_checkpoint(tmp_path, background):
    rng, last = random.Random(int(background)), 0
    for _ in range(4):
        command = [sys.executable, "-c", WRITER, str(tmp_path), str(background)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
            assert process.stdout.readline() == f"ready {last}\n"
            time.sleep(rng.uniform(0.02, 0.25))
            process.send_signal(signal.SIGKILL)
            printed = [int(line) for line in process.stdout.read().split("\n")[:-1]]
            assert process.stderr.read() == ""
        got = restore(tmp_path, {"a": np.zeros(50_000), "b": np.zeros(7)})
        if got is None:
            assert last == 0 and len(printed) < 3
            continue
        assert got.step >= max([last, *(step - (2 if background else 0) for step in printed)])
        assert got.extra == {"step": got.step}
        assert (got.state["a"] == got.step * np.pi).all() and (got.state["b"] == got.step).all()
        last = got.step
    assert last > 0


# --- quiet -----------------------------------------------------------------------------------------------------------


def test_orbax_is_quiet_under_absl_and_others_are_not(tmp_path):
    code = f"""
from absl import app, logging
import numpy as np
from kipjax.io import checkpoint
def main(_):
    with checkpoint.open({str(tmp_path)!r}) as checkpointer:
        checkpointer.save(1, np.ones(3))
        checkpointer.restore(np.ones(3))
        logging.info("a line of the run")
app.run(main)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and done.stdout == ""
    lines = [line for line in done.stderr.splitlines() if "xla_bridge" not in line]
    assert len(lines) == 1 and lines[0].endswith("a line of the run")


def test_the_log_filter_goes_when_the_checkpointer_is_closed(tmp_path):
    before = list(logging.getLogger("absl").filters)
    with checkpoint.open(tmp_path / "a"):
        assert len(logging.getLogger("absl").filters) == len(before) + 1
    (tmp_path / "file").touch()
    with pytest.raises(InputError):
        checkpoint.open(tmp_path / "file")
    assert logging.getLogger("absl").filters == before


def test_steps_are_plain_folders_with_a_readable_record(tmp_path):
    save_one(tmp_path, make_state(), extra={"seed": 3})
    manifest = json.loads((tmp_path / "7" / "manifest" / "metadata").read_text())
    record = json.loads(manifest["record"])
    assert manifest["format"] == "kipjax-checkpoint" and record["extra"] == {"seed": 3}
    assert [leaf[0] for leaf in record["leaves"]][:2] == ["x", "opt.1.0.count"]
