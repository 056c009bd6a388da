"""Which networks score a set, and by which training: read from the config of its run, so that the report of the run
and ``experiments.evaluate`` do the same.
"""

from typing import Any

import jax
import ml_collections
import numpy as np
from flax import linen as nn

from experiments import build
from kipjax import checks, models
from kipjax.evaluation import Result, Task, flexibility, label_training, protocols, train, unrolled
from kipjax.methods import dd
from kipjax.types import Distilled

__all__ = [
    "described",
    "flexibility_results",
    "network",
    "of_artifact",
    "protocol",
    "starts",
    "trained_results",
    "unrolled_results",
]


def of_artifact(meta: dict[str, Any]) -> ml_collections.ConfigDict:
    """The config inside an artifact; an empty one for a set from elsewhere."""
    return ml_collections.ConfigDict(meta.get("config", {}))


def network(config: ml_collections.ConfigDict, task: Task) -> tuple[str, nn.Module]:
    """Name and network that ``config.evaluation`` asks for: ``arch`` with its ``width``, or that of ``config.model``.

    Raises:
      InputError: there is no such network.
    """
    evaluation = config.evaluation
    checks.whole("config.evaluation", "width", evaluation.width, 0)
    if not evaluation.arch:
        return config.model.name, build.network(config, task)
    return evaluation.arch, train.build(
        evaluation.arch, task, **({"width": evaluation.width} if evaluation.width else {})
    )


def protocol(
    name: str,
    task: Task,
    size: int,
    config: ml_collections.ConfigDict,
    usage: dict[str, Any],
    model: nn.Module | None = None,
) -> protocols.Protocol:
    """A protocol for a set of ``size`` images as its run, and the network to be trained, change it.

    Where networks are trained with the augmentation of DSA, it is that of ``config.method.strategy`` and ``mode``; sets
    of label distillation have a number of steps and a batch size of their own. DC trains ConvNets with batch norm by
    ``dc_batch_norm``.

    Args:
      name: in ``protocols.NAMED``.
      task: the data set.
      size: images of the set.
      config: of the run, or an empty one.
      usage: what the method says of the use of its set; the artifact's ``meta``.
      model: the network, if it is known.
    """
    if name == "dc" and isinstance(model, models.convnet.ConvNet) and model.norm == "batch":
        name = "dc_batch_norm"
    found, method = protocols.for_task(name, task, size), config.get("method", {})
    if found.name == "ld" and "training_steps" in usage:
        of_run = {"batch_size": method["batch_size"], "learning_rate": method["model_learning_rate"]}
        found = found._replace(steps=usage["training_steps"], **of_run)
    if found.augment_style == "dsa" and "strategy" in method:
        style = "each" if method["mode"] == "multiple" else "dsa"
        found = found._replace(augment=(method["strategy"],) * 2, augment_style=style)
    return found


def described(config: ml_collections.ConfigDict, chosen: protocols.Protocol, size: int) -> str:
    """What ``trained_results`` trains by, in words, for a set of ``size`` images.

    Args:
      config: of the run, or an empty one.
      chosen: the protocol.
      size: images of the set.
    """
    method = config.get("method", {})
    if not _of_labels(method, chosen):
        return protocols.describe(chosen, size)
    length = f"{chosen.steps} steps" if method["learn_labels"] else "the best number of steps on held-out images"
    how = f"{length} of {chosen.optimizer}, parts of {chosen.batch_size}"
    return f"label distillation's own training, {method['form']} form: {how}"


def _of_labels(method, protocol):
    """Whether a set is one of label distillation that is trained on in its own form."""
    return protocol.name == "ld" and method.get("name") == "ld"


def trained_results(
    config: ml_collections.ConfigDict,
    made: Distilled,
    task: Task,
    model: nn.Module,
    *,
    protocol: protocols.Protocol,
    name: str,
    full_size: int = 0,
    parallel: int = 0,
    **options: Any,
) -> list[Result]:
    """``train.evaluate``; but a set of label distillation under ``ld`` is trained on in the form that it was made by.

    Args:
      config: of the run, or an empty one.
      made: the set.
      task, model, protocol, name, full_size, parallel, **options: as in ``train.evaluate``.
    """
    method = config.get("method", {})
    if not _of_labels(method, protocol):
        flip = bool(method.get("flip", False))
        options |= {"full_size": full_size, "parallel": parallel, "flip": flip}
        return train.evaluate(made, task, model, protocol=protocol, name=name, **options)
    checks.require(full_size == 0, "--full_size", "a set of labels has no upper baseline of real images; leave it out")
    learned = method["learn_labels"]  # true labels have no number of steps of their own
    steps = protocol.steps if learned else 0
    shared = {field: getattr(protocol, field) for field in ("batch_size", "learning_rate", "optimizer")}
    of_run = {field: method[field] for field in ("form", "scale_learning_rate", "reg", "alpha")}
    training = label_training.Training(**shared, **of_run)
    return label_training.evaluate(made, task, model, steps=steps, training=training, name=name, **options)


