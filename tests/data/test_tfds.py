"""TFDS, offline: a small set that is written with TFDS's own tools, and read back through ``data.load``.

Images are handed to TFDS as PNG bytes, because encoding arrays needs TensorFlow; so all but TFRecord runs without it.
"""

import importlib.util
import io
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from kipjax import checks, data

core = pytest.importorskip("tensorflow_datasets", reason="tensorflow-datasets is not installed")
needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed, and TFRecord needs it"
)


def _png(pixels):
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    file.seek(0)
    return file


def _pixels(split, shape=(6, 5, 3)):
    seed, n = {"train": (0, 12), "test": (1, 6), "validation": (2, 6)}[split]
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def _builder(
    tmp_path, *, name="kipjax_tiny", splits=("train", "test"), features=None, sizes=False, file_format="array_record"
):
    """A TFDS builder of its own kind: image ``i`` of a split has label ``i % 3``; never registered under its name."""
    features = features or {
        "image": core.features.Image(shape=(None, None, 3) if sizes else (6, 5, 3)),
        "label": core.features.ClassLabel(names=["ant", "bee", "cat"]),
    }

    def info(self):
        keys = ("image", "label") if set(features) == {"image", "label"} else None
        return core.core.DatasetInfo(builder=self, features=core.features.FeaturesDict(features), supervised_keys=keys)

    def examples(self, split):
        for i, pixels in enumerate(_pixels(split)):
            pixels = pixels[: 6 - (sizes and i % 2)]
            values = {"image": _png(pixels), "label": i % 3, "other": i}
            yield i, {key: values[key] for key in features}

    members = {
        "VERSION": core.core.Version("1.0.0"),
        "name": name,
        "_info": info,
        "_split_generators": lambda self, manager: {split: self._generate_examples(split) for split in splits},
        "_generate_examples": examples,
        "__module__": "__main__",  # TFDS looks for no checksum file beside it
    }
    with core.core.registered.skip_registration():
        kind = type("KipjaxTiny", (core.core.GeneratorBasedBuilder,), members)
    builder = kind(data_dir=tmp_path, file_format=file_format)
    builder.download_and_prepare()
    return builder


def _check(dataset):
    """TFDS shuffles when it writes, so examples are matched by their pixels."""
    for x, y, split in ((dataset.x_train, dataset.y_train, "train"), (dataset.x_test, dataset.y_test, "test")):
        expected = {pixels.tobytes(): i % 3 for i, pixels in enumerate(_pixels(split))}
        assert x.dtype == np.uint8 and x.shape == (len(expected), 6, 5, 3)
        assert {pixels.tobytes(): label for pixels, label in zip(x, y.tolist())} == expected
    assert dataset.num_classes == 3 and dataset.class_names == ("ant", "bee", "cat")


def _refused(words, *args, **kwargs):
    with pytest.raises(checks.InputError) as caught:
        data.load(*args, **kwargs)
    for word in words:
        assert word in str(caught.value), caught.value
    assert str(caught.value).count("\n") <= 1


def test_array_record_round_trip(tmp_path):
    _builder(tmp_path)
    _check(data.load("tfds:kipjax_tiny", data_dir=tmp_path))
    _check(data.load("tfds:kipjax_tiny:1.0.0", data_dir=str(tmp_path)))


def test_reading_array_record_imports_no_tensorflow(tmp_path):
    _builder(tmp_path)
    script = (
        f"import sys; from kipjax import data; d = data.load('tfds:kipjax_tiny', data_dir={str(tmp_path)!r});"
        "assert d.x_train.shape == (12, 6, 5, 3); assert 'tensorflow' not in sys.modules"
    )
    root = pathlib.Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", script], check=True, cwd=root, env={**os.environ, "PYTHONPATH": str(root)})


def test_validation_stands_in_for_a_missing_test_split(tmp_path):
    _builder(tmp_path, splits=("train", "validation"))
    dataset = data.load("tfds:kipjax_tiny", data_dir=tmp_path)
    assert {x.tobytes() for x in dataset.x_test} == {x.tobytes() for x in _pixels("validation")}


@needs_tensorflow
def test_tfrecord_round_trip(tmp_path):
    _builder(tmp_path, file_format="tfrecord")
    _check(data.load("tfds:kipjax_tiny", data_dir=tmp_path))


def test_tfrecord_without_tensorflow_says_what_to_do(tmp_path, monkeypatch):
    builder = _builder(tmp_path)
    info = pathlib.Path(builder.data_path) / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    _refused(
        ["tfds:kipjax_tiny was prepared as tfrecord", "'pip install tensorflow'", "file_format='array_record'"],
        "tfds:kipjax_tiny",
        data_dir=tmp_path,
    )


