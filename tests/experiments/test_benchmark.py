"""The benchmark runs and reports ratios; what they are is for the reader, not for a test."""

import json
import os
import pathlib
import sys
import types

import jax
import numpy as np
import pytest

from experiments import benchmark as script
from experiments import trainer
from experiments.benchmarks import devices, harness, pytorch, unrolled
from kipjax import models
from kipjax.core import losses, matching
from kipjax.models import network
from tests.experiments.shell import cli

ROOT = pathlib.Path(__file__).parents[2]


def test_a_row_says_how_many_pairs_it_is_of_and_is_printed_as_a_table(monkeypatch, tmp_path, capsys):
    times = iter([9.0, 9.0, 1.0, 2.0, 3.0, 4.0, 2.0, 2.0])  # both once to warm up, then three pairs
    monkeypatch.setattr(harness, "FLAGS", types.SimpleNamespace(pairs=3))
    row = harness.compare("a step", "ms", lambda: next(times), lambda: next(times), "none")
    assert (row.pairs, row.ratio, row.ours, row.other) == (3, 0.75, 2000.0, 2000.0)
    flags = types.SimpleNamespace(only=[], out=str(tmp_path / "rows.json"))
    monkeypatch.setattr(script, "FLAGS", flags)

    def absent():
        raise harness.Skipped("no such package")

    monkeypatch.setattr(script, "ROWS", {"step": lambda: row, "theirs": absent})
    monkeypatch.setattr(script.sys, "argv", ["benchmark.py", "--only=step,theirs"])
    script.main()
    printed = capsys.readouterr().out
    assert "| row | ours | other | unit | ours / other (range) | pairs | aim |" in printed
    assert "| a step | 2000 | 2000 | ms | 0.750 (0.500..1.000) | 3 | none |" in printed
    report = json.loads((tmp_path / "rows.json").read_text())
    assert report["command"] == "python -m experiments.benchmark --only=step,theirs"
    assert report["skipped"] == {"theirs": "no such package"}
    assert report["rows"][0]["pairs"] == 3 and report["machine"]["processor"] and report["machine"]["threads"] > 0


@pytest.mark.slow
@pytest.mark.usefixtures("fashion_mnist")
def test_rows_are_written(tmp_path):
    done = cli("benchmark", "--only=kip,import", "--pairs=1", "--steps=1", f"--out={tmp_path / 'rows.json'}")
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "rows.json").read_text())
    assert len(report["rows"]) == 2 and report["machine"]["cores"] == os.cpu_count()
    for row in report["rows"]:
        assert row["ratio"] == pytest.approx(row["ours"] / row["other"]) and row["ours"] > 0


def test_more_accelerators_than_there_are_make_no_row(monkeypatch):
    monkeypatch.setattr(devices.sharding, "on_accelerator", lambda: True)
    with pytest.raises(harness.Skipped, match=r"it takes 1000 devices and there are \d+; see experiments.plan"):
        devices.scaling(1000)


def test_without_pytorch_its_rows_are_skipped(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(harness.Skipped, match="PyTorch is not installed"):
        pytorch.ROWS["dm_torch"]()


@pytest.mark.parametrize("name", ["dc", "dm"])
def test_pytorch_is_given_the_distances_of_the_methods(name):
    """A class of its random images at its network, by ours at the same weights."""
    pytest.importorskip("torch", reason="PyTorch is not installed")
    theirs = pytorch.Steps(name, 4, 2, 6)
    theirs.net = theirs.network()
    layers = [layer for layer in theirs.net if hasattr(layer, "weight")]
    params = {}
    for i, (conv, norm) in enumerate(zip(layers[0:6:2], layers[1:6:2])):
        w, b, scale, bias = (p.detach().numpy() for p in (conv.weight, conv.bias, norm.weight, norm.bias))
        params[f"conv{i}"] = {"kernel": w.transpose(2, 3, 1, 0), "bias": b}
        params[f"norm{i}"] = {"scale": scale, "bias": bias}
    w, b = (p.detach().numpy() for p in layers[6].parameters())
    w = w.reshape(10, 4, 4, 4).transpose(2, 3, 1, 0)  # PyTorch flattens channels first
    params["head"] = {"kernel": w.reshape(64, 10), "bias": b}
    model = models.get("dc_convnet", num_classes=10, width=4, depth=3)
    real, made = (x.detach().numpy()[3].transpose(0, 2, 3, 1) for x in (theirs.real, theirs.images))

    def loss(params, x):
        return losses.cross_entropy(network.forward(model, {"params": params}, x)[0], np.full(len(x), 3))

    if name == "dm":
        h = [network.forward(model, {"params": params}, x)[1] for x in (made, real)]
        expected = matching.feature_distance(*h)
    else:
        expected = matching.gradient_distance(*(jax.grad(loss)(params, x) for x in (made, real)))
    np.testing.assert_allclose(theirs.distance(3).item(), expected, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(jax.device_count() < 2, reason="needs two devices; tests force four CPU devices")
def test_scaling_times_the_program_of_the_driver(monkeypatch):
    """And nothing else: what ``trainer.compiled`` makes for the devices of the row, and for one."""
    counts, compiled = [], trainer.compiled

    def noted(config, experiment, count):
        program = compiled(config, experiment, count)
        counts.append((config.devices, "all-reduce" in program.as_text()))
        return program

    monkeypatch.setattr(trainer, "compiled", noted)
    monkeypatch.setattr(harness, "FLAGS", types.SimpleNamespace(steps=2, pairs=1))
    row = devices._scaling_row(2)
    assert counts == [(2, True), (1, False)] and row.ratio == row.ours / row.other > 0


def test_an_unknown_row_is_refused():
    done = cli("benchmark", "--only=speed")
    assert done.returncode == 2 and "speed unknown; choose from kip, driver, " in done.stderr


@pytest.mark.parametrize("name", ["convnet", pytest.param("lenet", marks=pytest.mark.slow)])
def test_rows_of_unrolled_trainings(name, monkeypatch):
    """Time beside single steps, and less memory with segments; with a small ConvNet."""
    small = {"convnet": {"width": 2, "depth": 1}}
    monkeypatch.setattr(harness, "FLAGS", types.SimpleNamespace(pairs=1))
    monkeypatch.setattr(unrolled, "NETWORKS", small if name == "convnet" else unrolled.NETWORKS)
    row = unrolled.unrolled_time(2, name)
    assert name in row.name and "T = 2" in row.name and row.pairs == 1 and row.ratio == row.ours / row.other
    if name == "convnet":
        row = unrolled.unrolled_memory(16)
        assert row.ours < row.other and row.ratio == row.ours / row.other
