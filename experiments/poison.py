"""Malicious distillation: ten images that break one class of an unseen, well-trained network in one gradient step.

python -m experiments.poison --config=configs/dd/digits.py:cpu --attacked=0 --target=1 --workdir=runs/poison

Networks are trained on the real training set, some to distil for and as many others to attack. One batch and one step
are distilled by the malicious objective of DD (arXiv:1811.10959, equation 8); each held-out network takes that step.
The report, poison.json and on the terminal, has for each network before and after: accuracy on all images, with and
without the attacked class relabelled as the target, on the other classes, on the attacked one, and on each class; and
the share of the attacked class taken for the target.
"""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import config_flags

from experiments import build, cli, inputs
from kipjax import checks
from kipjax.core import loop
from kipjax.evaluation import Task, metrics
from kipjax.io import artifact as artifacts
from kipjax.io import log
from kipjax.methods import dd
from kipjax.types import Batch


def define() -> None:
    """The flags of this script."""
    config_flags.DEFINE_config_file(
        "config", None, "An experiment of DD: FILE.py or FILE.py:VARIANT.", lock_config=True
    )
    flags.DEFINE_string("workdir", None, "Where the set and the report go.")
    flags.DEFINE_integer("attacked", 0, "The class that is to be broken.", lower_bound=0)
    flags.DEFINE_integer("target", 1, "The class that it is to be taken for.", lower_bound=0)
    flags.DEFINE_integer("networks", 50, "Networks to distil for; as many others are attacked.", lower_bound=1)
    flags.DEFINE_integer("train_steps", 500, "Steps of Adam that each is trained for.", lower_bound=1)
    flags.DEFINE_float("learning_rate", 0.02, "Of the distillation's Adam; the paper's attack takes 0.02.")
    flags.mark_flags_as_required(["config", "workdir"])


def main() -> None:
    given = flags.FLAGS
    run(
        given.config, given.workdir, given.attacked, given.target, given.networks, given.train_steps,
        learning_rate=given.learning_rate,
    )  # fmt: skip


def run(
    config, workdir: str, attacked: int, target: int, networks: int, train_steps: int, *, learning_rate: float = 0.02
) -> dict:
    """The whole experiment; returns and writes the report."""
    checks.require(config.method.name == "dd", "--config", f"the method is {config.method.name}; the attack is DD's")
    pretrain = {"name": config.data.name, "data_dir": config.data.data_dir, "networks": networks}
    config = config.copy_and_resolve_references().unlock()
    config.pretrain.update(**pretrain, steps=train_steps, learning_rate=1e-3)
    config.pretrain.update(b1=0.5, halve_every=-(-train_steps // 2))
    config.method.update(
        inner_steps=1, epochs=1, attacked=attacked, target=target, networks=min(networks, 4), step_size=0.02,
        learning_rate=learning_rate,
    )  # fmt: skip
    for name in ("steps", "log_every"):
        checks.whole("config", name, config[name])
    classes = len(inputs.load(config).class_names)
    text = f"they are {attacked} and {target}; expected two of the {classes} classes, from 0"
    checks.require(attacked != target and max(attacked, target) < classes, "--attacked, --target", text)
    experiment = build.experiment(config)
    held_out = build.pretrained(config, experiment.task, jax.random.key(config.seed + 1))
    state = jax.jit(experiment.method.init)(jax.random.key(config.seed), experiment.start)
    for first in range(0, config.steps, config.log_every):
        count = min(config.log_every, config.steps - first)
        steps = _steps(experiment.method, count)
        state, infos = steps(experiment.sample, jax.random.key(config.seed), state, jnp.asarray(first))
        print(f"step {first + count}  loss {float(infos.loss.mean()):.4f}", flush=True)
        _require_finite(infos.loss, f"the loss by step {first + count}")
    made = experiment.method.distilled(state)
    report = attack(build.network(config, experiment.task), held_out, made, experiment.task, attacked, target)
    os.makedirs(workdir, exist_ok=True)
    meta = {"method": "dd", "dataset": config.data.name, "class_names": list(experiment.dataset.class_names)}
    meta |= {"config": config.to_dict(), "attack": [attacked, target]}
    artifacts.save(os.path.join(workdir, "poison.npz"), artifacts.Artifact(made, experiment.preprocess, meta))
    log.write_json(os.path.join(workdir, "config.json"), config.to_dict())
    log.write_json(os.path.join(workdir, "poison.json"), report)
    for name, (before, after) in report["summary"].items():
        print(f"{name:<42} {before:>28}  ->  {after:>28}")
    return report


@functools.lru_cache(maxsize=2)
def _steps(method, count):
    """The program of ``count`` steps, of which a run needs one, or two for a shorter last stretch."""
    return jax.jit(loop.steps(method, count), donate_argnums=2)


def attack(model, networks, made, task: Task, attacked: int, target: int) -> dict:
    """What one pass over the set does to each of the networks, stacked: the numbers, and their means in words."""
    batches = Batch(*(dd.curriculum(jnp.asarray(a), 1) for a in (made.x, made.y)))

    @jax.jit
    def predictions(variables):
        broken = dd.train(jax.random.key(0), model, variables, batches, jnp.asarray(made.lr))
        return tuple(model.apply(v, jnp.asarray(task.x_test)) for v in (variables, broken))

    truth, rows = np.asarray(task.test_labels), {}
    victims = truth == attacked
    checks.require(bool(victims.any()), "--attacked", f"no test image is of class {attacked}; attack another")
    for i in range(len(jax.tree.leaves(networks)[0])):
        for when, found in zip(("before", "after"), predictions(jax.tree.map(lambda leaf, i=i: leaf[i], networks))):
            _require_finite(found, f"network {i} {when} the step")
            found = np.asarray(jnp.argmax(found, axis=-1))
            relabelled = np.where(victims, target, truth)
            values = {
                "accuracy": float(np.mean(found == truth)),
                "accuracy, attacked class relabelled": float(np.mean(found == relabelled)),
                "accuracy on the other classes": float(np.mean(found[~victims] == truth[~victims])),
                "accuracy on the attacked class": float(np.mean(found[victims] == truth[victims])),
                "attacked class taken for the target": float(np.mean(found[victims] == target)),
            }
            values |= {f"accuracy on class {c}": float(np.mean(found[truth == c] == c)) for c in np.unique(truth)}
            for name, value in values.items():
                rows.setdefault(name, {"before": [], "after": []})[when].append(value)
    summary = {n: [metrics.summarize(r[when]).percent() for when in ("before", "after")] for n, r in rows.items()}
    return {"attacked": attacked, "target": target, "networks": rows, "summary": summary}


def _require_finite(values, what):
    if not np.isfinite(values).all():
        raise checks.NumericalError(f"poison: {what} left the finite numbers; lower --learning_rate")


if __name__ == "__main__":
    cli.run(main, define)
