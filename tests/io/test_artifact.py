"""The artifact comes back bit for bit, and every way a file can be wrong has its own line."""

import errno
import hashlib
import json
import os
import subprocess
import sys
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import kipjax
from kipjax.checks import InputError
from kipjax.io import artifact
from kipjax.io.artifact import Artifact
from kipjax.types import Distilled, Preprocess


def make(seed=0, dtype=np.float32, zca=True, lr=None, **meta):
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(18, 18))
    preprocess = Preprocess(
        mean=rng.normal(size=2).astype(np.float32),
        std=np.array([0.5, 2.0], np.float32),
        low=np.float32(0),
        high=np.float32(255),
        centre=rng.normal(size=(3, 3, 2)) if zca else None,
        zca=matrix if zca else None,
        zca_inverse=np.linalg.inv(matrix) if zca else None,
        per_image=zca,
    )
    distilled = Distilled(rng.normal(size=(4, 3, 3, 2)).astype(dtype), rng.normal(size=(4, 5)).astype(dtype), lr)
    return Artifact(distilled, preprocess, {"method": "kip", "class_names": list("abcde"), "seed": seed, **meta})


def same(a, b):
    if a is None or b is None:
        return a is b
    a, b = np.asarray(a), np.asarray(b)
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def error_of(function, *args):
    """The text of the InputError, which must be one line."""
    with pytest.raises(InputError) as caught:
        function(*args)
    text = str(caught.value)
    assert "\n" not in text and len(text) < 500
    return text


@pytest.fixture
def path(tmp_path):
    return tmp_path / "set.npz"


@pytest.fixture
def saved(path):
    artifact.save(path, make())
    return path


def rewritten(path, **changes):
    """The arrays of a file with some replaced (or dropped, by None), written by NumPy."""
    with np.load(path) as file:
        arrays = {**file, **changes}
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def with_meta(path, **changes):
    meta = json.loads(np.load(path)["meta"].tobytes()) | changes
    return rewritten(path, meta=np.frombuffer(json.dumps(meta).encode(), np.uint8))


# --- round trips ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("lr", [None, np.float32(0.1), np.linspace(0, 1, 7)])
def test_round_trip_is_bit_exact(path, dtype, lr):
    made = make(dtype=dtype, zca=lr is None, lr=lr)
    artifact.save(path, made)
    got = artifact.load(path)
    assert all(same(a, b) for a, b in zip(made.distilled, got.distilled))
    assert all(same(a, b) for a, b in zip(made.preprocess, got.preprocess))
    assert isinstance(got.preprocess.per_image, bool)
    assert got.meta | made.meta == got.meta


def test_a_matrix_for_every_other_pixel_is_kept_and_one_of_another_size_refused(path):
    made = make()
    x = np.zeros((4, 4, 6, 2), np.float32)
    other = made.preprocess._replace(**dict.fromkeys(("mean", "std"), np.ones((4, 6, 2))), centre=None)
    for size, fits in ((48, True), (12, True), (24, False), (3, False), (1, False)):
        whitened = Artifact(
            Distilled(x, made.distilled.y), other._replace(zca=np.eye(size), zca_inverse=np.eye(size)), made.meta
        )
        if fits:
            artifact.save(path, whitened)
            assert artifact.load(path).preprocess.zca.shape == (size, size)
        else:
            with pytest.raises(InputError, match=rf"preprocess.zca has shape \({size}, {size}\).*\(48, 48\)"):
                artifact.save(path, whitened)


def test_jax_arrays_are_accepted_and_negative_zero_survives(path):
    made = make(zca=False)
    x = jnp.asarray(made.distilled.x).at[0, 0, 0, 0].set(-0.0)
    artifact.save(path, made._replace(distilled=Distilled(x, jnp.asarray(made.distilled.y), jnp.float32(0.5))))
    got = artifact.load(path).distilled
    assert same(got.x, x) and np.signbit(got.x[0, 0, 0, 0])
    assert got.lr.shape == () and got.lr == 0.5


def test_a_loaded_artifact_saves_to_the_same_bytes(saved, tmp_path):
    artifact.save(tmp_path / "again.npz", artifact.load(saved))
    assert saved.read_bytes() == (tmp_path / "again.npz").read_bytes()


