"""Files that somebody else made, or a disk spoiled: thousands of mutations end in a clear error or in sound data.

They are the same ones in every run; ``pytest --hypothesis-profile=default`` looks for others.
"""

import contextlib
import faulthandler
import gzip
import importlib
import io
import json
import pathlib
import resource
import signal
import subprocess
import sys
import warnings
import zipfile
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from experiments import run_folder
from kipjax import checks, data
from kipjax.data import text
from kipjax.io import artifact, log, trajectory
from kipjax.types import Distilled, Preprocess
from tests import conftest

ROOT = pathlib.Path(__file__).parents[2]
FEW, MANY = 150, 3000

# --- what is done to files -------------------------------------------------------------------------------------------


@st.composite
def mutated(draw, content, most=None):
    """Flipped bits, bytes of extreme values, cuts, repeats, insertions, and parts of the file swapped."""
    made = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        at, kind = draw(st.integers(0, max(0, min(len(made), most or len(made)) - 1))), draw(st.integers(0, 5))
        if kind == 0:
            made[at : at + 1] = bytes([(made[at] if made else 0) ^ (1 << draw(st.integers(0, 7)))])
        elif kind == 1:
            size = draw(st.integers(1, 8))
            made[at : at + size] = bytes([draw(st.sampled_from([0, 1, 127, 128, 255]))]) * size
        elif kind == 2:
            del made[at : at + draw(st.integers(1, 200))]
        elif kind == 3:
            made[at:at] = made[at : at + 50]
        elif kind == 4:
            made[at:at] = draw(st.binary(min_size=1, max_size=8))
        else:
            made = made[at:] + made[:at]
    return bytes(made)


NAMES = ["../outside.npy", "/outside.npy", "x_train", " ", "a/b.npy", "x.npy", "meta.npy", "y_train.npy"]
WORDS = [(b"<", b">"), (b"f4", b"O"), (b"|u1", b"|O"), (b"False", b"True"), (b"(", b"(-"), (b"descr", b"shape")]


@st.composite
def repacked(draw, content):
    """A sound archive, its checksums in order, around members that are not: headers, values, names, packing."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    i, kind = draw(st.integers(0, len(members) - 1)), draw(st.integers(0, 5))
    name, inside = members[i]
    if kind == 0:
        members[i] = name, draw(mutated(inside))
    elif kind == 1:
        members[i] = name, draw(mutated(inside, most=128))
    elif kind == 2:
        at = draw(st.sampled_from([at for at in range(10, min(128, len(inside))) if inside[at : at + 1].isdigit()]))
        members[i] = name, inside[:at] + str(draw(st.integers(0, 10**15))).encode() + inside[at + 1 :]
    elif kind == 3:
        members[i] = name, inside.replace(*draw(st.sampled_from(WORDS)), 1)
    elif kind == 4:
        members[i] = draw(st.sampled_from(NAMES)), inside
    else:
        members[i] = name, draw(st.sampled_from(members))[1]
    return _zip(members, draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])))


def _zip(members, packing=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", packing) as archive, warnings.catch_warnings(action="ignore"):
        for member in members:  # perhaps two of one name, which Python warns of
            archive.writestr(*member)
    return file.getvalue()


SIZES = st.sampled_from([0, 1, 2, 4, 5, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1])


@st.composite
def idx_headers(draw, content):
    """Any sizes before the same bytes; the product of some wraps around in 64 bits."""
    return (
        content[:4]
        + b"".join(draw(SIZES).to_bytes(4, "big") for _ in range(content[3]))
        + content[4 + 4 * content[3] :]
    )


@st.composite
def png_headers(draw, content):
    """Any width and height, bit depth and kind of pixels, with the checksum that belongs to them."""
    sizes = st.sampled_from([0, 1, 3, 4, 5, 9000, 30_000, 60_000, 2**31 - 1, 2**32 - 1])
    depth, kind = draw(st.sampled_from([1, 2, 4, 8, 16])), draw(st.integers(0, 6))
    header = (
        b"IHDR" + b"".join(draw(sizes).to_bytes(4, "big") for _ in range(2)) + bytes([depth, kind]) + content[26:29]
    )
    return content[:12] + header + zlib.crc32(header).to_bytes(4, "big") + content[33:]


@st.composite
def nested(draw, around):
    """JSON with brackets in brackets, deeper than Python's stack."""
    depth = draw(st.sampled_from([1, 10, 900, 1100, 200_000]))
    opening, closing = draw(st.sampled_from([(b"[", b"]"), (b'{"a":', b"}")]))
    inside = opening * depth + b"1" * (opening != b"[") + closing * depth * draw(st.booleans())
    return around(inside)


