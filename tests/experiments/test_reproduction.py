"""Every figure of a paper has a config of its method, data and size; runs are joined to it, with what differs."""

import copy
import pathlib
import re

import ml_collections
import pytest

from experiments import gather, reproduction
from kipjax.io import log

ROOT = pathlib.Path(__file__).parents[2]
ROWS = reproduction.rows()


def run_of(config, name="R0", accuracies=(0.8, 0.82), **changes):
    """A finished run folder of a config, in memory."""
    config = copy.deepcopy(config)
    config.update_from_flattened_dict(changes)
    result = {"trained_on": "distilled", "size": 10, "model": "fc1 ntk", "accuracies": list(accuracies)}
    summary = {"results": [result], "protocol": "kernel ridge regression", "seconds": 12.3, "device": "cpu"}
    return gather.Run(name, name, log.to_jsonable(config), summary)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.method} {row.dataset} {row.ipc}")
def test_its_config_exists_and_is_of_that_row(row):
    config = reproduction.config(row)
    assert config.data.name == row.dataset and config.init.ipc == row.ipc
    name = row.method.split(",")[0].lower().replace(" ", "_")
    assert config.method.name == {"exact": "krr_exact"}.get(name, name)
    assert 0 < row.mean < 100 and (row.std is None or 0 <= row.std < 10)
    assert row.source in ("read", "quoted", "recalled") and row.where and row.paper


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.method} {row.dataset} {row.ipc}")
def test_no_row_is_of_a_small_variant(row):
    assert not set(re.split(r"[:,]", row.config)) & {"cpu", "tiny", "fixed_cpu"}


def test_rows_are_there_once():
    keys = [(row.method, row.dataset, row.ipc) for row in ROWS]
    assert len(set(keys)) == len(keys)


def test_without_runs_every_row_is_not_run():
    text = reproduction.report(ROWS, [])
    assert text.count("| not run |") == len(ROWS)
    assert "--config=configs/kip/mnist.py:rbf" in text and "Label Solve" in text


def test_runs_without_a_row_and_figures_without_a_run_are_listed():
    row = ROWS[0]
    runs = [run_of(reproduction.config(row), "joined"), run_of(reproduction.config(row), "alone", **{"init.ipc": 3})]
    text = reproduction.report([row], runs, reproduction.others())
    alone = text.partition("## Runs of no row")[2]
    assert "| 81.00 ± 1.41 | 2 |" in alone and "| alone |" in alone and "joined" not in alone
    for other in reproduction.others():
        assert other["source"] in ("read", "quoted", "recalled") and other["what"] in alone
        assert not other["flagfile"] or (ROOT / re.split("[ :]", other["flagfile"])[0]).is_file()


def test_a_row_that_is_not_run_says_what_it_needs():
    rows = [next(row for row in ROWS if row.dataset == name) for name in ("mnist", "fashion_mnist")]
    text = reproduction.report(rows, [])
    assert (
        text.count("| not run |  | the data, and time |") == text.count("| not run |  | time, on data at hand |") == 1
    )


def find(method, dataset, ipc):
    return next(row for row in ROWS if (row.method, row.dataset, row.ipc) == (method, dataset, ipc))


def test_a_run_is_joined_to_its_row_and_its_differences_are_read_off_the_configs():
    row = find("KIP, FC1", "mnist", 1)
    config = reproduction.config(row)
    runs = [
        run_of(config, "small", **{"steps": 200, "batch.size": 1000}),
        run_of(config, "small_too", (0.9,), **{"steps": 200, "batch.size": 1000, "seed": 1}),
        run_of(config, "whole", (0.893,), **{"devices": 2, "data.data_dir": "elsewhere"}),
    ]
    text = reproduction.report([row], runs)
    assert "| 84.00 ± 5.29 | 3 | kernel ridge regression | cpu, 12 to 12 s | small, small_too |" in text
    assert "(small, small_too): batch.size 1000 instead of 6000; steps 200 instead of 10000." in text
    assert "| 89.30 | 1 |" in text and "(whole): the same config" in text and "not run" not in text.split("##")[1]


@pytest.mark.parametrize(
    "changes",
    [{"init.ipc": 10}, {"data.name": "fashion_mnist"}, {"method.learn_labels": True}, {"kernel.kind": "nngp"},
     {"kernel.name": "fc2"}, {"method.rho": 0.9}, {"init.base": "kmnist"}],
)  # fmt: skip
def test_runs_of_something_else_are_not_joined(changes):
    config = reproduction.config(find("KIP, FC1", "mnist", 1))
    assert reproduction.matches(config, run_of(config))
    assert not reproduction.matches(config, run_of(config, **changes))


def test_methods_through_networks_are_joined_whatever_their_width():
    config = reproduction.config(find("RCIG", "fashion_mnist", 1))
    assert config.method.solve == "adam"
    small = run_of(config, **{"model.width": 32, "method.solve": "dense"})
    assert reproduction.matches(config, small)
    found = reproduction.differences(config, small.config)
    assert found == ["method.solve dense instead of adam", "model.width 32 instead of 128"]


def test_a_row_with_a_wrong_config_is_refused():
    row = ROWS[0]
    for changes, words in (({"config": "configs/kip/nothing.py"}, "no config"), ({"set": {"init.ipx": 1}}, "no field")):
        with pytest.raises(ValueError, match=words):
            reproduction.config(row._replace(**changes))


def test_the_command_is_that_of_the_row():
    row = find("KIP, FC1", "mnist", 10)
    assert reproduction.command(row) == (
        "python -m experiments.distill --config=configs/kip/mnist.py --config.init.ipc=10 --workdir=RUN"
    )
    assert isinstance(reproduction.config(row), ml_collections.ConfigDict)