def flexibility_results(
    config: ml_collections.ConfigDict,
    made: Distilled,
    task: Task,
    models: dict[str, nn.Module],
    protocol: protocols.Protocol,
    offsets: list[int],
    choices: dict[str, tuple[str, float]],
    **options: Any,
) -> list[Result]:
    """Networks trained on a set for other numbers of steps, then by other optimizers; the model's name says which.

    Args:
      config: of the run, or an empty one; ``trained_results``.
      made, task: set and data.
      models: by name.
      protocol: whose steps and optimizer change.
      offsets: steps more or fewer.
      choices: ``name -> (optimizer, learning rate)``.
      **options: of ``train.evaluate``.

    Raises:
      InputError: no number of steps would be above 0, or a set of true labels has none.
    """
    checks.require(
        not offsets or not _of_labels(config.get("method", {}), protocol) or config.method.learn_labels,
        "--step_offsets",
        "a set of true labels has no number of steps of its own; pass --step_offsets=",
    )

    def evaluate(made, task, model, **some):
        return trained_results(config, made, task, model, **some)

    if not protocol.epochs:
        protocol = protocol._replace(steps=protocols.steps(protocol, len(made.x)))
    found = []
    for name, model in models.items():
        run = {"protocol": protocol, "name": name, "evaluate": evaluate, **options}
        by_steps = flexibility.step_counts(made, task, model, offsets=offsets, **run) if offsets else {}
        by_optimizer = flexibility.optimizers(made, task, model, choices=choices, **run) if choices else {}
        rows = {f"{count} steps": some for count, some in by_steps.items()} | by_optimizer
        found += [result._replace(model=f"{name}, {how}") for how, some in rows.items() for result in some]
    return found


def unrolled_results(
    config: ml_collections.ConfigDict,
    made: Distilled,
    task: Task,
    usage: dict[str, Any],
    *,
    model: nn.Module | None = None,
    name: str = "",
    **options: Any,
) -> list[Result]:
    """A set by the very training that it was unrolled through, on the networks that it was made for.

    Args:
      config: of the run.
      made: the set.
      task: the data set.
      usage: the artifact's ``meta``, or what the method says of its set.
      model: another network than the run's, which starts afresh; ``name`` is what the results call it.
      **options: of ``evaluation.unrolled.evaluate``.

    Raises:
      InputError: the set was not distilled through a training.
    """
    steps = config.get("method", {}).get("inner_steps")
    checks.require(steps is not None, "--protocol", "unrolled is for sets that were distilled through a training")
    momentum = np.asarray(usage.get("momentum", 0.0), np.float32)
    some = None
    if model is None:
        model, name = build.network(config, task), config.model.name
        some = starts(config, model, made, task, usage.get("seed", config.seed))
    return unrolled.evaluate(
        made, task, model, inner_steps=steps, name=name, networks=some,
        momentum=momentum if momentum.any() else 0.0, **options,
    )  # fmt: skip


def starts(config: ml_collections.ConfigDict, model: nn.Module, made: Distilled, task: Task, seed: int):
    """The networks that a set is for, stacked: its fixed ones, or others trained as its own; ``None`` for fresh ones.

    Pretrained networks are held out ones if the run had more than it took at a step, else the very same.
    """
    if config.get("pretrain", {}).get("name"):
        held_out = config.pretrain.networks > config.method.networks
        return build.pretrained(config, task, jax.random.key(config.seed + held_out))
    if config.method.get("start") != "fixed":
        return None
    key = jax.random.split(jax.random.key(seed))[1]  # that of the run's init
    return jax.jit(lambda k: dd.starts(k, model, made.x, config.method.networks))(key)
