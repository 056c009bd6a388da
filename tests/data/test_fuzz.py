"""Files that somebody else made, or a disk spoiled: thousands of mutations end in a clear error or in sound data."""

import gzip
import io
import pathlib

import numpy as np
import pytest

from kipjax import checks, data
from kipjax.data import text
from kipjax.io import artifact, trajectory
from kipjax.types import Distilled, Preprocess

ROUNDS = 400


def mutations(content, seed, rounds=ROUNDS):
    """Flipped bits, bytes of extreme values, cuts, repeats, insertions, and parts of the file swapped."""
    rng = np.random.default_rng(seed)
    for _ in range(rounds):
        made = bytearray(content)
        for _ in range(rng.integers(1, 4)):
            at, size = int(rng.integers(len(made) or 1)), int(rng.integers(1, 9))
            kind = rng.integers(6)
            if kind == 0:
                made[at : at + 1] = bytes([(made[at] if made else 0) ^ (1 << int(rng.integers(8)))])
            elif kind == 1:
                made[at : at + size] = bytes([rng.choice([0, 1, 127, 128, 255])]) * size
            elif kind == 2:
                del made[at : at + int(rng.integers(1, 200))]
            elif kind == 3:
                made[at:at] = made[at : at + 50]
            elif kind == 4:
                made[at:at] = rng.bytes(size)
            else:
                made = made[at:] + made[:at]
        yield bytes(made)


def check(load, path, content, seed, rounds=ROUNDS):
    """``load()`` of each mutation of the file, then of the file: what is refused is refused in a line or two."""
    refused = 0
    for made in mutations(content, seed, rounds):
        path.write_bytes(made)
        try:
            load()
        except checks.InputError as error:
            refused += 1
            assert str(error) and str(error).count("\n") <= 1
    path.write_bytes(content)
    load()
    return refused


def _idx(array):
    magic = {3: 2051, 1: 2049}[array.ndim]
    return b"".join(int(n).to_bytes(4, "big") for n in (magic, *array.shape)) + array.tobytes()


def _npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


ARRAYS = {
    "x_train": np.arange(60, dtype=np.uint8).reshape(5, 3, 4, 1),
    "y_train": np.arange(5) % 2,
    "x_test": np.zeros((2, 3, 4, 1), np.uint8),
    "y_test": np.arange(2),
    "class_names": np.array(["ant", "bee"]),
}


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte", "train-labels-idx1-ubyte.gz"])
def test_idx(name, tmp_path):
    images, labels = np.arange(45, dtype=np.uint8).reshape(5, 3, 3), np.arange(5, dtype=np.uint8) % 3
    for prefix in ("train", "t10k"):
        (tmp_path / f"{prefix}-images-idx3-ubyte").write_bytes(_idx(images))
        (tmp_path / f"{prefix}-labels-idx1-ubyte").write_bytes(_idx(labels))
    path, content = tmp_path / name, _idx(images if "images" in name else labels)
    if name.endswith(".gz"):
        (tmp_path / name.removesuffix(".gz")).unlink()
        content = gzip.compress(content)
    assert check(lambda: data.load(str(tmp_path)), path, content, 0) > ROUNDS // 4


def test_idx_that_declares_more_than_there_is_takes_no_memory(tmp_path):
    huge = b"".join(n.to_bytes(4, "big") for n in (2051, 2**31 - 1, 2**31 - 1, 2**31 - 1))
    for name in ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte"):
        (tmp_path / name).write_bytes(huge)
    for name in ("train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte"):
        (tmp_path / name).write_bytes(_idx(np.zeros(1, np.uint8)))
    with pytest.raises(checks.InputError, match="the file is damaged"):
        data.load(str(tmp_path))


def test_cifar(tmp_path):
    record = bytes([3]) + bytes(3072)
    for name in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
        (tmp_path / name).write_bytes(record)
    check(lambda: data.load(str(tmp_path)), tmp_path / "data_batch_2.bin", record, 1)


def test_npz(tmp_path):
    path = tmp_path / "set.npz"
    assert check(lambda: data.load(str(path)), path, _npz(**ARRAYS), 2) > ROUNDS // 2


@pytest.mark.parametrize("shape", [(10**12,), (2**62, 2**62), (-1, 4)])
def test_npz_that_declares_more_than_there_is_takes_no_memory(shape, tmp_path):
    import zipfile

    path = tmp_path / "set.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in ARRAYS.items():
            file = io.BytesIO()
            np.save(file, array)
            archive.writestr(f"{name}.npy", header.getvalue() if name == "x_train" else file.getvalue())
    with pytest.raises(checks.InputError):
        data.load(str(path))


def test_artifact(tmp_path):
    path, one = tmp_path / "set.npz", np.ones(1, np.float32)
    preprocess = Preprocess(one, one, 0 * one[0], one[0])
    made = Distilled(np.ones((2, 3, 3, 1), np.float32), np.eye(2, dtype=np.float32), np.float32(0.1))
    artifact.save(path, artifact.Artifact(made, preprocess, {"seed": 0}))
    assert check(lambda: artifact.load(path), path, path.read_bytes(), 3) > ROUNDS // 2


def test_trajectory(tmp_path):
    path = tmp_path / "expert.npz"
    trajectory.save(path, trajectory.Trajectory(np.ones((3, 4), np.float32), {"model": {"class": "MLP"}}))
    assert check(lambda: trajectory.load(path), path, path.read_bytes(), 4) > ROUNDS // 2


def test_sentences_and_vectors(tmp_path):
    rows = [f"{i}\t{(-1) ** i * 2.5}\tone good film number {i}" for i in range(6)]
    path = tmp_path / "films.txt"
    check(lambda: text.read_tsv(path), path, "\n".join(rows).encode(), 5)
    vectors = tmp_path / "glove.txt"
    lines = [f"{word} " + " ".join(f"{0.1 * i:.1f}" for i in range(4)) for word in ("one", "good", "film")]
    check(lambda: text.glove(vectors, ("one", "film")), vectors, "\n".join(lines).encode(), 6)


def test_image_folders(tmp_path):
    from PIL import Image

    for split in ("train", "test"):
        for name in ("ant", "bee"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.fromarray(np.full((4, 4, 3), 9, np.uint8)).save(tmp_path / split / name / "0.png")
    path = tmp_path / "train" / "ant" / "0.png"
    check(lambda: data.load(str(tmp_path)), path, path.read_bytes(), 7, rounds=200)
    outside = pathlib.Path(tmp_path).parent / "elsewhere.png"
    assert not outside.exists()
