"""The benchmark runs and reports ratios; what they are is for the reader, not for a test."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


def benchmark(*flags):
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(ROOT / ".jax_cache")}
    command = [sys.executable, "-m", "experiments.benchmark", *flags]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.usefixtures("fashion_mnist")
def test_rows_are_written(tmp_path):
    done = benchmark("--only=kip,import", "--pairs=1", "--steps=1", f"--out={tmp_path / 'rows.json'}")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "rows.json").read_text())
    assert len(report["rows"]) == 2 and report["machine"]["cores"] == os.cpu_count()
    for row in report["rows"]:
        assert row["ratio"] == pytest.approx(row["ours"] / row["other"]) and row["ours"] > 0


def test_an_unknown_row_is_refused():
    done = benchmark("--only=speed")
    assert done.returncode == 2 and "speed unknown; choose from kip, driver, " in done.stderr
