"""TensorFlow Datasets as a source, and as a form to write a set in; the only file that imports it.

Reading a set that was prepared as ArrayRecord goes through ``tfds.data_source``, which needs no TensorFlow. Sets that
were prepared as TFRecord (TFDS's default), and preparing most sets in the first place, need TensorFlow; what is
prepared here is written as ArrayRecord, so that later runs do without.
"""

import contextlib
import importlib.util
import io
import logging
import pathlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from kipjax import checks
from kipjax.data.raw import Raw, resized

__all__ = ["read", "write"]

_TEST_SPLITS = ("test", "validation")


def read(name: str, data_dir: Any = None, image_size: int = 0) -> Raw:
    """The set ``name`` from TFDS: prepared in ``data_dir`` (TFDS's own folder if ``None``), or downloaded and prepared.

    Args:
      name: as TFDS spells it, ``NAME``, ``NAME/CONFIG`` or ``NAME:VERSION``.
      data_dir: TFDS's root folder.
      image_size: side of the result, see ``raw.resized``; 0 for images that are all of one size already.

    Returns:
      Arrays; images decoded, labels integers, class names from TFDS.

    Raises:
      InputError: TFDS is missing or has no such set, the download fails, or the set is no image classification set.
    """
    with _quiet():
        folder = None if data_dir is None else str(pathlib.Path(data_dir).expanduser())
        return _read(name, _prepared(name, folder), image_size)


def write(
    folder: Any, pixels: Any, x: Any, y: Any, *, class_names: Sequence[str] | None = None, name: str = "distilled"
) -> pathlib.Path:
    """Writes a distilled set as a TFDS data set with one split, ``train``, in the order of its rows.

    TFDS reads it with ``tfds.builder_from_directory(PATH).as_data_source("train")``, without TensorFlow. An example has
    ``image`` (PNG), ``label`` (the class of the largest target), ``x`` (the preprocessed image) and ``y``.

    Args:
      folder: TFDS's root folder, made if need be; it must not hold a set of that name yet.
      pixels: ``[m, h, w, 1]`` or ``[m, h, w, 3]`` uint8 (``data.preprocess.to_pixels``).
      x: ``[m, h, w, c]`` in preprocessed space; stored as float32.
      y: ``[m, k]`` targets; stored as float32.
      class_names: ``k`` names, all different; the numbers unless given.
      name: of the data set: small letters, digits and ``_``.

    Returns:
      The folder of the data set, ``folder/name/1.0.0``.

    Raises:
      InputError: TFDS is missing, arrays or names do not fit, or the folder cannot be written.
    """
    where, pixels = "tfds.write", np.asarray(pixels)
    x, y = np.asarray(x, np.float32), np.asarray(y, np.float32)
    names = [str(n) for n in (range(y.shape[-1]) if class_names is None else class_names)]
    ok = pixels.dtype == np.uint8 and pixels.ndim == 4 and pixels.shape[-1] in (1, 3) and pixels.size > 0
    checks.require(ok, where, f"pixels have dtype {pixels.dtype} and shape {pixels.shape}; expected uint8 images")
    checks.require(y.ndim == 2, where, f"y has shape {y.shape}; expected [m, k]")
    checks.same_length(where, "pixels", pixels, "x", x)
    checks.same_length(where, "pixels", pixels, "y", y)
    different = len(set(names)) == len(names) == y.shape[1] and not any("\n" in n for n in names)
    checks.require(different, where, f"class_names {names} are not {y.shape[1]} different lines of text")
    checks.require(bool(re.fullmatch("[a-z][a-z0-9_]*", name)), where, f"name is {name!r}; expected as in my_set_1")
    with _quiet(), tempfile.TemporaryDirectory() as downloads:
        try:
            builder = _distilled_builder(folder, name, names, pixels, x, y)
            checks.require(
                not builder.data_path.exists(), where, f"{builder.data_path} is already there; choose another folder"
            )
            builder.download_and_prepare(download_dir=downloads)
        except OSError as error:
            text = f"cannot write {folder} ({error.strerror or error}); choose a folder that you may write to"
            raise checks.InputError(f"{where}: {text}") from error
    return pathlib.Path(builder.data_path)


def _distilled_builder(folder: Any, name: str, names: list[str], pixels: Any, x: Any, y: Any) -> Any:
    """A TFDS builder of these rows; images are handed over as PNG, because TFDS needs TensorFlow to encode arrays."""
    module = _import()
    kinds = module.features
    features = kinds.FeaturesDict(
        {
            "image": kinds.Image(shape=pixels.shape[1:]),
            "label": kinds.ClassLabel(names=names),
            "x": kinds.Tensor(shape=x.shape[1:], dtype=np.float32),
            "y": kinds.Tensor(shape=y.shape[1:], dtype=np.float32),
        }
    )

    def info(self):
        return module.core.DatasetInfo(
            builder=self, features=features, supervised_keys=("image", "label"), disable_shuffling=True
        )

    def examples(self):
        for i, (picture, row, target) in enumerate(zip(pixels, x, y)):
            yield i, {"image": _png(picture), "label": int(target.argmax()), "x": row, "y": target}

    members = {
        "VERSION": module.core.Version("1.0.0"),
        "name": name,
        "_info": info,
        "_split_generators": lambda self, manager: {"train": self._generate_examples()},
        "_generate_examples": examples,
        "__module__": "__main__",  # TFDS looks for no checksum file beside it
    }
    with module.core.registered.skip_registration():
        kind = type("Distilled", (module.core.GeneratorBasedBuilder,), members)
    return kind(data_dir=str(pathlib.Path(folder).expanduser()), file_format="array_record")


