"""Flags of continual learning that say what is kept of a phase and how it is used, and what they mean."""

import importlib
import pathlib
from collections.abc import Sequence

import jax
import numpy as np
from absl import flags

from experiments import build, fields, findings
from kipjax import checks, methods, models
from kipjax.core import labels
from kipjax.evaluation import Task, continual, protocols, train

__all__ = ["builders", "define", "learners", "require_suits"]

FLAGS = flags.FLAGS

_DRAWN, _TAUGHT = ("random",), ("herding", "mnemonics")
_OF_ONE_CLASS = ("dm", "coreset", "network_coreset")
"""Methods that learn from the images of one class; others learn to tell classes apart."""
_TRAININGS = {**protocols.NAMED, "lucir": continual.LUCIR_PROTOCOL}


def define() -> None:
    """The flags."""
    text = (
        "What is kept of a phase: random, herding, mnemonics, or a config FILE.py[:VARIANT] of any method, words of a "
        "variant joined by +, other values of its fields behind @ (:mnist+cpu@steps=100)."
    )
    flags.DEFINE_list("builder", ["random"], text)
    flags.DEFINE_integer("ipc", 0, "Images kept of each class of a phase.", lower_bound=0)
    flags.DEFINE_integer("total", 0, "Images in memory at most, instead.", lower_bound=0)

    flags.DEFINE_list("learner", ["gdumb"], f"How the memory is used: one or more of {', '.join(continual.LEARNERS)}.")
    flags.DEFINE_float("distillation", 0.0, "Weight of what the network said before a phase; not for gdumb and lucir.")
    flags.DEFINE_float("temperature", 2.0, "Temperature of that.")
    flags.DEFINE_bool("weight_transfer", False, "Later phases learn scales of convolution kernels, which stay.")
    flags.DEFINE_integer("balanced_epochs", 0, "Epochs on the memory alone at the end of a phase.", lower_bound=0)
    flags.DEFINE_float("balanced_rate", 0.01, "Learning rate of those.")
    flags.DEFINE_float("lucir_weight", 5.0, "Weight of LUCIR's features for equally many old and new classes.")
    flags.DEFINE_enum("training", "dm", sorted(_TRAININGS), "Protocol of every training.")
    flags.DEFINE_integer("epochs", 0, "Epochs instead of the protocol's; the rate falls in the middle.", lower_bound=0)
    flags.DEFINE_float("learning_rate", 0.0, "Learning rate instead of the protocol's.", lower_bound=0.0)
    flags.DEFINE_string("arch", "dc_convnet", f"Network: NAME or NAME:NORM of {', '.join(models.names())}.")
    flags.DEFINE_integer("width", 128, "Filters of the first layer of a ConvNet.", lower_bound=1)

    flags.DEFINE_integer("exemplar_epochs", 50, "mnemonics: passes over the images of a phase.", lower_bound=1)
    flags.DEFINE_integer("exemplar_batch", 128, "mnemonics: images that validate at a step.", lower_bound=1)
    flags.DEFINE_float("exemplar_rate", 0.01, "mnemonics: learning rate of new exemplars, beta_1.")
    flags.DEFINE_enum(
        "exemplar_optimizer", "sgd", sorted(methods.mnemonics.OPTIMIZERS), "mnemonics: that of exemplars."
    )
    flags.DEFINE_enum("exemplar_start", "random", ["random", "herding"], "mnemonics: where exemplars start.")
    flags.DEFINE_enum("level", "network", methods.mnemonics.LEVELS, "mnemonics: what the inner training moves.")
    flags.DEFINE_integer("inner_steps", 20, "mnemonics: steps of the inner training.", lower_bound=0)
    flags.DEFINE_float("inner_rate", 0.01, "mnemonics: their learning rate, alpha_2.")
    flags.DEFINE_integer(
        "segment", 0, "mnemonics: inner steps computed again at once on the way back; 0 keeps all, 1 the least.",
        lower_bound=0,
    )  # fmt: skip
    flags.DEFINE_integer("adjust_steps", 1, "mnemonics: steps on each half of the old exemplars.", lower_bound=0)
    flags.DEFINE_float("adjust_rate", 1e-5, "mnemonics: their learning rate, beta_2.")


def builders() -> dict:
    """``name -> f(preprocessing of each phase) -> builder`` of every ``--builder``."""
    return {name: _builder(name) for name in findings.nonempty("builder")}


def require_suits(phases: Sequence[continual.Phase]) -> None:
    """Refuses configs that could not learn from a phase of one class, before anything is learned.

    Raises:
      InputError: there are such a phase and such a config.
    """
    alone = next((phase.number + 1 for phase in phases if len(phase.classes) == 1), 0)
    for name in FLAGS.builder if alone else ():
        checks.require(
            name in _DRAWN + _TAUGHT or _config(name).method.name in _OF_ONE_CLASS,
            "--builder",
            f"{name} learns to tell classes apart and phase {alone} has one class, of which it learns nothing; lower "
            f"--phases, or choose {', '.join(_DRAWN + _TAUGHT)}, DM or a coreset",
        )


