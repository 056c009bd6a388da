"""The sweep: combinations, cells, and going on after an interruption."""

import json

import pytest

from configs.kip import digits
from experiments import fields, sweep
from kipjax import checks
from kipjax.io import log


@pytest.fixture
def config():
    return digits.get_config("tiny")


def test_values_get_the_type_of_their_field(config):
    assert fields.parse("--grid", "method.learning_rate=1,0.5", config) == [
        ("method.learning_rate", 1.0),
        ("method.learning_rate", 0.5),
    ]
    assert fields.parse("--grid", "method.learn_labels=true,False", config) == [
        ("method.learn_labels", True),
        ("method.learn_labels", False),
    ]
    assert fields.parse("--grid", "init.kind=noise", config) == [("init.kind", "noise")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("steps", "is not FIELD=VALUE"),
        ("method.rge=1", "choose one of"),
        ("steps=many", "steps is 'many'; expected int, as in 6"),
        ("steps.more=1", "field of steps.more"),
        ("method.learn_labels=2", "expected bool"),
        ("method=rcig", "only single values can be given: take one of its fields"),
        ("learn_kernel=w_std", "only single values can be given"),
    ],
)
def test_wrong_grids_are_named(config, text, words):
    with pytest.raises(checks.InputError, match=words):
        fields.parse("--grid", text, config)


@pytest.mark.slow
def test_a_sweep_runs_reads_back_and_keeps_a_diverged_cell(config, tmp_path, capsys, monkeypatch):
    config.method.solve_dtype = "float32"
    config.evaluation.full_size = 0
    grids, workdir = ["init.ipc=1,2", "method.learning_rate=0.01,1e30"], str(tmp_path)
    printed = sweep.sweep(config, grids, workdir) + capsys.readouterr().out
    cells = json.loads((tmp_path / "table.json").read_text())["cells"]
    assert [cell["fields"]["init.ipc"] for cell in cells] == [1, 1, 2, 2]
    good, bad = cells[:2]
    lines = log.read(tmp_path / "init.ipc=1,method.learning_rate=0.01" / "metrics.jsonl")
    late = [line["loss"] for line in lines if line["step"] > config.steps // 2]
    assert 0 < len(late) < len(lines) and good["log"]["loss"] == pytest.approx(sum(late) / len(late))
    assert good["results"][0]["trained_on"] == "distilled" and "not finite" in bad["diverged"]
    assert f"{100 * good['results'][0]['accuracy']['mean']:.2f}" in printed and printed.count("diverged") >= 4
    config.method.reg = 0.5
    with pytest.raises(checks.InputError, match=r"method\.reg was"):
        sweep.sweep(config, grids, workdir)
    config.method.reg = 1e-6
    monkeypatch.setattr(sweep.trainer, "run", lambda *_, **__: (_ for _ in ()).throw(checks.NumericalError("again")))
    sweep.sweep(config, grids, workdir)
    again = json.loads((tmp_path / "table.json").read_text())["cells"]
    assert again[0] == good and again[1]["diverged"] == "again"
