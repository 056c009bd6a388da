"""The driver: every config runs, a killed run resumes bit for bit, and mistakes end in a line or two."""

import importlib
import itertools
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import types

import numpy as np
import pytest

import kipjax
from experiments import run_folder, trainer
from kipjax import checks
from kipjax.io import checkpoint
from tests.experiments.shell import cli

ROOT = pathlib.Path(__file__).parents[2]


def load(path, variant="tiny"):
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    return module.get_config(variant)


def command(*flags):
    return [sys.executable, "-m", "experiments.distill", *flags]


@pytest.mark.slow
def test_augmented_targets_and_learned_kernel_reach_the_artifact(tmp_path):
    config = load("configs/kip/digits.py")
    config.augment.update(rotation=10.0, shift=0.1, flip=True, channel_shift=1.0, fraction=0.5)
    config.kernel = {"name": "rbf", "gamma": 1.0}
    config.learn_kernel = ("gamma",)
    config.method.learn_labels = True
    trainer.run(config, str(tmp_path))
    made = kipjax.load(tmp_path / "distilled.npz")
    assert made.meta["kernel"]["name"] == "rbf" and 0 < abs(made.meta["kernel"]["gamma"] - 1.0) < 1
    assert (tmp_path / "labels.png").exists()


def test_a_field_that_an_older_run_did_not_have_is_no_difference_while_it_is_off(tmp_path):
    config = load("configs/kip/digits.py")
    older = config.to_dict()
    del older["init"]["classes"]
    (tmp_path / "config.json").write_text(json.dumps(older))
    run_folder.require_identical(str(tmp_path), config)
    for field, value in (("classes", 3), ("ipc", 0)):
        other = config.copy_and_resolve_references()
        other.init[field] = value
        with pytest.raises(checks.InputError, match=f"init.{field} was"):
            run_folder.require_identical(str(tmp_path), other)


@pytest.mark.slow
def test_killed_and_resumed_ends_bit_for_bit_like_the_uninterrupted_run(tmp_path):
    flags = [
        "--config=configs/kip/digits.py",
        "--config.steps=600",
        "--config.log_every=5",
        "--config.checkpoint_every=10",
        "--config.eval_every=0",
        "--config.evaluation.seeds=1",
        "--config.evaluation.full_size=0",
        "--config.method.learn_labels=True",
        "--config.method.rho=0.2",
    ]
    whole = cli("distill", *flags, f"--workdir={tmp_path / 'whole'}")
    assert whole.returncode == 0, whole.stderr
    cut = tmp_path / "cut"
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(ROOT / ".jax_cache")}
    process = subprocess.Popen(
        command(*flags, f"--workdir={cut}"),
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    deadline, reached = time.monotonic() + 120, random.choice(range(10, 300, 10))
    while _last_checkpoint(cut) < reached and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(random.uniform(0, 0.02))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL, f"the run must still have been running (aimed at step {reached})"
    refused = cli("distill", *flags, f"--workdir={cut}")
    assert refused.returncode == 2 and "already holds a run; pass --resume" in refused.stderr
    resumed = cli("distill", *flags, f"--workdir={cut}", "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming at step" in resumed.stdout
    a, b = (kipjax.load(folder / "distilled.npz") for folder in (tmp_path / "whole", cut))
    assert a.distilled.x.tobytes() == b.distilled.x.tobytes()
    assert a.distilled.y.tobytes() == b.distilled.y.tobytes()
    assert (tmp_path / "whole" / "metrics.jsonl").read_bytes() == (cut / "metrics.jsonl").read_bytes()


def test_the_seconds_of_a_resumed_run_are_those_of_all_its_parts(tmp_path, monkeypatch):
    ticks = itertools.count(step=1000.0)
    monkeypatch.setattr(trainer, "time", types.SimpleNamespace(monotonic=lambda: next(ticks)))
    config = load("configs/kip/digits.py")
    trainer.run(config, str(tmp_path))
    config.steps *= 2
    monkeypatch.setattr(trainer, "time", types.SimpleNamespace(monotonic=lambda: 7.0))
    before = json.loads((tmp_path / "summary.json").read_text())["seconds"]
    trainer.run(config, str(tmp_path), resume=True)
    after = json.loads((tmp_path / "summary.json").read_text())["seconds"]
    assert 1000 <= after <= before  # by a clock that stands still: what the last checkpoint had


def _last_checkpoint(workdir):
    return max((int(path.name) for path in workdir.glob("checkpoints/*") if path.name.isdigit()), default=0)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--config.nope=3"], "no field 'nope'"),
        (["--config.steps=many"], "invalid literal"),
        (["--config.data.name=digit"], "digits"),
        (["--config.kernel.name=fcx"], "choose one of linear, rbf"),
        (["--config.method.reg=-1"], "reg is -1.0; it must be at least 0"),
        (["--config.batch.size=55"], "not divisible by num_classes (10)"),
        (["--config.init.ipc=143"], "lower ipc or add images of that class"),
        (["--config.init.ipc=1000"], "lower ipc"),
        (["--config.log_every=3"], "no multiple of log_every"),
        (["--resume", "--overwrite"], "cannot be combined"),
        (["--config.evaluation.seeds=0"], "seeds is 0"),
        (["--config.evaluation.dtype=float23"], "dtype is 'float23'"),
        (["--config.method.solve_dtype=float16"], "solve_dtype is 'float16'"),
        (["--config.init.kind=class_means", "--config.init.ipc=2"], "set ipc to 1"),
        (["--config.data.data_dir=/nonexistent", "--config.data.name=mnist"], "does not exist"),
    ],
)
def test_mistakes_end_in_one_or_two_lines(flags, words, tmp_path):
    done = cli("distill", "--config=configs/kip/digits.py:tiny", f"--workdir={tmp_path}", *flags)
    assert done.returncode == 2
    assert words in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2
    assert not list(tmp_path.glob("distilled*"))


