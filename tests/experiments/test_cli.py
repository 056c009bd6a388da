"""Every script explains itself within a screen, and lists the names that it takes."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from kipjax import data, evaluation, kernels, methods, models
from tests.experiments.shell import cli

ROOT = pathlib.Path(__file__).parents[2]
SCRIPTS = sorted(
    path.stem
    for path in (ROOT / "experiments").glob("*.py")
    if "__name__ ==" in path.read_text() and path.stem != "cli"
)


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_fits_a_screen(script):
    done = cli(script, "--help")
    assert done.returncode == 0 and not done.stderr, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) <= 60 and max(map(len, lines)) <= 120
    assert f"python -m experiments.{script}" in done.stdout and "\nflags:\n  --" in done.stdout
    files = sorted(path.name for path in (ROOT / "configs" / script).glob("*.flags"))
    assert not files or f"--flagfile=configs/{script}/FILE: {' '.join(files)}" in " ".join(done.stdout.split())


def test_help_lists_the_configs():
    _, _, configs = cli("distill", "--help").stdout.partition("\nconfigs")
    listed = {method: names for method, *names in (line.split() for line in configs.splitlines()[1:])}
    files = [path for path in (ROOT / "configs").glob("*/*.py") if path.stem != "__init__"]
    assert len(files) > 50 and all(path.stem in listed[path.parent.name] for path in files)


def test_list_shows_every_name():
    done = cli("distill", "--list")
    assert done.returncode == 0
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert all(len(row) == 2 for row in rows)
    shown = {kind: {name for k, name in rows if k == kind} for kind, _ in rows}
    assert shown["method"] == set(methods.METHODS) and shown["kernel"] == set(kernels.names())
    assert shown["architecture"] == set(models.names()) and shown["protocol"] == {*evaluation.PROTOCOLS, "flexibility"}
    assert shown["dataset"] > {*data.KNOWN, "text:sentiment", "text:domain"}
    assert "configs/kip/digits.py" in shown["config"] and "configs/mia/fashion_mnist.flags" in shown["flagfile"]
    assert all((ROOT / name).is_file() for name in shown["config"] | shown["flagfile"])
    whole = json.loads(cli("distill", "--list=json").stdout)
    assert {kind: set(names) for kind, names in whole.items()} == shown


def test_a_reader_that_has_enough_is_no_traceback():
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "experiments.distill", "--list"]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"JAX_PLATFORMS": "cpu"}, stdout=write, stderr=subprocess.PIPE
    )
    os.close(write)
    assert done.returncode == 4 and not done.stderr, done.stderr


@pytest.mark.parametrize("resumes", [False, True])
def test_resume_is_advised_where_there_is_such_a_flag(resumes):
    program = """
import sys
from absl import flags
from experiments import cli

def define():
    flags.DEFINE_bool("resume", False, "") if sys.argv[1:] else None

def main():
    raise KeyboardInterrupt

cli.run(main, define)
"""
    flag = ["--resume"] if resumes else []
    done = subprocess.run([sys.executable, "-c", program, *flag], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 130 and "interrupted" in done.stderr and ("--resume" in done.stderr) == resumes
