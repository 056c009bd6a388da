"""Experts of MTT on disk: trained once, gone on with, and refused where they do not belong to the run."""

import jax
import pytest

from configs.dm import images as dm_images
from configs.matching import words
from configs.mtt import images
from experiments import buffers, build, trainer
from kipjax import checks, methods
from kipjax.methods import dc


@pytest.fixture(scope="module")
def config(tmp_path_factory, idx_folder):
    made = images.get_config("tiny")
    made.data.data_dir, made.experts.path = idx_folder, str(tmp_path_factory.mktemp("experts"))
    made.experts.update(count=1, train_size=20, epochs=3)
    buffers.train(made)
    return made


def changed(config, **fields):
    other = config.copy_and_resolve_references()
    for name, value in fields.items():
        other.update_from_flattened_dict({name.replace("__", "."): value})
    return other


@pytest.mark.slow
def test_training_goes_on_with_the_missing_ones(config, capsys):
    more = changed(config, experts__count=2)
    buffers.train(more)
    assert "expert_0001.npz" in (printed := capsys.readouterr().out) and "expert_0000.npz" not in printed
    assert build.experiment(more).sample.x.shape[0] == 2
    assert build.experiment(config).sample.x.shape[0] == 1
    two = build.experiment(changed(more, batch__size=2)).sample(jax.random.key(0))
    assert two.x.shape[0] == 2


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"experts__path": ""}, "path is empty; train experts with python -m experiments.buffers"),
        ({"experts__path": "/nonexistent"}, "is no folder"),
        ({"experts__count": 3}, "experts and count is 3; go on with python -m experiments.buffers"),
        ({"model__width": 3}, "the expert has model.width 2 and this run 3"),
        ({"model__norm": "none"}, "the expert has model.norm 'instance' and this run 'none'"),
        ({"data__name": "mnist"}, "the expert has dataset 'fashion_mnist' and this run 'mnist'"),
        ({"data__preprocess__constants": "mnist"}, "preprocess"),
        ({"data__train_size": 20}, "the expert has data_fingerprint"),
        ({"method__expert_epochs": 9}, "was trained for 3 epochs, and config.method needs 10"),
    ],
)
def test_a_run_refuses_experts_of_another_kind(config, fields, words):
    with pytest.raises(checks.InputError, match=words):
        build.experiment(changed(config, **fields))


def test_other_training_is_not_mixed_in(config):
    with pytest.raises(checks.InputError, match=r"recipe.learning_rate 0.01 and this run 0.5"):
        buffers.train(changed(config, experts__learning_rate=0.5))


def test_no_experts_at_all_are_refused(config):
    with pytest.raises(checks.InputError, match=r"config.experts: count is 0; it must be a whole number, at least 1"):
        build.experiment(changed(config, experts__count=0))


def test_a_class_without_images_has_no_experts(config, monkeypatch):
    load = buffers.inputs.load

    def without_nines(config):
        found = load(config)
        kept = found.y_train != 9
        return found._replace(x_train=found.x_train[kept], y_train=found.y_train[kept])

    monkeypatch.setattr(buffers.inputs, "load", without_nines)
    with pytest.raises(
        checks.InputError, match=r"config.data: class 9 has no training image; add some, or raise train_size"
    ):
        buffers.train(config)


def test_a_config_without_experts_is_refused():
    with pytest.raises(checks.InputError, match="this experiment of dm has no experts"):
        buffers.train(dm_images.get_config("tiny"))


def test_a_run_does_not_go_on_with_experts_trained_anew(config, tmp_path):
    trainer.run(config, str(tmp_path / "run"))
    anew = changed(config, experts__path=str(tmp_path / "anew"), experts__seed=config.experts.seed + 1)
    buffers.train(anew)
    moved = changed(config, experts__path=str(tmp_path / "anew"), steps=config.steps + 2)
    with pytest.raises(checks.InputError, match="the experts are not those of the run so far"):
        trainer.run(moved, str(tmp_path / "run"), resume=True)


@pytest.mark.parametrize("name", ["dc", "dsa", "dm", "mtt"])
def test_variants_are_words(name):
    module = __import__(f"configs.{name}.images", fromlist=["get_config"])
    for dataset, flip in (("cifar10", True), ("svhn", False)):
        for ipc in (1, 10, 50):
            config = module.get_config(f"{ipc},{dataset}")
            assert (config.data.name, config.init.ipc) == (dataset, ipc)
            if name in ("dc", "dsa"):
                assert config.steps == 1000 * dc.loops(ipc)[0]
            if name != "dc":
                assert ("flip" in config.method.strategy) == flip
    assert set(config.method) - {"name"} <= set(__import__("inspect").signature(methods.METHODS[name]).parameters)
    with pytest.raises(checks.InputError, match="variant is 'cifar'; choose one of mnist, fashion_mnist"):
        words(config, "cifar", {})
    for two in ("mnist,cifar10", "10,50"):
        with pytest.raises(checks.InputError, match=f"variant has both {two.replace(',', ' and ')}; choose one"):
            module.get_config(two)


def test_published_numbers_of_mtt():
    row = images.get_config("cifar100,50").method
    assert (row.steps, row.expert_epochs, row.max_start_epoch, row.batch_size) == (80, 2, 40, 125)
    assert images.get_config("cifar10,1").data.preprocess.kind == "zca"
    assert images.get_config("cifar100,10").data.preprocess.constants == "cifar10"


@pytest.mark.parametrize(
    ("name", "init", "method"),
    [
        ("dc", ("noise", 1.0), {"learning_rate": 0.1, "momentum": 0.5, "network_learning_rate": 0.01}),
        ("dsa", ("real", 1.0), {"learning_rate": 0.1, "momentum": 0.5, "network_learning_rate": 0.01}),
        ("dm", ("real", 1.0), {"learning_rate": 1.0, "momentum": 0.5}),
    ],
)
def test_published_numbers_of_dc_dsa_and_dm(name, init, method):
    config = __import__(f"configs.{name}.images", fromlist=["get_config"]).get_config("cifar10,10")
    made = methods.METHODS[name]
    defaults = {k: p.default for k, p in __import__("inspect").signature(made).parameters.items()}
    assert {key: config.method.get(key, defaults[key]) for key in method} == method
    assert config.batch.size == 256 and config.init.kind == init[0]
    assert init[0] == "real" or config.init.std == init[1]
    assert (config.model.name, config.model.width, config.model.norm) == ("dc_convnet", 128, "instance")
    assert config.steps == {"dc": 10_000, "dsa": 10_000, "dm": 20_000}[name]
