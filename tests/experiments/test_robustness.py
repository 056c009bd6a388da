"""Robustness from the command line."""

import json

import numpy as np
import pytest

from tests.experiments.shell import ROOT, cli

SMALL = ["--networks=fc1", "--scale=0.004", "--learning_rate=0.01", "--weight_decay=0", "--steps=5", "--test_size=60"]
SMALL += ["--validation_size=20"]
ONE = [*SMALL, "--optimizer=adam", "--loss=half_mse"]


def results(folder):
    return json.loads((folder / "results.json").read_text())


@pytest.mark.slow
def test_a_scatter_of_an_artifact(artifact, tmp_path):
    flags = [*SMALL, "--networks=fc1,fc2", "--loss=half_mse", "--seeds=2"]
    done = cli("robustness", *flags, f"--artifact={artifact}", f"--out={tmp_path}")
    assert done.returncode == 0, done.stderr
    rows = results(tmp_path)["rows"]
    assert [(row["network"], row["setting"]["optimizer"]) for row in rows] == [
        (network, optimizer) for network in ("fc1", "fc2") for optimizer in ("sgd", "adam")
    ]
    assert all(len(row["distilled"]) == len(row["natural_validation"]) == 2 for row in rows)
    best = max(rows[:2], key=lambda row: np.mean(row["distilled_validation"]))
    line = next(line for line in done.stdout.splitlines() if line.startswith("some, 10 images, fc1"))
    assert f"{100 * np.mean(best['distilled']):.2f} ±" in line and line.split()[4] == "?"
    assert "chosen on 20 held-out training images, which the given sets may have been distilled from" in done.stdout
    assert (tmp_path / "scatter.png").read_bytes()[1:4] == b"PNG"


@pytest.mark.slow
def test_sizes_of_a_config(tmp_path):
    flags = [*ONE, "--config=configs/kip/digits.py:tiny", "--ipc=1,2", "--study=size", "--seeds=1", "--runs=2"]
    done = cli("robustness", *flags, f"--out={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert [row["size"] for row in results(tmp_path)["rows"]] == [10, 10, 20, 20]
    line = next(line for line in done.stdout.splitlines() if line.startswith("kip, 20 images, fc1"))
    assert line.split()[-1] == "2" and line.split()[4] == "yes", "the config's kernel is FC1"
    assert (
        "chosen on 20 held-out training images; 5 steps" in done.stdout
        and (tmp_path / "size.png").stat().st_size > 1000
    )


@pytest.mark.slow
def test_bias_by_class(artifact, tmp_path):
    flags = [*ONE, "--study=bias", "--seeds=2", "--full_size=100", "--full_steps=10", f"--artifact={artifact}"]
    flags += ["--validation_size=0"]
    done = cli("robustness", *flags, f"--out={tmp_path}")
    assert done.returncode == 0, done.stderr
    found = results(tmp_path)
    names = [row["trained_on"] for row in found["rows"]]
    assert names == ["some, 10 images", "natural, 10 images", "full data, 100 images"]
    accuracies = np.array(found["rows"][2]["accuracies"])
    assert accuracies.shape == (2, 10) and found["groups"][3] == "class 3"
    gap = 100 * np.mean(accuracies.max(axis=1) - accuracies.min(axis=1))
    line = next(line for line in done.stdout.splitlines() if ", full data" in line)
    assert "5 steps, 10 on full data" in done.stdout and "on the test images, as papers do" in done.stdout
    assert f" {gap:.2f} ±" in line and (tmp_path / "bias.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "give either artifacts or a --config"),
        (["--artifact=x.npz", "--optimizer=lamb"], "choose one of adam, sgd"),
        (["--artifact=x.npz", "--learning_rate=fast"], "expected numbers"),
        (["--config=configs/kip/digits.py:tiny", "--networks=fc9"], "choose one of fc1"),
        (["--config=configs/kip/digits.py:tiny", "--networks="], "--networks: is empty"),
        (["--artifact=x.npz", "--loss="], "--loss: is empty"),
        (["--config=configs/kip/digits.py:tiny", "--validation_size=9999"], "validation_size is 9999; it must lie"),
        (["--config=configs/kip/digits.py:tiny", "--study=bias", "--group=brightness", "--parts=99"], "lower parts"),
    ],
)
def test_bad_input_ends_in_a_line(flags, words, tmp_path):
    done = cli("robustness", f"--out={tmp_path}", *flags)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2


# What each script refuses once it has read its flags; configs/continual has a test of its own.
REFUSED = {
    "corruption": ("--rho=2", "must lie between"),
    "mia": ("--chunk=one", "expected whole numbers"),
    "nas": ("--width=wide", "expected whole numbers"),
    "robustness": ("--networks=fc9", "choose one of fc1"),
}
FILES = [path for script in REFUSED for path in sorted((ROOT / "configs" / script).glob("*.flags"))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_flag_files_hold_flags_that_there_are(path, tmp_path):
    script = path.parent.name
    flag, words = REFUSED[script]
    done = cli(script, f"--flagfile={path}", flag, f"--out={tmp_path}")
    assert done.returncode == 2 and words in done.stderr and "Unknown" not in done.stderr, done.stderr