def test_numpy_alone_reads_the_file_without_pickle(saved):
    with np.load(saved, allow_pickle=False) as file:
        assert set(file) == {"x", "y", "meta"} | {f"preprocess.{name}" for name in Preprocess._fields}
        meta = json.loads(file["meta"].tobytes().decode("utf-8"))
    assert meta["format"] == "kipjax-distilled" and meta["format_version"] == 1
    versions = {"kipjax": kipjax.__version__, "jax": jax.__version__, "numpy": np.__version__}
    assert meta["versions"] == versions


def test_meta_keeps_names_in_any_script_and_turns_configs_into_json(path):
    names = ["Hemd", "凉鞋", "ботинок", "sac à main", "👟"]
    artifact.save(path, make(class_names=names, config={"lr": np.float32(0.25), "shape": (2, 3), "bound": np.inf}))
    meta = artifact.load(path).meta
    assert meta["class_names"] == names
    assert meta["config"] == {"lr": 0.25, "shape": [2, 3], "bound": "Infinity"}


def test_the_path_is_used_as_given(tmp_path):
    artifact.save(tmp_path / "bare", make())
    assert os.listdir(tmp_path) == ["bare"]
    assert artifact.load(str(tmp_path / "bare")).meta["method"] == "kip"


# --- what save refuses ---------------------------------------------------------------------------------------------


def replaced(**changes):
    made = make()
    for part in ("distilled", "preprocess"):
        fields = {name: changes.pop(name) for name in list(changes) if name in getattr(made, part)._fields}
        made = made._replace(**{part: getattr(made, part)._replace(**fields)})
    return made._replace(meta=made.meta | changes)


X, Y = make().distilled[:2]
REFUSED = {
    "nan in x": ({"x": np.where(np.arange(4)[:, None, None, None] == 2, np.nan, X)}, "x has NaN or infinite .* row 2"),
    "inf in y": ({"y": np.full((4, 5), np.inf)}, "y has NaN or infinite"),
    "nan lr": ({"lr": np.float32(np.nan)}, "lr has NaN"),
    "lengths": ({"y": Y[:3]}, r"x has shape \(4, 3, 3, 2\) and y has shape \(3, 5\)"),
    "no points": ({"x": X[:0], "y": Y[:0]}, "x has shape .*not empty"),
    "flat x": ({"x": X[:, 0, 0, 0]}, r"x has shape \(4,\)"),
    "flat y": ({"y": Y[:, 0]}, r"y has shape \(4,\)"),
    "no x": ({"x": None}, "x is None"),
    "lr matrix": ({"lr": np.ones((2, 2))}, r"lr has shape \(2, 2\)"),
    "object x": ({"x": np.array([[None]] * 4)}, "x is an array of dtype object"),
    "bfloat16": ({"y": jnp.asarray(Y, jnp.bfloat16)}, "y is an array of dtype bfloat16.*float32"),
    "nan mean": ({"mean": np.full(2, np.nan)}, "preprocess.mean has NaN"),
    "zero std": ({"std": np.array([0.0, 1.0])}, "preprocess.std must be positive"),
    "no std": ({"std": None}, "preprocess.std is None"),
    "mean shape": ({"mean": np.zeros(3)}, r"preprocess.mean has shape \(3,\)"),
    "zca shape": ({"zca": np.eye(17)}, r"preprocess.zca has shape \(17, 17\).*\(18, 18\)"),
    "half a zca": ({"zca_inverse": None}, "only one of zca and zca_inverse"),
    "class names": ({"class_names": ["a", "b"]}, r"class_names \['a', 'b'\] and y has 5 columns"),
    "meta value": ({"config": {"loss": print}}, "meta.config.loss: a builtin_function_or_method has no JSON form"),
}


@pytest.mark.parametrize("changes, words", REFUSED.values(), ids=REFUSED)
def test_save_refuses_what_cannot_be_a_distilled_set(saved, changes, words):
    before = saved.read_bytes()
    text = error_of(artifact.save, saved, replaced(**changes))
    assert text.startswith("artifact.save: ")
    with pytest.raises(InputError, match=words):
        artifact.save(saved, replaced(**changes))
    assert saved.read_bytes() == before and os.listdir(saved.parent) == [saved.name]


