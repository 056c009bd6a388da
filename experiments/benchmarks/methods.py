"""Steps of methods: solvers of RCIG, exact distillation against KIP, matching against its arithmetic."""

import functools

from configs import common
from configs.dc import images as dc_config
from configs.dm import images as dm_config
from configs.dsa import images as dsa_config
from configs.krr_exact import fashion_mnist as exact_config
from configs.rcig import fashion_mnist as rcig_config
from experiments import build
from experiments.benchmarks import harness
from kipjax.methods import dc

__all__ = ["ROWS"]


def _outer_steps(solve, width, aim) -> harness.Row:
    """RCIG with an exact solver against 20 + 20 Adam steps, whose step sizes are found before the timing."""

    def steps(solve):
        config = rcig_config.get_config("cpu")
        config.model.width = width
        config.method.solve = solve
        return harness.scanned(build.experiment(config), max(1, harness.FLAGS.steps // 10))

    name = f"RCIG outer step, width {width}, 10 images, 256 targets, {solve} / adam"
    return harness.compare(name, "ms/step", steps(solve), steps("adam"), aim)


def _exact(ipc, features="leaky_net", kip_steps=30_000) -> harness.Row:
    """Exact distillation against KIP on the same features, whose time is that of its steps times those of the paper.

    5000 targets a step as in the authors' program, which besides solves labels for the whole training set at each.
    """
    config = exact_config.get_config()
    config.kernel = {"name": features}
    config.init.ipc = ipc
    exact = build.experiment(config)
    config.method = common.method("kip", learning_rate=0.01)
    config.batch.update(kind="class_balanced", size=5000)
    step = harness.scanned(build.experiment(config), max(1, harness.FLAGS.steps // 10))
    name = f"exact distillation, {features}, {ipc} a class / {kip_steps} KIP steps at the measured rate"
    return harness.compare(name, "ms", harness.scanned(exact, 1), lambda: kip_steps * step(), "reported")


def _matching(name, config, ipc, steps, aim) -> harness.Row:
    """An iteration of the paper (``steps`` steps of the method) against the arithmetic that it cannot avoid."""
    config = config.get_config(str(ipc))
    experiment = build.experiment(config)
    timed = harness.scanned(experiment, steps)
    operations = _matching_operations(name, config, experiment, steps)
    text = f"{name.upper()} iteration, width {config.model.width}, {ipc} a class / {operations / 1e9:.0f} GFLOP"
    return harness.compare(text, "ms", lambda: steps * timed(), harness.bound(operations), aim)


def _matching_operations(name, config, experiment, steps) -> float:
    """Floating-point operations of the convolutions and the last layer; a gradient has no use for that of the images.

    Per image, with the forward pass as unit: DM takes one for real images and two for synthetic ones; a gradient in the
    parameters takes three (the first layer two); its derivative in the images four more (three). The other work is
    linear in the size of the maps.
    """
    images, k = experiment.start.x, experiment.task.num_classes
    side, width, channels = images.shape[1], config.model.width, images.shape[3]
    side = side + 4 if channels == 1 else side
    first = 2 * side**2 * 9 * channels * width
    rest = sum(2 * (side // 2**i) ** 2 * 9 * width**2 for i in (1, 2)) + 2 * (side // 8) ** 2 * width * k
    real, synthetic = k * config.batch.size, len(images)
    if name == "dm":
        return steps * (real + 2 * synthetic) * (first + rest)
    gradient, second = 2 * first + 3 * rest, 5 * first + 7 * rest
    outer, inner = dc.loops(config.init.ipc)
    trained = steps * (outer - 1) / outer * inner * synthetic  # images in the network's training
    return (steps * real + trained) * gradient + steps * synthetic * second


ROWS: harness.Rows = {
    "rcig_dense": functools.partial(_outer_steps, "dense", 32, "< 1000 ms, adam < 2500 ms"),
    "rcig_cg": functools.partial(_outer_steps, "cg", 32, "reported"),
    "rcig_dense_128": functools.partial(_outer_steps, "dense", 128, "reported"),
    "rcig_cg_128": functools.partial(_outer_steps, "cg", 128, "reported"),
    **{f"exact_{ipc}": functools.partial(_exact, ipc) for ipc in (1, 10, 50)},
    "dc": functools.partial(_matching, "dc", dc_config, 1, 1, "< 10500 ms, aim 5250"),
    "dm": functools.partial(_matching, "dm", dm_config, 10, 1, "< 4200 ms, aim 2100"),
    "dsa": functools.partial(_matching, "dsa", dsa_config, 10, 10, "< 320000 ms, aim 160000"),
}
