"""Sets of others come in and ours go out and back bit for bit; damaged, foreign and dangerous files are refused."""

import io
import json
import pickle
import sys
import zipfile

import numpy as np
import pytest

from kipjax.checks import InputError
from kipjax.io import artifact, image_folder, interchange
from kipjax.types import Preprocess
from tests.data import test_fuzz as fuzz
from tests.io.test_artifact import _Bomb, error_of, make, same

RNG = np.random.default_rng(0)
NHWC = RNG.normal(size=(4, 8, 8, 3)).astype(np.float32)
NCHW = np.ascontiguousarray(NHWC.transpose(0, 3, 1, 2))
Y = RNG.normal(size=(4, 5)).astype(np.float32)
PLAIN = Preprocess(np.zeros(3, np.float32), np.ones(3, np.float32), np.float32(0), np.float32(255))


@pytest.fixture(params=["set.npz", "set.safetensors"])
def path(request, tmp_path):
    if request.param.endswith("safetensors"):
        pytest.importorskip("safetensors", reason="the package safetensors is not installed")
    return tmp_path / request.param


def store(path, **arrays):
    """A file as other programs write it."""
    if path.suffix == ".npz":
        np.savez(path, **arrays)
    else:
        from safetensors.numpy import save_file

        save_file(arrays, path)
    return path


# --- ours ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_written_is_read_bit_for_bit(path, layout, dtype):
    made = make(dtype=dtype, lr=np.linspace(0, 1, 3))
    interchange.write(path, made, layout=layout)
    got = interchange.read(path)
    assert all(same(a, b) for a, b in zip((*made.distilled, *made.preprocess), (*got.distilled, *got.preprocess)))
    assert got.meta | made.meta == got.meta and "layout" not in got.meta
    again = path.with_stem("again")
    interchange.write(again, got, layout=layout)
    assert again.read_bytes() == path.read_bytes()


def test_others_find_plain_arrays_in_it(path):
    interchange.write(path, make(), layout="nchw")
    if path.suffix == ".npz":
        arrays = dict(np.load(path, allow_pickle=False))
    else:
        from safetensors.numpy import load_file

        arrays = load_file(path)
    assert arrays["images"].shape == (4, 2, 3, 3) and arrays["labels"].shape == (4, 5)
    np.testing.assert_array_equal(arrays["images"].transpose(0, 2, 3, 1), make().distilled.x)
    assert arrays["preprocess.zca"].shape == (18, 18)


def test_an_artifact_is_read_too(tmp_path):
    made = make()._replace(meta=make().meta | {"layout": "nchw"})  # its own, which says nothing of its axes
    artifact.save(tmp_path / "distilled.npz", made)
    got = interchange.read(tmp_path / "distilled.npz")
    assert same(got.distilled.x, made.distilled.x) and got.meta["layout"] == "nchw"


def test_what_a_file_cannot_hold_is_refused(path):
    taken = make()._replace(meta={"layout": "mine"})
    assert "meta has the key 'layout'" in error_of(lambda: interchange.write(path, taken))
    if path.suffix == ".safetensors":
        wide = make()._replace(distilled=make().distilled._replace(x=make().distilled.x.astype(np.longdouble)))
        assert "safetensors lack" in error_of(lambda: interchange.write(path, wide))
    assert not path.exists()


# --- those of others -----------------------------------------------------------------------------------------------


def test_kip(path):
    got = interchange.read(store(path, images=NHWC, labels=Y), preprocess=PLAIN, meta={"dataset": "cifar10"})
    assert same(got.distilled.x, NHWC) and same(got.distilled.y, Y) and got.distilled.lr is None
    assert got.meta["dataset"] == "cifar10" and got.meta["label_convention"] == "as in the file"
    assert got.meta["source_file"] == path.name


def test_rfad(path):
    """Channels first, the Platt scale's logarithm k, the ridge jit in units of the trace."""
    extra = {"k": np.array(1.5), "jit": np.array(5e-3), "valid_loss": np.array(0.2), "best_iter": np.array(40)}
    got = interchange.read(store(path, images=NCHW, labels=Y, **extra), preprocess=PLAIN)
    assert same(got.distilled.x, NHWC)
    assert got.meta["config"]["evaluation"] == {"reg": 5e-3, "reg_unit": "trace"}
    assert got.meta["platt_log_scale"] == 1.5


@pytest.mark.parametrize("names", interchange.NAMES)
@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_dc_and_mtt(path, names, shape):
    """Channels first, classes as int64, MTT's step size; centred one-hot targets by hand."""
    labels = np.array([0, 3, 1, 1]).reshape(shape)
    arrays = dict(zip(names, (NCHW, labels)))
    got = interchange.read(store(path, **arrays, lr=np.array(0.02, np.float32)), preprocess=PLAIN, num_classes=5)
    assert same(got.distilled.x, NHWC) and got.distilled.lr == np.float32(0.02) and got.distilled.lr.shape == ()
    np.testing.assert_allclose(got.distilled.y, np.eye(5)[labels.reshape(-1)] - 0.2, atol=1e-7)
    assert interchange.read(path, preprocess=PLAIN).distilled.y.shape == (4, 4)  # one more than the largest class