def test_save_refuses_other_types(path):
    assert "distilled is a tuple" in error_of(artifact.save, path, make()._replace(distilled=(X, Y)))
    assert "preprocess is a NoneType" in error_of(artifact.save, path, make()._replace(preprocess=None))
    assert "meta is a list" in error_of(artifact.save, path, make()._replace(meta=[1]))
    assert not path.exists()


def test_save_inside_jit_says_so(path):
    def inside(x):
        artifact.save(path, make()._replace(distilled=Distilled(x, jnp.asarray(Y))))
        return x

    assert "outside of jit" in error_of(jax.jit(inside), jnp.asarray(X))


# --- what load says about a wrong file -------------------------------------------------------------------------------


def test_missing_file(tmp_path):
    assert "nowhere.npz: no such file; check the path" in error_of(artifact.load, tmp_path / "nowhere.npz")


def test_folder_instead_of_file(tmp_path):
    assert "it is a folder" in error_of(artifact.load, tmp_path)


def test_empty_file(path):
    path.touch()
    assert "the file is empty" in error_of(artifact.load, path)


def test_a_file_of_another_kind(path):
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    assert "no kipjax artifact and no .npz" in error_of(artifact.load, path)


@pytest.mark.parametrize("part", [0.02, 0.5, 0.9, 0.999])
def test_truncated_file(saved, part):
    content = saved.read_bytes()
    saved.write_bytes(content[: int(part * len(content))])
    text = error_of(artifact.load, saved)
    assert "cut off or damaged" in text and "make it again" in text


def test_any_flipped_byte_is_found_or_harmless(path):
    artifact.save(path, make(zca=False))
    content, made = path.read_bytes(), artifact.load(path)
    arrays, found = (*made.distilled, *made.preprocess), 0
    for position in range(0, len(content), 7):
        path.write_bytes(content[:position] + bytes([content[position] ^ 0x55]) + content[position + 1 :])
        try:
            got = artifact.load(path)
        except InputError as error:
            found += 1
            assert "\n" not in str(error)
        else:
            assert all(same(a, b) for a, b in zip((*got.distilled, *got.preprocess), arrays)) and got.meta == made.meta
    assert found > 0.6 * len(content) / 7


def test_flipped_bytes_inside_an_array_fail_its_checksum(saved):
    content = bytearray(saved.read_bytes())
    content[content.index(X.tobytes()) + 10] ^= 1
    saved.write_bytes(content)
    assert "damaged" in error_of(artifact.load, saved)


def test_foreign_npz(path):
    np.savez(path, images=np.ones(3))
    text = error_of(artifact.load, path)
    assert "an .npz, but no kipjax artifact" in text and "images" in text


def test_foreign_meta(saved):
    assert "no kipjax artifact" in error_of(artifact.load, with_meta(saved, format="other"))
    assert "no kipjax artifact" in error_of(artifact.load, rewritten(saved, meta=np.array([1, 2, 255], np.uint8)))


@pytest.mark.parametrize("version", [2, "1", None])
def test_newer_format(saved, version):
    text = error_of(artifact.load, with_meta(saved, format_version=version))
    assert f"format version {version}" in text and "upgrade kipjax" in text


class _Bomb:
    """Would raise if unpickled."""

    def __reduce__(self):
        return (sys.exit, ("unpickled",))


@pytest.mark.parametrize("name", ["x", "meta"])
def test_pickled_objects_are_refused_and_never_run(saved, name):
    text = error_of(artifact.load, rewritten(saved, **{name: np.array([_Bomb()], object)}))
    assert f"{name} holds pickled Python objects, which are never loaded" in text


def test_a_member_that_is_no_array(saved):
    with zipfile.ZipFile(saved, "a") as archive:
        archive.writestr("lr.npy", b"hello")
    assert "damaged" in error_of(artifact.load, saved)


@pytest.mark.parametrize("name", ["x", "y", "preprocess.mean", "preprocess.per_image"])
def test_missing_arrays_are_named(saved, name):
    assert f"lacks {name}" in error_of(artifact.load, rewritten(saved, **{name: None}))


@pytest.mark.parametrize("name", ["z", "preprocess.whiten"])
def test_unknown_arrays_are_named(saved, name):
    assert f"unknown arrays {name}" in error_of(artifact.load, rewritten(saved, **{name: np.ones(2)}))


