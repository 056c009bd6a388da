"""Every config says what it is, every variant of it builds, every tiny variant takes a step, and one a method runs."""

import importlib
import json
import pathlib
import re

import jax
import numpy as np
import pytest

import kipjax
from experiments import run_folder, trainer
from kipjax import checks
from kipjax.io import log

ROOT = pathlib.Path(__file__).parents[2]
CONFIGS = sorted(
    str(path.relative_to(ROOT))
    for path in (ROOT / "configs").rglob("*.py")
    if path.name != "__init__.py" and path.parent.name != "configs"
)
SHAPES = {
    "cifar100": (32, 32, 3, 20),
    "svhn": (32, 32, 3, 10),
    "tiny_imagenet": (64, 64, 3, 20),
    "imagenette": (40, 40, 3, 10),
}


def module(path):
    return importlib.import_module(path.removesuffix(".py").replace("/", "."))


def variants(path):
    """The names that a config knows, from its refusal of another."""
    with pytest.raises(checks.InputError) as caught:
        module(path).get_config("?")
    return re.search(r"choose one of (.*)", str(caught.value)).group(1).split(", ")


@pytest.fixture
def local(request, tmp_path):
    """Points a config at small files that the tests write."""

    def point(config, with_experts=True):
        name = config.data.name
        if name in ("mnist", "fashion_mnist"):
            config.data.data_dir = request.getfixturevalue("idx_folder")
        elif name == "cifar10":
            config.data.data_dir = request.getfixturevalue("cifar_folder")
        elif name.startswith("text:"):
            config.data.data_dir = request.getfixturevalue("text_folder")
            config.data.name = ":".join([*name.split(":")[:2], "8x4"])  # there are few words
        elif name in SHAPES:
            *shape, k = SHAPES[name]
            rng, arrays = np.random.default_rng(0), {}
            for split, n in (("train", 200), ("test", 2 * k)):
                arrays[f"x_{split}"] = rng.integers(0, 255, (n, *shape), dtype=np.uint8)
                arrays[f"y_{split}"] = np.arange(n) % k
            config.data.name = str(tmp_path / f"{name}.npz")
            np.savez(config.data.name, **arrays)
        grey = name in ("digits", "mnist", "fashion_mnist")
        other = ("mnist", "idx_folder") if grey else ("cifar10", "cifar_folder")
        for fields, key, folder in ((config.init, "base", "base_dir"), (config.pretrain, "name", "data_dir")):
            if fields[key]:
                fields[key], fields[folder] = other[0], request.getfixturevalue(other[1])
        if "experts" in config and with_experts:
            config.experts.path = str(tmp_path / "experts")
            importlib.import_module("experiments.buffers").train(config)
        return config

    return point


FAMILIES = ("kip", "label_solve", "coreset", "krr_exact", "dm")


def one_of_each_family():
    """The config with the smallest images of a method of each kind; the others are run whole by the slow tests."""
    order = ["digits", "mnist", "fashion_mnist", "cifar10"]
    found = {}
    for path in CONFIGS:
        config = module(path).get_config("tiny")
        rank = order.index(config.data.name) if config.data.name in order else len(order)
        found.setdefault(config.method.name, []).append((rank, path))
    return {min(paths)[1] for name, paths in found.items() if name in FAMILIES}


WHOLE = one_of_each_family()
RUNS = [pytest.param(path, marks=[] if path in WHOLE else [pytest.mark.slow], id=path) for path in CONFIGS]


