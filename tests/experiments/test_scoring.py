"""A set is scored by the network, the training and the starts that it was made for, in its run and ever after."""

import dataclasses
import functools
import importlib
import json
import pathlib

import jax
import numpy as np
import pytest

import kipjax
from experiments import build, inputs, report, scoring, trainer
from kipjax import checks, methods
from kipjax.evaluation import label_training, train
from kipjax.io import artifact as artifacts
from tests.experiments.shell import cli

ROOT = pathlib.Path(__file__).parents[2]


def tiny(path):
    return importlib.import_module(f"configs.{path}").get_config("tiny")


def fields(model):
    names = [field.name for field in dataclasses.fields(model) if field.name not in ("parent", "name")]
    return {name: getattr(model, name) for name in names}


@pytest.mark.parametrize("name", ["dc", "dsa", "dm"])
def test_an_ablated_network_is_trained_and_scored_alike(name, idx_folder, monkeypatch):
    """What ``make`` gets and what the report trains; then the same from the artifact's own words."""
    config = tiny(f"{name}.images")
    config.data.data_dir, config.evaluation.protocol = idx_folder, name
    config.model.update(activation="sigmoid", norm="batch", pool="max", width=3)
    if name != "dc":
        config.method.update(strategy="crop", mode="multiple")
    seen = {}

    def spy(model, **options):
        seen["trained"] = model
        return make(model, **options)

    def scored(distilled, task, model, *, protocol, **options):
        seen.update(scored=model, protocol=protocol)
        return []

    make = methods.METHODS[name]
    monkeypatch.setitem(methods.METHODS, name, functools.wraps(make)(spy))
    monkeypatch.setattr(train, "evaluate", scored)
    experiment = build.experiment(config)
    meta = {"seed": 0, "config": json.loads(json.dumps(config.to_dict()))}
    report.evaluate(config, experiment, artifacts.Artifact(experiment.start, experiment.preprocess, meta))
    assert fields(seen["scored"]) == fields(seen["trained"]) and seen["scored"].norm == "batch"
    if name == "dc":  # with batch norm DC trains on crops and noise, for 1001 epochs
        assert seen["protocol"].augment == ("crop_noise",) * 2 and seen["protocol"].epochs == 1001
    else:
        assert seen["protocol"].augment == ("crop", "crop") and seen["protocol"].augment_style == "each"
    again = scoring.of_artifact(meta)
    assert fields(scoring.network(again, experiment.task)[1]) == fields(seen["trained"])
    size = len(experiment.start.x)
    assert scoring.protocol(name, experiment.task, size, again, meta, seen["scored"]) == seen["protocol"]


def test_another_network_by_its_options(idx_folder):
    config = tiny("dm.images")
    config.data.data_dir, config.evaluation.width = idx_folder, 4
    config.evaluation.arch = "dc_convnet:batch:activation=sigmoid:pool=max:width=6"
    name, model = scoring.network(config, build.experiment(config).task)
    assert (model.norm, model.activation, model.pool, model.width) == ("batch", "sigmoid", "max", 6)
    assert name == config.evaluation.arch and not model.doubling


def test_real_sentences_are_read_back(text_folder, tmp_path):
    config = tiny("tdd.sentiment")
    config.data.data_dir, config.init.kind = text_folder, "real"
    experiment = build.experiment(config)
    made = artifacts.Artifact(experiment.start, experiment.preprocess, {})
    lines = pathlib.Path(report._sentences(str(tmp_path), made, config, "")).read_text().splitlines()
    assert len(lines) == len(experiment.start.x)
    files = [path.read_text().splitlines() for path in pathlib.Path(text_folder).iterdir()]
    real = {" ".join(line.split("\t")[2].split()[:8]) for lines in files for line in lines}
    assert {line.split("\t")[1] for line in lines} <= real


@pytest.mark.slow
def test_a_set_for_fixed_networks_is_scored_on_them_again(tmp_path):
    config = tiny("dd.digits")
    config.method.update(start="fixed", networks=2)
    config.seed = 3
    trainer.run(config, str(tmp_path))
    done = cli("evaluate",
        f"--artifact={tmp_path / 'distilled.npz'}", "--protocol=unrolled", "--seeds=1", "--test_size=50",
        "--baselines=average,kmeans", "--epochs=1,2", f"--out={tmp_path / 'again.json'}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (first, *_), (again, *others) = (
        json.loads((tmp_path / "summary.json").read_text())["results"],
        json.loads((tmp_path / "again.json").read_text()),
    )
    assert again["model"] == first["model"] == "convnet" and len(again["accuracies"]) == 2
    assert again["accuracies"] == first["accuracies"]
    np.testing.assert_allclose(again["mses"], first["mses"], rtol=1e-5)
    assert [row["trained_on"] for row in others] == ["average real images", "k-means of real images"]


def test_pretrained_starts_are_found_again(monkeypatch):
    config = tiny("dd.adapt")
    config.pretrain.networks = 2
    calls = []
    monkeypatch.setattr(build, "pretrained", lambda *args: calls.append(jax.random.key_data(args[2]).tolist()))
    for networks in (1, 2):  # fewer than there are: others of their kind; all: the very same
        config.method.networks = networks
        scoring.starts(config, None, None, None, 0)
    held_out, same = (jax.random.key_data(jax.random.key(config.seed + more)).tolist() for more in (1, 0))
    assert calls == [held_out, same]