def test_a_known_name_is_taken_from_tfds_where_there_are_no_files(tmp_path, monkeypatch):
    known = data.KNOWN["kmnist"]._replace(tfds="kipjax_tiny", class_names=None)
    monkeypatch.setitem(data.sources.KNOWN, "kmnist", known)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KIPJAX_DATA_DIR", raising=False)
    _builder(tmp_path)
    _check(data.load("kmnist", data_dir=tmp_path))


def test_unknown_sets_are_refused(tmp_path):
    _refused(
        ["tfds:kipjax_absent", "not found", "check the name and data_dir"], "tfds:kipjax_absent", data_dir=tmp_path
    )


def test_a_set_that_must_be_prepared_says_so_without_tensorflow(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "tensorflow" else find(name, *rest)
    )
    _refused(
        ["tfds:mnist is not prepared in", str(tmp_path), "needs TensorFlow: 'pip install tensorflow'"],
        "tfds:mnist",
        data_dir=tmp_path,
    )


def test_a_download_that_fails_is_one_line_and_restores_tfds(tmp_path, monkeypatch):
    from tensorflow_datasets.core.download import downloader

    retries = []

    def fail(self, **kwargs):
        retries.append(downloader.MAX_RETRIES)
        raise ConnectionError("no route to host\nsecond line")

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: name == "tensorflow" or find(name, *rest))
    monkeypatch.setattr(core.core.DatasetBuilder, "download_and_prepare", fail)
    before = downloader.MAX_RETRIES
    _refused(
        ["tfds:mnist could not be downloaded and prepared (no route to host); check the connection"],
        "tfds:mnist",
        data_dir=tmp_path,
    )
    assert retries == [5] and before == downloader.MAX_RETRIES


def test_missing_tfds_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    _refused(["tensorflow-datasets cannot be imported", "'pip install tensorflow-datasets'"], "tfds:mnist")


def test_sets_that_are_no_image_classification_are_refused(tmp_path):
    scalar = core.features.Scalar(np.int64)
    _builder(tmp_path / "a", features={"image": core.features.Image(shape=(6, 5, 3)), "other": scalar})
    _refused(
        ["has the features image, other; expected an image and a class label"],
        "tfds:kipjax_tiny",
        data_dir=tmp_path / "a",
    )
    _builder(tmp_path / "b", splits=("train",))
    _refused(["has the splits train; expected train and test"], "tfds:kipjax_tiny", data_dir=tmp_path / "b")
    _builder(tmp_path / "c", sizes=True)
    _refused(["has images of 2 sizes in train", "image_size"], "tfds:kipjax_tiny", data_dir=tmp_path / "c")
    assert data.load("tfds:kipjax_tiny", data_dir=tmp_path / "c", image_size=4).x_train.shape[1:3] == (4, 4)


def test_a_distilled_set_is_written_and_tfds_reads_it(tmp_path):
    """By TFDS's own reader: pictures and rows in order, preprocessed images and targets bit for bit."""
    from kipjax.data import tfds

    pixels, rng = _pixels("train"), np.random.default_rng(3)
    x, y = rng.normal(size=pixels.shape).astype(np.float32), rng.normal(size=(12, 3)).astype(np.float32)
    names = ["T-shirt/top", "凉鞋", "bee"]
    path = tfds.write(tmp_path / "new", pixels, x, y, class_names=names, name="my_set")
    assert path == tmp_path / "new" / "my_set" / "1.0.0" and {p.name for p in (tmp_path / "new").iterdir()} == {
        "my_set"
    }
    builder = core.builder_from_directory(path)
    assert builder.info.features["label"].names == names
    rows = list(builder.as_data_source("train"))
    assert len(rows) == 12
    for row, picture, image, target in zip(rows, pixels, x, y):
        assert row["x"].tobytes() == image.tobytes() and row["y"].tobytes() == target.tobytes()
        assert np.array_equal(row["image"], picture) and row["label"] == target.argmax()
    assert tfds.write(tmp_path / "grey", pixels[..., :1], x, y).is_dir()


def test_what_tfds_cannot_hold_is_refused(tmp_path):
    from kipjax.data import tfds

    pixels, y = _pixels("test"), np.eye(6, dtype=np.float32)
    for words, arguments, options in (
        ("expected uint8 images", (pixels / 255, pixels, y), {}),
        ("both need the same number of rows", (pixels, pixels, y[:3]), {}),
        ("are not 6 different lines of text", (pixels, pixels, y), {"class_names": ["a"] * 6}),
        ("name is '../set'", (pixels, pixels, y), {"name": "../set"}),
    ):
        with pytest.raises(checks.InputError, match=words):
            tfds.write(tmp_path, *arguments, **options)
    tfds.write(tmp_path, pixels, pixels, y)
    with pytest.raises(checks.InputError, match="already there"):
        tfds.write(tmp_path, pixels, pixels, y)
    (tmp_path / "file").touch()
    with pytest.raises(checks.InputError, match="cannot write"):
        tfds.write(tmp_path / "file", pixels, pixels, y)
