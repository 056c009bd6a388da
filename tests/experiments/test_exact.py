"""Exact distillation beside its teacher and KIP, from the command line."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize("flag", ["ipc", "features"])
def test_nothing_to_do_is_said(flag):
    command = [sys.executable, "-m", "experiments.exact", "--config=configs/krr_exact/digits.py", f"--{flag}="]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and f"--{flag}: the list is empty; give at least one" in done.stderr


def test_a_row_says_that_teacher_and_set_agree(tmp_path):
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(ROOT / ".jax_cache")}
    out = tmp_path / "rows.json"
    flags = ["--features=linear", "--ipc=1", "--kip_steps=3", "--kip_targets=100", f"--out={out}"]
    command = [sys.executable, "-m", "experiments.exact", "--config=configs/krr_exact/digits.py", *flags]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(out.read_text())["rows"]
    assert row["teacher"] == row["exact"] > 0.9 and row["differ"] == 0 and row["error"] < 1e-5
    assert row["kip_seconds"] > 0 and row["seconds"] > 0 and row["kip_steps"] == 3
    assert "differ 0" in done.stdout and "times)" in done.stdout
