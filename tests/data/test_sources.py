"""Sources: the same little set through every format, where files are looked for, and what is refused."""

import gzip
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from kipjax import checks, data
from kipjax.data import files, sources, tfds

RNG = np.random.default_rng(0)


def _grey(n_train=12, n_test=6, k=3):
    x = RNG.integers(0, 256, (n_train + n_test, 5, 4), dtype=np.uint8)
    y = np.arange(n_train + n_test, dtype=np.uint8) % k
    return x[:n_train], y[:n_train], x[n_train:], y[n_train:]


def _idx(array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(int(size).to_bytes(4, "big") for size in array.shape)
    return header + array.tobytes()


def _write_idx(folder, arrays, *, zipped=False):
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in zip(("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"), arrays):
        content = _idx(array)
        (folder / f"{name}-ubyte{'.gz' * zipped}").write_bytes(gzip.compress(content) if zipped else content)
    return folder


def _write_cifar(folder, fine=False):
    """Two records a file; red is the record's number, green and blue are random."""
    folder.mkdir(parents=True)
    names = ["train.bin", "test.bin"] if fine else [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]
    records = []
    for i, name in enumerate(names):
        images = RNG.integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
        images[:, 0] = np.array([2 * i, 2 * i + 1])[:, None, None]
        labels = np.array([[7, 2 * i % 10], [8, (2 * i + 1) % 10]], np.uint8)[:, slice(None) if fine else slice(1, 2)]
        (folder / name).write_bytes(np.concatenate([labels, images.reshape(2, -1)], axis=1).astype(np.uint8).tobytes())
        records.append((images.transpose(0, 2, 3, 1), labels[:, -1]))
    return records


def _same(dataset, x_train, y_train, x_test, y_test):
    np.testing.assert_array_equal(dataset.x_train, x_train)
    np.testing.assert_array_equal(dataset.x_test, x_test)
    np.testing.assert_array_equal(dataset.y_train, y_train)
    np.testing.assert_array_equal(dataset.y_test, y_test)
    assert dataset.x_train.dtype == dataset.x_test.dtype == np.uint8
    assert dataset.y_train.dtype == dataset.y_test.dtype == np.int32


def _refused(words, call, *args, **kwargs):
    with pytest.raises(checks.InputError) as caught:
        call(*args, **kwargs)
    text = str(caught.value)
    for word in [words] if isinstance(words, str) else words:
        assert word in text, text
    assert text.count("\n") <= 1
    return text


@pytest.fixture(autouse=True)
def _nothing_else_on_this_machine(monkeypatch, tmp_path):
    """An empty home, no system folders, and a TFDS that has nothing."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("KIPJAX_DATA_DIR", raising=False)
    monkeypatch.setattr(sources, "KNOWN", {name: known._replace(folders=()) for name, known in sources.KNOWN.items()})

    def nothing(name, data_dir=None, image_size=0):
        raise checks.InputError(f"data.load: tfds:{name} is not here")

    monkeypatch.setattr(tfds, "read", nothing)


# --- embedded ---------------------------------------------------------------------------------------------------------


def test_digits_are_split_the_same_way_every_time():
    digits = data.load("digits")
    assert digits.x_train.shape == (1437, 8, 8, 1) and digits.x_test.shape == (360, 8, 8, 1)
    assert digits.x_train.dtype == np.uint8 and (digits.x_train.min(), digits.x_train.max()) == (0, 16)
    assert digits.num_classes == 10 and digits.class_names == tuple("0123456789")
    assert np.ptp(np.bincount(digits.y_test)) <= 2  # stratified
    np.testing.assert_array_equal(digits.x_test, data.load("digits").x_test)


def test_digits_train_and_test_are_the_whole_set_without_overlap():
    from sklearn.datasets import load_digits

    digits = data.load("digits")
    key = lambda x: sorted(row.tobytes() for row in np.asarray(x, np.uint8).reshape(len(x), -1))  # noqa: E731
    assert key(np.concatenate([digits.x_train, digits.x_test])) == key(load_digits().data)


# --- IDX --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_files_by_path(tmp_path, zipped):
    x_train, y_train, x_test, y_test = arrays = _grey()
    dataset = data.load(str(_write_idx(tmp_path / "set", arrays, zipped=zipped)))
    _same(dataset, x_train[..., None], y_train, x_test[..., None], y_test)
    assert dataset.num_classes == 3


def test_a_known_name_is_looked_for_in_this_order(tmp_path, monkeypatch):
    monkeypatch.setenv("KIPJAX_DATA_DIR", str(tmp_path / "env"))
    places = [
        tmp_path / "home/.cache/kipjax/fashion_mnist",
        tmp_path / "env/fashion_mnist",
        tmp_path / "dir",
        tmp_path / "dir/fashion_mnist",
    ]
    (tmp_path / "dir").mkdir()
    for place in places:  # each new place comes before the ones already there
        arrays = _grey(k=10)
        _write_idx(place, arrays)
        dataset = data.load("fashion_mnist", data_dir=tmp_path / "dir")
        np.testing.assert_array_equal(dataset.x_train[..., 0], arrays[0])
    assert dataset.class_names[9] == "Ankle boot" and dataset.num_classes == 10


def test_where_debian_installs_it_is_searched_last(tmp_path, monkeypatch):
    known = sources.KNOWN["fashion_mnist"]._replace(folders=(str(_write_idx(tmp_path / "usr", _grey(k=10))),))
    monkeypatch.setitem(sources.KNOWN, "fashion_mnist", known)
    assert data.load("fashion_mnist", data_dir=tmp_path).x_train.shape == (12, 5, 4, 1)


def test_a_data_dir_that_does_not_exist_is_refused(tmp_path):
    _refused("absent', which does not exist", data.load, "fashion_mnist", data_dir=tmp_path / "absent")


def test_a_known_set_that_is_nowhere_says_where_it_looked_and_how_to_get_it(tmp_path):
    words = [
        "data set 'fashion_mnist' not found",
        str(tmp_path / "dir/fashion_mnist"),
        str(tmp_path / "home/.cache/kipjax/fashion_mnist"),
        "tfds:fashion_mnist is not here",
        "apt-get install dataset-fashion-mnist",
        "--config.data.data_dir",
    ]
    (tmp_path / "dir").mkdir()
    _refused(words, data.load, "fashion_mnist", data_dir=tmp_path / "dir")
    assert "apt-get" not in _refused("data set 'cifar10' not found", data.load, "cifar10")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda content: content[:-1], ["has 255 bytes and its header says 256", "(12, 5, 4)", "fetch it again"]),
        (lambda content: content + b"x", "has more than 256 bytes and its header says 256"),
        (lambda content: b"\x00\x00\x08\x01" + content[4:], "the magic number 2049; an IDX file of 3 axes has 2051"),
        (lambda content: content[:7], "has 7 bytes"),
        (lambda content: b"", "has 0 bytes and the magic number 0"),
    ],
)
def test_damaged_idx_files_are_refused(tmp_path, damage, words):
    folder = _write_idx(tmp_path / "set", _grey())
    path = folder / "train-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    assert str(path) in _refused(words, data.load, str(folder))


@pytest.mark.parametrize(
    "damage", [lambda c: c[:-9], lambda c: b"no gzip", lambda c: c[:12] + b"\xff" * 40], ids=["cut", "text", "noise"]
)
def test_damaged_gzip_files_are_refused(tmp_path, damage):
    folder = _write_idx(tmp_path / "set", _grey(), zipped=True)
    path = folder / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    _refused([str(path), "cannot be read", "fetch it again"], data.load, str(folder))


def test_idx_files_that_are_missing_or_do_not_belong_together_are_refused(tmp_path):
    x_train, y_train, x_test, y_test = _grey()
    folder = _write_idx(tmp_path / "a", (x_train, y_train[:-1], x_test, y_test))
    _refused([str(folder), "train has 12 images and 11 labels"], data.load, str(folder))
    folder = _write_idx(tmp_path / "b", (x_train, y_train, x_test[:-2], y_test))
    _refused("t10k has 4 images and 6 labels", data.load, str(folder))
    (folder / "t10k-labels-idx1-ubyte").unlink()
    _refused([str(folder), "lacks t10k-labels-idx1-ubyte", "all four"], data.load, str(folder))


def test_labels_outside_the_named_classes_are_refused(tmp_path):
    folder = _write_idx(tmp_path / "fashion_mnist", _grey(k=12))
    _refused([str(folder), "y_train spans 0..11", "num_classes = 10"], data.load, "fashion_mnist", data_dir=tmp_path)


# --- CIFAR ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("below", ["", "cifar-10-batches-bin"])
def test_cifar10_binary(tmp_path, below):
    records = _write_cifar(tmp_path / "cifar10" / below)
    (tmp_path / "cifar10" / below / "batches.meta.txt").write_text("\n".join("abcdefghij") + "\n\n")
    for dataset in (data.load("cifar10", data_dir=tmp_path), data.load(str(tmp_path / "cifar10"))):
        x_train, y_train = (np.concatenate(part) for part in zip(*records[:-1]))
        _same(dataset, x_train, y_train, records[-1][0], records[-1][1])
        assert dataset.num_classes == 10 and dataset.class_names == tuple("abcdefghij")
        assert np.all(dataset.x_train[3, :, :, 0] == 3)


def test_cifar10_has_its_names_without_the_names_file(tmp_path):
    _write_cifar(tmp_path / "cifar10")
    assert data.load("cifar10", data_dir=tmp_path).class_names[-1] == "truck"


def test_cifar100_binary_has_fine_labels(tmp_path):
    records = _write_cifar(tmp_path / "cifar-100-binary", fine=True)
    dataset = data.load("cifar100", data_dir=tmp_path)
    _same(dataset, *records[0], *records[1])
    assert dataset.num_classes == 100 and dataset.y_test.tolist() == [2, 3]


def test_damaged_cifar_files_are_refused(tmp_path):
    folder = tmp_path / "cifar10"
    _write_cifar(folder)
    path = folder / "data_batch_3.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    _refused([str(path), "has 6141 bytes", "records' 3073"], data.load, "cifar10", data_dir=tmp_path)
    path.write_bytes(bytes([10]) + whole[1:])
    _refused(["spans 0..10", "num_classes = 10"], data.load, "cifar10", data_dir=tmp_path)
    path.unlink()
    _refused([str(folder), "lacks data_batch_3.bin"], data.load, "cifar10", data_dir=tmp_path)


# --- .npz -------------------------------------------------------------------------------------------------------------


def test_npz(tmp_path):
    x_train, y_train, x_test, y_test = _grey()
    arrays = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
    np.savez(tmp_path / "set.npz", **arrays, class_names=np.array(["a", "b", "c"]))
    for name, data_dir in ((str(tmp_path / "set.npz"), None), ("set.npz", tmp_path)):
        dataset = data.load(name, data_dir=data_dir)
        _same(dataset, x_train[..., None], y_train, x_test[..., None], y_test)
        assert dataset.class_names == ("a", "b", "c")
    np.savez(tmp_path / "plain.npz", **arrays)
    assert data.load(str(tmp_path / "plain.npz")).class_names == ("0", "1", "2")


def test_npz_that_is_damaged_incomplete_or_pickled_is_refused(tmp_path):
    x_train, y_train, x_test, y_test = _grey()
    path = tmp_path / "set.npz"
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test)
    _refused([str(path), "lacks y_test; it holds x_train, y_train, x_test"], data.load, str(path))
    np.savez(path, x_train=x_train, y_train=np.array([{}] * 12), x_test=x_test, y_test=y_test)
    _refused([str(path), "pickle, which is never loaded", "save plain numeric"], data.load, str(path))
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", whole[:200] + bytes(20) + whole[220:]):
        path.write_bytes(damaged)
        _refused([str(path), "write it again"], data.load, str(path))
    path.write_bytes(b"\x93NUMPY nonsense")
    _refused(str(path), data.load, str(path))
    np.save(tmp_path / "one.npy", x_train)
    (tmp_path / "one.npy").rename(path)
    _refused(str(path), data.load, str(path))


# --- folders of images ------------------------------------------------------------------------------------------------


def _write_images(folder, mode="RGB", size=(6, 4), suffix="png"):
    """Two classes, two images a class and split; returns the pixels in the order of class and file name."""
    from PIL import Image

    pixels = []
    for split in ("train", "test"):
        for name in ("ant", "bee"):
            (folder / split / name).mkdir(parents=True)
            for i in range(2):
                shape = (size[1], size[0], 3)[: 3 if mode == "RGB" else 2]
                image = RNG.integers(0, 256, shape, dtype=np.uint8)
                Image.fromarray(image).save(folder / split / name / f"{i}.{suffix}")
                pixels.append(image)
    return np.stack(pixels)


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1)])
def test_folder_of_class_folders(tmp_path, monkeypatch, mode, channels):
    listed = pathlib.Path.iterdir  # file systems list in any order; ours must not depend on it
    monkeypatch.setattr(pathlib.Path, "iterdir", lambda folder: iter(sorted(listed(folder), reverse=True)))
    pixels = _write_images(tmp_path, mode).reshape(8, 4, 6, channels)
    (tmp_path / "train" / "ant" / "notes.txt").write_text("no image")
    dataset = data.load(str(tmp_path))
    _same(dataset, pixels[:4], [0, 0, 1, 1], pixels[4:], [0, 0, 1, 1])
    assert dataset.class_names == ("ant", "bee")


def test_a_grey_image_among_colour_ones_gets_three_equal_channels(tmp_path):
    from PIL import Image

    _write_images(tmp_path)
    grey = RNG.integers(0, 256, (4, 6), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "train" / "bee" / "0.png")
    x = data.load(str(tmp_path)).x_train
    np.testing.assert_array_equal(x[2], np.repeat(grey[..., None], 3, axis=-1))


def test_folders_that_do_not_fit_are_refused(tmp_path):
    from PIL import Image

    _write_images(tmp_path)
    odd = tmp_path / "test" / "bee" / "9.png"
    Image.fromarray(np.zeros((5, 6, 3), np.uint8)).save(odd)
    words = [str(odd), "is 6 x 5 pixels", str(tmp_path / "train" / "ant" / "0.png"), "is 6 x 4", "image_size"]
    _refused(words, data.load, str(tmp_path))
    odd.write_bytes(b"not an image")
    _refused([str(odd), "not a readable image"], data.load, str(tmp_path))
    Image.fromarray(np.zeros((4, 6), np.uint16)).save(odd)
    _refused([str(odd), "more than 8 bits"], data.load, str(tmp_path))
    odd.unlink()
    whole = tmp_path / "train" / "ant" / "0.png"
    whole.write_bytes(whole.read_bytes()[:60])
    _refused([str(whole), "not a readable image"], data.load, str(tmp_path))
    (tmp_path / "test" / "bee").rename(tmp_path / "test" / "cat")
    _refused("classes that train/ lacks: cat", data.load, str(tmp_path))
    (tmp_path / "test").rename(tmp_path / "valid")
    _refused([str(tmp_path), "has no folder test/"], data.load, str(tmp_path))


def test_images_of_many_sizes_become_squares_of_one(tmp_path):
    from PIL import Image

    _write_images(tmp_path)
    ramp = np.broadcast_to(np.arange(12, dtype=np.uint8)[None, :, None] * 20, (4, 12, 3))
    Image.fromarray(ramp).save(tmp_path / "train" / "ant" / "0.png")  # the middle four of twelve columns are left
    dataset = data.load(str(tmp_path), image_size=4)
    assert dataset.x_train.shape == dataset.x_test.shape == (4, 4, 4, 3)
    np.testing.assert_array_equal(dataset.x_train[0], ramp[:, 4:8])
    halved = data.load(str(tmp_path), image_size=2)
    expected = np.array([20 * 5, 20 * 7])  # means of the tent over four columns each, about 4.5 and 6.5
    assert np.abs(halved.x_train[0, :, :, 0] - (expected - 10)).max() <= 1


def test_resizing_works_on_arrays_and_refuses_vectors(tmp_path):
    assert data.load("digits", image_size=16).x_train.shape == (1437, 16, 16, 1)
    np.savez(tmp_path / "v.npz", x_train=np.zeros((2, 3)), y_train=[0, 1], x_test=np.zeros((1, 3)), y_test=[0])
    _refused(["image_size is 4", "(3,)"], data.load, str(tmp_path / "v.npz"), image_size=4)
    _refused("image_size", data.load, "digits", image_size=-1)


def test_tiny_imagenet_as_it_is_published(tmp_path):
    from PIL import Image

    for name in ("n02", "n01"):
        (tmp_path / "train" / name / "images").mkdir(parents=True)
        Image.fromarray(np.full((4, 4, 3), int(name[1:]), np.uint8)).save(
            tmp_path / "train" / name / "images" / f"{name}_0.png"
        )
    (tmp_path / "val" / "images").mkdir(parents=True)
    for i in (5, 6):
        Image.fromarray(np.full((4, 4), i, np.uint8)).save(tmp_path / "val" / "images" / f"val_{i}.png")
    notes = tmp_path / "val" / "val_annotations.txt"
    notes.write_text("val_6.png\tn01\t0\t0\t3\t3\nval_5.png\tn02\t0\t0\t3\t3\n")
    dataset = data.load("tiny_imagenet", data_dir=tmp_path)
    assert dataset.class_names == ("n01", "n02")
    assert dataset.x_train[:, 0, 0, 0].tolist() == [1, 2] and dataset.y_train.tolist() == [0, 1]
    assert dataset.x_test[:, 0, 0].tolist() == [[6, 6, 6], [5, 5, 5]] and dataset.y_test.tolist() == [0, 1]
    notes.write_text("val_6.png\tn77\n")
    _refused([str(notes), "n77"], data.load, "tiny_imagenet", data_dir=tmp_path)
    notes.write_text("val_6.png\n")
    _refused([str(notes), "val_6.png"], data.load, "tiny_imagenet", data_dir=tmp_path)
    notes.write_text("gone.png\tn01\n")
    _refused(["gone.png", "not a readable image"], data.load, "tiny_imagenet", data_dir=tmp_path)


def test_empty_folders_are_refused(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "test" / "ant").mkdir(parents=True)
    _refused("has no class folders", data.load, str(tmp_path))
    (tmp_path / "train" / "ant").mkdir()
    _refused([str(tmp_path / "train"), "has no images"], data.load, str(tmp_path))


# --- names ------------------------------------------------------------------------------------------------------------


def test_unknown_names_list_the_known_ones_and_the_nearest(tmp_path):
    words = ["unknown data set 'fashion-mnits'", "did you mean 'fashion_mnist'?", "known: digits, mnist", "tfds:NAME"]
    _refused(words, data.load, "fashion-mnits")
    assert "did you mean" not in _refused("unknown data set 'zzz'", data.load, "zzz")
    _refused("there is no file or folder /nowhere/x.npz", data.load, "/nowhere/x.npz")
    _refused([str(tmp_path), "is no data set", "train/CLASS/"], data.load, str(tmp_path))
    (tmp_path / "x.pkl").write_bytes(b"")
    _refused("x.pkl is no data set", data.load, str(tmp_path / "x.pkl"))
    assert files.detect(tmp_path) is None


# --- arrays -----------------------------------------------------------------------------------------------------------


def _arrays(**changes):
    x_train, y_train, x_test, y_test = _grey()
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test, **changes}


def test_from_arrays_adds_the_channel_axis_and_keeps_vectors():
    dataset = data.from_arrays(**_arrays())
    assert dataset.x_train.shape == (12, 5, 4, 1) and dataset.num_classes == 3
    vectors = data.from_arrays(np.ones((4, 7)), [[0], [1], [1], [0]], np.ones((2, 7)), [1, 0], num_classes=5)
    assert vectors.x_train.shape == (4, 7) and vectors.x_train.dtype == np.float32
    assert vectors.y_train.tolist() == [0, 1, 1, 0] and vectors.class_names == tuple("01234")
    assert data.from_arrays(np.ones((1, 2), bool), [0], np.zeros((1, 2), bool), [0]).x_train.dtype == np.uint8


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x_train": np.full((12, 5, 4), np.inf)}, "x_train has NaN or infinite entries in 12 of 12 rows"),
        ({"x_train": np.full((12, 5, 4), 1e39)}, "x_train has entries beyond float32"),
        ({"x_test": np.full((6, 5, 4), np.nan)}, "x_test has NaN"),
        ({"x_train": np.array(["a"] * 12)}, "x_train has dtype <U1 and shape (12,); expected numbers"),
        ({"x_train": np.zeros(12)}, "x_train has dtype float64 and shape (12,)"),
        ({"x_train": np.zeros((0, 5, 4))}, "x_train has dtype float64 and shape (0, 5, 4)"),
        ({"y_train": np.zeros(11, int)}, "x_train has shape (12, 5, 4, 1) and y_train has shape (11,)"),
        ({"y_test": np.zeros(5, int)}, "x_test has shape (6, 5, 4, 1) and y_test has shape (5,)"),
        ({"x_test": np.zeros((6, 5, 5))}, "x_train has examples of shape (5, 4, 1) and x_test of shape (5, 5, 1)"),
        ({"y_train": np.zeros(12)}, "y_train has dtype float64; expected integer classes"),
        ({"y_train": np.eye(12, dtype=int)}, "y_train has dtype int64 and shape (12, 12)"),
        ({"y_train": np.full(12, -1)}, "y_train spans -1..-1"),
        ({"num_classes": 2}, "y_train spans 0..2, but with num_classes = 2 labels must lie in 0..1"),
        ({"class_names": ["a", "b"]}, "num_classes = 2"),
        ({"num_classes": 3, "class_names": ["a", "b"]}, "class_names has 2 names and num_classes is 3"),
    ],
)
def test_from_arrays_refuses_what_does_not_fit(changes, words):
    _refused(["data.from_arrays: ", words], data.from_arrays, **_arrays(**changes))


# --- the machine ------------------------------------------------------------------------------------------------------


def test_fashion_mnist_as_debian_installs_it(fashion_mnist):
    assert fashion_mnist.x_train.shape == (60000, 28, 28, 1) and fashion_mnist.x_test.shape == (10000, 28, 28, 1)
    assert np.all(np.bincount(fashion_mnist.y_train) == 6000) and np.all(np.bincount(fashion_mnist.y_test) == 1000)
    assert fashion_mnist.x_train.max() == 255 and len(fashion_mnist.class_names) == 10


def test_importing_data_loads_no_data_set_library():
    script = (
        "import sys, kipjax.data; heavy = {'sklearn', 'tensorflow', 'tensorflow_datasets', 'PIL', 'scipy.stats'};"
        "found = heavy & set(sys.modules); assert not found, found"
    )
    root = pathlib.Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", script], check=True, cwd=root, env={**os.environ, "PYTHONPATH": str(root)})
