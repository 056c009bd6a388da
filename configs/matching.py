"""What the configs of DC, DSA, DM and MTT share: data sets, network, protocol, and the words of a variant.

A variant is a list of words, ``FILE.py:cifar10,10``: a data set (Fashion-MNIST without one), images per class, ``cpu``
for a run of minutes on a CPU, ``tiny`` for one of seconds. Any field can be changed on top, the papers' ablations too:

- ``--config.model.activation=sigmoid|relu|leaky|swish``, ``--config.model.norm=none|batch|instance|layer|group``,
  ``--config.model.pool=avg|max|none``, ``--config.model.depth=1..4``, ``--config.model.width=32|64|128|256``;
- ``--config.model.name=mlp|lenet|alexnet|vgg11|resnet18|resnet18_ap``, with the five fields above set to ``""`` or 0;
- ``--config.method.strategy=crop`` (or another single operation, or ``none``) for DSA, DM and MTT;
- ``--config.init.kind=noise|real`` (``--config.init.std=1`` for normal noise).

Images per class are a word and no field, as steps and rates depend on them. The papers score 5 sets with 20 networks
each, here one set has five (``--config.num_seeds``, ``--config.evaluation.seeds``).

Sets are scored by the network that they were distilled through, trained with the method's own augmentation;
``--config.evaluation.arch=dc_convnet`` takes the standard one, ``dc_convnet:batch:activation=sigmoid`` another.
"""

from configs import common
from kipjax import checks

__all__ = ["DATASETS", "base", "cpu", "tiny", "words"]

DATASETS = ("mnist", "fashion_mnist", "svhn", "cifar10", "cifar100")
_DIGITS = ("mnist", "svhn")


def base(name: str):
    """The start of such a config: Fashion-MNIST, one image per class, 256 real images of every class."""
    config = common.networks(name)
    config.model.update(name="dc_convnet", norm="instance", pool="avg")
    config.batch.update(kind="per_class", size=256)
    config.log_every, config.checkpoint_every = 10, 50
    config.evaluation.update(protocol=name, arch="", width=0)
    dataset("fashion_mnist")(config)
    return config


def dataset(name: str):
    """A word: the data set, its channel means and deviations, and no mirrored digits."""

    def change(config):
        config.data.name = name
        config.data.preprocess = {"kind": "fixed", "constants": name}
        if "strategy" in config.method:
            flip = "" if name in _DIGITS else "flip_"
            config.method.strategy = f"color_crop_cutout_{flip}scale_rotate"

    return change


def cpu(config):
    """Width 32, 64 real images of every class, three networks to score."""
    config.model.width = 32
    config.batch.size = 64
    config.evaluation.update(seeds=3, subset_seeds=3)


def tiny(config):
    """Seconds: one block of width 2, four steps, networks trained by the shortest protocol."""
    common.tiny_networks(config)
    config.batch.size = 4
    config.evaluation.protocol = "dc"


def words(config, variant: str, own: dict):
    """``config`` changed by every word of ``variant``: data sets first, the others in the order of ``own``.

    Args:
      config: from ``base``.
      variant: words separated by commas.
      own: word -> function that edits the config in place: images per class, ``cpu``, ``tiny``.

    Raises:
      InputError: there is no such word, or there are two data sets or two numbers of images.
    """
    known, chosen = {name: dataset(name) for name in DATASETS} | own, list(filter(None, variant.split(",")))
    for word in chosen:
        checks.one_of("config", "variant", word, known)
    for kind in (DATASETS, ("1", "10", "50")):
        some = [word for word in chosen if word in kind]
        checks.require(len(some) < 2, "config", f"variant has both {' and '.join(some)}; choose one")
    for word in (word for word in known if word in chosen):
        known[word](config)
    return config
