"""Corruption from the command line, and the noise that both sets share."""

import json

import jax
import numpy as np
import pytest

from experiments import build, inputs
from tests.experiments.test_distill import load
from tests.experiments.test_mia import cli


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
    assert np.all(np.abs(before[frozen]) <= 1) and jax.config.jax_enable_x64 is False


def test_one_command_makes_table_plot_and_results(tmp_path):
    flags = ["--config=configs/kip/digits.py:tiny", "--rho=0,0.9", "--seeds=2", f"--out={tmp_path / 'run'}"]
    done = cli("corruption", *flags, "--config.data.test_size=50")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "run" / "results.json").read_text())["rows"]
    assert [(r["set"], r["rho"], len(r["accuracies"])) for r in rows] == [
        (name, rho, 2) for rho in (0.0, 0.9) for name in ("natural", "kip")
    ]
    assert f"{100 * np.mean(rows[0]['accuracies']):.2f} ±" in done.stdout and "90 % corrupt" in done.stdout
    assert (tmp_path / "run" / "corruption.png").read_bytes()[1:4] == b"PNG"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--config=configs/kip/digits.py", "--rho=1.5"], "must lie between"),
        (["--config=configs/kip/digits.py", "--rho=half"], "expected fractions"),
        (["--config=configs/dm/images.py"], "has no rho"),
    ],
)
def test_bad_input_ends_in_a_line(tmp_path, flags, words):
    done = cli("corruption", f"--out={tmp_path}", *flags)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr, done.stderr
