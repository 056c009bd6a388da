"""Where data sets come from: embedded, local files, TFDS, or arrays in memory.

Whatever the source, the result is a ``Dataset`` of raw pixels and integer labels, held in host memory.
"""

import difflib
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from kipjax import checks
from kipjax.data import files
from kipjax.data.raw import Raw, resized

__all__ = ["KNOWN", "Dataset", "from_arrays", "load"]


class Dataset(NamedTuple):
    """A classification data set.

    Attributes:
      x_train, x_test: ``[n, h, w, c]`` images as uint8 (or as the source has them), or ``[n, d]`` vectors.
      y_train, y_test: ``[n]`` int32 classes in ``0 .. num_classes - 1``.
      num_classes: ``k``.
      class_names: ``k`` strings.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    num_classes: int
    class_names: tuple[str, ...]


class _Known(NamedTuple):
    """A name: its format on disk, its name in TFDS, class names, other folders to look in, and where to get it."""

    kind: str
    tfds: str
    class_names: tuple[str, ...] | None = None
    folders: tuple[str, ...] = ()
    remedy: str = ""


_DIGITS = tuple("0123456789")
_GARMENTS = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
_CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

KNOWN: dict[str, _Known] = {
    "digits": _Known("embedded", ""),
    "mnist": _Known("idx", "mnist", _DIGITS),
    "fashion_mnist": _Known(
        "idx",
        "fashion_mnist",
        _GARMENTS,
        ("/usr/share/datasets/fashion-mnist",),
        "'apt-get install dataset-fashion-mnist', or ",
    ),
    "kmnist": _Known("idx", "kmnist", _DIGITS),
    "cifar10": _Known("cifar10", "cifar10", _CIFAR10),
    "cifar100": _Known("cifar100", "cifar100"),
    "svhn": _Known("", "svhn_cropped"),
    "tiny_imagenet": _Known(
        "tiny_imagenet", "", None, (), "Unpack http://cs231n.stanford.edu/tiny-imagenet-200.zip, and pass its folder. "
    ),
    "imagenette": _Known("", "imagenette/full-size-v2"),
}
"""The names that ``load`` knows."""


def load(name: str, *, data_dir: str | os.PathLike | None = None, image_size: int = 0) -> Dataset:
    """A data set by name or path.

    Args:
      name: one of
        a key of ``KNOWN``: ``digits`` is embedded; the others are looked for in ``data_dir/NAME``, ``data_dir``,
          ``$KIPJAX_DATA_DIR/NAME``, ``~/.cache/kipjax/NAME`` and where Debian installs them (IDX files or CIFAR's
          binary version), then in TFDS;
        ``text:sentiment:LENGTHxDIMENSION``, ``text:domain:LENGTHxDIMENSION``: as ``data.text.load``;
        ``tfds:NAME``: TFDS, prepared in ``data_dir`` (or TFDS's own folder) or downloaded;
        a path: an ``.npz`` with x_train, y_train, x_test, y_test; a folder of IDX or CIFAR binary files; a folder
          with ``train/CLASS/`` and ``test/CLASS/`` (or ``val/CLASS/``) images.
      data_dir: where to look first.
      image_size: side of square images that all are resized to (shorter side, then the middle); 0 leaves them.

    Returns:
      Raw pixels, channels last, and integer labels.

    Raises:
      InputError: unknown name, nothing found (says where it looked and how to get it), or a damaged file.

    Example:
      >>> load("digits").x_train.shape
      (1437, 8, 8, 1)
    """
    checks.whole("data.load", "image_size", image_size, 0)
    if name == "digits":
        dataset = _digits()
    elif name.startswith("text:"):
        from kipjax.data import text

        dataset = text.load(name, data_dir)[0]
    elif name.startswith("tfds:"):
        dataset = _from_tfds(name.removeprefix("tfds:"), data_dir, image_size)
    elif name in KNOWN:
        dataset = _load_known(name, data_dir, image_size)
    else:
        dataset = _load_path(name, data_dir, image_size)
    return _sized(dataset, image_size) if image_size else dataset


def from_arrays(
    x_train: Any,
    y_train: Any,
    x_test: Any,
    y_test: Any,
    *,
    num_classes: int | None = None,
    class_names: Sequence[str] | None = None,
    where: str = "data.from_arrays",
) -> Dataset:
    """A data set from arrays in memory, checked.

    Args:
      x_train, x_test: ``[n, h, w, c]`` or ``[n, h, w]`` images (the channel axis is added), or ``[n, d]`` vectors.
      y_train, y_test: ``[n]`` or ``[n, 1]`` integer classes.
      num_classes: ``k``; by default as many as there are names, or one more than the largest label.
      class_names: ``k`` names; by default the numbers.
      where: what error messages start with.

    Returns:
      The data set; uint8 pixels stay uint8, floats become float32.

    Raises:
      InputError: pixels not numeric or not finite, lengths or shapes that do not fit, labels outside the classes.

    Example:
      >>> from_arrays(np.zeros((4, 2)), [0, 1, 0, 1], np.zeros((2, 2)), [0, 1]).num_classes
      2
    """
    x_train, x_test = _pixels(where, "x_train", x_train), _pixels(where, "x_test", x_test)
    y_train, y_test = _classes(where, "y_train", y_train), _classes(where, "y_test", y_test)
    checks.same_length(where, "x_train", x_train, "y_train", y_train)
    checks.same_length(where, "x_test", x_test, "y_test", y_test)
    checks.same_example_shape(where, "x_train", x_train, "x_test", x_test)
    if num_classes is None:
        largest = max(y.max(initial=-1) for y in (y_train, y_test))
        num_classes = int(largest) + 1 if class_names is None else len(class_names)
    names = tuple(map(str, range(num_classes) if class_names is None else class_names))
    checks.require(
        len(names) == num_classes,
        where,
        f"class_names has {len(names)} names and num_classes is {num_classes}; they must agree",
    )
    checks.labels_within(where, "y_train", y_train, num_classes)
    checks.labels_within(where, "y_test", y_test, num_classes)
    return Dataset(x_train, y_train.astype(np.int32), x_test, y_test.astype(np.int32), num_classes, names)


def _digits() -> Dataset:
    """scikit-learn's 1797 digits of 8 x 8 pixels in 0..16: a fixed stratified split, 1437 to train and 360 to test."""
    from sklearn import datasets, model_selection

    x, y = datasets.load_digits(return_X_y=True)
    x = x.astype(np.uint8).reshape(-1, 8, 8)
    x_train, x_test, y_train, y_test = model_selection.train_test_split(x, y, test_size=360, stratify=y, random_state=0)
    return from_arrays(x_train, y_train, x_test, y_test, num_classes=10)


def _load_known(name: str, data_dir: Any, image_size: int) -> Dataset:
    """Local files of a known set, then TFDS."""
    known = KNOWN[name]
    folders = _folders(name, data_dir, known.folders) if known.kind else []
    for folder in folders:
        if folder.is_dir() and files.detect(folder) == known.kind:
            return _checked(folder, files.read(folder, known.kind, image_size=image_size), known)
    try:
        checks.require(bool(known.tfds), "data.load", "has no such set")
        return _from_tfds(known.tfds, data_dir, image_size, known.class_names)
    except checks.InputError as error:
        looked = f"no files in {', '.join(map(str, folders))}; " if folders else ""
        raise checks.InputError(
            f"data.load: data set {name!r} not found: {looked}TFDS: {str(error).removeprefix('data.load: ')}\n"
            f"{known.remedy}Pass its folder as data_dir (--config.data.data_dir=FOLDER, or --data_dir=FOLDER)."
        ) from error


def _folders(name: str, data_dir: Any, system: Sequence[str]) -> list[pathlib.Path]:
    """Where to look for the files of a known set, in order."""
    given = data_dir is None or pathlib.Path(data_dir).expanduser().exists()
    checks.require(
        given, "data.load", f"data_dir is {str(data_dir)!r}, which does not exist; pass the folder of {name}"
    )
    first = [pathlib.Path(data_dir).expanduser()] if data_dir else []
    root = os.environ.get("KIPJAX_DATA_DIR")
    roots = [*first, *([pathlib.Path(root)] if root else []), pathlib.Path.home() / ".cache" / "kipjax"]
    return [roots[0] / name, *first, *(root / name for root in roots[1:]), *map(pathlib.Path, system)]


def _load_path(name: str, data_dir: Any, image_size: int) -> Dataset:
    path = pathlib.Path(name).expanduser()
    if not path.exists() and data_dir and (pathlib.Path(data_dir).expanduser() / name).exists():
        path = pathlib.Path(data_dir).expanduser() / name
    if not path.exists():
        _fail_unknown(name)
    kind = files.detect(path)
    if kind is None:
        raise checks.InputError(
            f"data.load: {path} is no data set; expected an .npz, a folder of IDX or CIFAR binary files, or a folder "
            "with train/CLASS/ and test/CLASS/ images"
        )
    return _checked(path, files.read(path, kind, image_size=image_size), _Known(kind, ""))


def _fail_unknown(name: str) -> None:
    if os.sep in name or name.endswith(".npz"):
        raise checks.InputError(f"data.load: there is no file or folder {name}; check the path")
    near = difflib.get_close_matches(name.lower().replace("-", "_"), KNOWN, n=1)
    raise checks.InputError(
        f"data.load: unknown data set {name!r}{f' (did you mean {near[0]!r}?)' if near else ''}; "
        f"known: {', '.join(KNOWN)}, tfds:NAME, or a path to an .npz or folder"
    )


def _sized(dataset: Dataset, size: int) -> Dataset:
    """The data set with images of that side."""
    shape = dataset.x_train.shape[1:]
    checks.require(
        len(shape) == 3 and dataset.x_train.dtype == np.uint8,
        "data.load",
        f"image_size is {size} and examples are {dataset.x_train.dtype} of shape {shape}; only 8-bit images "
        "[height, width, channels] are resized, leave it 0",
    )
    if shape[:2] == (size, size):
        return dataset
    x_train, x_test = (np.stack([resized(x, size) for x in some]) for some in (dataset.x_train, dataset.x_test))
    return dataset._replace(x_train=x_train, x_test=x_test)


def _checked(path: pathlib.Path, raw: Raw, known: _Known) -> Dataset:
    """What a file holds as a ``Dataset``; errors name the file."""
    num_classes = {"cifar10": 10, "cifar100": 100}.get(known.kind)
    names = raw.class_names or known.class_names
    return from_arrays(*raw[:4], num_classes=num_classes, class_names=names, where=f"data.load: {path}")


def _from_tfds(name: str, data_dir: Any, image_size: int, class_names: Sequence[str] | None = None) -> Dataset:
    from kipjax.data import tfds

    raw = tfds.read(name, data_dir, image_size)
    return from_arrays(*raw[:4], class_names=class_names or raw.class_names, where=f"data.load: tfds:{name}")


def _pixels(where: str, name: str, x: Any) -> np.ndarray:
    x = np.asarray(x)
    checks.require(
        x.dtype.kind in "buif" and x.ndim >= 2 and x.size > 0,
        where,
        f"{name} has dtype {x.dtype} and shape {x.shape}; expected numbers, [n, height, width, channels] or "
        "[n, features]",
    )
    checks.finite(where, name, x)
    x = x[..., None] if x.ndim == 3 else x
    if x.dtype.kind != "f":
        return x.astype(np.uint8) if x.dtype.kind == "b" else x
    with np.errstate(over="ignore"):
        single = x.astype(np.float32)
    checks.require(bool(np.isfinite(single).all()), where, f"{name} has entries beyond float32 (3.4e38); rescale it")
    return single


def _classes(where: str, name: str, y: Any) -> np.ndarray:
    y = np.asarray(y)
    checks.require(
        y.dtype.kind in "iu",
        where,
        f"{name} has dtype {y.dtype}; expected integer classes (one-hot targets: pass y.argmax(axis=1))",
    )
    y = y.astype(np.int64)
    return y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