def learners(task: Task, name: str) -> dict[str, continual.Learner]:
    """Every ``--learner``, for a task of all classes; ``name`` is the data set's."""
    protocol = _protocol(name)
    model = train.build(FLAGS.arch, task, width=FLAGS.width)
    shared = {"weight_transfer": FLAGS.weight_transfer, "balanced_epochs": FLAGS.balanced_epochs}
    shared["balanced_rate"] = FLAGS.balanced_rate
    found, words = {}, findings.nonempty("learner")
    checks.require(
        not FLAGS.distillation or words != ["lucir"], "--distillation", "lucir has losses of its own; leave it out"
    )
    for word in words:
        checks.one_of("--learner", "learner", word, continual.LEARNERS)
        if word == "lucir":
            cosine = model.clone(classifier="cosine")
            found[word] = continual.Lucir(cosine, protocol, base_weight=FLAGS.lucir_weight, **shared)
        else:
            found[word] = continual.Learner(
                model, protocol, goes_on=word != "gdumb", sees_all=word == "rehearsal",
                distillation=FLAGS.distillation, temperature=FLAGS.temperature, **shared,
            )  # fmt: skip
    return found


def _protocol(name):
    word, epochs = FLAGS.training, FLAGS.epochs
    protocol = protocols.named(word, dataset=name) if word in protocols.NAMED else _TRAININGS[word]
    if epochs:
        falls = (
            {"milestones": (epochs // 2, 3 * epochs // 4)} if protocol.milestones else {"drop_epoch": epochs // 2 + 1}
        )
        protocol = protocol._replace(epochs=epochs, steps=0, **falls)
    return protocol._replace(learning_rate=FLAGS.learning_rate) if FLAGS.learning_rate else protocol


def _builder(name):
    if name == "random":
        return lambda preprocesses: continual.random
    if name == "herding":
        return lambda preprocesses: continual.herding()
    if name == "mnemonics":
        made = _mnemonics()
        return lambda preprocesses: made
    config = _config(name)
    name = "" if FLAGS.domains else FLAGS.data
    return lambda preprocesses: _of_config(config, preprocesses, name)


def _mnemonics():
    return continual.mnemonics(
        epochs=FLAGS.exemplar_epochs, batch_size=FLAGS.exemplar_batch, start=FLAGS.exemplar_start,
        learning_rate=FLAGS.exemplar_rate, optimizer=FLAGS.exemplar_optimizer, level=FLAGS.level,
        inner_steps=FLAGS.inner_steps, step_size=FLAGS.inner_rate, adjust_steps=FLAGS.adjust_steps,
        adjust_rate=FLAGS.adjust_rate, segment=FLAGS.segment,
    )  # fmt: skip


def _config(name):
    """The config ``FILE.py[:VARIANT][@FIELD=VALUE]...``."""
    file, *changes = name.split("@")
    path, _, variant = file.partition(":")
    here = pathlib.Path(path)
    checks.require(
        here.suffix == ".py" and here.exists() and here.parts[0] == "configs",
        "--builder",
        f"{name!r} is neither {', '.join(map(repr, _DRAWN + _TAUGHT))} nor a config such as configs/dm/images.py",
    )
    module = importlib.import_module(".".join(here.with_suffix("").parts))
    checks.require(hasattr(module, "get_config"), "--builder", f"{path} has no get_config; give a file of a config")
    config = module.get_config(variant.replace("+", ","))
    for change in changes:
        config.update_from_flattened_dict(dict(fields.parse("--builder", change, config)))
    return config


def _of_config(config, preprocesses, name):
    """Runs the config's method on the images of a phase, whose classes are 0, 1, ... inside it.

    They are of the data set ``name``, or of that of the phase for an empty one.
    """
    config = config.copy_and_resolve_references()
    asked = config.batch.size

    def make(key, phase, ipc):
        seed = int(jax.random.randint(key, (), 0, 2**31 - 1))
        columns = np.sort(phase.classes)
        own = np.searchsorted(columns, phase.train_labels)
        config.init.ipc, config.batch.size = ipc, min(asked, _most(config.batch.kind, own, len(columns)))
        parts = Task(phase.x_train, own, phase.x_test[:1], np.zeros(1, int), len(columns), name or phase.name)
        made = build.memory(config, parts, preprocesses[phase.number], seed)
        return continual.place(made if config.init.centered else made._replace(y=labels.center(made.y)), phase)

    return make


def _most(kind, own, classes):
    """The largest batch of that kind that a phase has images for."""
    fewest = int(np.bincount(own, minlength=classes).min())
    return {"class_balanced": fewest * classes, "per_class": fewest}.get(kind, len(own))