def _png(pixels: np.ndarray) -> io.BytesIO:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, "PNG")
    file.seek(0)
    return file


def _read(name: str, builder: Any, image_size: int) -> Raw:
    image, label = _keys(name, builder.info)
    splits = builder.info.splits
    tests = [split for split in _TEST_SPLITS if split in splits]
    checks.require(
        "train" in splits and bool(tests),
        "data.load",
        f"tfds:{name} has the splits {', '.join(splits)}; expected train and test (or validation)",
    )
    train, test = (_arrays(name, builder, split, image, label, image_size) for split in ("train", tests[0]))
    return Raw(*train, *test, tuple(builder.info.features[label].names))


def _import() -> Any:
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise checks.InputError(
            f"data.load: tensorflow-datasets cannot be imported ({error}); 'pip install tensorflow-datasets'"
        ) from error
    return tensorflow_datasets


def _prepared(name: str, data_dir: str | None) -> Any:
    """A builder whose files are on disk."""
    module = _import()
    try:
        builder = module.builder(name, data_dir=data_dir)
    except Exception as error:  # DatasetNotFoundError and whatever a wrong config or version raises
        raise checks.InputError(f"data.load: tfds:{name}: {_first_line(error)}; check the name and data_dir") from error
    if any(builder.data_path.glob("dataset_info.json")):
        return builder
    checks.require(
        importlib.util.find_spec("tensorflow") is not None,
        "data.load",
        f"tfds:{name} is not prepared in {builder.data_path}, and preparing it needs TensorFlow: "
        "'pip install tensorflow'",
    )
    return _prepare(module, name, data_dir)


def _prepare(module: Any, name: str, data_dir: str | None) -> Any:
    """Downloads the set and writes it as ArrayRecord."""
    try:
        builder = module.builder(name, data_dir=data_dir, file_format="array_record")
        with _few_retries():
            builder.download_and_prepare()
    except Exception as error:
        raise checks.InputError(
            f"data.load: tfds:{name} could not be downloaded and prepared ({_first_line(error)}); "
            "check the connection, or prepare it elsewhere and pass its folder as data_dir"
        ) from error
    return builder


@contextlib.contextmanager
def _few_retries() -> Iterator[None]:
    """Without a network TFDS retries for 200 s, ten doubling waits a file; five take 6 s."""
    from tensorflow_datasets.core.download import downloader

    before = getattr(downloader, "MAX_RETRIES", None)
    downloader.MAX_RETRIES = 5
    try:
        yield
    finally:
        downloader.MAX_RETRIES = before


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps back warnings about retries, absent folders and OpenCV: what matters is in our own errors."""
    loggers = [logging.getLogger(name) for name in ("absl", "urllib3")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


def _keys(name: str, info: Any) -> tuple[str, str]:
    """The names of the image (or vector) and of the label among the features."""
    keys = info.supervised_keys or ("image", "label")
    ok = len(keys) == 2 and all(isinstance(key, str) and key in info.features for key in keys)
    ok = ok and hasattr(info.features[keys[1]], "names")
    checks.require(
        ok,
        "data.load",
        f"tfds:{name} has the features {', '.join(sorted(info.features))}; expected an image and a class label",
    )
    return keys


def _arrays(
    name: str, builder: Any, split: str, image: str, label: str, image_size: int
) -> tuple[np.ndarray, np.ndarray]:
    """``(x [n, ...], y [n])`` of one split."""
    examples = _source(builder, split) if _is_random_access(builder) else _tensorflow_source(name, builder, split)
    images, labels = [], []
    for example in examples:
        pixels = np.asarray(example[image])
        images.append(resized(pixels, image_size) if image_size else pixels)
        labels.append(int(example[label]))
    shapes = {x.shape for x in images}
    checks.require(
        len(shapes) == 1,
        "data.load",
        f"tfds:{name} has images of {len(shapes)} sizes in {split}; say which all should have "
        "(image_size=, or --config.data.image_size)",
    )
    return np.stack(images), np.array(labels)


def _is_random_access(builder: Any) -> bool:
    return builder.info.file_format.value in ("array_record", "parquet")


def _source(builder: Any, split: str) -> Any:
    """Examples without TensorFlow."""
    return builder.as_data_source(split=split)


def _tensorflow_source(name: str, builder: Any, split: str) -> Any:
    """Examples of a set that was prepared as TFRecord; TensorFlow is kept away from the accelerator, which JAX owns."""
    try:
        import tensorflow  # pyright: ignore[reportMissingModuleSource,reportMissingImports]
    except ImportError as error:
        raise checks.InputError(
            f"data.load: tfds:{name} was prepared as {builder.info.file_format.value}, which only TensorFlow reads; "
            "'pip install tensorflow', or prepare it with file_format='array_record'"
        ) from error
    tensorflow.config.set_visible_devices([], "GPU")
    return _import().as_numpy(builder.as_dataset(split=split))


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0][:200].rstrip(".")
