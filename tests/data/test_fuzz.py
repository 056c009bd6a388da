"""Files that somebody else made, or a disk spoiled: thousands of mutations end in a clear error or in sound data."""

import contextlib
import gzip
import io
import pathlib
import resource
import signal
import warnings
import zipfile
import zlib

import numpy as np
import pytest

from kipjax import checks, data
from kipjax.data import text
from kipjax.io import artifact, trajectory
from kipjax.types import Distilled, Preprocess

ROUNDS = 400


def mutated(rng, content):
    """Flipped bits, bytes of extreme values, cuts, repeats, insertions, and parts of the file swapped."""
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
    return bytes(made)


def mutations(content, seed, rounds=ROUNDS):
    """The file as a whole."""
    rng = np.random.default_rng(seed)
    return (mutated(rng, content) for _ in range(rounds))


NAMES = ["../outside.npy", "/outside.npy", "x_train", " ", "a/b.npy", "x.npy", "meta.npy", "y_train.npy"]
WORDS = [(b"<", b">"), (b"f4", b"O"), (b"|u1", b"|O"), (b"False", b"True"), (b"(", b"(-"), (b"descr", b"shape")]


def repacked(content, seed, rounds=ROUNDS):
    """A sound archive, its checksums in order, around members that are not: headers, values, names, packing."""
    rng = np.random.default_rng(seed)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    for _ in range(rounds):
        made, i = list(members), int(rng.integers(len(members)))
        name, inside = made[i]
        kind = rng.integers(6)
        if kind == 0:
            made[i] = name, mutated(rng, inside)
        elif kind == 1:
            made[i] = name, mutated(rng, inside[:128]) + inside[128:]
        elif kind == 2:
            digits = [at for at in range(10, min(128, len(inside))) if inside[at : at + 1].isdigit()]
            at = int(rng.choice(digits))
            made[i] = name, inside[:at] + str(int(rng.integers(10 ** rng.integers(1, 15)))).encode() + inside[at + 1 :]
        elif kind == 3:
            before, after = WORDS[rng.integers(len(WORDS))]
            made[i] = name, inside.replace(before, after, 1)
        elif kind == 4:
            made[i] = str(rng.choice(NAMES)), inside
        else:
            made[i] = name, members[int(rng.integers(len(members)))][1]
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)[rng.integers(2)]) as archive:
            for member in made:
                with warnings.catch_warnings(action="ignore"):  # of two members with one name
                    archive.writestr(*member)
        yield file.getvalue()


@contextlib.contextmanager
def limits(memory=2**29, seconds=20):
    """In here no more than so much memory is to be had beyond what is taken, and a hang is an error."""

    def late(*_):
        raise TimeoutError(f"not done in {seconds} s")

    taken = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, late)
    resource.setrlimit(resource.RLIMIT_AS, (taken + memory, hard))
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGALRM, before)


def check(load, path, content, seed, rounds=ROUNDS, spoil=mutations):
    """``load()`` of each mutation of the file, then of the file: what is refused is refused in a line or two."""
    refused, there = 0, sorted(path.parent.rglob("*"))
    for made in spoil(content, seed, rounds):
        path.write_bytes(made)
        try:
            with limits():
                load()
        except checks.InputError as error:
            refused += 1
            assert str(error) and str(error).count("\n") <= 1
            assert not isinstance(error.__cause__, MemoryError), "memory was asked for before the sizes were checked"
    path.write_bytes(content)
    load()
    assert sorted({*path.parent.rglob("*")} - {path}) == sorted({*there} - {path})
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


@pytest.mark.parametrize("spoil", [mutations, repacked])
def test_npz(spoil, tmp_path):
    path = tmp_path / "set.npz"
    assert check(lambda: data.load(str(path)), path, _npz(**ARRAYS), 2, spoil=spoil) > ROUNDS // 4


def test_limits_are_felt():
    with pytest.raises(MemoryError), limits(memory=2**26):
        np.ones(2**28, np.uint8)
    with pytest.raises(TimeoutError), limits(seconds=1):
        while True:
            pass


@pytest.mark.parametrize("kind", ["data", "artifact"])
def test_a_small_archive_that_unpacks_to_a_huge_one_takes_no_memory(kind, tmp_path):
    """Said by the archive's own directory, which is read first."""
    path = tmp_path / "bomb.npz"
    packed = zlib.compressobj(9, zlib.DEFLATED, -15)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x_train.npy", packed.compress(bytes(2**24)) + packed.flush())
    content = bytearray(path.read_bytes())
    directory = content.rindex(b"PK\x01\x02")
    for at in (8, directory + 10):
        content[at : at + 2] = (8).to_bytes(2, "little")  # deflated
    for at in (22, directory + 24):
        content[at : at + 4] = (2**32 - 2).to_bytes(4, "little")  # bytes when unpacked
    path.write_bytes(content)
    with limits(), pytest.raises(checks.InputError, match=r"are to grow to 4294967294 when unpacked"):
        data.load(str(path)) if kind == "data" else artifact.load(path)


@pytest.mark.parametrize("shape", [(10**12,), (2**62, 2**62), (-1, 4)])
def test_npz_that_declares_more_than_there_is_takes_no_memory(shape, tmp_path):
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


@pytest.mark.parametrize("spoil", [mutations, repacked])
def test_artifact(spoil, tmp_path):
    path, one = tmp_path / "set.npz", np.ones(1, np.float32)
    preprocess = Preprocess(one, one, 0 * one[0], one[0])
    made = Distilled(np.ones((2, 3, 3, 1), np.float32), np.eye(2, dtype=np.float32), np.float32(0.1))
    artifact.save(path, artifact.Artifact(made, preprocess, {"seed": 0}))
    assert check(lambda: artifact.load(path), path, path.read_bytes(), 3, spoil=spoil) > ROUNDS // 4


@pytest.mark.parametrize("spoil", [mutations, repacked])
def test_trajectory(spoil, tmp_path):
    path = tmp_path / "expert.npz"
    trajectory.save(path, trajectory.Trajectory(np.ones((3, 4), np.float32), {"model": {"class": "MLP"}}))
    assert check(lambda: trajectory.load(path), path, path.read_bytes(), 4, spoil=spoil) > ROUNDS // 4


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
