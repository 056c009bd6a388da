"""The fields of every experiment. A config file starts from ``base()`` and says only what differs."""

import inspect

import ml_collections

from kipjax import checks, methods

__all__ = ["base", "by_variant", "ipc", "ipcs", "method", "networks", "tiny_networks", "tiny_unrolled", "unrolled"]


def base() -> ml_collections.ConfigDict:
    """Every field with its default.

    - ``seed``, and the ``num_seeds`` from it on that are distilled at once, each to an artifact of its own.
    - ``devices`` that share the targets of each step; 0 for all (on a CPU, one of each process). ``data_on``: the
      training images lie on "each" of them, "divided" over them, or on the "host", which sends the rows of each batch.
    - ``data``: ``name``, ``data_dir`` and ``image_size`` of ``kipjax.data.load``; ``train_size`` training examples from
      ``train_start`` on are all that there are (0: all), for audits of what a set gives away; ``test_size``: only the
      first so many test examples are scored (0: all); ``preprocess`` has the ``kind`` of ``kipjax.data.preprocess.fit``
      and that kind's arguments.
    - ``method``: ``name`` in ``kipjax.methods.METHODS`` and its keyword arguments; ``decay_steps`` -1 means ``steps``.
    - ``kernel``: ``name`` of ``kipjax.kernels.get``, ``kind`` "ntk" or "nngp", and its other arguments; or a tuple of
      such for a family of which each step draws one. ``learn_kernel`` names the arguments that are learned (on a
      logarithmic scale, so they stay positive).
    - ``model``: for methods that differentiate through networks, ``name`` of ``kipjax.models.get`` and its arguments;
      ``depth`` 0 means what the size of the images asks for.
    - ``init``: where the distilled set starts: ``kind`` "real", "noise" or "class_means", ``ipc`` images per class;
      ``scale`` of its labels, ``centered`` or not; ``std`` of normal noise (0: uniform); ``classes``: only the first so
      many have images (0: all); ``labels``: empty, or a kind of ``sldd.initial_labels`` to start from. With ``base``
      (``base_dir``) images are random ones of another data set, resized; ``data`` says only how many classes there are.
    - ``pretrain``: for methods that start from trained networks: ``name`` and ``data_dir`` of what they are trained on
      (empty: none), how many ``networks``, and their ``steps`` and ``learning_rate`` of Adam on 256 images, its first
      beta ``b1`` (0: 0.9), and the steps after which its rate is halved, ``halve_every`` (0: never).
    - ``batch``: targets of a step: ``kind`` "class_balanced", "uniform", "per_class", "in_order" (each once
      in n / size steps) or "all", and ``size``.
    - ``augment``: empty, or ``rotation`` (degrees), ``shift`` (fraction of the side), ``crop`` (pixels of padding, by
      ``crop_mode`` "reflect" or "constant"), ``flip``, ``channel_shift`` (pixel units) and ``fraction`` of the batch
      they are applied to.
    - ``validation_ipc``: training images per class on which a method picks its step or its set (0: none); they are
      targets too, as for RFAD, unless ``validation_held_out``.
    - ``steps`` in all; ``log_every`` steps are one compiled dispatch; test accuracy is reported every ``eval_every``
      steps (0: at the end only) and never used; a checkpoint every ``checkpoint_every`` steps, of which the newest
      ``checkpoints_kept`` stay.
    - ``evaluation``: by kernel ridge regression: ``reg``, ``reg_unit``, ``seeds`` random subsets, ``full_size``
      training points for the upper baseline, ``block_size``, ``dtype``; by trained networks: ``protocol`` of
      ``kipjax.evaluation.PROTOCOLS``, ``arch`` and its ``width`` (0: the paper's), or for an ``arch`` of "" the
      network of ``model``; ``seeds`` networks,
      ``subset_seeds`` random subsets; ``kernels``, each as in ``kernel``, score such a set besides.
    """
    config = ml_collections.ConfigDict()
    config.seed, config.num_seeds = 0, 1
    config.devices, config.data_on = 0, "each"
    config.data = ml_collections.ConfigDict(
        {"name": "digits", "data_dir": "", "image_size": 0, "test_size": 0, "preprocess": {"kind": "standardize"}}
    )
    config.data.update(train_start=0, train_size=0)
    config.kernel = ml_collections.ConfigDict({"name": "fc1", "kind": "ntk", "b_std": 0.1})
    config.learn_kernel = ()
    config.method = method("kip")
    config.model = ml_collections.ConfigDict({"name": "convnet", "depth": 0, "width": 128})
    config.init = ml_collections.ConfigDict({"kind": "real", "ipc": 1, "scale": 1.0, "std": 0.0})
    config.init.update(centered=True, base="", base_dir="", classes=0, labels="")
    config.pretrain = ml_collections.ConfigDict(
        {"name": "", "data_dir": "", "networks": 1, "steps": 1000, "learning_rate": 2e-4}
    )
    config.pretrain.update(b1=0.0, halve_every=0)
    config.batch = ml_collections.ConfigDict({"kind": "class_balanced", "size": 1000})
    config.augment = ml_collections.ConfigDict()
    config.validation_ipc, config.validation_held_out = 0, False
    config.steps = 1000
    config.log_every = 50
    config.eval_every = 0
    config.checkpoint_every = 500
    config.checkpoints_kept = 2
    config.evaluation = ml_collections.ConfigDict(
        {"reg": 1e-6, "reg_unit": "trace", "seeds": 5, "full_size": 5000, "block_size": 2048, "dtype": "float64"}
    )
    config.evaluation.update(protocol="rcig", arch="convnet", width=0, subset_seeds=5, kernels=())
    return config


