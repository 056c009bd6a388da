"""One run: from a config to its folder, in compiled stretches, with checkpoints that it can go on from.

Several devices share the targets of each step, several processes act as one, several seeds are one program; a run that
is told to stop, or diverges, leaves what it can go on from.
"""

import contextlib
import functools
import math
import os
import time

import jax
import jax.numpy as jnp
import numpy as np

from experiments import build, inputs, interruption, report, run_folder
from kipjax import checks, data, kernels
from kipjax.core import loop, processes, sharding
from kipjax.io import artifact, checkpoint, log

__all__ = ["compiled", "run", "train"]

_LONG = 10**9
_TRAINING = "training data"


class _Clock:
    """Seconds of a run: those of the processes before, as their last checkpoint has them, and of this one."""

    def __init__(self):
        self.began, self.earlier = time.monotonic(), 0.0

    def seconds(self) -> float:
        return self.earlier + time.monotonic() - self.began


@processes.peers()
def run(config, workdir: str, *, resume: bool = False, overwrite: bool = False, on_divergence: str = "stop") -> None:
    """One experiment from its config to its run folder.

    Args:
      config: the experiment.
      workdir: the run folder.
      resume: go on from the last checkpoint.
      overwrite: delete the run that is in the folder.
      on_divergence: ``"stop"``, or ``"rollback"``: once, go back to the last checkpoint with half the learning rate.

    Raises:
      Diverged: a metric is not finite.
      Interrupted: the process was told to stop, be it before the first step or while the set is scored.
      PeerLost: another process is gone.
    """
    checks.one_of("experiments.distill", "on_divergence", on_divergence, ("stop", "rollback"))
    checks.require(not (resume and overwrite), "--overwrite", "cannot be combined with --resume; choose one")
    run_folder.check_schedule(config)
    if on_divergence == "rollback":
        build.require_rate(config)
    first = processes.is_first()
    flags = {"--resume": resume, "--overwrite": overwrite, "--on_divergence": on_divergence}
    with interruption.Watch() as watch:
        processes.agree("experiments.distill", flags | run_folder.common(config) | _versions())
        with run_folder.owned(workdir) if first else contextlib.nullcontext():
            if first:
                run_folder.prepare(workdir, config, resume=resume, overwrite=overwrite)
            clock = _Clock()
            experiment = _agreed(config)
            if first:
                run_folder.claim(workdir, config, overwrite=overwrite)
                _announce(config, experiment)
            processes.barrier("the run folder is there")
            options = {"clock": clock, "watch": watch}
            try:
                states, steps = train(config, experiment, workdir, resume=resume, **options)
            except interruption.Diverged as error:
                if on_divergence == "stop" or error.rolled_back:
                    raise
                if first:
                    print(f"{error}; going back to it once, with half the learning rate", flush=True)
                states, steps = train(config, experiment, workdir, resume=True, rolled_back=True, **options)
            if first:
                made = [report.artifact(config, experiment, *pair, steps) for pair in zip(states, build.seeds(config))]
                report.write(workdir, made, experiment, config, seconds=clock.seconds())
            processes.barrier("the results are written")


def _agreed(config):
    """The experiment, once each process has found that it can be run and that all have the same."""
    experiment = build.experiment(config)
    report.check(config, experiment)
    build.rehearse(config, experiment)
    if jax.process_count() > 1:
        made = {"preprocessing": experiment.preprocess, "starting set": [tuple(start) for start in experiment.starts]}
        found = _read(config, experiment) | {name: checkpoint.checksum(tree) for name, tree in made.items()}
        processes.agree("experiments.distill", {f"{name} (checksum)": value for name, value in found.items()})
    return experiment


def _versions():
    """Of what computes: other versions may draw other numbers."""
    return {f"version of {module.__name__}": module.__version__ for module in (jax, np)}


