"""Architecture search from the command line."""

import json

import jax
import numpy as np
import pytest

import kipjax
from kipjax import data
from kipjax.data import draw
from kipjax.evaluation import nas
from tests.experiments.shell import cli

SMALL = ["--data=digits", "--width=2", "--depth=1", "--norm=none", "--pool=avg", "--full_size=50", "--test_size=20"]
SMALL += ["--validation_size=20", "--herding=dc_convnet:width=2:depth=1", "--herding_epochs=1"]


@pytest.mark.slow
def test_one_command_makes_table_plot_and_results(artifact, tmp_path):
    flags = ["--epochs=2", "--full_epochs=2", "--top=2", "--noearly_stopping", "--random_sets=2", "--training=mtt"]
    done = cli("nas", *SMALL, *flags, f"--artifact={artifact}", f"--out={tmp_path / 'nas'}")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "nas" / "results.json").read_text())
    assert [(row["proxy"], row["images"]) for row in found["rows"][:-1]] == [
        (name, 10) for name in ("some", "random, 10 images", "random, 10 images", "herding, 10 images")
    ]
    last = found["rows"][-1]
    assert last["proxy"] == "whole set" and 50 - 20 <= last["images"] <= 50
    assert len(found["architectures"]) == 3 and found["flags"]["top"] == 2
    means = [[sum(a) / len(a) for a in row["accuracies"]] for row in found["rows"]]
    line = next(line for line in done.stdout.splitlines() if line.startswith("some"))
    assert f"{nas.correlation(means[0], means[-1]).spearman:.2f}" in line.split()
    line = next(line for line in done.stdout.splitlines() if line.startswith("random"))
    pair = [nas.correlation(mean, means[-1]).kendall for mean in means[1:3]]
    assert f"{np.mean(pair):.2f} ± {np.std(pair, ddof=1):.2f}" in line and line.split()[3] == "2"
    assert "20 held-out training images, which the given sets may have been" in done.stdout
    assert "2 epochs of sgd, the set's own learning rate" in done.stdout
    assert (tmp_path / "nas" / "correlation.png").read_bytes()[1:4] == b"PNG"


@pytest.mark.slow
def test_sets_are_proxies_as_they_were_unrolled(tmp_path, artifact):
    """GTN's rapid learning; real images in as many batches, by a step size of their own."""
    run, flags = tmp_path / "gtn", ["--top=2", "--random_sets=1", "--full_epochs=2", "--training=unrolled"]
    done = cli("distill", "--config=configs/gtn/digits.py:tiny", f"--workdir={run}")
    assert done.returncode == 0, done.stderr
    path = str(run / "distilled.npz")
    made = kipjax.load(path)
    done = cli("nas", *SMALL, *flags, f"--artifact={path}", f"--out={tmp_path / 'nas'}")
    assert done.returncode == 0, done.stderr
    assert "trained on as they were unrolled" in done.stdout and "early stopping as many steps of nas" in done.stdout
    rows = {row["proxy"]: row for row in json.loads((tmp_path / "nas" / "results.json").read_text())["rows"]}
    assert list(rows) == ["gtn", "random, as gtn", "herding, as gtn", "early stopping", "whole set"]

    # The same numbers by a training of our own on the same held-out images.
    momentum = np.asarray(made.meta["momentum"], np.float32)
    curriculum = nas.Curriculum(made.meta["config"]["method"]["inner_steps"], momentum)
    assert len(made.distilled.lr) == curriculum.inner_steps == len(momentum)
    found = data.load("digits")
    held = np.asarray(draw.without_replacement(jax.random.key(0), 20, len(found.x_train)))
    x, classes = data.preprocess.apply(made.preprocess, found.x_train[held]), found.y_train[held]
    space = nas.space(width=[2], depth=[1], norm=["none"], pool=["avg"])
    expected = nas.search(space, made.distilled, x, classes, curriculum=curriculum, key=jax.random.key(0)).accuracies
    np.testing.assert_allclose(rows["gtn"]["accuracies"], expected, atol=1e-6)

    done = cli("nas", *SMALL, *flags, f"--artifact={artifact}", f"--out={tmp_path / 'none'}")
    assert done.returncode == 2 and "was not distilled through a training with a step size for each" in done.stderr
    noise = tmp_path / "noise.npz"
    config = made.meta["config"] | {"method": made.meta["config"]["method"] | {"curriculum": "noise"}}
    kipjax.save(noise, made._replace(meta=made.meta | {"config": config}))
    done = cli("nas", *SMALL, *flags, f"--artifact={noise}", f"--out={tmp_path / 'none'}")
    assert done.returncode == 2 and "was unrolled by 'noise' and not 'full'" in done.stderr


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--norm=batchnorm"], "choose one of none, batch"),
        (["--width=wide"], "expected whole numbers"),
        (["--top=0.1"], "at least 2"),
        (["--top=2", "--random_ipc=9"], "--full_size: leaves"),
        (["--depth=4", "--top=2", "--random_ipc=1"], "leave it out"),
        (["--norm="], "--norm: is empty"),
        (["--top=2", "--training=rcig", "--epochs=3"], "rcig counts steps, not epochs"),
        (["--top=2", "--random_sets=0", "--herding="], "proxies is empty"),
        (["--top=2", "--random_ipc=1", "--herding=nope"], "nope"),
        (["--top=2", "--seed=99999999999999999999"], "--seed"),
        (["--top=2", "--training=unrolled"], "unrolled is for artifacts; give --artifact"),
        (
            ["--top=2", "--training=unrolled", "--epochs=3", "--artifact=none.npz"],
            "--epochs: --training=unrolled takes",
        ),
    ],
)
def test_bad_input_ends_in_a_line(tmp_path, flags, words):
    done = cli("nas", *SMALL, f"--out={tmp_path}", *flags)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2


def test_sets_of_other_data_are_refused(artifact, tmp_path):
    flags = ["--top=2", "--image_size=4", f"--artifact={artifact}", f"--out={tmp_path}"]
    done = cli("nas", *SMALL, *flags)
    assert done.returncode == 2 and "was distilled from digits at image_size 0; set --data and --image" in done.stderr


def test_sets_of_different_spaces_are_refused(artifact, tmp_path):
    made = kipjax.load(artifact)
    other = tmp_path / "other.npz"
    kipjax.save(other, made._replace(preprocess=made.preprocess._replace(mean=made.preprocess.mean + 1)))
    done = cli("nas", *SMALL, "--top=2", f"--artifact={artifact},{other}", f"--out={tmp_path}")
    assert done.returncode == 2 and "another space" in done.stderr
