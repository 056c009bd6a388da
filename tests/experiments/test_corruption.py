"""Corruption from the command line, and the noise that both sets share."""

import json

import jax
import numpy as np
import pytest

from experiments import build, inputs
from tests.experiments.shell import cli
from tests.experiments.test_distill import load


@pytest.mark.slow
def test_both_sets_have_the_same_noise():
    config = load("configs/kip/digits.py")
    config.method.rho = 0.75
    dataset = inputs.load(config)
    preprocess = inputs.prepare(config, dataset)
    task = inputs.task(dataset, preprocess)
    before, after = (np.asarray(made.x) for made in build.before_and_after(config, task, preprocess, 3))
    frozen = before == after
    assert frozen.reshape(10, -1).sum(axis=1).tolist() == [48] * 10, "three quarters of the 64 coordinates of each"
    config.method.rho = 0.0
    natural = np.asarray(build.before_and_after(config, task, preprocess, 3)[0].x)
    np.testing.assert_array_equal(before[~frozen], natural[~frozen])
    assert not np.any(before[frozen] == natural[frozen]) and not np.any(after[frozen] == natural[frozen]), "real pixels"
    assert np.all(np.abs(before[frozen]) <= 1) and jax.config.jax_enable_x64 is False


@pytest.mark.slow
def test_one_command_makes_table_plot_and_results(tmp_path):
    flags = ["--config=configs/kip/digits.py:tiny", "--rho=0,0.9", "--runs=2", "--seeds=2", "--arch=fc1"]
    flags += ["--scale=0.01", "--steps=5", "--loss=soft_cross_entropy", "--config.data.test_size=50"]
    done = cli("corruption", *flags, f"--out={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "run" / "results.json").read_text())["rows"]
    assert [(r["set"], r["rho"], r["run"], len(r["accuracies"])) for r in rows] == [
        (name, rho, run, 2) for rho in (0.0, 0.9) for run in (0, 1) for name in ("natural", "kip")
    ]
    first = np.mean([rows[0]["accuracies"], rows[2]["accuracies"]])
    assert f"{100 * first:.2f} ±" in done.stdout and "90 % corrupt" in done.stdout
    assert "2 sets x 2 networks" in done.stdout and "5 steps of adam, learning rate 0.0004" in done.stdout
    assert (tmp_path / "run" / "corruption.png").read_bytes()[1:4] == b"PNG"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--config=configs/kip/digits.py", "--rho=1.5"], "must lie between"),
        (["--config=configs/kip/digits.py", "--rho=half"], "expected numbers"),
        (["--config=configs/kip/digits.py", "--rho="], "--rho: is empty"),
        (["--config=configs/kip/digits.py", "--arch="], "--arch: is empty"),
        (["--config=configs/kip/digits.py", "--arch=fc9"], "choose one of fc1"),
        (["--config=configs/kip/digits.py", "--learning_rate=0"], "learning_rate is 0.0; it must be above 0"),
        (["--config=configs/kip/digits.py:tiny", "--config.steps=-5"], "steps is -5; it must be a whole number"),
        (["--config=configs/rfad/fashion_mnist.py:tiny"], "here real pixels"),
    ],
)
def test_bad_input_ends_in_a_line(tmp_path, flags, words):
    done = cli("corruption", f"--out={tmp_path}", *flags)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr, done.stderr
