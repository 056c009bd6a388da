"""From a config to an experiment: the data that ``inputs`` makes, and the method with its network or kernel."""

import copy
import inspect
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from experiments import experts, inputs
from kipjax import checks, data, kernels, methods, models
from kipjax.core import labels, loop, sharding
from kipjax.evaluation import Task, protocols, train
from kipjax.types import Batch, Distilled, Method, Preprocess, Sampler

__all__ = [
    "Experiment",
    "before_and_after",
    "experiment",
    "kernel",
    "kernel_arguments",
    "kernel_name",
    "kernel_spec",
    "memory",
    "method_options",
    "network",
    "pretrained",
    "rehearse",
    "require_rate",
    "seeds",
    "slower",
    "trains_networks",
]


class Experiment(NamedTuple):
    """The parts of one run; ``starts`` has the starting set of each seed, ``start`` is the first."""

    dataset: data.Dataset
    preprocess: Preprocess
    task: Task
    method: Method
    starts: list[Distilled]
    sample: Sampler
    mesh: Any = None

    @property
    def start(self) -> Distilled:
        return self.starts[0]


def experiment(config: ml_collections.ConfigDict) -> Experiment:
    """Everything that a run needs, from its config. The starting set depends on ``config.seed`` alone."""
    dataset = inputs.load(config)
    preprocess = inputs.prepare(config, dataset)
    checks.one_of("config", "data_on", config.data_on, ("each", "divided", "host"))
    parts = inputs.task(dataset, preprocess, lazily=config.data_on != "each")
    parts = inputs.tested_on(parts, config.data.test_size)._replace(name=config.data.name)
    over = sharding.for_run(config.devices)
    method = _method(config, parts, preprocess, over)
    starts = [inputs.start(config, parts, seed) for seed in seeds(config)]
    if config.batch.kind == "experts":  # a batch is one trajectory, which is not divided
        sample = sharding.on_every_device(experts.sampler(config, network(config, parts), dataset), over)
    else:
        sample = _targets(config, dataset, preprocess, parts, over)
    return Experiment(dataset, preprocess, parts, method, starts, sample, over)


def _targets(config, dataset, preprocess, parts, over):
    """The sampler of the targets, which lie on each device, divided over the devices, or on the host."""
    if config.data_on == "each":
        return sharding.data_parallel(
            sharding.on_every_device(inputs.sampler(config.batch, inputs.targets(config, parts)), over), over
        )
    rows = inputs.targets(config, parts._replace(x_train=np.arange(len(parts.x_train))))
    numbers = inputs.sampler(config.batch, rows)
    if config.data_on == "divided":
        return sharding.data_parallel(data.streaming.divided(numbers, parts.x_train, over), over)
    to_space = jax.tree_util.Partial(data.preprocess.apply, jax.tree.map(jnp.asarray, preprocess))
    numbers, to_space = sharding.on_every_device((numbers, to_space), over)
    return data.streaming.streamed(numbers, dataset.x_train, to_space)


def rehearse(config: ml_collections.ConfigDict, made: Experiment) -> None:
    """Traces the start and a step with the labels at hand, so that a method can refuse them: inside jit it sees none.

    The labels of the targets are known beforehand where each batch is the whole training set.

    Raises:
      InputError: what the method says of them.
    """
    key = jax.random.key(0)
    state = jax.eval_shape(lambda key: made.method.init(key, made.start), key)
    if config.batch.kind == "all":
        y = labels.one_hot(made.task.train_labels, made.task.num_classes)
        x = jax.ShapeDtypeStruct((len(y), *made.start.x.shape[1:]), made.start.x.dtype)
        jax.eval_shape(lambda key, state, x: made.method.step(key, state, Batch(x, y)), key, state, x)


def memory(config: ml_collections.ConfigDict, parts: Task, preprocess: Preprocess, seed: int) -> Distilled:
    """What the method of a config makes of a task in the space of ``preprocess``, in its ``steps``.

    Raises:
      InputError: its batches are trajectories of experts.
    """
    return before_and_after(config, parts, preprocess, seed)[1]