def _read(config, experiment):
    """Checksums of all that was read from folders, where other files may lie under the same names.

    What is computed from them, such as networks trained before the run, differs by rounding from machine to machine.
    """
    dataset, init, pretrain = experiment.dataset, config.init, config.pretrain
    found = {
        _TRAINING: report.fingerprint(dataset),
        "test data": artifact.fingerprint(dataset.x_test, dataset.y_test),
    }
    if init.base:
        found["images to start from"] = report.fingerprint(inputs.foreign_data(config, init.base, init.base_dir))
    if pretrain.name:
        of_networks = inputs.foreign_data(config, pretrain.name, pretrain.data_dir)
        found["data that networks are pretrained on"] = report.fingerprint(of_networks)
    if config.batch.kind == "experts":
        found["experts"] = checkpoint.checksum(sharding.on_this_process(experiment.sample))
    return found


def compiled(config, experiment: build.Experiment, count: int):
    """The program of ``count`` steps, compiled where the data set lies on devices; the state is donated.

    The data set is an argument of it. With several seeds, keys and states have a leading axis.

    Raises:
      InputError: it needs more memory than there is (with data on the host, said by its first step).
    """
    if isinstance(experiment.sample, data.streaming.Streamed):
        return loop.streamed(experiment.method, count, experiment.mesh, inspect=_require_memory)
    run = loop.steps(experiment.method, count)
    run = jax.vmap(run, in_axes=(None, 0, 0, None)) if config.num_seeds > 1 else run
    keys, state = jax.eval_shape(lambda: (_run_keys(config), _first_states(config, experiment)))
    program = jax.jit(run, donate_argnums=2, out_shardings=sharding.everywhere(experiment.mesh))
    program = program.lower(experiment.sample, *_placed((keys, state), experiment.mesh), jnp.asarray(0)).compile()
    _require_memory(program)
    return program


def _require_memory(program):
    """What a program works with must fit beside its arguments, which are there already."""
    plan, free = program.memory_analysis(), sharding.free_memory()
    need = plan.output_size_in_bytes + plan.temp_size_in_bytes if plan else 0
    checks.require(
        free is None or need <= free,
        "experiments.distill",
        f"a step needs {checks.size_text(need)} of memory and {checks.size_text(free or 0)} are free; lower "
        "--config.batch.size, or --config.method.block_size where the method has it",
    )