@pytest.mark.parametrize(
    ("config", "words"),
    [("configs/kip/missing.py", "no such file"), ("configs/kip/digits.py:huge", "variant is 'huge'")],
)
def test_wrong_config_files(config, words, tmp_path):
    done = cli("distill", f"--config={config}", f"--workdir={tmp_path}")
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr


def test_unwritable_workdir(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(checks.InputError, match="choose a folder that you may write to"):
        trainer.run(load("configs/kip/digits.py"), str(blocked / "run"))


def test_a_run_that_does_not_fit_is_refused_with_the_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer.sharding, "free_memory", lambda: 1000)
    with pytest.raises(checks.InputError, match=r"a step needs [\d.]+ [kM]B of memory and 1 kB are free; lower"):
        trainer.run(load("configs/kip/digits.py"), str(tmp_path))
    assert not (tmp_path / "distilled.npz").exists()


@pytest.mark.slow
def test_a_long_kernel_is_announced_and_the_test_set_can_be_cut(tmp_path, monkeypatch, capsys):
    config = load("configs/kip/digits_conv.py")
    config.data.test_size = 30
    monkeypatch.setattr(trainer, "_LONG", 1)
    trainer.run(config, str(tmp_path))
    printed = capsys.readouterr().out
    assert "kernel convpool3 ntk, tiled engine: 20 x 10 pairs take about" in printed
    assert "on 30 test images" in printed


def test_a_diverged_run_says_step_quantity_and_cause(tmp_path):
    """A linear kernel of 200 images of 64 pixels is singular, and the ridge is below what float32 can hold."""
    config = load("configs/kip/digits.py")
    del config.kernel
    config.kernel = {"name": "linear"}
    config.method.solve_dtype = "float32"
    config.init.ipc = 20
    config.method.reg = 1e-12
    with pytest.raises(checks.NumericalError, match=r"loss.* not finite at step 1; .* does not factorise \(raise"):
        trainer.run(config, str(tmp_path))
    assert not (tmp_path / "distilled.npz").exists()


def test_labels_and_counts_are_looked_at_before_anything_is_compiled(tmp_path, monkeypatch):
    """Inside jit a method sees no values."""
    monkeypatch.setattr(trainer, "train", None)
    for path, changes, words in (
        (
            "coreset",
            {"init.kind": "noise", "init.ipc": 143},
            r"class \d has 1\d\d images in the batch and 143 are to be",
        ),
        ("krr_exact", {"init.scale": 0.0}, "labels y have rank 0 and there are 10 classes"),
    ):
        config = load(f"configs/{path}/digits.py")
        config.update_from_flattened_dict(changes)
        with pytest.raises(checks.InputError, match=words):
            trainer.run(config, str(tmp_path / path))


