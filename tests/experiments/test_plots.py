"""From run folders, sweeps, transfer tables and corruption curves to every figure and table, in one command each."""

import json

import numpy as np
import pytest
from PIL import Image

from configs.kip import digits as config_file
from experiments import gather, plots, tables
from kipjax import checks, data
from kipjax.io import artifact, charts, log
from kipjax.types import Distilled


def result(trained_on, size, accuracies):
    mean = float(np.mean(accuracies))
    std = float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else "NaN"
    accuracy = {"mean": mean, "std": std, "n": len(accuracies)}
    return {"trained_on": trained_on, "size": size, "model": "fc1 ntk", "accuracies": accuracies, "accuracy": accuracy}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two finished runs of different sizes, one of an unfinished, a sweep, a transfer table and a corruption curve."""
    root = tmp_path_factory.mktemp("runs")
    digits = data.load("digits")
    preprocess = data.preprocess.standardize(digits.x_train)
    for ipc in (1, 2):
        folder = root / "kip" / f"ipc{ipc}"
        folder.mkdir(parents=True)
        config = config_file.get_config("tiny")
        config.init.ipc = ipc
        m = 10 * ipc
        x = np.asarray(data.preprocess.apply(preprocess, digits.x_train[:m]))
        y = np.eye(10, dtype=np.float32).repeat(ipc, axis=0) - 0.1
        y[0] = 0.3
        meta = {"method": "kip", "label_convention": "learned", "class_names": [f"c{i}" for i in range(10)]}
        meta |= {"config": config.to_dict(), "kernel": {"name": "fc1", "get": "ntk"}}
        artifact.save(folder / "distilled.npz", artifact.Artifact(Distilled(x, y), preprocess, meta))
        log.write_json(folder / "config.json", config)
        rows = [result("distilled", m, [0.9]), result("random subset", m, [0.5, 0.6])]
        summary = {"results": rows, "protocol": "kernel ridge regression", "seconds": 3.0, "device": "cpu"}
        log.write_json(folder / "summary.json", summary)
        lines = [{"step": s, "loss": 1 / s, "accuracy": 0.5, "seconds": s, "note": "a"} for s in range(2, 500, 2)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (root / "cut").mkdir()
    log.write_json(root / "cut" / "config.json", config_file.get_config("tiny"))
    (root / "sweep").mkdir()
    grid = [(i, j) for i in (0, 2) for j in (0, 2, 20)]
    fields = [{"method.inner_steps": i, "method.hessian_steps": j} for i, j in grid]
    cells = [{"fields": f, "results": [result("distilled", 10, [0.1 * (i + j)])]} for f, (i, j) in zip(fields, grid)]
    cells[-1] = {"fields": cells[-1]["fields"], "diverged": "loss is NaN"}
    log.write_json(root / "sweep" / "table.json", {"cells": cells})
    start = {"artifact": str(root / "kip" / "ipc1" / "distilled.npz"), "protocol": "kernel_transfer"}
    matrix = [
        start | result("distilled", 10, [0.9]) | {"model": "fc2 ntk"},
        start | result("random subset", 10, [0.5, 0.7]),
    ]
    log.write_json(root / "transfer.json", matrix)
    (root / "corruption").mkdir()
    rows = [{"set": s, "size": 10, "arch": "mlp", "rho": rho, "run": 0, "accuracies": [0.8 - a * rho, 0.7]}
            for s, a in (("natural", 0.5), ("kip", 0.1)) for rho in (0.0, 0.9)]  # fmt: skip
    log.write_json(root / "corruption" / "results.json", {"flags": {}, "rows": rows})
    return root


def test_what_is_found(runs):
    found = gather.below([str(runs)])
    assert [run.name for run in found.runs] == ["kip/ipc1", "kip/ipc2"]
    assert list(found.sweeps) == ["sweep"] and list(found.corruption) == ["corruption"]
    assert [name.split("/")[-1] for name in found.matrices] == ["transfer"]
    assert gather.label(found.runs[0]) == "kip, digits, fc1 ntk"


def test_every_figure_is_drawn(runs, tmp_path):
    found = gather.below([str(runs)])
    written = plots.draw(found, str(tmp_path / "figures"))
    names = {path.split("/")[-1].split("-", 1)[-1] for path in written}
    kinds = {name.rsplit("-", 1)[-1].removesuffix(".png") for name in names}
    assert kinds == {"images", "covariance", "training", "sizes", "sweep", "transfer", "corruption"}
    assert len(written) == len(set(written)) == 3 * 2 + 4
    for path in written:
        with Image.open(path) as image:
            assert image.size[0] > 100 and len(image.getcolors(10**6)) > 5, path


def test_runs_of_one_name_and_runs_of_other_choices_are_kept_apart(runs, tmp_path, monkeypatch):
    """Two folders may have runs of the same name; two ways to choose a coreset are two curves."""
    drawn = {}
    monkeypatch.setattr(charts, "curves", lambda path, panels, **words: drawn.update({path.split("/")[-1]: panels}))
    found = gather.below([str(runs)])

    def coreset(select, size, accuracy):
        run = found.runs[0]
        config = run.config | {"method": {"name": "coreset", "select": select}}
        return run._replace(config=config, summary=run.summary | {"results": [result("distilled", size, accuracy)]})

    chosen = [coreset(select, size, [0.1, 0.2]) for select in ("herding", "k_means") for size in (10, 20)]
    written = plots.draw(found._replace(runs=[*found.runs, *found.runs[:1], *chosen]), str(tmp_path))
    assert len(set(written)) == len(written)
    assert {"kip-ipc1-training.png", "kip-ipc1_2-training.png"} <= set(drawn)
    ((label, curves),) = drawn["digits-fc1_ntk-sizes.png"].items()
    chosen = {"coreset herding, digits, fc1 ntk (n=2)", "coreset k_means, digits, fc1 ntk (n=2)"}
    assert label.endswith("% ± std") and chosen < set(curves)
    assert {name.rsplit(" (n=", 1)[0] for name in curves} >= {"kip, digits, fc1 ntk", "random subset"}


def test_runs_that_differ_in_more_than_size_and_seed_are_on_curves_of_their_own(runs):
    """Other step counts, or subsets scored by other protocols, are not pooled; seeds and checkpoints make no curve."""
    kip = gather.below([str(runs)]).runs[0]

    def run(size, accuracy, protocol="kernel ridge regression", **changes):
        config = json.loads(json.dumps(kip.config)) | changes
        config["init"]["ipc"] = size // 10
        rows = [result("distilled", size, [accuracy]), result("random subset", size, [accuracy - 0.1])]
        return kip._replace(config=config, summary=kip.summary | {"results": rows, "protocol": protocol})

    found = plots._curves([
        *(run(size, 0.5, steps=10, seed=seed, checkpoint_every=10 + seed) for size in (10, 20) for seed in (0, 1)),
        *(run(size, 0.7, steps=500) for size in (10, 20)),
        *(run(size, 0.9, "networks trained by dc v1: 10 epochs", steps=1000) for size in (10, 20)),
    ])  # fmt: skip
    assert found == {
        "digits, fc1 ntk": {
            "kip, digits, fc1 ntk, steps 10": {10: [0.5, 0.5], 20: [0.5, 0.5]},
            "kip, digits, fc1 ntk, steps 500": {10: [0.7], 20: [0.7]},
            "random subset": {10: [0.4, 0.6], 20: [0.4, 0.6]},  # of one draw, once
        },
        "digits, fc1 ntk, by dc v1": {
            "kip, digits, fc1 ntk": {10: [0.9], 20: [0.9]},
            "random subset": {10: [0.8], 20: [0.8]},
        },
    }


def test_runs_whose_summaries_alone_are_stored_are_drawn_without_their_curves(runs, tmp_path):
    for path in runs.glob("kip/*/*.json"):
        (tmp_path / "runs" / path.parent.name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "runs" / path.parent.name / path.name).write_text(path.read_text())
    written = plots.draw(gather.below([str(tmp_path / "runs")]), str(tmp_path / "figures"))
    assert [path.split("/")[-1] for path in written] == ["digits-fc1_ntk-sizes.png"]


def test_the_covariance_is_that_of_original_and_learned_labels(runs, tmp_path, monkeypatch):
    drawn = {}
    monkeypatch.setattr(charts, "matrix", lambda path, values, **names: drawn.update(values=values, **names))
    made = artifact.load(runs / "kip" / "ipc2" / "distilled.npz")
    plots.covariance("somewhere", made)
    original, y = np.eye(10).repeat(2, axis=0), np.asarray(made.distilled.y)
    expected = np.cov(original.T, y.T, bias=True)[:10, 10:]
    np.testing.assert_allclose(drawn["values"], expected, atol=1e-7)
    assert drawn["rows"][3] == "c3" and drawn["y_label"] == "original label"


def test_sets_of_one_kernel_are_one_row_of_the_matrix_with_all_their_accuracies(runs, monkeypatch):
    drawn = {}
    monkeypatch.setattr(charts, "matrix", lambda path, values, **names: drawn.update(values=values, **names))
    (rows,) = gather.below([str(runs)]).matrices.values()
    more = [rows[0] | {"accuracies": [0.7]}, rows[1], rows[1] | {"accuracies": [0.9, 0.9]}]  # a draw again, and another
    plots.transfer("somewhere", [*rows, *more])
    np.testing.assert_allclose(drawn["values"], [[80, np.nan], [np.nan, 75]])
    assert drawn["rows"] == ["fc1 ntk, 10", "random subset, 10"] and "n=2..4" in drawn["unit"]
    text = tables.everything(gather.below([str(runs)])._replace(matrices={"some": [*rows, *more]}))
    assert "| random subset, 10 | - | 75.00 ± 19.15 (n=4) |" in text


def test_the_sweep_is_a_matrix_with_a_hole_where_it_diverged(runs, monkeypatch):
    drawn = {}
    monkeypatch.setattr(charts, "matrix", lambda path, values, **names: drawn.update(values=values, **names))
    plots.sweep("somewhere", gather.below([str(runs)]).sweeps["sweep"])
    np.testing.assert_allclose(drawn["values"], [[0, 20, 200], [20, 40, np.nan]])
    assert (drawn["rows"], drawn["columns"]) == (["0", "2"], ["0", "2", "20"])
    assert drawn["unit"] == "test accuracy, % (n=1)"
    assert (drawn["x_label"], drawn["y_label"]) == ("method.hessian_steps", "method.inner_steps")


def test_tables_in_every_form(runs, capsys):
    found = gather.below([str(runs)])
    rows = tables.of_runs(found.runs)
    assert len(rows) == 4 and rows[0]["test accuracy, %"] == [90.0, None] and rows[1]["n"] == 2
    text = tables.everything(found, "markdown")
    assert "| kip/ipc1 | kip, digits, fc1 ntk | distilled | 10 | fc1 ntk | 90.00 | 1 | 3 | cpu |" in text
    assert "| random subset | 10 | fc1 ntk | 55.00 ± 7.07 | 2 |" in text
    assert "| 2 | 20 | diverged |" in text and "| mlp, kip | 75.00 ± 7.07 | 70.50 ± 0.71 |" in text
    assert "| random subset, 10 | - | 60.00 ± 14.14 (n=2) |" in text
    assert "kip/ipc1\tkip, digits, fc1 ntk\tdistilled\t10\tfc1 ntk\t90.00\t1\t3\tcpu" in tables.everything(found, "tsv")
    whole = json.loads(tables.everything(found, "json"))
    assert whole["runs"][0]["test accuracy, %"] == [90.0, None] and len(whole["sweeps"]["sweep"]) == 6


def test_sets_scored_otherwise_and_rows_of_other_scripts_are_in_the_tables(tmp_path):
    start = {"artifact": "runs/a/distilled.npz", "protocol": "krr", "training": {"name": "x"}}
    log.write_json(tmp_path / "scored.json", [start | result("distilled", 10, [0.9, 0.8])])
    rows = [{"name": "a step", "ours": 1.23456, "pairs": 3, "ranges": [1, 2]}, {"name": "no pairs", "ours": 2e-8}]
    log.write_json(tmp_path / "speed.json", {"machine": {"cores": 2}, "rows": rows})
    log.write_json(tmp_path / "nothing.json", {"machine": {"cores": 2}})
    found = gather.below([str(tmp_path)])
    assert [name.split("/")[-1] for name in (*found.scored, *found.others)] == ["scored", "speed"]
    text = tables.everything(found)
    assert "| runs/a/distilled.npz | 85.00 ± 7.07 (n=2) |" in text
    assert "| name | ours | pairs |" in text and "| a step | 1.235 | 3 |" in text and "| no pairs | 2e-08 | - |" in text
    assert set(json.loads(tables.everything(found, "json"))) >= {"scored", "others"}


def test_nothing_and_damage_are_said(tmp_path):
    with pytest.raises(checks.InputError, match="there is no folder"):
        gather.below([str(tmp_path / "nowhere")])
    with pytest.raises(checks.InputError, match="nothing to draw there"):
        plots.draw(gather.below([str(tmp_path)]), str(tmp_path / "out"))
    (tmp_path / "table.json").write_text('{"cells": [')
    with pytest.raises(checks.InputError, match="not a whole JSON file"):
        gather.below([str(tmp_path)])
    with pytest.raises(checks.InputError, match="a sweep over 3 fields"):
        plots.sweep("a", [{"fields": {"a": 1, "b": 2, "c": 3}}])


def test_a_matrix_needs_values(tmp_path):
    for values, words in ((np.zeros((2, 3)), "expected one value for each"), (np.full((1, 2), np.nan), "is finite")):
        with pytest.raises(checks.InputError, match=words):
            charts.matrix(tmp_path / "a.png", values, rows=["a"], columns=["b", "c"])
