"""Exact distillation beside its teacher, and beside KIP on the same features: accuracy, time and their ratio.

python -m experiments.exact --config=configs/krr_exact/fashion_mnist.py --ipc=1,10,50

Times are those of the compiled programs, without compilation and without loading data. The teacher's is part of the
exact method's. KIP has ``--kip_steps`` Adam steps on images from the same start, 5000 targets each (the authors take
30,000); 0 leaves it out.
"""

import time

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from absl import flags
from ml_collections import config_flags

from configs import common
from experiments import build, cli, report, trainer
from kipjax import checks
from kipjax.core import precision
from kipjax.evaluation import krr, metrics
from kipjax.io import log

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file("config", None, "An experiment with krr_exact.", lock_config=True)
flags.DEFINE_list("features", ["linear", "leaky_net", "fourier"], "Feature maps, by name.")
flags.DEFINE_list("ipc", ["1", "10", "50"], "Images a class.")
flags.DEFINE_integer("kip_steps", 300, "Steps of KIP; 0 for none.", lower_bound=0)
flags.DEFINE_integer("kip_targets", 5000, "Targets of a step.", lower_bound=1)
flags.DEFINE_string("out", None, "Also write the rows to this JSON file.")
flags.mark_flag_as_required("config")


def main() -> None:
    for flag in ("features", "ipc"):
        checks.require(bool(FLAGS[flag].value), f"--{flag}", "the list is empty; give at least one")
    rows, sizes = [], [_whole(text) for text in FLAGS.ipc]
    name = FLAGS.config.method.name
    checks.require(name == "krr_exact", "--config", f"method.name is {name!r}; expected a config of krr_exact")
    print("test accuracy in %; differ: test images that teacher and student classify differently")
    for features in FLAGS.features:
        for ipc in sizes:
            rows.append(_row(features, ipc))
            print(_line(rows[-1]), flush=True)
    if FLAGS.out:
        log.write_json(FLAGS.out, {"device": jax.devices()[0].device_kind, "rows": rows})


def _whole(text):
    checks.require(text.isdigit() and int(text) > 0, "--ipc", f"{text!r} is no whole number of images; give 1,10,50")
    return int(text)


def _row(features, ipc):
    config = ml_collections.ConfigDict(FLAGS.config.to_dict())
    config.kernel = {"name": features}
    config.init.ipc = ipc
    experiment = build.experiment(config)
    state, info, seconds = _timed(config, experiment, 1)
    _, kernel_fn = report.test_kernel(build.kernel_spec(config))
    task = experiment.task
    reg = float(info.reg[-1])
    made = experiment.method.distilled(state)
    student = krr.predict(kernel_fn, made, task.x_test, reg=reg, reg_unit="absolute")
    teacher = _outputs(kernel_fn, state.weights, task.x_test)
    row = {"features": features, "ipc": ipc, "error": float(info.error[-1]), "seconds": seconds}
    row |= {"teacher": _accuracy(teacher, task), "exact": _accuracy(student, task)}
    row["differ"] = int(len(teacher) * metrics.strong_epsilon(student, teacher) + 0.5)
    return row | (_kip(config, experiment, kernel_fn) if FLAGS.kip_steps else {})


def _kip(config, exact, kernel_fn):
    """KIP from the same start on the same features."""
    config.method = common.method("kip", learning_rate=0.01)
    config.batch.update(kind="class_balanced", size=FLAGS.kip_targets)
    experiment = build.experiment(config)._replace(starts=exact.starts)
    state, _, seconds = _timed(config, experiment, FLAGS.kip_steps)
    outputs = krr.predict(kernel_fn, experiment.method.distilled(state), experiment.task.x_test)
    return {"kip": _accuracy(outputs, experiment.task), "kip_steps": FLAGS.kip_steps, "kip_seconds": seconds}


def _timed(config, experiment, steps):
    """``(state, infos, seconds)`` of so many steps from the start, as one program."""
    program = trainer.compiled(config, experiment, steps)
    state = experiment.method.init(jax.random.key(0), experiment.start)
    began = time.perf_counter()
    state, infos = jax.block_until_ready(program(experiment.sample, jax.random.key(1), state, jnp.asarray(0)))
    return state, infos, time.perf_counter() - began


def _outputs(kernel_fn, weights, x):
    with precision.mode("float64"):
        blocks = (jnp.asarray(x[i : i + 1000], "float64") for i in range(0, len(x), 1000))
        return np.concatenate([np.asarray(kernel_fn.features(b) @ jnp.asarray(weights, "float64")) for b in blocks])


def _accuracy(outputs, task):
    return float(np.mean(outputs.argmax(axis=1) == np.asarray(task.test_labels)))


def _line(row):
    text = (
        f"{row['features']:<12} {row['ipc']:>3} a class  teacher {100 * row['teacher']:.2f}  exact "
        f"{100 * row['exact']:.2f}  differ {row['differ']}  |W_S-W|/|W| {row['error']:.0e}  {row['seconds']:.1f} s"
    )
    if "kip" in row:
        ratio = row["kip_seconds"] / row["seconds"]
        text += (
            f"  KIP, {row['kip_steps']} steps {100 * row['kip']:.2f}  {row['kip_seconds']:.1f} s ({ratio:.1f} times)"
        )
    return text


if __name__ == "__main__":
    cli.run(main)