def train(
    config,
    experiment: build.Experiment,
    workdir: str,
    *,
    resume: bool,
    chunk=None,
    rolled_back: bool = False,
    clock=None,
    watch=None,
):
    """Steps from the start, or from the last checkpoint, to ``config.steps``.

    A method that says ``stopped`` in its Info, as RFAD does once its validation loss no longer falls, ends the run.
    ``chunk(count)`` gives the program of ``count`` steps, of which a run needs one, or two for a shorter last stretch.
    The seconds so far, by ``clock``, go into each checkpoint. ``watch`` hears whether the process is told to stop.

    Returns:
      ``(states, steps)``: the final state of each seed, and how many steps were taken in all.

    Raises:
      Diverged: a metric is not finite.
      Interrupted: the process was told to stop; the state is saved.
      PeerLost: another process is gone.
    """
    read, over, clock = _read(config, experiment), experiment.mesh, clock or _Clock()
    first, watch = processes.is_first(), watch or interruption.Watch()
    with (
        watch.deferred(),
        checkpoint.open(os.path.join(workdir, "checkpoints"), keep=config.checkpoints_kept) as checkpoints,
        log.MetricsLog(os.path.join(workdir, "metrics.jsonl")) if first else contextlib.nullcontext() as metrics,
    ):
        template = jax.eval_shape(functools.partial(_first_states, config, experiment))
        restored = checkpoints.restore(template) if resume else None
        if restored:
            _require_continues(restored, config, read)
            watch.saved = restored.step
            if not rolled_back:  # else the checkpoint is of this very process
                clock.earlier = float(restored.extra.get("seconds", 0))
        rolled_back = rolled_back or bool(restored and restored.extra.get("rolled_back"))
        keys = _run_keys(config)
        step, state = (restored.step, restored.state) if restored else (0, _first_states(config, experiment))
        if jax.process_count() > 1:
            processes.agree("experiments.distill", {"step": step, "state (checksum)": checkpoint.checksum(state)})
        keys, state = (sharding.on_every_device(tree, over) for tree in (keys, state))
        if rolled_back:
            experiment = build.slower(config, experiment, 0.5)
        chunk = chunk or functools.cache(functools.partial(compiled, config, experiment))
        if first:
            metrics.truncate(step)
        if resume and first:
            print(f"resuming at step {step} of {config.steps}" if restored else "no checkpoint yet; starting anew")
        extra = {"read": read, "rolled_back": rolled_back}
        stopped = bool(restored and restored.extra.get("stopped"))
        watch.require_untold()
        with log.Progress(config.steps, start=step) if first else contextlib.nullcontext() as progress:
            while step < config.steps and not stopped:
                count = min(config.log_every - step % config.log_every, config.steps - step)
                with processes.peers():
                    state, infos = chunk(count)(experiment.sample, keys, state, jnp.asarray(step))
                    infos = {name: np.asarray(values) for name, values in infos._asdict().items()}
                    watch.after(count, config.log_every)
                _require_finite(_first_not_finite(config, infos, step), config, checkpoints, rolled_back)
                line = {name: float(np.mean(values)) for name, values in infos.items()}
                step += count
                stopped = line.get("stopped") == 1
                if config.eval_every and step % config.eval_every == 0:
                    line["test_accuracy"] = report.test_accuracy(config, experiment, _each(config, state)[0])
                if first:
                    metrics.append(step, line)
                    progress.update(step, line)
                told = watch.told()
                if step % config.checkpoint_every == 0 or step == config.steps or stopped or told:
                    bad = _health(config, experiment, state, step)
                    _require_finite(bad, config, checkpoints, rolled_back, updated=True)
                    saved = extra | {"stopped": stopped, "seconds": clock.seconds()}
                    checkpoints.save(step, sharding.on_this_process(state), saved)
                    watch.saved = step
                if told:
                    checkpoints.wait()
                    raise interruption.Interrupted(step, together=True)
        if stopped and first:
            print(f"stopped at step {step}: {config.method.name} has found no better set for long enough")
    return _each(config, state), step


def _run_keys(config):
    """The key of the steps, or those of all seeds."""
    keys = jnp.stack([jax.random.split(jax.random.key(seed))[0] for seed in build.seeds(config)])
    return keys if config.num_seeds > 1 else keys[0]


def _first_states(config, experiment):
    """The method's state before the first step, or those of all seeds, stacked."""
    keys = [jax.random.split(jax.random.key(seed))[1] for seed in build.seeds(config)]
    if config.num_seeds == 1:
        return jax.jit(experiment.method.init)(keys[0], experiment.start)
    starts = jax.tree.map(lambda *leaves: jnp.stack(leaves), *experiment.starts)
    return jax.jit(jax.vmap(experiment.method.init))(jnp.stack(keys), starts)


def _each(config, state):
    """The states of the seeds, on this process."""
    state = sharding.on_this_process(state)
    if config.num_seeds == 1:
        return [state]
    return [jax.tree.map(lambda leaf, i=i: leaf[i], state) for i in range(config.num_seeds)]


def _first_not_finite(config, infos, step):
    """Which metrics ``[(seeds,) steps]`` are not finite, in the first step after ``step`` that has any; or nothing."""
    bad = {name: ~np.isfinite(values).reshape(config.num_seeds, -1) for name, values in infos.items()}
    anywhere = np.any(list(bad.values()), axis=0)
    if not anywhere.any():
        return ""
    at = int(anywhere.any(axis=0).argmax())
    names = [name for name, where in bad.items() if where[:, at].any()]
    return f"{', '.join(names)} not finite at step {step + at + 1}{_of_seeds(config, anywhere[:, at])}"