def test_load_checks_values_too(saved):
    assert "class_names 3 and y has 5" in error_of(artifact.load, with_meta(saved, class_names=3))
    text = error_of(artifact.load, rewritten(with_meta(saved, class_names=None), x=np.full((4, 3, 3, 2), np.nan)))
    assert str(saved) in text and "x has NaN" in text


# --- writing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "number, words", [(errno.ENOSPC, "the disk is full; free some space"), (errno.EACCES, "permission denied; choose")]
)
def test_a_failed_write_leaves_the_old_file_and_nothing_else(saved, monkeypatch, number, words):
    def refuse(descriptor):
        raise OSError(number, os.strerror(number))

    before = saved.read_bytes()
    monkeypatch.setattr(os, "fsync", refuse)
    text = error_of(artifact.save, saved, make(seed=1))
    assert words in text and str(saved) in text
    assert saved.read_bytes() == before and os.listdir(saved.parent) == [saved.name]


def test_an_interrupt_while_writing_removes_the_temporary_file(saved, monkeypatch):
    def interrupt(*args, **kwargs):
        args[0].write(b"half")
        raise KeyboardInterrupt

    before = saved.read_bytes()
    monkeypatch.setattr(np, "savez", interrupt)
    with pytest.raises(KeyboardInterrupt):
        artifact.save(saved, make(seed=1))
    assert saved.read_bytes() == before and os.listdir(saved.parent) == [saved.name]


def test_a_real_limit_on_the_file_size(saved):
    before = saved.read_bytes()
    code = f"""
import resource
from tests.io.test_artifact import artifact, make
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
try:
    artifact.save({str(saved)!r}, make(seed=1))
except artifact.checks.InputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "larger than the limit" in done.stdout and done.stdout.count("\n") == 1
    assert saved.read_bytes() == before and os.listdir(saved.parent) == [saved.name]


def test_unusable_paths(tmp_path, saved):
    assert "its folder does not exist; create" in error_of(artifact.save, tmp_path / "no" / "set.npz", make())
    assert "is a file, not a folder" in error_of(artifact.save, saved / "set.npz", make())
    assert "it is a folder" in error_of(artifact.save, tmp_path, make())
    assert "is a file, not a folder" in error_of(artifact.load, saved / "set.npz")


def test_a_symbolic_link_is_followed(saved, tmp_path):
    link = tmp_path / "link.npz"
    link.symlink_to(saved)
    artifact.save(link, make(seed=7))
    assert link.is_symlink() and artifact.load(saved).meta["seed"] == 7


def test_the_file_is_as_readable_as_any_other(path):
    artifact.save(path, make())
    (path.parent / "plain").touch()
    assert path.stat().st_mode == (path.parent / "plain").stat().st_mode


# --- fingerprint -----------------------------------------------------------------------------------------------------


def test_fingerprint_depends_on_everything_that_matters():
    base = np.arange(12, dtype=np.int32)
    prints = [
        artifact.fingerprint(base),
        artifact.fingerprint(base.reshape(3, 4)),
        artifact.fingerprint(base.astype(np.int64)),
        artifact.fingerprint(base.view(np.float32)),
        artifact.fingerprint(base[::-1]),
        artifact.fingerprint(base, base),
        artifact.fingerprint(base[:6], base[6:]),
        artifact.fingerprint(base + (base == 11)),
    ]
    assert len(set(prints)) == len(prints)
    assert all(len(p) == 16 and int(p, 16) >= 0 for p in prints)


def test_fingerprint_ignores_memory_layout_and_owner():
    base = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert artifact.fingerprint(base) == artifact.fingerprint(np.asfortranarray(base))
    assert artifact.fingerprint(base) == artifact.fingerprint(jnp.asarray(base))
    assert artifact.fingerprint(np.zeros((2, 3), np.uint8)) == hashlib.sha256(b"|u1(2, 3);" + bytes(6)).hexdigest()[:16]


def test_fingerprint_refuses_objects():
    assert "dtype object" in error_of(artifact.fingerprint, np.array([None]))


def test_members_are_read_only_once_their_bytes_are_whole(saved):
    """A header that was altered must not be parsed: it could ask for any amount of memory."""
    content = saved.read_bytes()
    at = content.index(b"'shape': (4, 3, 3, 2)")
    saved.write_bytes(content[:at] + b"'shape': (9, 9, 9, 9)" + content[at + 21 :])
    assert "Bad CRC" in error_of(artifact.load, saved)