def before_and_after(
    config: ml_collections.ConfigDict, parts: Task, preprocess: Preprocess, seed: int
) -> tuple[Distilled, Distilled]:
    """The set that a method starts from (with its corruption, where it has one), and what it makes of it."""
    checks.require(
        config.batch.kind != "experts", "config.batch", "experts are of all classes; choose a method without them"
    )
    checks.whole("config", "steps", config.steps)
    method, start = _method(config, parts, preprocess), inputs.start(config, parts, seed)
    init_key, run_key = jax.random.split(jax.random.fold_in(jax.random.key(seed), 2))
    state = method.init(init_key, start)
    first = jax.tree.map(jnp.array, method.distilled(state))
    state = jax.tree.map(jnp.array, state)  # a state may hold an array twice, which cannot be donated
    run = jax.jit(loop.steps(method, config.steps), donate_argnums=2)
    state, _ = run(inputs.sampler(config.batch, inputs.targets(config, parts)), run_key, state, 0)
    return first, jax.tree.map(jnp.asarray, method.distilled(state))


def seeds(config: ml_collections.ConfigDict) -> range:
    """The seeds of a run."""
    return range(config.seed, config.seed + config.num_seeds)


def require_rate(config: ml_collections.ConfigDict) -> None:
    """The method must have a learning rate that a run could go on with half of.

    Raises:
      InputError: it has none.
    """
    rate = config.method.get("learning_rate")
    checks.require(
        rate is not None, "--on_divergence", f"{config.method.name} has no learning_rate to lower; choose 'stop'"
    )


def slower(config: ml_collections.ConfigDict, made: Experiment, factor: float) -> Experiment:
    """The experiment with a learning rate that many times as large.

    Raises:
      InputError: the method has no learning rate.
    """
    require_rate(config)
    config = copy.deepcopy(config)
    config.method.learning_rate *= factor
    return made._replace(method=_method(config, made.task, made.preprocess, made.mesh))


def _method(config, parts, preprocess, over=None):
    """The method with its network or kernel and all that the other parts of the config say about it."""
    options = _options(config.method)
    _require_all_in_order(config, len(parts.x_train))
    if options.get("decay_steps") == -1:
        options["decay_steps"] = config.steps
    if len(config.augment):
        options["augment"] = inputs.augmentation(config.augment, preprocess)
    if config.validation_ipc:
        options["validation"] = inputs.validation(config, parts)
    first = network(config, parts) if trains_networks(config) else kernel(config, options, over)
    if config.pretrain.name:
        _call(
            "method", methods.METHODS, config.method.name, first, options
        )  # refuses wrong options before the training
        options["pretrained"] = pretrained(config, parts, jax.random.key(config.seed))
    return _call("method", methods.METHODS, config.method.name, first, options)


def _require_all_in_order(config, n):
    """A method that adds up over steps must be given each target once."""
    parts, in_order = config.method.get("accumulate", 0), config.batch.kind == "in_order"
    whole = in_order and parts * config.batch.size == n and config.steps % parts == 0
    checks.require(
        parts == 0 or whole or (parts == 1 and not in_order),
        "config.method",
        f"accumulate is {parts}: the {n} targets must come in order, in that many batches; set --config.batch.kind="
        f"in_order, --config.batch.size to {n} / {parts} and --config.steps to a multiple of {parts}",
    )


def method_options(config: ml_collections.ConfigDict) -> list[str]:
    """The names of all options that the method of a config has, given there or not."""
    return list(inspect.signature(methods.METHODS[config.method.name]).parameters)[1:]


def trains_networks(config: ml_collections.ConfigDict) -> bool:
    """Whether the method differentiates through networks, not through a kernel."""
    checks.one_of("config", "method.name", config.method.name, methods.METHODS)
    return next(iter(inspect.signature(methods.METHODS[config.method.name]).parameters)) == "model"


def network(config: ml_collections.ConfigDict, parts: Task):
    """The network that ``config.model`` names; a field that is 0 or "" is left to the network.

    A ConvNet's depth is then what the size of the images asks for.
    """
    options = {name: value for name, value in _options(config.model).items() if value is False or value not in (0, "")}
    if isinstance(models.get(config.model.name, num_classes=parts.num_classes), models.convnet.ConvNet):
        options.setdefault("depth", models.depth_for(min(parts.x_train.shape[1:3])))
    return models.get(config.model.name, num_classes=parts.num_classes, **options)


