"""Distilled sets in other formats, and sets of others as artifacts.

python -m experiments.convert --artifact=RUN/distilled.npz --to=set.safetensors [--layout=nchw]
python -m experiments.convert --artifact=RUN/distilled.npz --to=FOLDER --format=png
python -m experiments.convert --from=kip_cifar10_ConvNet_ssize100_zca_nol_noaug_ckpt1000.npz --data=cifar10 --to=kip.npz
python -m experiments.convert --from=rfad/best.npz --data=cifar10 --preprocess=zca:rfad --to=rfad.npz
python -m experiments.convert --from=dc.safetensors --data=cifar10 --preprocess=fixed:cifar10 --to=dc.npz

Formats: npz and safetensors (images, labels, step sizes and preprocessing, every bit of them), png (pictures and
labels.csv), tfds (a folder that TensorFlow Datasets reads). --from takes those of kipjax, and files with images and
labels by KIP, RFAD, DC, DSA, DM, MTT; what comes out is scored by experiments.evaluate like any other set. A .pt file
is refused, because it is a pickle; the message says how to convert it.
"""

import os
import pathlib

import numpy as np
from absl import flags

from experiments import cli, report
from kipjax import checks, data, types
from kipjax.data import tfds
from kipjax.io import artifact as artifacts
from kipjax.io import image_folder, interchange

FLAGS = flags.FLAGS
FORMATS = ("npz", "safetensors", "png", "tfds")


def define() -> None:
    """The flags of this script."""
    flags.DEFINE_string("artifact", None, "The distilled set (.npz of a run) that is to be written in another format.")
    flags.DEFINE_string("from", None, "Or the set in another format that is to become an artifact: file or PNG folder.")
    flags.DEFINE_string("to", None, "The file or new folder.")
    flags.DEFINE_enum("format", None, FORMATS, "Of --to. Default: that of its suffix.")
    flags.DEFINE_enum("layout", None, interchange.LAYOUTS, "Axes of images in files. Default: nhwc, auto for --from.")
    flags.DEFINE_string("data", None, "--from: the data set that it was distilled from, as kipjax.data.load names it.")
    flags.DEFINE_string("data_dir", None, "Where that is, if not in a usual place.")
    flags.DEFINE_integer("image_size", 0, "Side to which its images are resized; 0 leaves them.", lower_bound=0)
    flags.DEFINE_string(
        "preprocess", None, "--from: none, standardize, fixed:CONSTANTS or zca:VARIANT. Default: by a KIP file's name."
    )
    flags.DEFINE_string("name", "distilled", "tfds: name of the data set.")
    flags.mark_flag_as_required("to")


def main() -> None:
    given, source = FLAGS.artifact, FLAGS["from"].value
    checks.require((given is None) != (source is None), "convert", "give one of --artifact and --from")
    form = _form(FLAGS.to, FLAGS.format)
    if given is not None:
        made = artifacts.load(given)
        print(f"written   {export(made, FLAGS.to, form=form, layout=FLAGS.layout, name=FLAGS.name)}")
    else:
        options = {"data_dir": FLAGS.data_dir, "image_size": FLAGS.image_size, "layout": FLAGS.layout}
        made = imported(source, FLAGS.data, FLAGS.preprocess, **options)
        if form == "npz":
            artifacts.save(FLAGS.to, made)
        else:
            export(made, FLAGS.to, form=form, name=FLAGS.name)
        (m, *shape), convention = made.distilled.x.shape, made.meta["label_convention"]
        print(f"{source}: {m} examples of shape {tuple(shape)}, {made.distilled.y.shape[1]} classes, {convention}")
        print(f"{'artifact' if form == 'npz' else 'written'}  {FLAGS.to}")
    lost = _lost(made, form)
    if lost:
        print(f"not kept  {', '.join(lost)}; npz and safetensors keep all")


def _form(to, form):
    """The format of a path, if it is one."""
    suffix = pathlib.Path(to).suffix.lstrip(".")
    form = form or suffix
    checks.require(
        form in FORMATS,
        "--to",
        f"{to} has no suffix of a format; say which it is to be with --format={'|'.join(FORMATS)}",
    )
    fits = form == suffix or form not in ("npz", "safetensors")
    checks.require(fits, "--to", f"{to} does not end in .{form}; rename it, or change --format")
    return form


def _lost(made, form):
    """What of a set a format has no place for."""
    if form not in ("png", "tfds"):
        return []
    lost = ["the preprocessing"] + ["what lies between the 256 values of pixels"] * (form == "png")
    return lost + ["the learned step sizes, which are part of the set"] * (made.distilled.lr is not None)