def networks(name: str) -> ml_collections.ConfigDict:
    """The start of a config for a method that differentiates through networks: ``base`` with uniform batches."""
    config = base()
    config.method = method(name)
    config.model.update(activation="relu", norm="none")
    config.batch.kind = "uniform"
    config.log_every, config.checkpoint_every = 50, 250
    return config


def unrolled(name: str) -> ml_collections.ConfigDict:
    """The same for a method that unrolls a training: labels not centred, scored by that same training."""
    config = networks(name)
    config.model = ml_collections.ConfigDict({"name": "lenet", "initial": "xavier"})
    config.init.centered = False
    config.evaluation.protocol, config.evaluation.seeds, config.evaluation.subset_seeds = "unrolled", 20, 20
    return config


def tiny_unrolled(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Makes such a config run in seconds."""
    config.steps, config.log_every, config.checkpoint_every = 4, 2, 4
    config.model = ml_collections.ConfigDict({"name": "convnet", "depth": 1, "width": 2, "activation": "tanh"})
    config.batch.size, config.data.test_size = 20, 50
    small = {"epochs": 2, "latent_size": 3, "hidden": 4, "filters": 2, "every": 2, "window": 2, "networks": 1}
    small |= {"inner_steps": 2, "batch_size": 5}
    config.method.update({name: value for name, value in small.items() if name in config.method})
    config.init.ipc = 2
    config.pretrain.update(networks=1, steps=2)
    config.evaluation.update(width=2, seeds=2, subset_seeds=2)
    return config


def ipcs(counts) -> dict:
    """The variants ``10``, ``50``, ...: so many images per class, of which a paper has rows."""
    return {str(count): ipc(count) for count in counts}


def ipc(count: int):
    """A variant: ``count`` images per class."""
    return lambda config: config.init.update(ipc=count)


def tiny_networks(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Makes such a config run in seconds: small images and networks, few of them, few steps."""
    config.steps, config.log_every, config.checkpoint_every = 4, 2, 4
    config.model.update(depth=1, width=2)
    config.batch.size = 20
    small = {"pool_size": 2, "pool_steps": 2, "networks": 2, "inner_steps": 2, "hessian_steps": 2}
    small |= {"inner_step_size": 1e-3, "hessian_step_size": 1e-3}
    config.method.update({name: value for name, value in small.items() if name in config.method})
    config.evaluation.update(width=2, seeds=2, subset_seeds=2)
    config.data.update(image_size=8, test_size=50)
    return config


def method(name: str, **changes) -> ml_collections.ConfigDict:
    """The keyword arguments of a method with their defaults, so that each can be set on the command line."""
    config = ml_collections.ConfigDict({"name": name})
    for parameter in inspect.signature(methods.METHODS[name]).parameters.values():
        if isinstance(parameter.default, (bool, int, float, str)):
            config[parameter.name] = parameter.default
    config.update(changes)
    return config


def by_variant(config: ml_collections.ConfigDict, variant: str, variants: dict) -> ml_collections.ConfigDict:
    """``config`` with the changes that ``variants[variant]`` makes to it; no variant changes nothing.

    Args:
      config: the full experiment.
      variant: the part after the colon in ``--config=FILE.py:VARIANT``; several, as ``10,adam``, change it in turn.
      variants: name -> function that edits the config in place.

    Raises:
      InputError: no such variant.
    """
    for word in variant.split(",") if variant else ():
        checks.one_of("config", "variant", word, variants)
        variants[word](config)
    return config