def pretrained(config: ml_collections.ConfigDict, parts: Task, key: jax.Array):
    """Networks trained on ``config.pretrain.name``, stacked, for images like those of ``parts``."""
    given = config.pretrain
    checks.whole("config.pretrain", "networks", given.networks)
    x, labels_of = inputs.foreign(config, given.name, given.data_dir, parts.x_train.shape[1:])
    y = labels.one_hot(labels_of, parts.num_classes)
    protocol = protocols.NAMED["ld"]._replace(steps=given.steps, batch_size=256, learning_rate=given.learning_rate)
    protocol = protocol._replace(b1=given.get("b1", 0) or 0.9, halve_every=given.get("halve_every", 0))
    model = network(config, parts)
    train_one = jax.jit(lambda k, x, y: train.fit(k, model, Distilled(x, y), protocol=protocol).variables)
    trained = [train_one(k, x, y) for k in jax.random.split(key, given.networks)]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trained)


def kernel(config: ml_collections.ConfigDict, options: dict[str, Any] | None = None, over: Any = None):
    """The kernel, family or parametric kernel that ``config.kernel`` names.

    Args:
      config: the experiment.
      options: the method's keyword arguments; learned kernel hyperparameters are added to them.
      over: the mesh whose devices share the tiles of a tiled kernel, or ``None``.
    """
    specs = kernel_spec(config)
    if isinstance(specs, list):
        return [_kernel(spec, over) for spec in specs]
    if not config.learn_kernel:
        return _kernel(specs, over)
    for name in config.learn_kernel:
        checks.require(name in specs, "config.learn_kernel", f"{name} is not in config.kernel; give its starting value")
        checks.at_least("config.kernel", f"{name}, which is learned,", specs[name], 0.0, strict=True)
    if options is not None:
        options["kernel_params"] = {name: math.log(specs[name]) for name in config.learn_kernel}
    return lambda logs: _kernel({**specs, **{name: jnp.exp(value) for name, value in logs.items()}}, over)


def _kernel(spec, over):
    """One kernel; without the mesh, each device would compute all tiles of a tiled one, however the targets lie."""
    made = kernels.get(**spec)
    tiled = sharding.size(over) > 1 and getattr(made, "backend", None) == "tiled"
    return kernels.get(**spec, mesh=over) if tiled else made


def kernel_spec(config: ml_collections.ConfigDict, logs: Any = None) -> Any:
    """The arguments of ``kernels.get`` that ``config.kernel`` stands for, a list of them for a family.

    Args:
      config: the experiment. Its field ``kind`` ("ntk" or "nngp") is the ``get`` of the kernel, a name that a config
        cannot have.
      logs: logarithms of learned hyperparameters, which take the place of the starting values.
    """
    if isinstance(config.kernel, (list, tuple)):
        return [kernel_arguments(dict(spec)) for spec in config.kernel]
    learned = {name: math.exp(value) for name, value in (logs or {}).items()}
    return kernel_arguments(config.kernel.to_dict()) | learned


def kernel_arguments(spec) -> dict[str, Any]:
    """The arguments of ``kernels.get`` from a config's field ``kernel``."""
    return {"get" if name == "kind" else name: value for name, value in dict(spec).items()}


def kernel_name(spec: Any) -> str:
    """A short name such as ``fc1 ntk`` of one kernel's config, or of a family's."""
    if isinstance(spec, (list, tuple)):
        return "+".join(dict(one)["name"] for one in spec)
    spec = dict(spec)
    return " ".join(str(spec[field]) for field in ("name", "get") if field in spec)


def _options(config):
    return {field: value for field, value in config.to_dict().items() if field != "name"}


def _call(what, table, name, first, options):
    """``table[name](first, **options)`` with unknown names and options reported as input errors."""
    checks.one_of("config", f"{what}.name", name, table)
    known = [p.name for p in inspect.signature(table[name]).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for option in options:
        checks.one_of(f"config.{what}", f"option of {name}", option, known)
    return table[name](first, **options)
