"""The poisoning experiment: its report, and what it refuses."""

import json

import pytest

from configs.dd import digits
from experiments import poison
from kipjax import checks


@pytest.mark.slow
def test_one_step_breaks_the_attacked_class_alone(tmp_path):
    config = digits.get_config("cpu")
    config.model = {"name": "mlp", "depth": 1, "width": 64}
    config.steps, config.log_every, config.batch.size = 300, 100, 200
    config.method.learning_rate = 0.02
    report = poison.run(config, str(tmp_path), attacked=0, target=1, networks=16, train_steps=200)
    rows = report["networks"]
    before, after = ({name: sum(row[when]) / 16 for name, row in rows.items()} for when in ("before", "after"))
    assert before["accuracy on the attacked class"] > 0.9
    assert after["accuracy on the attacked class"] < 0.2
    assert after["attacked class taken for the target"] > 0.8
    assert after["accuracy on the other classes"] > before["accuracy on the other classes"] - 0.1
    assert json.loads((tmp_path / "poison.json").read_text())["summary"]
    assert (tmp_path / "poison.npz").exists()


@pytest.mark.parametrize(
    ("attacked", "target", "words"),
    [(1, 1, "attacked class and the target are both 1"), (0, 12, "there are 10 classes")],
)
def test_bad_input(attacked, target, words, tmp_path):
    config = digits.get_config("tiny")
    with pytest.raises(checks.InputError, match=words):
        poison.run(config, str(tmp_path), attacked=attacked, target=target, networks=1, train_steps=1)