@pytest.mark.parametrize("path", RUNS)
def test_the_tiny_variant_runs(path, tmp_path, capsys, local):
    config = local(module(path).get_config("tiny"))
    trainer.run(config, str(tmp_path / "run"))
    made = kipjax.load(tmp_path / "run" / "distilled.npz")
    k = made.distilled.y.shape[1]
    assert made.distilled.x.shape[0] == k * config.init.ipc
    assert made.meta["method"] == config.method.name and made.meta["config"]["seed"] == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["steps"] == config.steps
    lines = log.read(tmp_path / "run" / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(config.log_every, config.steps + 1, config.log_every))
    assert (tmp_path / "run" / "distilled.png").stat().st_size > 1000
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert {row["trained_on"] for row in summary["results"]} >= {"distilled", "random subset"}
    assert all(row["accuracy"]["n"] == len(row["accuracies"]) for row in summary["results"])
    assert len(summary.get("results_by_kernels", [])) >= len(config.evaluation.kernels)
    printed = capsys.readouterr().out
    assert "distilled, " in printed and "random subset, " in printed and f"(n={config.evaluation.seeds})" in printed


@pytest.mark.parametrize("path", CONFIGS)
def test_the_tiny_variant_takes_a_step(path, local):
    """Data, network or kernel, method, start, sampler and a step of it, traced and not compiled."""
    config = local(module(path).get_config("tiny"))
    run_folder.check_schedule(config)
    experiment = trainer.build.experiment(config)
    key = jax.random.key(0)
    state = jax.eval_shape(experiment.method.init, key, experiment.start)
    after, _ = jax.eval_shape(lambda k, s: experiment.method.step(k, s, experiment.sample(k)), key, state)
    assert jax.tree.map(lambda a: (a.shape, a.dtype), after) == jax.tree.map(lambda a: (a.shape, a.dtype), state)


@pytest.mark.parametrize("path", CONFIGS)
def test_it_says_how_to_run_it(path):
    text = (ROOT / path).read_text()
    assert f"--config={path}" in text.split('"""')[1]
    assert "tiny" in variants(path)


# The papers' tables: images per class -> steps, mirror images, images of a gradient (0: all), ridge.
RCIG = {
    "mnist": {"": (15000, False, 0, 5e-4), "10": (10000, False, 0, 5e-4), "50": (5000, False, 0, 5e-4)},
    "fashion_mnist": {"": (15000, False, 0, 5e-4), "10": (10000, False, 0, 5e-4), "50": (5000, False, 0, 5e-4)},
    "cifar10": {"": (15000, True, 0, 5e-4), "10": (10000, True, 0, 5e-4), "50": (5000, True, 0, 5e-4)},
    "cifar100": {"": (10000, True, 0, 5e-4), "10": (5000, True, 0, 5e-4), "50": (4000, False, 2000, 5e-4)},
    "tiny_imagenet": {"": (5000, True, 0, 5e-3), "10": (2000, False, 500, 5e-3)},
    "imagenette": {"": (6000, True, 0, 5e-2), "10": (3000, True, 0, 5e-2)},
}


def test_rows_of_rcigs_table():
    """arXiv:2302.06755, appendix; what they share, and the activation, which is ReLU from 64 x 64 pixels on."""
    for name, rows in RCIG.items():
        for variant, (steps, flip, subsample, reg) in rows.items():
            config = module(f"configs/rcig/{name}.py").get_config(variant)
            assert config.init.ipc == int(variant or 1), (name, variant)
            found = (config.steps, config.method.flip, config.method.subsample, config.method.reg)
            assert found == (steps, flip, subsample, reg), (name, variant)
            augmented = (name, variant) in (("mnist", "50"), ("cifar100", "50"), ("tiny_imagenet", "10"))
            assert config.evaluation.protocol == ("rcig_aug" if augmented else "rcig"), "table S3"
            assert config.model.activation == ("relu" if "image" in name else "softplus"), name
            assert (config.batch.size, config.batch.kind, config.model.width) == (1024, "uniform", 128)
            assert (config.method.pool_size, config.method.pool_max_age, config.method.inner_steps) == (30, 100, 20)
            assert (config.data.preprocess.kind == "zca") == ("mnist" not in name)


