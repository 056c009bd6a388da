"""Networks by name, as configs and artifacts write them: ``"resnet18:batch"``, ``{"name": "convnet", "depth": 4}``."""

import ast
import dataclasses
from typing import Any

from kipjax.checks import InputError, require
from kipjax.models.classic import MLP, VGG11, AlexCifar, AlexNet, LeNet
from kipjax.models.classifier import Classifier
from kipjax.models.convnet import ConvNet
from kipjax.models.resnet import CifarResNet, ResNet18, WideResNet
from kipjax.models.teaching import Learner
from kipjax.models.text import Recurrent, TextConvNet

__all__ = ["get", "names", "parse"]

_DC = {"doubling": False, "norm": "instance", "initial": "torch", "momentum": 0.9}
_KIP = {"doubling": False, "stem": True, "norm_placement": "before_conv", "pad_grey": False, "initial": "kip"}
_RFAD = {"doubling": False, "width": 256, "pad_grey": False, "initial": "rfad"}

_NETWORKS: dict[str, tuple[type[Classifier], dict[str, Any]]] = {
    "convnet": (ConvNet, {}),
    "dc_convnet": (ConvNet, _DC),
    "kip_convnet": (ConvNet, _KIP),
    "rfad_convnet": (ConvNet, _RFAD),
    "mlp": (MLP, {}),
    "lenet": (LeNet, {}),
    "alexnet": (AlexNet, {}),
    "alex_cifar": (AlexCifar, {}),
    "vgg11": (VGG11, {}),
    "resnet18": (ResNet18, {}),
    "resnet18_ap": (ResNet18, {"downsample": "pool"}),
    "wide_resnet": (WideResNet, {}),
    "resnet32": (CifarResNet, {}),
    "gtn": (Learner, {}),
    "gtn_larger": (Learner, {"widths": (64, 128, 128, 256, 256), "strides": (1, 2, 1, 2, 1), "hidden": 0}),
    "text_convnet": (TextConvNet, {}),
    "bi_rnn": (Recurrent, {}),
    "bi_lstm": (Recurrent, {"cell": "lstm"}),
}


def names() -> list[str]:
    """The names that ``get`` knows."""
    return list(_NETWORKS)


def parse(name: str) -> tuple[str, dict[str, Any]]:
    """A name with options in it, taken apart: what has no ``=`` is the norm, values are Python's, or words.

    Args:
      name: ``"NETWORK"``, ``"NETWORK:NORM"``, ``"NETWORK:OPTION=VALUE"``, with as many options as needed.

    Raises:
      InputError: it is no text, or an option is given twice.

    >>> parse("dc_convnet:batch:activation=sigmoid:depth=2")
    ('dc_convnet', {'norm': 'batch', 'activation': 'sigmoid', 'depth': 2})
    """
    require(isinstance(name, str), "models.get", f"name is {name!r}; choose one of {', '.join(names())}")
    word, *parts = name.split(":")
    options: dict[str, Any] = {}
    for part in parts:
        option, equals, value = part.partition("=")
        option, value = (option, value) if equals else ("norm", part)
        require(option not in options, "models.get", f"{name} gives {option} twice")
        options[option] = _value(value)
    return word, options


def _value(text):
    """A number, ``True`` or ``False`` out of its text; else the text."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return value if isinstance(value, int | float) else text


def get(name: str, *, num_classes: int, **options: Any) -> Classifier:
    """The network called ``name``, with the defaults of the paper that it comes from.

    Args:
      name: one of ``names()``; ``"resnet18:batch"`` is short for ``norm="batch"``, and ``"mlp:width=64"`` as in
        ``parse``.
      num_classes: number of logits.
      **options: attributes of the class: ``norm``, ``activation``, ``initial``, ... of every ``Classifier``, and
        ``depth``, ``width``, ``pool``, ... where the class has them.

    Returns:
      A flax module, ``__call__(x [n, h, w, c], *, train=False, features=False)``.

    Raises:
      InputError: the name or an option is unknown, or an option has a value that the network refuses.

    >>> import jax, jax.numpy as jnp
    >>> model, x = get("convnet:batch", num_classes=10, width=4, depth=1), jnp.ones((2, 28, 28, 1))
    >>> variables = jax.jit(model.init)(jax.random.key(0), x)
    >>> logits, features = model.apply(variables, x, features=True)
    >>> logits.shape, features.shape
    ((2, 10), (2, 1024))
    """
    word, given = parse(name)
    require(word in names(), "models.get", f"name is {name!r}; choose one of {', '.join(names())}")
    for option, value in given.items():
        twice = f"{name} names {option}, and so does {option}={options.get(option)!r}"
        require(option not in options, "models.get", twice)
        options[option] = value
    network, defaults = _NETWORKS[word]
    options = {option: tuple(v) if isinstance(v, list) else v for option, v in options.items()}
    known = [field.name for field in dataclasses.fields(network) if field.name not in ("num_classes", "parent", "name")]
    unknown = ", ".join(repr(option) for option in options if option not in known)
    if unknown:
        raise InputError(f"models.get: {word} has no option {unknown}; its options are {', '.join(known)}")
    return network(num_classes, **{**defaults, **options})
