"""Scoring artifacts from the command line."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

import kipjax
from experiments import inputs, trainer
from kipjax.evaluation import krr, train
from kipjax.kernels import infinite
from tests.experiments.shell import cli
from tests.experiments.test_distill import load

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One set of KIP and one of Label Solve."""
    folders = {}
    for name in ("kip", "label_solve"):
        folders[name] = tmp_path_factory.mktemp(name)
        trainer.run(load(f"configs/{name}/digits.py"), str(folders[name]))
    return folders


@pytest.mark.slow
def test_krr_repeats_what_the_run_reported(runs, tmp_path):
    out = tmp_path / "results.json"
    path = runs["kip"] / "distilled.npz"
    done = cli("evaluate", f"--artifact={path}", "--seeds=2", "--full_size=100", f"--out={out}")
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())
    assert [row["trained_on"] for row in rows] == ["distilled", "random subset", "random training images"]
    summary = json.loads((runs["kip"] / "summary.json").read_text())["results"]
    assert rows[0]["accuracies"] == summary[0]["accuracies"]
    made, data = kipjax.load(path), kipjax.data.load("digits")
    x_test = kipjax.data.preprocess.apply(made.preprocess, data.x_test)
    by_hand = krr.score(infinite.fc(1), made.distilled, x_test, data.y_test)
    assert rows[0]["accuracies"] == [by_hand.accuracy]
    assert rows[1]["accuracy"]["n"] == 2 and "(n=2)" in done.stdout


@pytest.mark.slow
def test_worth_reads_the_set_off_the_curve_of_random_subsets(runs, tmp_path):
    flags = [f"--artifact={runs['label_solve'] / 'distilled.npz'}", "--protocol=worth", "--seeds=2"]
    out = tmp_path / "worth.json"
    done = cli("evaluate", *flags, "--sizes=10,40,2000", f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert [(row["trained_on"], row["size"]) for row in json.loads(out.read_text())] == [
        ("distilled", 10), ("random subset", 10), ("random subset", 40)
    ]  # fmt: skip
    assert "random real images, compression ratio" in done.stdout.splitlines()[-2], "before the path of the results"
    refused = cli("evaluate", *flags, "--sizes=10,many")
    assert refused.returncode == 2 and "not all whole numbers" in refused.stderr and "Traceback" not in refused.stderr


@pytest.mark.slow
def test_kernel_transfer_prints_a_row_per_artifact_and_a_column_per_kernel(runs, tmp_path):
    out = tmp_path / "transfer.json"
    paths = ",".join(str(folder / "distilled.npz") for folder in runs.values())
    chosen = ("fc1:ntk", "fc2:nngp", "conv1:ntk", "rbf")
    done = cli("evaluate",
        f"--artifact={paths}", "--protocol=kernel_transfer", f"--kernels={','.join(chosen)}",
        "--seeds=2", "--test_size=50", f"--out={out}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [name in lines[1] for name in ("fc1 ntk", "fc2 nngp", "conv1 ntk", "rbf")] == [True] * 4
    assert sum(line.startswith("fc1 ntk") for line in lines) == 2, "same training kernel: told apart by the folder"
    assert all("kip" in lines[2] or "label_solve" in line for line in lines[2:4])
    subset = next(line for line in lines if line.startswith("random subset, 10"))
    assert subset.count("±") == 4 and "n=2" in lines[-2]
    rows = json.loads(out.read_text())
    assert len(rows) == 2 * 4 * 2 and {row["test_size"] for row in rows} == {50}


@pytest.mark.slow
def test_a_set_from_elsewhere_is_scored_when_a_kernel_is_named(runs, tmp_path):
    made = kipjax.load(runs["kip"] / "distilled.npz")
    path = tmp_path / "foreign.npz"
    meta = {"dataset": "digits", "method": "by hand"}
    kipjax.save(path, made._replace(meta=meta))
    refused = cli("evaluate", f"--artifact={path}")
    assert refused.returncode == 2 and "names no kernel of its own; name the kernels" in refused.stderr
    done = cli("evaluate", f"--artifact={path}", "--kernels=rbf", "--seeds=1", "--full_size=0")
    assert done.returncode == 0 and "distilled, 10 images" in done.stdout


@pytest.mark.slow
def test_another_data_set_of_the_same_name_is_noticed(runs, tmp_path):
    made = kipjax.load(runs["kip"] / "distilled.npz")
    path = tmp_path / "other.npz"
    kipjax.save(path, made._replace(meta={**made.meta, "data_fingerprint": "0" * 16}))
    done = cli("evaluate", f"--artifact={path}", "--seeds=1", "--full_size=0")
    assert "was distilled from other training data" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda data: b"", "empty"),
        (lambda data: data[: len(data) // 2], "artifact.load"),
        (lambda data: data[:200] + bytes([data[200] ^ 255]) + data[201:], "artifact.load"),
        (lambda data: b"hello " * 50, "artifact.load"),
    ],
)
def test_spoilt_artifacts_end_in_a_line(runs, tmp_path, spoil, words):
    path = tmp_path / "spoilt.npz"
    path.write_bytes(spoil((runs["kip"] / "distilled.npz").read_bytes()))
    done = cli("evaluate", f"--artifact={path}")
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2


def test_missing_and_foreign_files(tmp_path):
    assert "no such file" in cli("evaluate", f"--artifact={tmp_path / 'none.npz'}").stderr.lower()
    np.savez(tmp_path / "arrays.npz", a=np.ones(3))
    done = cli("evaluate", f"--artifact={tmp_path / 'arrays.npz'}")
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) <= 2