def test_the_axis_of_channels_is_found_or_asked_for(path):
    grey = RNG.normal(size=(4, 3, 3, 1)).astype(np.float32)
    store(path, images=grey, labels=Y)
    text = error_of(lambda: interchange.read(path, preprocess=PLAIN))
    assert "both the second and the last axis can be channels" in text and "layout='nhwc'" in text
    one = PLAIN._replace(mean=np.zeros(1, np.float32), std=np.ones(1, np.float32))
    assert same(interchange.read(path, preprocess=one, layout="nhwc").distilled.x, grey)
    store(path, images=grey[..., 0], labels=Y)
    assert same(interchange.read(path, preprocess=one).distilled.x, grey)
    store(path, images=RNG.normal(size=(4, 5, 5, 2)).astype(np.float32), labels=Y)
    assert "neither the second" in error_of(lambda: interchange.read(path, preprocess=PLAIN))


REFUSED = {
    "names": ({"pictures": NHWC, "labels": Y}, {}, "it holds labels, pictures; expected images and labels"),
    "pixels": ({"images": NHWC.astype(np.uint8), "labels": Y}, {}, "images has dtype uint8; expected floats"),
    "no preprocess": ({"images": NHWC, "labels": Y}, {"preprocess": None}, "give preprocess"),
    "float classes": ({"images": NHWC, "labels": Y[:, 0]}, {}, r"labels has dtype float32 and shape \(4,\)"),
    "negative": ({"images": NHWC, "labels": np.array([0, -1, 1, 2])}, {}, "labels has the class -1"),
    "too many": ({"images": NHWC, "labels": np.array([0, 9, 1, 2])}, {"num_classes": 5}, "labels spans 0..9"),
    "columns": ({"images": NHWC, "labels": Y}, {"num_classes": 6}, "labels has 5 columns and num_classes is 6"),
    "lengths": ({"images": NHWC, "labels": Y[:3]}, {}, "both need the same number of rows"),
    "nan": ({"images": NHWC * np.float32(np.nan), "labels": Y}, {}, "x has NaN or infinite"),
    "layout": ({"images": NHWC, "labels": Y}, {"layout": "hwcn"}, "layout is 'hwcn'; choose one of auto, nhwc, nchw"),
    "channels": ({"images": NHWC[..., :1], "labels": Y}, {}, r"preprocess.mean has shape \(3,\)"),
}  # fmt: skip


