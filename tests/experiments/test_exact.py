"""Exact distillation beside its teacher and KIP, from the command line."""

import json
import pathlib

import pytest

from tests.experiments.shell import cli

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize("flag", ["ipc", "features"])
def test_nothing_to_do_is_said(flag):
    done = cli("exact", "--config=configs/krr_exact/digits.py", f"--{flag}=")
    assert done.returncode == 2 and f"--{flag}: the list is empty; give at least one" in done.stderr


@pytest.mark.slow
def test_a_row_says_that_teacher_and_set_agree(tmp_path):
    out = tmp_path / "rows.json"
    flags = ["--features=linear", "--ipc=1", "--kip_steps=3", "--kip_targets=100", f"--out={out}"]
    done = cli("exact", "--config=configs/krr_exact/digits.py", *flags)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(out.read_text())["rows"]
    assert row["teacher"] == row["exact"] > 0.9 and row["differ"] == 0 and row["error"] < 1e-5
    assert row["kip_seconds"] > 0 and row["seconds"] > 0 and row["kip_steps"] == 3
    assert "differ 0" in done.stdout and "times)" in done.stdout