def _health(config, experiment, state, step):
    """What of the states must not be saved as good ones: the sets, else what the next step would start from."""
    states = _each(config, state)
    sets = np.array([not _all_finite(experiment.method.distilled(one)[:2]) for one in states])
    if sets.any():
        return f"the distilled set not finite by step {step}{_of_seeds(config, sets)}"
    found = [_not_finite(one) for one in states]
    names = ", ".join(dict.fromkeys(name for some in found for name in some))
    return names and f"{names} not finite by step {step}{_of_seeds(config, map(bool, found))}"


def _of_seeds(config, chosen):
    """The chosen ones of several seeds, in words."""
    named = [str(seed) for seed, is_one in zip(build.seeds(config), chosen) if is_one]
    return f" of seed {', '.join(named)}" if config.num_seeds > 1 else ""


def _all_finite(tree):
    return all(np.isfinite(np.asarray(leaf)).all() for leaf in jax.tree.leaves(tree))


def _not_finite(state):
    """Names of the leaves with NaN or infinity; a single number, such as the best loss so far, may be infinite."""
    found = []
    for path, leaf in jax.tree.leaves_with_path(state):
        if hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.inexact):
            values = np.asarray(leaf)
            bad = ~np.isfinite(values) if values.size > 1 else np.isnan(values)
            found += ["state" + jax.tree_util.keystr(path)] * bool(bad.any())
    return found


def _placed(shapes, over):
    """Shapes that say they are on every device of the mesh."""
    where = sharding.everywhere(over)
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=where), shapes) if where else shapes


def _announce(config, experiment):
    """What a matrix of the targets' kernel will take, where that may be long; refused if memory does not suffice."""
    if build.trains_networks(config):
        return
    name, kernel_fn = report.test_kernel(build.kernel_spec(config))
    batch = jax.eval_shape(lambda key: loop.batch_at(experiment.sample, key, 0), jax.random.key(0))
    targets, support = batch.x, experiment.start.x
    pixel_pairs = len(support) * targets.shape[0] * math.prod(support.shape[1:3]) ** 2
    if getattr(kernel_fn, "backend", None) == "tiled" and pixel_pairs > _LONG:
        memory = sharding.free_memory()
        takes = kernels.batching.estimate(kernel_fn, targets.shape, support.shape, memory=memory)
        print(
            f"kernel {name}, {kernel_fn.backend} engine: {targets.shape[0]} x {len(support)} pairs take about "
            f"{checks.size_text(takes.bytes)} and {takes.seconds:.1f} s, in float32 and without the gradient",
            flush=True,
        )


def _require_continues(restored, config, read):
    """A checkpoint must be of a run that read the same, as far as it says so, and not past the end of this one."""
    checks.require(
        restored.step <= config.steps,
        "--resume",
        f"the last checkpoint is at step {restored.step} and config.steps is {config.steps}; raise it, or start anew",
    )
    before = restored.extra.get("read") or {_TRAINING: restored.extra.get("fingerprint")}
    other = [name for name in read if name in before and before[name] != read[name]]
    checks.require(
        not other,
        "--resume",
        f"the {' and the '.join(other)} are not those of the run so far; bring them back, or start anew",
    )


def _require_finite(bad, config, checkpoints, rolled_back, updated=False):
    """``bad`` says what is not finite and since when, if anything."""
    if bad:
        good = checkpoints.steps()
        raise interruption.Diverged(
            f"experiments.distill: {bad}; the last good checkpoint is {f'step {good[-1]}' if good else 'none'}. "
            f"Likely {interruption.likely_cause(build.method_options(config), updated=updated)}",
            rolled_back=rolled_back,
        )