@pytest.mark.slow
def test_a_set_of_labels_keeps_its_number_of_steps(tmp_path):
    config = tiny("ld.digits")
    trainer.run(config, str(tmp_path))
    made = kipjax.load(tmp_path / "distilled.npz")
    out = tmp_path / "again.json"
    done = cli("evaluate", f"--artifact={tmp_path / 'distilled.npz'}", "--protocol=ld", "--seeds=1", f"--out={out}")
    assert done.returncode == 0, done.stderr
    row = json.loads(out.read_text())[0]
    assert row["training"]["steps"] == made.meta["training_steps"] != 300
    assert row["training"]["batch_size"] == config.method.batch_size and row["model"] == "convnet"
    assert f"{made.meta['training_steps']} steps of adam" in done.stdout
    flags = [f"--artifact={tmp_path / 'distilled.npz'}", "--protocol=flexibility", "--training=ld", "--seeds=1"]
    done = cli("evaluate", *flags, "--step_offsets=0,2", "--optimizers=sgd:0.01", f"--out={out}")
    assert done.returncode == 0, done.stderr
    steps = made.meta["training_steps"]
    expected = [f"convnet, {steps} steps", f"convnet, {steps + 2} steps", "convnet, sgd 0.01"]
    assert list(dict.fromkeys(row["model"] for row in json.loads(out.read_text()))) == expected


def test_a_set_of_labels_is_tested_by_the_training_of_its_run(monkeypatch):
    """Its ridge, rates and mean, and for flexibility other steps and optimizers, in the form of the run."""
    config = tiny("ld.digits")
    config.method.update(reg=0.3, alpha=0.2, model_learning_rate=0.05, scale_learning_rate=0.07, batch_size=4)
    experiment, seen = build.experiment(config), []
    monkeypatch.setattr(label_training, "evaluate", lambda *args, **options: seen.append(options) or [])
    made, task, usage = experiment.start, experiment.task, {"training_steps": 9}
    name, model = scoring.network(config, task)
    protocol = scoring.protocol("ld", task, len(made.x), config, usage, model)
    options = {"key": jax.random.key(0), "seeds": 1}
    scoring.trained_results(config, made, task, model, protocol=protocol, name=name, **options)
    own = label_training.Training("ridge", 4, 0.05, 0.07, 0.3, 0.2)
    assert [(one["steps"], one["training"]) for one in seen] == [(9, own)]
    seen.clear()
    scoring.flexibility_results(config, made, task, {name: model}, protocol, [-3, 2], {"sgd": ("sgd", 0.5)}, **options)
    other = own._replace(optimizer="sgd", learning_rate=0.5)
    assert [(one["steps"], one["training"]) for one in seen] == [(6, own), (11, own), (9, other)]
    config.method.learn_labels = False
    with pytest.raises(checks.InputError, match="true labels has no number of steps"):
        scoring.flexibility_results(config, made, task, {name: model}, protocol, [0], {}, **options)


def test_images_of_another_data_set():
    """They get the labels that the config asks for; true ones they have none."""
    config = tiny("ld.digits")
    config.init.update(base="digits", classes=3, labels="smoothed")
    start = build.experiment(config).start
    np.testing.assert_allclose(start.y, 0.9 * np.eye(10)[np.arange(3).repeat(config.init.ipc)] + 0.01, rtol=1e-6)
    config.init.update(classes=0, labels="", centered=True, scale=2.0)
    start = build.experiment(config).start
    np.testing.assert_allclose(start.y, 2 * (np.eye(10)[np.arange(10).repeat(config.init.ipc)] - 0.1), atol=1e-6)
    config.method.learn_labels = False
    with pytest.raises(checks.InputError, match="whose true labels are none of digits"):
        build.experiment(config)


@pytest.mark.parametrize("held_out", [False, True])
def test_images_that_choose_the_labels_are_no_targets(held_out):
    config = tiny("ld.digits")
    config.validation_ipc, config.validation_held_out = 30, held_out
    parts = build.experiment(config).task
    chosen, rest = inputs.validation(config, parts), inputs.targets(config, parts)
    rows = {row.tobytes() for row in np.asarray(chosen.x)}
    shared = sum(row.tobytes() in rows for row in np.asarray(rest.x_train))
    assert len(rows) == 300 and len(rest.x_train) == len(rest.train_labels) == len(parts.x_train) - 300 * held_out
    assert shared == (0 if held_out else 300)


def test_starting_labels_and_images_of_some_classes_only():
    config = tiny("sldd.digits")
    config.init.update(classes=3, labels="smoothed")
    start = build.experiment(config).start
    assert start.x.shape[0] == 3 * config.init.ipc and start.y.shape[1] == 10
    hard = np.eye(10)[np.arange(3).repeat(config.init.ipc)]
    np.testing.assert_allclose(start.y, 0.9 * hard + 0.01, rtol=1e-6)
    config.init.update(labels="normal")
    again = build.experiment(config).start
    assert np.array_equal(again.x, start.x) and len(np.unique(again.y)) == again.y.size
    for field, value, words in (("classes", 11, "classes is 11"), ("labels", "hard", "kind is 'hard'; choose one of")):
        other = config.copy_and_resolve_references()
        other.init[field] = value
        with pytest.raises(checks.InputError, match=words):
            build.experiment(other)


def test_published_parts_of_label_distillation():
    module = importlib.import_module("configs.ld.mnist")
    parts = {"10": 10, "20": 10, "50": 25, "": 50, "200": 50, "500": 50}
    for variant, part in parts.items():
        config = module.get_config(variant)
        count = int(variant or 100)
        assert (10 * config.init.ipc, config.method.batch_size) == (count, part)
        assert config.steps == (800 if count > 100 else 400) * 49
        assert (config.validation_ipc, config.validation_held_out, config.method.validate_every) == (1000, True, 245)
    for name, *published in (("cifar10", 10, 50, 220), ("cifar100", 1, 100, 220)):
        config = importlib.import_module(f"configs.ld.{name}").get_config()
        assert [config.init.ipc, config.method.batch_size, config.method.validate_every] == published