class Hang(BaseException):
    """No ``Exception``, which a reader could take for a file that cannot be read."""


@contextlib.contextmanager
def limits(memory=2**29, seconds=20):
    """In here no more than so much memory is to be had beyond what is taken, and a hang is no error of the file.

    One in C, which does not let Python handle the signal, ends the process with a traceback.
    """

    def late(*_):
        raise Hang(f"not done in {seconds} s")

    taken = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGALRM, late)
    resource.setrlimit(resource.RLIMIT_AS, (taken + memory, hard))
    signal.alarm(seconds)
    faulthandler.dump_traceback_later(2 * seconds, exit=True, file=conftest.stderr)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGALRM, before)


# --- files of each kind ----------------------------------------------------------------------------------------------


class Target(NamedTuple):
    """``load()`` reads the file at ``path``, sound with ``content``; of ``spoilt`` at least a part is ``refused``."""

    path: pathlib.Path
    content: bytes
    load: Callable[[], Any]
    spoilt: Any
    refused: float = 0.25


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


def idx(folder, name, spoil=mutated):
    images, labels = np.arange(45, dtype=np.uint8).reshape(5, 3, 3), np.arange(5, dtype=np.uint8) % 3
    for prefix in ("train", "t10k"):
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(_idx(images))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(_idx(labels))
    content = _idx(images if "images" in name else labels)
    spoilt = spoil(content)
    if name.endswith(".gz"):
        (folder / name.removesuffix(".gz")).unlink()
        spoilt = spoilt.map(gzip.compress) if spoil is idx_headers else spoil(gzip.compress(content))
        content = gzip.compress(content)
    return Target(folder / name, content, lambda: data.load(str(folder)), spoilt)


def cifar(folder, name="data_batch_2.bin"):
    record = bytes([3]) + bytes(3072)
    for other in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
        (folder / other).write_bytes(record)
    if name == "data_batch_2.bin":
        return Target(folder / name, record, lambda: data.load(str(folder)), mutated(record), 0.1)
    names = b" ".join(b"name%d" % i for i in range(10))
    return Target(folder / name, names, lambda: data.load(str(folder)), mutated(names), 0.1)


def cifar100(folder):
    """Two label bytes to a record, of which only the second counts."""
    record = bytes([3, 7]) + bytes(3072)
    for name in ("train.bin", "test.bin"):
        (folder / name).write_bytes(record)
    spoilt = st.one_of(mutated(record), mutated(record, most=2))
    return Target(folder / "train.bin", record, lambda: data.load(str(folder)), spoilt, 0.1)


def npz(folder, spoil):
    path, content = folder / "set.npz", _npz(**ARRAYS)
    return Target(path, content, lambda: data.load(str(path)), spoil(content))


def an_artifact(folder, spoil):
    path, one = folder / "set.npz", np.ones(1, np.float32)
    made = Distilled(np.ones((2, 3, 3, 1), np.float32), np.eye(2, dtype=np.float32), np.float32(0.1))
    artifact.save(path, artifact.Artifact(made, Preprocess(one, one, 0 * one[0], one[0]), {"seed": 0}))
    return Target(path, path.read_bytes(), lambda: artifact.load(path), spoil(path.read_bytes()))