def test_words_of_a_variant_add_up():
    config = module("configs/rcig/cifar100.py").get_config("10,adam")
    assert (config.init.ipc, config.steps, config.method.solve) == (10, 5000, "adam")
    for path in ("configs/rcig/fashion_mnist.py", "configs/cig/fashion_mnist.py", "configs/vig/fashion_mnist.py"):
        assert module(path).get_config("cpu").method.learning_rate == 0.01, path
    with pytest.raises(checks.InputError, match="variant is 'dense'; choose one of 10, 50"):
        module("configs/rcig/mnist.py").get_config("10,dense")
    with pytest.raises(checks.InputError, match="variant is '50'; choose one of 10, cpu"):
        module("configs/frepo/tiny_imagenet.py").get_config("50")


def test_rows_of_frepos_and_rfads_tables():
    """Mirror images and label scale of arXiv:2206.00719; ridge, rates and batches of arXiv:2210.12067."""
    flips = {"mnist": "", "fashion_mnist": "", "cifar10": "1 10 50", "cifar100": "1", "tiny_imagenet": "1"}
    scales = {"cifar100": 10**-0.5, "tiny_imagenet": 20**-0.5}
    for name, where in (flips | {"imagenette": "1 10"}).items():
        for variant in ("", "10"):
            config = module(f"configs/frepo/{name}.py").get_config(variant)
            assert config.method.flip == ((variant or "1") in where.split()), (name, variant)
            assert config.init.scale == pytest.approx(scales.get(name, 1.0))
            assert (config.method.reg, config.method.learning_rate, config.method.pool_size) == (1e-6, 3e-4, 10)
            assert config.model.norm == "batch" and config.model.norm_placement == "before_conv"
    for name in ("mnist", "fashion_mnist", "cifar10", "cifar100", "svhn"):
        config = module(f"configs/rfad/{name}.py").get_config("")
        assert (config.batch.size, config.model.width, config.method.networks) == (5120, 256, 8)
        assert (config.method.reg, config.method.learning_rate, config.method.transform_rate) == (5e-3, 1e-3, 5e-5)
        assert config.validation_ipc == (100 if name == "cifar100" else 500)
        assert [spec["kind"] for spec in config.evaluation.kernels] == ["nngp", "ntk"]


def test_an_evaluation_that_cannot_be_done_is_refused_before_the_run(tmp_path, local):
    for field, value, words in (
        ("evaluation.protocol", "rcg", "protocol is 'rcg'"),
        ("evaluation.arch", "foo", "foo"),
        ("evaluation.kernels", ({"name": "fcx", "kind": "ntk"},), "fcx"),
        ("evaluation.subset_seeds", -1, "subset_seeds is -1"),
    ):
        config = local(module("configs/rcig/digits.py").get_config("tiny"))
        config.update_from_flattened_dict({field: value})
        with pytest.raises(checks.InputError, match=words):
            trainer.run(config, str(tmp_path / "run"))
        assert not list((tmp_path / "run").glob("*"))


@pytest.mark.slow
def test_every_variant_builds_its_experiment(local):
    """Data, kernel or network, method and starting set of the full-size variants, on small files of few images."""
    for path in CONFIGS:
        for variant in ["", *variants(path)]:
            config = local(module(path).get_config(variant), with_experts=False)
            config.init.ipc, config.batch.size = 1, 80
            if config.evaluation.protocol == "unrolled":
                config.init.ipc = config.method.inner_steps = 2
            config.pretrain.steps = 2
            config.batch.kind = "uniform" if config.batch.kind in ("experts", "per_class") else config.batch.kind
            config.validation_ipc = min(config.validation_ipc, 2)
            if config.data.preprocess.kind == "zca":
                config.data.preprocess = {"kind": "standardize"}
            run_folder.check_schedule(config)
            experiment = trainer.build.experiment(config)
            state = jax.eval_shape(experiment.method.init, jax.random.key(0), experiment.start)
            shape = jax.eval_shape(experiment.method.distilled, state).x.shape
            assert shape == experiment.start.x.shape, (path, variant)
