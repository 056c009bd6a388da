"""A set distilled here in every format and back, sets of others by command, and the README's PyTorch."""

import pathlib
import re

import numpy as np
import pytest

import kipjax
from experiments import convert
from kipjax import checks, data
from kipjax.io import artifact, image_folder, interchange
from kipjax.types import Distilled
from tests.experiments.shell import cli

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def made():
    """Random digits as an artifact, with what a run says of it."""
    digits = data.load("digits")
    preprocess = data.preprocess.standardize(digits.x_train)
    x = np.asarray(data.preprocess.apply(preprocess, digits.x_train[:20]))
    y = np.random.default_rng(0).normal(size=(20, 10)).astype(np.float32)
    meta = {"method": "kip", "dataset": "digits", "image_size": 0, "class_names": list(digits.class_names)}
    return artifact.Artifact(Distilled(x, y), preprocess, meta)


@pytest.fixture
def cifar(tmp_path):
    """A small set in colour, as a file that ``data.load`` reads, and its name."""
    rng = np.random.default_rng(0)
    arrays = {f"x_{split}": rng.integers(0, 255, (40, 8, 8, 3), dtype=np.uint8) for split in ("train", "test")}
    arrays |= {f"y_{split}": np.arange(40) % 5 for split in ("train", "test")}
    np.savez(tmp_path / "small.npz", **arrays)
    return str(tmp_path / "small.npz")


@pytest.mark.parametrize("name", ["set.npz", "set.safetensors"])
def test_files_come_back_as_they_were(made, tmp_path, name):
    if name.endswith("safetensors"):
        pytest.importorskip("safetensors", reason="the package safetensors is not installed")
    path = convert.export(made, str(tmp_path / name), layout="nchw")
    got = convert.imported(path)
    np.testing.assert_array_equal(got.distilled.x, made.distilled.x)
    np.testing.assert_array_equal(got.distilled.y, made.distilled.y)
    assert got.meta["method"] == "kip" and got.meta["dataset"] == "digits"


def test_pictures_come_back_up_to_their_eight_bits(made, tmp_path):
    """Real digits have values 0..16, which 0..255 hold exactly."""
    convert.export(made, str(tmp_path / "set"), form="png")
    got = convert.imported(str(tmp_path / "set"), "digits", "standardize")
    np.testing.assert_allclose(
        got.distilled.x, made.distilled.x, atol=8 / 255 / float(made.preprocess.std.min()) + 1e-4
    )
    np.testing.assert_array_equal(got.distilled.y, made.distilled.y)
    assert got.meta["data_fingerprint"] and got.preprocess.mean == made.preprocess.mean
    assert image_folder.read(tmp_path / "set").pixels.shape == (20, 8, 8, 1)


def test_what_is_not_kept_is_said(made):
    assert convert._lost(made, "npz") == convert._lost(made, "safetensors") == []
    assert convert._lost(made, "tfds") == ["the preprocessing"]
    with_steps = made._replace(distilled=made.distilled._replace(lr=np.ones(2)))
    assert convert._lost(with_steps, "png") == [
        "the preprocessing", "what lies between the 256 values of pixels", "the learned step sizes, which are part of "
        "the set",
    ]  # fmt: skip