@pytest.mark.parametrize("flag", ["--protocol=nope", "--kernels=fcx", "--kernels=fc1:foo", "--seeds=0", "--nope=1"])
def test_wrong_flags(runs, flag):
    done = cli("evaluate", f"--artifact={runs['kip'] / 'distilled.npz'}", flag)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2


@pytest.mark.slow
def test_a_protocol_trains_networks_on_the_set_and_on_random_images(runs, tmp_path):
    out = tmp_path / "trained.json"
    path = runs["kip"] / "distilled.npz"
    done = cli("evaluate",
        f"--artifact={path}", "--protocol=rcig", "--arch=mlp", "--seeds=2", "--test_size=100", f"--out={out}"
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "rcig v1: 1000 steps of adam, learning rate 0.0001, half_mse, not augmented" in done.stdout
    rows = json.loads(out.read_text())
    assert [(row["trained_on"], row["model"], row["accuracy"]["n"]) for row in rows] == [
        ("distilled", "mlp", 2),
        ("random subset", "mlp", 2),
    ]
    for row in rows:
        assert (row["test_size"], row["training"]["learning_rate"]) == (100, 1e-4)
        line = f"{100 * row['accuracy']['mean']:.2f} ± {100 * row['accuracy']['std']:.2f} % (n=2)"
        assert line in done.stdout
    made, data = kipjax.load(path), kipjax.data.load("digits")
    parts = inputs.task(data, made.preprocess)
    parts = parts._replace(x_test=parts.x_test[:100], test_labels=parts.test_labels[:100])
    by_hand = train.evaluate(made.distilled, parts, train.build("mlp", parts), seeds=2, subset_seeds=0)
    np.testing.assert_allclose(rows[0]["mses"], by_hand[0].mses, rtol=1e-4)
    assert rows[0]["accuracy"]["mean"] > 0.5


def test_what_is_scored_is_written_before_the_next_network_is_trained():
    """In a process of its own, which an error ends at the second network."""
    program = """
import types
from experiments import evaluate

def train(*_, name, **__):
    assert name == "a", written
    return [name]

written = []
evaluate.FLAGS = types.SimpleNamespace(full_size=0, parallel=0, protocol="cross_arch", training="dc", seed=0, seeds=1,
    block_size=1, artifact=["set"], data_dir=None, test_size=0, out="results.json")
evaluate.artifacts.load = lambda path: types.SimpleNamespace(meta={}, distilled=None, preprocess=None)
evaluate.report.source = lambda *_: evaluate.report.Source("digits", 0, 0, 0)
evaluate.report.load = evaluate._compare_data = evaluate.inputs.task = lambda *_: None
evaluate.inputs.tested_on = lambda *_: evaluate.Task(*[None] * 5)
evaluate._networks, evaluate._protocol = lambda *_: {"a": 1, "b": 2}, lambda *_: None
evaluate.scoring.trained_results = train
evaluate._write = lambda scored: written.append(list(scored[-1].results))
evaluate.main()
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert "AssertionError: [['a']]" in done.stderr, done.stderr


@pytest.mark.slow
def test_cross_arch_prints_a_row_per_artifact_and_a_column_per_network(runs, tmp_path):
    out = tmp_path / "cross.json"
    paths = ",".join(str(folder / "distilled.npz") for folder in runs.values())
    done = cli("evaluate",
        f"--artifact={paths}", "--protocol=cross_arch", "--training=rcig", "--arch=mlp,mlp:batch", "--seeds=1",
        "--test_size=50", f"--out={out}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    header = next(i for i, line in enumerate(lines) if line.startswith("trained with"))
    assert lines[header].split() == ["trained", "with", "mlp", "mlp:batch"]
    assert [line.split()[0] for line in lines[header + 1 : header + 3]] == ["kip", "label_solve"]
    assert lines[header + 3].startswith("random subset, 10")
    assert sum("rcig v1" in line for line in lines) == 1
    rows = json.loads(out.read_text())
    assert len(rows) == 2 * 2 * 2 and {row["training"]["name"] for row in rows} == {"rcig"}


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--protocol=rcig", "--arch=resnet"], "name is 'resnet'; choose one of convnet"),
        (["--protocol=rcgi"], "rcig_aug"),
        (["--protocol=dc", "--steps=7"], "counts 301 epochs; leave --steps out"),
    ],
)
def test_unknown_networks_and_protocols_are_answered_with_those_that_exist(runs, flags, words):
    done = cli("evaluate", f"--artifact={runs['kip'] / 'distilled.npz'}", *flags)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2


@pytest.mark.slow
def test_training_can_be_longer_than_the_protocol_has_it(runs, tmp_path):
    out, path = tmp_path / "longer.json", runs["kip"] / "distilled.npz"
    flags = [f"--artifact={path}", "--arch=mlp", "--seeds=1", "--test_size=50", "--steps=7"]
    done = cli("evaluate", *flags, "--protocol=ld", "--full_size=3000", f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert "ld v1: 7 steps of adam" in done.stdout and "full training set, 1437 images" in done.stdout
    assert [row["training"]["steps"] for row in json.loads(out.read_text())] == [7, 7, 7]
