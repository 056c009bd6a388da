"""TensorFlow Datasets as a source; the only file that imports it.

Reading a set that was prepared as ArrayRecord goes through ``tfds.data_source``, which needs no TensorFlow. Sets that
were prepared as TFRecord (TFDS's default), and preparing most sets in the first place, need TensorFlow; what is
prepared here is written as ArrayRecord, so that later runs do without.
"""

import contextlib
import importlib.util
import logging
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from kipjax import checks
from kipjax.data.raw import Raw, resized

__all__ = ["read"]

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
