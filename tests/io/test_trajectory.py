"""Trajectories of experts: kept bit for bit, and refused with a reason."""

import numpy as np
import pytest

from kipjax import checks
from kipjax.io import trajectory
from kipjax.io.trajectory import Trajectory

META = {"dataset": "digits", "model": {"class": "ConvNet", "width": 8}}


@pytest.fixture
def path(tmp_path):
    saved = tmp_path / "expert_0000.npz"
    trajectory.save(saved, Trajectory(np.arange(6, dtype=np.float32).reshape(3, 2), META))
    return saved


def test_values_come_back(path):
    found = trajectory.load(path)
    np.testing.assert_array_equal(found.parameters, np.arange(6, dtype=np.float32).reshape(3, 2))
    assert found.parameters.dtype == np.float32 and found.meta["model"] == META["model"]
    trajectory.require_same("here", found.meta, META)


@pytest.mark.parametrize(
    ("expected", "words"),
    [
        ({"dataset": "mnist"}, "the expert has dataset 'digits' and this run 'mnist'"),
        ({"model": {"class": "ConvNet", "width": 16}}, "the expert has model.width 8 and this run 16"),
        ({"model": {"class": "LeNet"}}, "model.class 'ConvNet' and this run 'LeNet'; use experts of the same network"),
        ({"preprocess_fingerprint": "ab"}, "preprocess_fingerprint None and this run 'ab'"),
    ],
)
def test_an_expert_of_something_else(path, expected, words):
    with pytest.raises(checks.InputError, match=words):
        trajectory.require_same("here", trajectory.load(path).meta, expected)


def test_files_that_are_no_trajectory(tmp_path, path):
    whole = path.read_bytes()
    for content, words in (
        (b"", "the file is empty"),
        (b"hello", "no kipjax trajectory and no .npz"),
        (whole[: len(whole) // 2], "cut off or damaged"),
    ):
        path.write_bytes(content)
        with pytest.raises(checks.InputError, match=words):
            trajectory.load(path)
    with pytest.raises(checks.InputError, match="no such file"):
        trajectory.load(tmp_path / "missing.npz")
    np.savez(path, x=np.ones(3))
    with pytest.raises(checks.InputError, match=r"no kipjax trajectory \(it holds x\)"):
        trajectory.load(path)
    np.savez(path, parameters=np.ones((2, 2)), meta=np.frombuffer(b"{}", np.uint8))
    with pytest.raises(checks.InputError, match="its meta does not say kipjax-trajectory"):
        trajectory.load(path)
    np.savez(path, parameters=np.array([{}], dtype=object), meta=np.frombuffer(b"{}", np.uint8))
    with pytest.raises(checks.InputError):
        trajectory.load(path)


@pytest.mark.parametrize(
    "parameters", [np.ones(3), np.ones((1, 3)), np.ones((2, 2), int), np.array([[1.0, np.nan], [0, 0]])]
)
def test_values_that_are_no_trajectory(tmp_path, parameters):
    with pytest.raises(checks.InputError):
        trajectory.save(tmp_path / "a.npz", Trajectory(parameters, META))
