"""Distilled sets in the formats of others, in both directions.

Files of tensors, ``.npz`` or ``.safetensors``, hold images and labels under one of the names of ``NAMES``:

| from | images | labels | also |
|---|---|---|---|
| KIP (arXiv:2107.13034, google-research/kip) | ``images [m, h, w, c]`` | ``labels [m, k]`` | |
| RFAD (arXiv:2210.12067) | ``images [m, c, h, w]`` | ``labels [m, k]`` | ``jit``, the ridge; ``k``, the Platt scale |
| DC, DSA, DM, MTT, converted from ``.pt`` | ``[m, c, h, w]`` | ``[m]`` classes | ``lr``, of MTT |
| ``write`` | ``images``, either way round | ``labels [m, k]`` | ``lr``, ``preprocess.*``, ``meta`` |

Pickles are never loaded. For a folder of PNG files see ``image_folder``, for TensorFlow Datasets ``data.tfds``.
"""

import os
from typing import Any

import numpy as np

from kipjax import checks
from kipjax.core import labels
from kipjax.io import _npz, _tensors, artifact
from kipjax.io.artifact import Artifact
from kipjax.types import Distilled, Preprocess

__all__ = ["LAYOUTS", "NAMES", "read", "write"]

NAMES = (
    ("images", "labels"),
    ("x", "y"),
    ("image_syn", "label_syn"),
    ("images_best", "labels_best"),
    ("x_train", "y_train"),
)
"""The names under which images and their labels are looked for, in this order."""

LAYOUTS = ("auto", "nhwc", "nchw")


def read(
    path: str | os.PathLike,
    *,
    preprocess: Preprocess | None = None,
    num_classes: int | None = None,
    layout: str = "auto",
    meta: dict[str, Any] | None = None,
) -> Artifact:
    """Images and labels from an ``.npz`` or ``.safetensors`` file, as an artifact.

    Args:
      path: the file. One that ``write`` wrote, or an artifact, gives back everything that it was made from.
      preprocess: the map from pixels to the space of the images, which files of others do not hold: fitted on the data
        set in the way of their paper (``data.preprocess.fit``).
      num_classes: ``k`` where labels are classes ``[m]``; by default one more than the largest.
      layout: ``"nhwc"`` or ``"nchw"``; ``"auto"`` takes the axis that can be channels (of size 1 or 3).
      meta: what to add to the artifact's ``meta``.

    Returns:
      ``x [m, h, w, c]``, ``y [m, k]`` (centred one-hot where the file has classes, else as in the file), ``lr``.
      A ridge ``jit``, as RFAD stores it in units of the trace, goes where ``experiments.evaluate`` looks for it.

    Raises:
      InputError: a pickle, a damaged file, names or shapes that say nothing, pixels, or no preprocessing.

    Reference:
      arXiv:2107.13034 (KIP's sets), arXiv:2210.12067 (RFAD's), arXiv:2006.05929 and 2203.11932 (DC's and MTT's).
    """
    where = f"interchange.read: {os.fspath(path)}"
    checks.one_of(where, "layout", layout, LAYOUTS)
    arrays = _tensors.read(where, path)
    own = _npz.meta_of(np.asarray(arrays["meta"]), artifact.FORMAT) if "meta" in arrays else None
    if own is not None:
        return _own(where, arrays, own, meta or {})
    checks.require(
        preprocess is not None,
        where,
        "the file does not say how pixels become its images; give preprocess (--data and --preprocess), as its paper "
        "has it",
    )
    assert preprocess is not None
    x_name, y_name = _names(where, arrays)
    x = _channels_last(where, x_name, arrays[x_name], layout)
    y, convention = _targets(where, y_name, arrays[y_name], num_classes)
    lr: Any = next((np.asarray(arrays[name]) for name in ("lr", "syn_lr") if name in arrays), None)
    lr = lr.reshape(()) if lr is not None and lr.size == 1 else lr
    found = {"method": "imported", "label_convention": convention, "source_file": os.path.basename(os.fspath(path))}
    made = Artifact(Distilled(x, y, lr), preprocess, found | _ridge(where, arrays) | (meta or {}))
    members = artifact.to_arrays(made, where)
    del members["meta"]
    return artifact.from_arrays(members, made.meta, where)