@pytest.mark.slow
def test_a_ridge_that_was_clamped_is_said_and_travels_with_the_set(tmp_path, capsys):
    config = load("configs/krr_exact/digits.py")
    config.method.reg = 1e9
    trainer.run(config, str(tmp_path))
    printed = capsys.readouterr().out
    assert re.search(r"note: reg is 1e\+09, above its bound [\d.]+, and was clamped to it", printed)
    meta = kipjax.load(tmp_path / "distilled.npz").meta
    assert meta["remarks"][0] in printed and meta["reg"] < 1e9


@pytest.mark.slow
def test_a_process_in_float64(tmp_path):
    """Images are read in 32 bits and labels made in 64."""
    done = cli("distill", "--config=configs/krr_exact/digits.py:tiny", f"--workdir={tmp_path}", JAX_ENABLE_X64="1")
    assert done.returncode == 0, done.stderr
    made = kipjax.load(tmp_path / "distilled.npz").distilled
    assert made.x.dtype == made.y.dtype == np.float64


def test_a_full_disk_leaves_no_half_written_artifact(tmp_path, monkeypatch):
    import errno

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    config = load("configs/kip/digits.py")
    run = trainer.report.write

    def write(*args, **options):
        monkeypatch.setattr(os, "fsync", full)
        run(*args, **options)

    monkeypatch.setattr(trainer.report, "write", write)
    with pytest.raises(checks.InputError, match="disk is full"):
        trainer.run(config, str(tmp_path))
    assert not (tmp_path / "distilled.npz").exists()


@pytest.mark.slow
def test_the_covariance_is_chosen_on_the_command_line(tmp_path):
    done = cli("distill", "--config=configs/kip/digits.py:tiny", "--config.kernel.kind=nngp", f"--workdir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert kipjax.load(tmp_path / "distilled.npz").meta["kernel"] == {"name": "fc1", "get": "nngp", "b_std": 0.1}


@pytest.mark.slow
def test_overwrite_keeps_the_old_run_until_the_new_one_is_known_to_start(tmp_path):
    config = load("configs/kip/digits.py")
    trainer.run(config, str(tmp_path))
    before = (tmp_path / "distilled.npz").read_bytes()
    config.kernel.name = "fcx"
    with pytest.raises(checks.InputError, match="choose one of"):
        trainer.run(config, str(tmp_path), overwrite=True)
    assert (tmp_path / "distilled.npz").read_bytes() == before
    config.kernel.name, config.seed = "fc2", 1
    trainer.run(config, str(tmp_path), overwrite=True)
    assert kipjax.load(tmp_path / "distilled.npz").meta["seed"] == 1


@pytest.mark.slow
def test_resume_refuses_other_data_and_fewer_steps(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"x_train": rng.random((60, 6, 6, 1)), "y_train": np.arange(60) % 3}
    arrays |= {"x_test": rng.random((12, 6, 6, 1)), "y_test": np.arange(12) % 3}
    np.savez(tmp_path / "data.npz", **arrays)
    config = load("configs/kip/digits.py")
    config.data.name, config.batch.size = str(tmp_path / "data.npz"), 30
    trainer.run(config, str(tmp_path / "run"))
    config.steps = 4
    with pytest.raises(checks.InputError, match=r"last checkpoint is at step 6 and config\.steps is 4"):
        trainer.run(config, str(tmp_path / "run"), resume=True)
    config.steps = 8
    np.savez(tmp_path / "data.npz", **(arrays | {"x_train": rng.random((60, 6, 6, 1))}))
    with pytest.raises(checks.InputError, match="are not those of the run so far"):
        trainer.run(config, str(tmp_path / "run"), resume=True)


@pytest.mark.slow
def test_bad_pixels_and_a_damaged_checkpoint_at_the_command_line(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"x_train": rng.random((60, 6, 6, 1)), "y_train": np.arange(60) % 3}
    arrays |= {"x_test": rng.random((12, 6, 6, 1)), "y_test": np.arange(12) % 3}
    arrays["x_train"][7, 0, 0, 0] = np.nan
    np.savez(tmp_path / "nan.npz", **arrays)
    tiny = "--config=configs/kip/digits.py:tiny"
    done = cli("distill", tiny, f"--config.data.name={tmp_path / 'nan.npz'}", f"--workdir={tmp_path / 'a'}")
    assert done.returncode == 2 and "NaN or infinite entries in 1 of 60 rows (first: row 7)" in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) <= 2

    trainer.run(load("configs/kip/digits.py"), str(tmp_path / "b"))
    last = tmp_path / "b" / "checkpoints" / str(_last_checkpoint(tmp_path / "b"))
    for path in last.rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    done = cli("distill", tiny, "--config.steps=12", f"--workdir={tmp_path / 'b'}", "--resume")
    assert done.returncode == 2 and "checkpoint" in done.stderr and "Traceback" not in done.stderr


