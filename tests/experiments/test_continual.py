"""Continual learning from the command line."""

import json

import numpy as np
import pytest

from tests.experiments.test_mia import ROOT, cli

SMALL = ["--data=digits", "--phases=2", "--arch=mlp", "--training=dc", "--epochs=2", "--networks=1", "--test_size=80"]


def test_one_command_makes_table_plot_and_results(tmp_path):
    flags = ["--ipc=1", "--builder=random,configs/kip/digits.py:tiny", f"--out={tmp_path / 'run'}"]
    done = cli("continual", *SMALL, *flags)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "run" / "results.json").read_text())["rows"]
    assert [row["builder"] for row in rows] == ["random", "configs/kip/digits.py:tiny"]
    assert all(row["memory"] == [5, 10] and sum(row["test_sizes"]) == 80 for row in rows)
    for row in rows:
        accuracies, sizes = np.array(row["accuracies"][0], float), np.array(row["test_sizes"])
        last = 100 * float(accuracies[1] @ sizes / sizes.sum())
        line = next(line for line in done.stdout.splitlines() if line.startswith(row["builder"]))
        assert f"{last:.2f}" in line.split()
    assert (tmp_path / "run" / "accuracy.png").read_bytes()[1:4] == b"PNG"


@pytest.mark.slow
def test_exemplars_of_the_networks_on_both_learners(tmp_path):
    flags = ["--ipc=2", "--builder=herding,mnemonics", "--learner=rehearsal,lucir", "--distillation=0.5"]
    flags += ["--balanced_epochs=1", "--exemplar_epochs=1", "--inner_steps=1", "--train_size=200"]
    done = cli("continual", *SMALL, *flags, f"--out={tmp_path}")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "results.json").read_text())
    assert [(row["builder"], row["learner"]) for row in found["rows"]] == [
        (builder, learner) for builder in ("herding", "mnemonics") for learner in ("rehearsal", "lucir")
    ]
    assert found["flags"]["inner_steps"] == 1 and found["flags"]["train_size"] == 200
    assert "lucir, mnemonics" in done.stdout and all(row["memory"] == [10, 20] for row in found["rows"])


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "continual").glob("*.flags")), ids=lambda path: path.stem)
def test_flag_files_hold_flags_that_there_are(path, tmp_path):
    """Up to the first thing that is refused, here the folder of the data."""
    done = cli("continual", f"--flagfile={path}", "--data=nope.npz", f"--out={tmp_path}")
    assert done.returncode == 2 and "nope.npz" in done.stderr and "Unknown" not in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--ipc=1", "--phases=3"], "not divisible by phases"),
        (["--total=9"], "below one image for each of 10 classes"),
        ([], "set one of them"),
        (["--ipc=1", "--builder=herd"], "neither 'random', 'herding', 'mnemonics' nor a config"),
        (["--ipc=1", "--builder=herding"], "choose a learner that sees all of it"),
        (["--ipc=1", "--builder=mnemonics", "--learner=rehearsal"], "needs 2 images of each class and has 1"),
        (["--ipc=2", "--builder=mnemonics", "--inner_rate=0"], "step_size is 0.0"),
        (["--ipc=1", "--learner=lwf"], "choose one of gdumb, continue, rehearsal, lucir"),
        (["--ipc=1", "--distillation=0.5"], "set another learner"),
        (["--ipc=1", "--domains=digits,nope"], "unknown data set"),
    ],
)
def test_bad_input_ends_in_a_line(tmp_path, flags, words):
    done = cli("continual", *SMALL, f"--out={tmp_path}", *flags)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2
