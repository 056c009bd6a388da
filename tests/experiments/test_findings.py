"""What the scripts that use distilled sets share: which images are held out, and which artifacts are of one kind."""

import numpy as np
import pytest

from experiments import findings, report
from kipjax import checks, data
from kipjax.io import artifact as artifacts
from kipjax.types import Distilled


def whole(n=20):
    x = np.arange(n, dtype=np.uint8).reshape(n, 1, 1, 1)
    return data.Dataset(x, np.arange(n) % 2, x[:2], np.arange(2), 2, ("even", "odd"))


def rows_of(x):
    return sorted(np.asarray(x).ravel().tolist())


def given(name, train_start=0, train_size=0, method="kip", **config):
    meta = {"method": method, "config": {"data": {"train_start": train_start}, **config}}
    made = artifacts.Artifact(Distilled(np.zeros((2, 1)), np.eye(2)), None, meta)
    return findings.Input(f"{method} ({name})", name, made, report.Source("digits", 0, train_start, train_size))


def test_held_out_images_are_in_nothing_else():
    parts = findings.split(whole(), 5, seed=0)
    assert rows_of(np.concatenate([parts.rest.x_train, parts.x])) == list(range(20)) and len(parts.x) == 5
    np.testing.assert_array_equal(parts.classes, parts.x.ravel() % 2)
    assert parts.about == "5 held-out training images"
    assert rows_of(findings.split(whole(), 5, seed=1).x) != rows_of(parts.x)


def test_of_a_set_from_elsewhere_they_are_outside_of_its_part():
    seen = findings.rows(given("a", 4, 10), 20)
    parts = findings.split(whole(), 6, seed=0, kept=seen, seen=seen)
    assert rows_of(parts.rest.x_train) == list(range(4, 14))
    assert not set(rows_of(parts.x)) & set(range(4, 14)) and parts.about == "6 held-out training images"
    parts = findings.split(whole(), 11, seed=0, kept=seen, seen=seen)
    assert not set(rows_of(parts.x)) & set(rows_of(parts.rest.x_train)) and "may have been distilled" in parts.about
    everything = findings.rows(given("a"), 20)
    assert len(everything) == 20 and "may have been" in findings.split(whole(), 1, seed=0, seen=everything).about


def test_none_held_out():
    parts = findings.split(whole(), 0, seed=0)
    assert len(parts.rest.x_train) == 20 and parts.held(None) is None and "test images" in parts.about
    for size in (-1, 20):
        with pytest.raises(checks.InputError, match="must lie between 0 and 19"):
            findings.split(whole(), size, seed=0)
    with pytest.raises(checks.InputError, match="leave none to train on"):
        findings.split(whole(), 19, seed=0, kept=np.array([3]), seen=[])


def test_artifacts_of_one_config_share_a_name():
    chunks = [given("a", 0, 10, seed=0, steps=5), given("b", 10, 10, seed=1, steps=5)]
    assert findings.pooled(chunks) == ["kip", "kip"]
    assert findings.pooled([*chunks, given("c", seed=0, steps=6), given("d", method="dc")]) == [
        "kip (a), kip (b)", "kip (a), kip (b)", "kip (c)", "dc"
    ]  # fmt: skip
    without = [item._replace(made=item.made._replace(meta={"method": "kip"})) for item in chunks]
    assert findings.pooled(without) == ["kip (a)", "kip (b)"], "nobody knows what they are"