def with_meta(content):
    """The archive with other JSON in ``meta``."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}

    def around(inside):
        file = io.BytesIO()
        np.save(file, np.frombuffer(inside, np.uint8))
        return _zip([*(members | {"meta.npy": file.getvalue()}).items()])

    return nested(around)


def a_trajectory(folder, spoil):
    path = folder / "expert.npz"
    trajectory.save(path, trajectory.Trajectory(np.ones((3, 4), np.float32), {"model": {"class": "MLP"}}))
    return Target(path, path.read_bytes(), lambda: trajectory.load(path), spoil(path.read_bytes()))


def sentences(folder):
    path = folder / "films.txt"
    content = "\n".join(f"{i}\t{(-1) ** i * 2.5}\tone good film number {i}" for i in range(6)).encode()
    return Target(path, content, lambda: text.read_tsv(path), mutated(content), 0.1)


def vectors(folder, header=b""):
    path = folder / "glove.txt"
    lines = [f"{word} " + " ".join(f"{0.1 * i:.1f}" for i in range(4)) for word in ("one", "good", "film")]
    content = header + "\n".join(lines).encode()
    return Target(
        path, content, lambda: text.glove(path, (text.UNKNOWN, text.PADDING, "one", "film")), mutated(content), 0.1
    )


def images(folder, kind, spoil=mutated):
    from PIL import Image

    for split in ("train", "test"):
        for name in ("ant", "bee"):
            (folder / split / name).mkdir(parents=True)
            Image.fromarray(np.full((4, 4, 3), 9, np.uint8)).save(folder / split / name / "0.png", format=kind)
    path = folder / "train" / "ant" / "0.png"
    return Target(path, path.read_bytes(), lambda: data.load(str(folder)), spoil(path.read_bytes()), 0.1)


def annotations(folder):
    from PIL import Image

    for place in ("train/n1/images", "train/n2/images", "val/images"):
        (folder / place).mkdir(parents=True)
        Image.fromarray(np.full((4, 4, 3), 9, np.uint8)).save(folder / place / "0.png")
    path, content = folder / "val" / "val_annotations.txt", b"0.png\tn1\t0\t0\t3\t3\n0.png\tn2\t0\t0\t3\t3\n"
    return Target(path, content, lambda: data.load(str(folder)), mutated(content), 0.1)


def metrics(folder):
    path, content = folder / "metrics.jsonl", b'{"step": 1, "loss": 2.0}\n{"step": 2, "loss": "NaN"}\n'
    spoilt = st.one_of(mutated(content), nested(lambda inside: b'{"step": 1, "x": ' + inside + b"}\n" + content))
    return Target(path, content, lambda: log.read(path), spoilt, 0.1)


def run_config(folder):
    config = importlib.import_module("configs.kip.digits").get_config("tiny")
    path, content = folder / "config.json", json.dumps(log.to_jsonable(config)).encode()
    spoilt = st.one_of(mutated(content), nested(lambda inside: inside))
    return Target(path, content, lambda: run_folder.prepare(str(folder), config, resume=True), spoilt)


TARGETS = {
    **{
        f"{name}, {spoil.__name__}": (idx, name, spoil)
        for name in ("train-images-idx3-ubyte", "t10k-labels-idx1-ubyte", "train-images-idx3-ubyte.gz")
        for spoil in (mutated, idx_headers)
    },
    "cifar": (cifar,),
    "cifar, class names": (cifar, "batches.meta.txt"),
    "cifar100": (cifar100,),
    **{
        f"{make.__name__}, {spoil.__name__}": (make, spoil)
        for make in (npz, an_artifact, a_trajectory)
        for spoil in (mutated, repacked)
    },
    "artifact, nested": (an_artifact, with_meta),
    "sentences": (sentences,),
    "vectors": (vectors,),
    "vectors after a header": (vectors, b"3 4\n"),
    **{f"images, {kind}": (images, kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "PPM")},
    "images, headers": (images, "PNG", png_headers),
    "annotations": (annotations,),
    "metrics": (metrics,),
    "config of a run": (run_config,),
}


def fuzz(name, folder, monkeypatch, examples):
    """One of ``TARGETS`` in a folder of its own, the working directory beside it."""
    inside, elsewhere = folder / "inside", folder / "elsewhere"
    inside.mkdir(), elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    make, *options = TARGETS[name]
    try_spoilt(make(inside, *options), folder, examples)


ASKED_FOR = "memory was asked for before the sizes were checked"


def try_spoilt(target, folder, examples):
    """What is refused is refused in a line or two; nothing is written, in the folder or out of it."""
    target.path.write_bytes(target.content)
    before, outcomes = files(folder), []

    @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))
    @given(target.spoilt)
    def each(made):
        target.path.write_bytes(made)
        try:
            with limits(), warnings.catch_warnings(action="ignore"):
                target.load()
            outcomes.append(False)
        except checks.InputError as error:
            outcomes.append(True)
            assert str(error) and str(error).count("\n") <= 1
            assert not isinstance(error.__cause__, MemoryError), ASKED_FOR

    each()
    target.path.write_bytes(target.content)
    target.load()
    assert files(folder) == before and not pathlib.Path("/outside.npy").exists()
    assert sum(outcomes) >= target.refused * len(outcomes)


def files(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize("name", TARGETS)
def test_a_spoilt_file_is_refused_or_sound(name, tmp_path, monkeypatch):
    fuzz(name, tmp_path, monkeypatch, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_thousands_of_spoilt_files_are_refused_or_sound(name, tmp_path, monkeypatch):
    fuzz(name, tmp_path, monkeypatch, MANY)


# --- what declares more than there is --------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(2**31 - 1,) * 3, (2**31, 2**31, 4), (2**32 - 1, 2**32 - 1, 0)])
def test_idx_that_declares_more_than_there_is_takes_no_memory(sizes, tmp_path):
    huge = b"".join(n.to_bytes(4, "big") for n in (2051, *sizes))
    for name in ("train-images-idx3-ubyte", "t10k-images-idx3-ubyte"):
        (tmp_path / name).write_bytes(huge)
    for name in ("train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte"):
        (tmp_path / name).write_bytes(_idx(np.zeros(1, np.uint8)))
    with limits(), pytest.raises(checks.InputError, match=r"the file is damaged|which is empty"):
        data.load(str(tmp_path))


def test_a_small_gzip_file_is_unpacked_as_far_as_its_header_says(tmp_path):
    """It would grow to a gigabyte."""
    target = idx(tmp_path, "train-images-idx3-ubyte.gz")
    target.path.write_bytes(target.content + 64 * gzip.compress(bytes(2**24)))
    with limits(), pytest.raises(checks.InputError, match="has more than 61 bytes and its header says 61"):
        target.load()


@pytest.mark.parametrize("side", [9000, 60_000])
def test_a_small_image_that_declares_many_pixels_takes_no_memory(side, tmp_path):
    """Pillow itself refuses the larger one, with an error of its own."""
    target = images(tmp_path, "PNG")
    header = b"IHDR" + 2 * side.to_bytes(4, "big") + target.content[24:29]
    target.path.write_bytes(target.content[:12] + header + zlib.crc32(header).to_bytes(4, "big") + target.content[33:])
    with limits(2**27), pytest.raises(checks.InputError, match=r"declares 9000 x 9000 pixels|decompression bomb"):
        target.load()


def test_limits_are_felt():
    with pytest.raises(MemoryError), limits(memory=2**26):
        np.ones(2**28, np.uint8)
    with pytest.raises(Hang), limits(seconds=1):
        while True:
            pass


def test_a_hang_does_not_count_as_a_refusal(tmp_path, monkeypatch):
    """Readers turn an ``OSError`` into an ``InputError``, and a ``TimeoutError`` is one."""

    def hang(*_):
        while True:
            pass

    target = idx(tmp_path, "train-images-idx3-ubyte")
    monkeypatch.setattr(data.files, "open", hang, raising=False)
    with pytest.raises(Hang), limits(seconds=1):
        target.load()


HANG = """
import collections, itertools
from tests.data.test_fuzz import limits
with limits(seconds=1):
    pass
with limits(seconds=1):
    collections.deque(itertools.repeat(0), maxlen=0)
"""


def test_a_hang_in_c_ends_the_process_and_says_where():
    done = subprocess.run([sys.executable, "-c", HANG], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "Timeout" in done.stderr and 'File "<string>", line 7' in done.stderr


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
    with limits(), pytest.raises(checks.InputError, match=r"x_train.npy declares float64 of shape") as caught:
        data.load(str(path))
    assert not isinstance(caught.value.__cause__, MemoryError), ASKED_FOR