def export(
    made: artifacts.Artifact, to: str, *, form: str | None = None, layout: str | None = None, name: str = "distilled"
) -> str:
    """Writes the artifact in another format and gives the path.

    Raises:
      InputError: the format or its suffix is none of ``FORMATS``, or a path that cannot be written.
    """
    form = _form(to, form)
    if form in ("npz", "safetensors"):
        checks.require(layout != "auto", "--layout", "auto is for --from; choose nhwc or nchw")
        interchange.write(to, made, layout=layout or "nhwc")
        return to
    x, names = made.distilled.x, made.meta.get("class_names")
    checks.require(np.ndim(x) == 4, "--format", f"{form} is for images, and these examples have shape {x.shape[1:]}")
    pixels = data.preprocess.to_pixels(made.preprocess, x)
    if form == "tfds":
        return str(tfds.write(to, pixels, x, made.distilled.y, class_names=names, name=name))
    image_folder.write(to, pixels, made.distilled.y, class_names=names)
    return to


def imported(
    source: str,
    name: str | None = None,
    preprocess: str | None = None,
    *,
    data_dir: str | None = None,
    image_size: int = 0,
    layout: str | None = None,
) -> artifacts.Artifact:
    """The set in a file or folder of pictures as an artifact.

    Args:
      source: the file or folder.
      name, data_dir, image_size: the data set that it was distilled from; needed where the source does not say it.
      preprocess: KIND or KIND:OPTION, fitted on that data set; by default what the name of a KIP file says.
      layout: axes of the images in a file.

    Raises:
      InputError: something is missing or does not fit.
    """
    dataset = None
    if name:
        dataset = report.load(report.Source(name, image_size, 0, 0), data_dir)
    fitted = _fitted(source, preprocess, dataset)
    meta = {} if dataset is None else _about(dataset, name, image_size)
    if os.path.isdir(source):
        made = _from_pictures(source, fitted, meta)
    else:
        k = dataset and dataset.num_classes
        made = interchange.read(source, preprocess=fitted, num_classes=k, layout=layout or "auto", meta=meta)
    return made if dataset is None else _of(dataset, name, source, made)


def _of(dataset, name, source, made):
    """The artifact, if its examples and classes are those of the data set."""
    checks.same_example_shape("--data", source, made.distilled.x, name, dataset.x_train)
    columns, k = made.distilled.y.shape[1], dataset.num_classes
    checks.require(columns == k, "--data", f"{source} has {columns} classes and {name} {k}; name the data set it is of")
    return made


def _fitted(source, text, dataset):
    """The preprocessing that a text or the name of a KIP file says, fitted on the data set; or ``None``."""
    if text is None:
        name = os.path.basename(source)
        text = "zca:kip_released" if "_zca_" in name else "standardize" if "_nozca_" in name else None
    if text is None:
        return None
    checks.require(dataset is not None, "--data", f"name the data set that preprocess {text} is fitted on")
    kind, _, option = text.partition(":")
    word = {"fixed": "constants", "zca": "variant"}.get(kind)
    checks.require(
        kind in data.preprocess.KINDS and bool(option) == bool(word),
        "--preprocess",
        f"{text!r} is not none, standardize, fixed:CONSTANTS ({', '.join(data.preprocess.CONSTANTS)}) or zca:VARIANT "
        f"({', '.join(data.preprocess.ZCA_VARIANTS)})",
    )
    return data.preprocess.fit(dataset.x_train, kind, **({word: option} if word else {}))


def _about(dataset, name, image_size):
    """What a run would have written into the artifact."""
    return {
        "dataset": name,
        "image_size": image_size,
        "class_names": list(dataset.class_names),
        "train_size": len(dataset.x_train),
        "data_fingerprint": report.fingerprint(dataset),
    }


def _from_pictures(source, preprocess, meta):
    """A folder of PNG files: 0..255 stand for the range of the training pixels, as ``to_pixels`` had them."""
    checks.require(preprocess is not None, "--preprocess", "pictures do not say it; give it, and --data")
    found = image_folder.read(source)
    low, high = float(preprocess.low), float(preprocess.high)
    x = data.preprocess.apply(preprocess, low + found.pixels.astype(np.float32) * ((high - low) / 255.0))
    own = {"method": "imported", "label_convention": "as in the file", "source_file": os.path.basename(source)}
    own["class_names"] = list(found.class_names)
    return artifacts.Artifact(types.Distilled(np.asarray(x), found.y), preprocess, own | meta)


if __name__ == "__main__":
    cli.run(main, define)