def test_resume_refuses_another_config(tmp_path):
    config = load("configs/kip/digits.py")
    run_folder.prepare(str(tmp_path), config, resume=False)
    run_folder.claim(str(tmp_path), config)
    config.method.learning_rate = 0.5
    with pytest.raises(checks.InputError, match=r"method.learning_rate was 0.04 and is 0.5"):
        run_folder.prepare(str(tmp_path), config, resume=True)
    config.method.learning_rate = 0.04
    config.steps = 12
    run_folder.prepare(str(tmp_path), config, resume=True)


def test_data_may_lie_in_another_folder_after_a_resume(tmp_path, idx_folder):
    config = load("configs/kip/digits.py")
    config.data.update(name="fashion_mnist", data_dir=idx_folder, image_size=8)
    trainer.run(config, str(tmp_path / "run"))
    config.data.data_dir = str(shutil.copytree(idx_folder, tmp_path / "moved"))
    config.steps += 2
    trainer.run(config, str(tmp_path / "run"), resume=True)
    assert json.loads((tmp_path / "run" / "config.json").read_text())["data"]["data_dir"] == str(tmp_path / "moved")


def test_resume_refuses_other_data_to_pretrain_on(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {"x_train": rng.random((60, 8, 8, 1)), "y_train": np.arange(60) % 10}
    arrays |= {"x_test": rng.random((20, 8, 8, 1)), "y_test": np.arange(20) % 10}
    np.savez(tmp_path / "data.npz", **arrays)
    config = load("configs/dd/adapt.py")
    config.pretrain.name = str(tmp_path / "data.npz")
    trainer.run(config, str(tmp_path / "run"))
    np.savez(tmp_path / "data.npz", **(arrays | {"x_train": rng.random((60, 8, 8, 1))}))
    with pytest.raises(checks.InputError, match="the data that networks are pretrained on are not those of the run"):
        trainer.run(config, str(tmp_path / "run"), resume=True)


def test_a_checkpoint_that_says_less_of_what_was_read_is_gone_on_from():
    config, read = load("configs/kip/digits.py"), {"training data": "ab", "experts": 7}
    of_older = checkpoint.Restored(2, None, {"fingerprint": "ab"})
    trainer._require_continues(of_older, config, read)
    for other in (of_older._replace(extra={"fingerprint": "cd"}), of_older._replace(extra={"read": {"experts": 8}})):
        with pytest.raises(checks.InputError, match=r"the (training data|experts) are not those of the run so far"):
            trainer._require_continues(other, config, read)


def test_a_run_folder_has_one_owner_at_a_time(tmp_path):
    taken = pytest.raises(checks.InputError, match="a run is writing in")
    with run_folder.owned(str(tmp_path)), taken, run_folder.owned(str(tmp_path)):
        pass
    with run_folder.owned(str(tmp_path)):
        assert not list(tmp_path.iterdir())


def test_a_longer_run_goes_on_from_a_finished_one(tmp_path):
    config = load("configs/kip/digits.py")
    trainer.run(config, str(tmp_path / "a"))
    config.steps = 12
    trainer.run(config, str(tmp_path / "a"), resume=True)
    trainer.run(config, str(tmp_path / "b"))
    a, b = (kipjax.load(tmp_path / name / "distilled.npz").distilled.x for name in "ab")
    np.testing.assert_array_equal(a, b)
