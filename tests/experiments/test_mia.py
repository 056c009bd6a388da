"""Membership inference from the command line."""

import json
import pathlib

import numpy as np
import pytest

import kipjax
from experiments import inputs, report, trainer
from tests.experiments.shell import cli
from tests.experiments.test_distill import load

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def chunk_run(tmp_path_factory):
    """A set of KIP on rows 400..799 of the digits."""
    folder, config = tmp_path_factory.mktemp("kip"), load("configs/kip/digits.py")
    config.data.train_start, config.data.train_size = 400, 400
    trainer.run(config, str(folder))
    return folder / "distilled.npz"


def test_a_part_of_the_training_set_is_those_rows_and_no_others():
    config, whole = load("configs/kip/digits.py"), kipjax.data.load("digits")
    config.data.train_start, config.data.train_size = 400, 400
    part = inputs.load(config)
    np.testing.assert_array_equal(part.x_train, whole.x_train[400:800])
    np.testing.assert_array_equal(part.y_train, whole.y_train[400:800])
    np.testing.assert_array_equal(part.x_test, whole.x_test)
    config.data.train_start = 1200
    with pytest.raises(kipjax.checks.InputError, match="choose rows among them"):
        inputs.load(config)


@pytest.mark.slow
def test_one_command_makes_table_plot_and_results(chunk_run, tmp_path):
    flags = ["--data=digits", "--chunk_size=400", "--chunk=1", "--subset_size=50", "--lengths=2,40", "--arch=mlp"]
    flags += ["--attacks=threshold,k_nearest_neighbors", "--noaugment", f"--artifact={chunk_run}"]
    done = cli("mia", *flags, f"--out={tmp_path / 'mia'}")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "mia" / "results.json").read_text())
    rows = found["rows"]
    assert len(rows) == 4 * 2 * 2 and found["flags"]["chunk_size"] == 400 and found["flags"]["seeds"] == 1
    last = {r["trained_on"]: r for r in rows if r["steps"] == 40 and r["attack"] == "threshold"}
    assert list(last) == ["kip, 10 images", "subset", "real", "control"]
    assert (last["real"]["used"], last["subset"]["used"], last["control"]["used_auc"]) == (400, 50, None)
    assert f"{last['real']['auc']:.2f}" in done.stdout and "AUC after 40 steps" in done.stdout
    assert (tmp_path / "mia" / "table.txt").read_text().strip() in done.stdout
    assert (tmp_path / "mia" / "curves.png").read_bytes()[1:4] == b"PNG"


def test_the_artifact_knows_its_part(chunk_run):
    made = kipjax.load(chunk_run)
    source = report.source(str(chunk_run), made)
    assert source == ("digits", 0, 400, 400)
    assert report.fingerprint(report.load(source, None)) == made.meta["data_fingerprint"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--chunk_size=300"], "which is none of the chunks"),
        (["--chunk_size=400", "--chunk=9"], "which is none of the chunks"),
        (["--chunk_size=400", "--chunk=one"], "expected whole numbers"),
        (["--chunk_size=400", "--chunk=1,9"], "chunk 9 of 400 images ends at 4000"),
        (["--chunk_size=400", "--chunk=1", "--attacks=guess"], "choose one of threshold"),
        (["--chunk_size=400", "--chunk=1", "--lengths=4,2"], "ascending"),
        (["--chunk_size=400", "--chunk=1", "--lengths="], "--lengths: is empty"),
        (["--chunk_size=400", "--chunk=1", "--attacks="], "--attacks: is empty"),
        (["--chunk_size=400", "--chunk=1,1"], "give every value once"),
        (["--chunk_size=400", "--chunk=1", "--test_size=9"], "number of non-members"),
        (["--chunk_size=400", "--chunk=1", "--subset_size=500"], "--subset_size: is 500 of the 400 images of a chunk"),
        (["--chunk_size=400", "--chunk=1", "--image_size=4"], "set --data and --image_size to those"),
        (["--chunk_size=1000", "--artifact=", "--subset_size=0"], "there is no second chunk"),
        (["--artifact=", "--noreal", "--nocontrol", "--subset_size=0"], "no network to attack"),
    ],
)
def test_bad_input_ends_in_a_line(chunk_run, tmp_path, flags, words):
    start = ["--data=digits", f"--artifact={chunk_run}", f"--out={tmp_path}", "--arch=mlp", "--subset_size=40"]
    done = cli("mia", *start, *flags)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2
