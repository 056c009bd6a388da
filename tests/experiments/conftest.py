"""Small data sets in the published file formats, written by the tests, and a small distilled set."""

import jax
import numpy as np
import pytest

import kipjax
from kipjax import data
from kipjax.io import artifact as artifact_file


def _images(rng, n, shape):
    """Classes that differ by a bright row, under noise."""
    labels = np.arange(n) % 10
    images = rng.integers(0, 100, size=(n, *shape), dtype=np.uint8)
    images[np.arange(n), 2 * labels] += 120
    return images, labels.astype(np.uint8)


@pytest.fixture(scope="session")
def idx_folder(tmp_path_factory):
    """MNIST's file format: 400 training and 60 test images."""
    folder = tmp_path_factory.mktemp("idx")
    rng = np.random.default_rng(0)
    for prefix, n in (("train", 400), ("t10k", 60)):
        images, labels = _images(rng, n, (28, 28))
        header = np.array([0x803, n, 28, 28], ">i4").tobytes()
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(np.array([0x801, n], ">i4").tobytes() + labels.tobytes())
    return str(folder)


@pytest.fixture(scope="session")
def cifar_folder(tmp_path_factory):
    """CIFAR-10's binary format: five batches of 40 and a test batch of 30."""
    folder = tmp_path_factory.mktemp("cifar-10-batches-bin")
    rng = np.random.default_rng(0)
    for name, n in [(f"data_batch_{i}", 40) for i in range(1, 6)] + [("test_batch", 30)]:
        images, labels = _images(rng, n, (32, 32, 3))
        rows = np.concatenate([labels[:, None], images.transpose(0, 3, 1, 2).reshape(n, -1)], axis=1)
        (folder / f"{name}.bin").write_bytes(rows.tobytes())
    return str(folder)


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory):
    """Two files of rated sentences, whose mood and origin show in their words."""
    folder, rng = tmp_path_factory.mktemp("text"), np.random.default_rng(0)
    for name in ("films", "news"):
        lines = []
        for i in range(60):
            mood = ("bad", "good")[i % 2]
            words = rng.choice([f"{name}{j}" for j in range(5)] + [f"{mood}{j}" for j in range(5)], 9)
            lines.append(f"{i}\t{(i % 2) - 0.5}\t{' '.join(words)}")
        (folder / f"{name}_rated.txt").write_text("\n".join(lines) + "\n")
    return str(folder)


@pytest.fixture(scope="session")
def artifact(tmp_path_factory):
    """Ten real digits as a set of some method."""
    found, path = data.load("digits"), tmp_path_factory.mktemp("set") / "set.npz"
    preprocess = data.preprocess.fit(found.x_train, "standardize")
    x = data.preprocess.apply(preprocess, found.x_train)
    made = data.initial.real(jax.random.key(0), x, found.y_train, ipc=1, num_classes=10)
    kipjax.save(path, artifact_file.Artifact(made, preprocess, {"dataset": "digits", "method": "some"}))
    return path