def write(path: str | os.PathLike, made: Artifact, *, layout: str = "nhwc") -> None:
    """Writes ``images``, ``labels``, ``lr``, ``preprocess.*`` and ``meta``; ``.npz`` or ``.safetensors`` by the suffix.

    The same artifact gives the same bytes, and ``read`` gives back the artifact bit for bit.

    Args:
      path: the file.
      made: the artifact.
      layout: ``"nhwc"``, or ``"nchw"`` as PyTorch has images. ``preprocess.*`` stay channels last.

    Raises:
      InputError: another suffix or layout, values or a ``meta`` that the file cannot hold, or a path that cannot be
        written.

    >>> import tempfile
    >>> one, x = np.ones(1, np.float32), np.ones((2, 4, 4, 1), np.float32)
    >>> made = Artifact(Distilled(x, np.eye(2)), Preprocess(one, one, 0 * one[0], one[0]), {})
    >>> path = tempfile.mkdtemp() + "/set.npz"
    >>> write(path, made, layout="nchw")
    >>> np.load(path)["images"].shape, read(path).distilled.x.shape
    ((2, 1, 4, 4), (2, 4, 4, 1))
    """
    where = "interchange.write"
    checks.one_of(where, "layout", layout, LAYOUTS[1:])
    checks.require("layout" not in made.meta, where, "meta has the key 'layout', which the file needs; rename it")
    first = layout == "nchw" and np.ndim(made.distilled.x) == 4
    meta = {"layout": "nchw" if first else "nhwc"} | made.meta
    arrays = artifact.to_arrays(made._replace(meta=meta), where)
    x, y = arrays.pop("x"), arrays.pop("y")
    _tensors.write(where, path, {"images": x.transpose(0, 3, 1, 2) if first else x, "labels": y} | arrays)


def _own(where: str, arrays: dict[str, Any], own: dict[str, Any], meta: dict[str, Any]) -> Artifact:
    """The artifact in a file of ``write`` or of ``artifact.save``."""
    arrays = {name: array for name, array in arrays.items() if name != "meta"}
    layout = own.pop("layout", "nhwc") if "images" in arrays else "nhwc"
    for name, other in (("images", "x"), ("labels", "y")):
        if name in arrays:
            arrays[other] = arrays.pop(name)
    if layout == "nchw" and np.ndim(arrays.get("x", ())) == 4:
        arrays["x"] = np.ascontiguousarray(arrays["x"].transpose(0, 2, 3, 1))
    return artifact.from_arrays(arrays, own | meta, where)


def _names(where: str, arrays: dict[str, Any]) -> tuple[str, str]:
    found = next((names for names in NAMES if set(names) <= set(arrays)), None)
    if found is None:
        expected = ", or ".join(" and ".join(names) for names in NAMES)
        raise checks.InputError(
            f"{where}: it holds {', '.join(sorted(arrays)) or 'nothing'}; expected {expected}: rename its arrays"
        )
    return found


def _channels_last(where: str, name: str, x: np.ndarray, layout: str) -> Any:
    """``[m, h, w, c]`` float32 or float64."""
    checks.require(
        x.dtype.kind == "f",
        where,
        f"{name} has dtype {x.dtype}; expected floats in the space that the set was distilled in, not pixels",
    )
    x = x.astype(np.float32) if x.dtype.itemsize < 4 else x
    if x.ndim == 3:
        return x[..., None]
    if x.ndim != 4:
        return x
    could = {kind: x.shape[axis] in (1, 3) for kind, axis in (("nhwc", 3), ("nchw", 1))}
    if layout == "auto":
        checks.require(
            sum(could.values()) == 1,
            where,
            f"{name} has shape {x.shape}, of which {'both' if all(could.values()) else 'neither'} the second and the "
            "last axis can be channels; give layout='nhwc' or 'nchw' (--layout)",
        )
        layout = "nhwc" if could["nhwc"] else "nchw"
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1)) if layout == "nchw" else x


def _targets(where: str, name: str, y: np.ndarray, num_classes: int | None) -> tuple[Any, str]:
    """``[m, k]``, and the convention in words."""
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if y.ndim == 2:
        checks.require(
            num_classes in (None, y.shape[1]),
            where,
            f"{name} has {y.shape[1]} columns and num_classes is {num_classes}",
        )
        return (y if y.dtype.kind == "f" else y.astype(np.float32)), "as in the file"
    checks.require(
        y.ndim == 1 and y.dtype.kind in "iu" and y.size > 0,
        where,
        f"{name} has dtype {y.dtype} and shape {y.shape}; expected classes [m] or targets [m, k]",
    )
    checks.require(int(y.min()) >= 0, where, f"{name} has the class {y.min()}; classes count from 0")
    k = int(y.max()) + 1 if num_classes is None else num_classes
    checks.labels_within(where, name, y, k)
    return np.asarray(labels.one_hot(y.astype(np.int32), k)), "centered one-hot"


def _ridge(where: str, arrays: dict[str, Any]) -> dict[str, Any]:
    """RFAD's ridge and Platt scale in the fields of a run's config and state."""
    found: dict[str, Any] = {}
    for name in ("jit", "k"):
        value = arrays.get(name)
        if value is not None and np.size(value) == 1:
            checks.finite(where, name, np.asarray(value, np.float64).reshape(1))
            found[name] = float(np.asarray(value).reshape(()))
    ridge = {"config": {"evaluation": {"reg": found["jit"], "reg_unit": "trace"}}} if "jit" in found else {}
    return ridge | ({"platt_log_scale": found["k"]} if "k" in found else {})
