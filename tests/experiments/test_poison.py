"""The poisoning experiment: its report, and what it refuses."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import kipjax
from configs.dd import adapt, digits
from experiments import build, poison
from kipjax import checks
from kipjax.evaluation import Task
from kipjax.types import Distilled


@pytest.mark.slow
def test_one_step_breaks_the_attacked_class_alone(tmp_path):
    config = digits.get_config("cpu")
    config.model = {"name": "mlp", "depth": 1, "width": 64}
    config.steps, config.log_every, config.batch.size = 300, 100, 200
    report = poison.run(config, str(tmp_path), attacked=0, target=1, networks=16, train_steps=200)
    rows = report["networks"]
    before, after = ({name: sum(row[when]) / 16 for name, row in rows.items()} for when in ("before", "after"))
    assert before["accuracy on the attacked class"] > 0.9
    assert after["accuracy on the attacked class"] < 0.2
    assert after["attacked class taken for the target"] > 0.8
    assert after["accuracy on the other classes"] > before["accuracy on the other classes"] - 0.1
    assert json.loads((tmp_path / "poison.json").read_text())["summary"]
    assert (tmp_path / "poison.npz").exists()


@pytest.mark.slow
def test_no_step_too_many_and_the_rate_of_the_attack(tmp_path, capsys):
    config = digits.get_config("tiny")
    config.steps, config.log_every = 3, 2
    report = poison.run(config, str(tmp_path), attacked=0, target=1, networks=1, train_steps=2)
    assert "step 2 " in (printed := capsys.readouterr().out) and "step 3 " in printed and "step 4" not in printed
    assert {f"accuracy on class {c}" for c in range(10)} < set(report["networks"])
    assert kipjax.load(tmp_path / "poison.npz").meta["config"]["method"]["learning_rate"] == 0.02


@pytest.mark.parametrize(("attacked", "target"), [(1, 1), (0, 10)])
def test_classes_that_cannot_be_attacked_are_refused_before_networks_are_trained(attacked, target, monkeypatch):
    monkeypatch.setattr(build, "pretrained", lambda *args: pytest.fail("networks are trained"))
    with pytest.raises(checks.InputError, match="expected two of the 10 classes"):
        poison.run(digits.get_config("tiny"), "unused", attacked, target, networks=1, train_steps=2)


def test_wrong_options_are_refused_before_networks_are_trained(monkeypatch):
    monkeypatch.setattr(build, "pretrained", lambda *args: pytest.fail("networks are trained"))
    config = adapt.get_config("tiny")
    config.method.step_size = -1.0
    with pytest.raises(checks.InputError, match=r"step_size is -1.0"):
        build.experiment(config)


def test_the_report_by_hand():
    """A network that says class 0 whatever it sees; its step on an image of class 1 makes it say that."""
    task = Task(None, None, np.zeros((4, 2), np.float32), np.array([0, 0, 1, 2]), 3)
    head = {"kernel": jnp.zeros((1, 2, 3)), "bias": jnp.array([[5.0, 0.0, 0.0]])}
    made = Distilled(np.zeros((1, 2), np.float32), np.eye(3, dtype=np.float32)[[1]], np.array([6.0], np.float32))
    rows = poison.attack(Linear(3), {"params": {"head": head}}, made, task, 0, 1)["networks"]
    expected = {
        "accuracy": (0.5, 0.25),
        "accuracy, attacked class relabelled": (0.0, 0.75),
        "accuracy on the other classes": (0.0, 0.5),
        "accuracy on class 0": (1.0, 0.0),
        "accuracy on class 1": (0.0, 1.0),
        "attacked class taken for the target": (0.0, 1.0),
    }
    for name, (before, after) in expected.items():
        assert rows[name] == {"before": [before], "after": [after]}, name


def test_numbers_that_are_not_finite_are_no_success():
    """The largest of NaN is the first, so that a set of NaN would seem to have made all of them the target."""
    task = Task(None, None, np.zeros((2, 2), np.float32), np.array([1, 2]), 3)
    head = {"kernel": jnp.zeros((1, 2, 3)), "bias": jnp.zeros((1, 3))}
    made = Distilled(np.full((1, 2), np.nan, np.float32), np.eye(3, dtype=np.float32)[[0]], np.ones(1, np.float32))
    with pytest.raises(checks.NumericalError, match="network 0 after the step left the finite numbers"):
        poison.attack(Linear(3), {"params": {"head": head}}, made, task, 1, 0)
    with pytest.raises(checks.InputError, match="no test image is of class 0"):
        poison.attack(Linear(3), {"params": {"head": head}}, made, task, 0, 1)


class Linear(nn.Module):
    """A linear layer with a bias."""

    num_classes: int

    @nn.compact
    def __call__(self, x, *, train=False, features=False):
        logits = nn.Dense(self.num_classes, name="head")(x)
        return (logits, x) if features else logits


@pytest.mark.parametrize(
    ("attacked", "target", "words"),
    [(1, 1, "they are 1 and 1; expected two of the 10 classes"), (0, 12, "they are 0 and 12")],
)
def test_bad_input(attacked, target, words, tmp_path):
    config = digits.get_config("tiny")
    with pytest.raises(checks.InputError, match=words):
        poison.run(config, str(tmp_path), attacked=attacked, target=target, networks=1, train_steps=1)


@pytest.mark.parametrize(("field", "value"), [("log_every", 0), ("log_every", -5), ("steps", 0)])
def test_no_steps_are_no_attack(field, value, tmp_path):
    config = digits.get_config("tiny")
    config[field] = value
    with pytest.raises(checks.InputError, match=f"config: {field} is {value}"):
        poison.run(config, str(tmp_path), attacked=0, target=1, networks=1, train_steps=2)
    assert not list(tmp_path.iterdir())


def test_a_start_from_no_network(tmp_path):
    config = adapt.get_config("tiny")
    config.pretrain.networks = 0
    with pytest.raises(checks.InputError, match=r"config\.pretrain: networks is 0"):
        build.experiment(config)
