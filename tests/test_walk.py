"""A newcomer's walk: a clone, a folder of one's own pictures, a distilled set of them, its score, other formats."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import kipjax
from tests.test_readme import ROOT, TEXT

CLASSES = ("circle", "cross", "square")


def draw(rng, kind):
    """A shape in white on 8 x 8 noisy pixels, where it happens to stand."""
    image = rng.integers(0, 60, (8, 8))
    rows, columns = np.indices((8, 8)) - rng.integers(3, 5, (2, 1, 1))
    shapes = {
        "circle": abs(np.hypot(rows, columns) - 2.5) < 0.6,
        "cross": (rows == 0) | (columns == 0),
        "square": (abs(rows) < 3) & (abs(columns) < 3),
    }
    return np.where(shapes[kind], rng.integers(180, 256, (8, 8)), image).astype(np.uint8)


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The files of the project as a clone has them."""
    folder = tmp_path_factory.mktemp("walk") / "kipjax"
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("the project is not in a git repository here, so there is nothing to clone")
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def told(words):
    """The README's command with these words, as it stands there: the script and its flags."""
    (line,) = (line for line in TEXT.replace("\\\n", " ").splitlines() if words in line)
    return line.removeprefix("python -m ").split()


def run(clone, *arguments):
    """One of the README's commands in the clone."""
    script = f"python -m {arguments[0]}"
    assert script in TEXT, f"the README does not have {script}"
    cache = str(ROOT / ".jax_cache")
    environment = os.environ | {"PYTHONPATH": str(clone), "JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": cache}
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=clone, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_from_a_clone_to_ones_own_pictures_distilled_and_scored(clone):
    """With the README's commands for one's own data, and what follows for any set: loading it, other formats."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 20)):
        for kind in CLASSES:
            (clone / "shapes" / split / kind).mkdir(parents=True)
            for i in range(count):
                Image.fromarray(draw(rng, kind)).save(clone / "shapes" / split / kind / f"{i}.png")

    printed = run(clone, *told("--config.data.name=shapes"))
    assert "distilled, 3 images" in printed and "full training set, 120 images" in printed
    found = sorted(path.name for path in (clone / "runs" / "shapes").iterdir())
    assert found == ["checkpoints", "config.json", "distilled.npz", "distilled.png", "metrics.jsonl", "summary.json"]

    artifact = str(clone / "runs" / "shapes" / "distilled.npz")
    printed = run(clone, *told("--artifact=runs/shapes/distilled.npz"))
    accuracies = [float(line.split("ntk")[1].split()[0]) for line in printed.splitlines() if "fc1 ntk" in line]
    assert accuracies[0] > accuracies[1] > 30  # the distilled set, and random subsets

    made = kipjax.load(artifact)
    assert made.distilled.x.shape == (3, 8, 8, 1) and tuple(made.meta["class_names"]) == CLASSES
    assert made.meta["dataset"] == "shapes"

    run(clone, "experiments.convert", f"--artifact={artifact}", "--to=pictures", "--format=png")
    assert (clone / "pictures" / "labels.csv").read_text().splitlines()[2].startswith("0001.png,1,cross,")