def test_tfds(made, tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets", reason="tensorflow-datasets is not installed")
    path = convert.export(made, str(tmp_path / "set"), form="tfds", name="digits_kip")
    rows = list(tfds.builder_from_directory(path).as_data_source("train"))
    np.testing.assert_array_equal([row["x"] for row in rows], made.distilled.x)


def test_a_kip_file_says_in_its_name_how_it_was_whitened(cifar, tmp_path):
    """The whitening of the authors' notebook, written out: channels, image mean and norm, 0.1 of the mean variance."""
    images = np.random.default_rng(1).normal(size=(10, 8, 8, 3)).astype(np.float32)
    path = tmp_path / "kip_small_ConvNet_ssize10_zca_nol_noaug_ckpt1000.npz"
    np.savez(path, images=images, labels=np.eye(5, dtype=np.float32)[np.arange(10) % 5] - 0.2)
    got = convert.imported(str(path), cifar)
    raw = np.load(cifar)["x_train"].astype(np.float64)
    z = ((raw - raw.mean((0, 1, 2))) / raw.std((0, 1, 2))).reshape(40, -1)
    z = z - z.mean(1, keepdims=True)
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    cov = z.T @ z / 40
    s, u = np.linalg.eigh(cov)
    s = s + 0.1 * np.trace(cov) / len(cov)
    root = np.where(np.arange(len(s)) < len(s) - 40, 1.0, np.sqrt(np.maximum(s, 1e-30)))  # RCIG's rule for n < d
    expected = (z @ (u / root) @ u.T).reshape(raw.shape)
    found = data.preprocess.apply(got.preprocess, np.load(cifar)["x_train"])
    np.testing.assert_allclose(found, expected, atol=2e-4)
    plain = path.with_name("kip_small_ConvNet_ssize10_nozca_l_noaug_ckpt1000.npz")
    plain.write_bytes(path.read_bytes())
    assert convert.imported(str(plain), cifar).preprocess.zca is None


@pytest.mark.slow
def test_others_and_their_score(cifar, tmp_path):
    """RFAD's and DC's files become artifacts that are scored like any other, with RFAD's own ridge."""
    rng = np.random.default_rng(2)
    images = rng.normal(size=(10, 3, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "best.npz", images=images, labels=rng.normal(size=(10, 5)), jit=5e-3, k=0.1)
    np.savez(tmp_path / "dc.npz", image_syn=images, label_syn=np.arange(10) // 2)
    found = []
    for name, preprocess in (("best", "zca:rfad"), ("dc", "fixed:cifar10")):
        kipjax.save(tmp_path / f"{name}_set.npz", convert.imported(f"{tmp_path}/{name}.npz", cifar, preprocess))
        found.append(kipjax.load(tmp_path / f"{name}_set.npz"))
    assert found[0].meta["config"]["evaluation"] == {"reg": 5e-3, "reg_unit": "trace"}
    assert found[1].meta["label_convention"] == "centered one-hot" and found[1].preprocess.zca is None
    np.testing.assert_array_equal(found[1].distilled.x, images.transpose(0, 2, 3, 1))
    arguments = ["--protocol=krr", "--kernels=fc1", "--seeds=2", "--full_size=0"]
    done = cli("evaluate", f"--artifact={tmp_path}/best_set.npz", *arguments)
    assert done.returncode == 0 and "distilled, 10 images" in done.stdout, done.stderr


def test_mistakes_are_a_line(made, cifar, tmp_path):
    np.savez(tmp_path / "set.npz", images=np.zeros((2, 8, 8, 3), np.float32), labels=np.eye(2))
    np.savez(tmp_path / "ten.npz", images=np.zeros((2, 8, 8, 3), np.float32), labels=np.arange(2))
    file, ten = str(tmp_path / "set.npz"), str(tmp_path / "ten.npz")
    cases = {
        "give preprocess": lambda: convert.imported(file, cifar),
        "name the data set": lambda: convert.imported(file, None, "standardize"),
        "is not none, standardize": lambda: convert.imported(file, cifar, "zca"),
        "'whiten' is not none": lambda: convert.imported(file, cifar, "whiten"),
        "variant is 'mine'": lambda: convert.imported(file, cifar, "zca:mine"),
        "labels has 2 columns and num_classes is 5": lambda: convert.imported(file, cifar, "standardize"),
        "constants 'cifar10' are for 3 channels and": lambda: convert.imported(ten, "digits", "fixed:cifar10"),
        "no suffix of a format": lambda: convert.export(made, str(tmp_path / "folder")),
        "does not end in .npz": lambda: convert.export(made, str(tmp_path / "a.st"), form="npz"),
        "choose nhwc or nchw": lambda: convert.export(made, str(tmp_path / "a.npz"), layout="auto"),
        "pictures do not say it": lambda: convert.imported(str(tmp_path)),
    }
    for words, call in cases.items():
        with pytest.raises(checks.InputError) as caught:
            call()
        assert words in str(caught.value) and "\n" not in str(caught.value), words


def test_the_command(cifar, tmp_path):
    (tmp_path / "images_best.pt").write_bytes(b"\x80\x02")
    done = cli("convert", f"--from={tmp_path}/images_best.pt", f"--to={tmp_path}/a.npz")
    assert done.returncode == 2 and "torch.load" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "a.npz").exists()
    np.savez(tmp_path / "dc.npz", image_syn=np.zeros((10, 3, 8, 8), np.float32), label_syn=np.arange(10) // 2)
    options = [f"--data={cifar}", "--preprocess=fixed:cifar10", f"--to={tmp_path}/set.npz"]
    done = cli("convert", f"--from={tmp_path}/dc.npz", *options)
    assert done.returncode == 0 and "10 examples of shape (8, 8, 3), 5 classes, centered one-hot" in done.stdout
    assert kipjax.load(tmp_path / "set.npz").meta["dataset"] == cifar


def test_vectors_go_into_files_and_not_into_pictures(made, tmp_path):
    x = np.asarray(made.distilled.x).reshape(20, -1)
    flat = made._replace(distilled=Distilled(x, made.distilled.y), preprocess=data.preprocess.identity(x))
    got = interchange.read(convert.export(flat, str(tmp_path / "a.npz"), layout="nchw"))
    np.testing.assert_array_equal(got.distilled.x, x)
    with pytest.raises(checks.InputError, match="png is for images"):
        convert.export(flat, str(tmp_path / "b"), form="png")


def test_the_readmes_pytorch_trains_on_an_artifact(made, tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="PyTorch is not installed")
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (block,) = [b for b in blocks if "import torch" in b]
    monkeypatch.chdir(tmp_path)
    artifact.save(tmp_path / "distilled.npz", made)
    names = {}
    exec(compile(block, "README.md", "exec"), names)
    assert names["x"].shape == (20, 1, 8, 8) and names["loss"].item() < 1.0