@pytest.mark.parametrize("arrays, options, words", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_a_set_is_refused(path, arrays, options, words):
    store(path, **arrays)
    with pytest.raises(InputError, match=words) as caught:
        interchange.read(path, **{"preprocess": PLAIN, **options})
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


# --- pickles and damage --------------------------------------------------------------------------------------------


def test_pickles_are_refused_and_never_run(tmp_path):
    inside = io.BytesIO()
    with zipfile.ZipFile(inside, "w") as archive:
        archive.writestr("images_best/data.pkl", pickle.dumps(_Bomb()))
    cases = {
        "res_DC.pt": b"",
        "images_best.pt": inside.getvalue(),
        "disguised.npz": inside.getvalue(),
        "bare.npz": pickle.dumps(_Bomb()),
        "set.pkl": pickle.dumps(_Bomb()),
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError) as caught:
            interchange.read(tmp_path / name, preprocess=PLAIN)
        text = str(caught.value)
        assert "pickles can run code" in text and "torch.load" in text and "numpy.savez" in text, name
        assert text.count("\n") == 0 and len(text) < 600
    np.savez(tmp_path / "objects.npz", images=np.array([_Bomb()], object), labels=Y)
    assert "holds pickled Python objects" in error_of(lambda: interchange.read(tmp_path / "objects.npz"))


def test_missing_empty_and_other_files(path, tmp_path):
    assert "no such file" in error_of(lambda: interchange.read(path))
    path.touch()
    assert "empty" in error_of(lambda: interchange.read(path))
    path.write_bytes(b"\x89PNG" + bytes(50))
    assert str(path) in error_of(lambda: interchange.read(path))
    assert "the suffix of" in error_of(lambda: interchange.write(tmp_path / "set.h5", make()))
    assert "layout is 'auto'" in error_of(lambda: interchange.write(path, make(), layout="auto"))


def test_safetensors_without_the_package(tmp_path, monkeypatch):
    for name in ("safetensors", "safetensors.numpy"):
        monkeypatch.setitem(sys.modules, name, None)
    text = error_of(lambda: interchange.write(tmp_path / "set.safetensors", make()))
    assert "pip install safetensors" in text and "use .npz" in text


def test_mutations_end_in_a_clear_error_or_in_sound_data(path):
    store(path, images=NCHW, labels=Y)
    content = path.read_bytes()
    spoilt = fuzz.mutated(content)
    target = fuzz.Target(path, content, lambda: interchange.read(path, preprocess=PLAIN), spoilt)
    fuzz.try_spoilt(target, path.parent, fuzz.FEW)


# --- folders of pictures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_a_folder_of_pictures_is_read_as_it_was_written(tmp_path, channels):
    pixels = RNG.integers(0, 256, (12, 5, 4, channels), dtype=np.uint8)
    y, names = RNG.normal(size=(12, 3)).astype(np.float32), ["T-shirt/top", '../a, "b"', "凉鞋"]
    image_folder.write(tmp_path / "set", pixels, y, class_names=names)
    files = sorted(p.name for p in (tmp_path / "set").iterdir())
    assert files == [*(f"{i:04d}.png" for i in range(12)), "labels.csv"]
    got = image_folder.read(tmp_path / "set")
    assert same(got.pixels, pixels) and same(got.y, y)
    assert got.class_names == tuple(names)


def test_a_folder_keeps_names_of_classes_without_a_picture_and_labels_of_any_precision(tmp_path):
    y = np.array([[0.7, 0.1, 0.2], [0.4, 0.3, 0.3]], np.float16)
    image_folder.write(tmp_path / "set", np.zeros((2, 4, 4, 1), np.uint8), y, class_names=["a\rb", "dog", "eel"])
    got = image_folder.read(tmp_path / "set")
    assert got.class_names == ("a\rb", "dog", "eel") and same(got.y, y.astype(np.float32))


@pytest.mark.parametrize(
    ("y", "names", "words"),
    [(np.zeros((2, 0)), None, "expected numbers"), (np.eye(2), ["a", "\ud800"], "characters that no file can hold")],
)
def test_what_a_folder_cannot_hold_leaves_none(tmp_path, y, names, words):
    pixels = np.zeros((2, 4, 4, 1), np.uint8)
    assert words in error_of(lambda: image_folder.write(tmp_path / "set", pixels, y, class_names=names))
    assert not (tmp_path / "set").exists()


def folder(tmp_path):
    image_folder.write(tmp_path / "set", np.zeros((2, 4, 4, 1), np.uint8), np.eye(2, dtype=np.float32))
    return tmp_path / "set"


@pytest.mark.parametrize("name", ["../outside.png", "/etc/passwd", "sub/0000.png", "..", "", "link.png", "a\\b.png"])
def test_no_file_outside_the_folder_is_opened(tmp_path, name):
    from PIL import Image

    Image.new("L", (4, 4)).save(tmp_path / "outside.png")
    where = folder(tmp_path)
    (where / "link.png").symlink_to(tmp_path / "outside.png")
    csv = where / "labels.csv"
    csv.write_text(csv.read_text().replace("0001.png", name))
    assert "is not in the folder" in error_of(lambda: image_folder.read(where))


def test_damaged_folders(tmp_path):
    from PIL import Image

    where = folder(tmp_path)
    csv, sound = where / "labels.csv", (where / "labels.csv").read_text()
    for text, words in (
        ("", "begins with"),
        ("a,b\n1,2\n", "begins with"),
        (sound.replace("1.0", "one"), "could not convert"),
        (sound.replace("1.0", "nan"), "NaN"),
        (sound.replace("1,1,", "1,", 1), "fields, expected 5"),
        (sound.replace("0001", "0009"), "0009.png is missing or no readable PNG"),
        (sound.replace("0001.png,", '"0001.png,'), "damaged"),
    ):
        csv.write_text(text)
        assert words in error_of(lambda: image_folder.read(where)), text
    csv.write_text(sound)
    (where / "0001.png").write_bytes(b"GIF89a")
    assert "no readable PNG" in error_of(lambda: image_folder.read(where))
    Image.new("L", (9, 9)).save(where / "0001.png")
    assert "must agree" in error_of(lambda: image_folder.read(where))
    assert "already holds" in error_of(lambda: image_folder.write(where, np.zeros((1, 4, 4, 1), np.uint8), np.eye(1)))
    assert "uint8" in error_of(lambda: image_folder.write(tmp_path / "new", np.zeros((1, 4, 4, 1)), np.eye(1)))
    assert "no such file" in error_of(lambda: image_folder.read(tmp_path / "nowhere"))


def test_meta_is_json_of_the_artifact(tmp_path):
    interchange.write(tmp_path / "set.npz", make(seed=3))
    meta = json.loads(np.load(tmp_path / "set.npz")["meta"].tobytes())
    assert meta["format"] == "kipjax-distilled" and meta["seed"] == 3 and meta["layout"] == "nhwc"
