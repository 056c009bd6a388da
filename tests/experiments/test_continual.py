"""Continual learning from the command line."""

import json

import jax
import numpy as np
import pytest

from experiments import inputs, memory
from kipjax import data
from kipjax.core import labels
from kipjax.evaluation import continual
from tests.experiments.shell import ROOT, cli

SMALL = ["--data=digits", "--phases=2", "--arch=mlp", "--training=dc", "--epochs=2", "--networks=1", "--test_size=80"]


@pytest.mark.slow
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


@pytest.mark.parametrize(
    ("path", "centred"), [("configs/kip/digits.py:tiny", True), ("configs/dd/digits.py:tiny", False)]
)
def test_a_config_gives_memories_with_centred_labels_in_the_order_of_classes(path, centred):
    """Two phases of the digits have fewer images than KIP's batch of a thousand asks for."""
    config = memory._config(path)
    assert config.init.centered == centred
    config.batch.size, config.steps = 1000, 1
    dataset = data.load("digits")
    preprocess = data.preprocess.fit(dataset.x_train, "standardize")
    phase = continual.split(inputs.task(dataset, preprocess), phases=5)[1]
    make = memory._of_config(config, [preprocess] * 5, "digits")
    made = make(jax.random.key(0), phase, 2)
    np.testing.assert_allclose(made.y, labels.one_hot(np.array([2, 2, 3, 3]), 10), atol=1e-6)


def test_words_of_a_variant_are_joined_by_plus_and_fields_follow_an_at():
    config = memory._config("configs/dsa/images.py:mnist+cpu+10@steps=7@method.outer=2")
    assert (config.data.name, config.init.ipc, config.model.width) == ("mnist", 10, 32)
    assert (config.steps, config.method.outer) == (7, 2)
    assert "flip" not in config.method.strategy


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


@pytest.mark.slow
def test_a_memory_by_labels_whose_state_holds_an_array_twice(tmp_path):
    done = cli("continual", *SMALL, "--ipc=2", "--builder=configs/ld/digits.py:tiny", f"--out={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "continual").glob("*.flags")), ids=lambda path: path.stem)
def test_flag_files_hold_flags_that_there_are(path, tmp_path):
    """Up to the first thing that is refused, here the folder."""
    (tmp_path / "file").touch()
    done = cli("continual", f"--flagfile={path}", f"--out={tmp_path / 'file' / 'out'}")
    assert done.returncode == 2 and "--out:" in done.stderr and "Unknown" not in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--ipc=1", "--phases=3"], "(3); 10 classes can come in 1, 2, 5, 10 phases"),
        (["--ipc=1", "--phases=10", "--builder=configs/dc/images.py:cpu"], "phase 1 has one class, of which it learns"),
        (["--ipc=1", "--learner=lucir", "--distillation=0.5"], "--distillation: lucir has losses of its own"),
        (["--ipc=1", "--learner=rehearsal", "--weight_transfer"], "the network has none; leave it out"),
        (["--total=9"], "below one image for each of 10 classes"),
        ([], "set one of them"),
        (["--ipc=1", "--builder=herd"], "neither 'random', 'herding', 'mnemonics' nor a config"),
        (["--ipc=1", "--builder=configs/kip/digits.py@step=1"], "--builder: field of step is 'step'; choose one of"),
        (["--ipc=1", "--domains=digits,digits"], "--domains: digits,digits; give every value once"),
        (["--ipc=1", "--builder="], "--builder: is empty"),
        (["--ipc=1", "--builder=random,herding"], "choose a learner that sees all of it"),
        (["--ipc=1", "--builder=mnemonics", "--learner=rehearsal"], "needs 2 images of each class and has 1"),
        (["--ipc=2", "--builder=mnemonics", "--inner_rate=0"], "step_size is 0.0"),
        (["--ipc=1", "--learner=lwf"], "choose one of gdumb, continue, rehearsal, lucir"),
        (["--ipc=1", "--distillation=0.5"], "set another learner"),
        (["--ipc=1", "--domains=digits,nope"], "unknown data set"),
        (["--ipc=1", "--domains=digits,mnist", "--phases=5"], "--phases: is of classes in phases; leave it out beside"),
        (["--ipc=1", "--domains=digits,mnist", "--order_seed=1,2"], "--order_seed: is of classes in phases"),
        (["--ipc=1", "--order_seed=-1,-2"], "--order_seed: is -2; expected a seed from 0, or -1"),
        (["--ipc=1", "--order_seed=99999999999"], "seed is 99999999999"),
        (["--ipc=1", "--builder=configs/common.py"], "configs/common.py has no get_config"),
        (["--ipc=1", "--builder=configs/kip/digits.py:tiny@steps=-1"], "steps is -1; it must be a whole number"),
    ],
)
def test_bad_input_ends_in_a_line(tmp_path, flags, words):
    usual = [flag for flag in SMALL if flag != "--phases=2" or not any("--domains" in one for one in flags)]
    done = cli("continual", *usual, f"--out={tmp_path}", *flags)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2
