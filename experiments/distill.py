"""Distils a data set with any method.

python -m experiments.distill --config=configs/kip/digits.py --workdir=RUN [--config.FIELD=VALUE ...] [--resume]
    [--coordinator=HOST:PORT --num_processes=N --process_id=I]

The run folder holds config.json, metrics.jsonl, checkpoints/, distilled.npz (the artifact), distilled.png, labels.png
where labels were learned, and summary.json.
"""

from absl import flags
from ml_collections import config_flags

from experiments import cli, trainer
from kipjax import checks
from kipjax.core import processes

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file("config", None, "The experiment: FILE.py or FILE.py:VARIANT.", lock_config=True)
flags.DEFINE_string("workdir", None, "The run folder.")
flags.DEFINE_bool("resume", False, "Go on from the last checkpoint in the run folder.")
flags.DEFINE_bool("overwrite", False, "Delete a run that is in the run folder and start anew.")
flags.DEFINE_enum(
    "on_divergence",
    "stop",
    ["stop", "rollback"],
    "Or go back to the last checkpoint once, with half the learning rate.",
)
flags.DEFINE_string("coordinator", None, "With several processes: HOST:PORT of the first; 'auto' where JAX can tell.")
flags.DEFINE_integer("num_processes", None, "How many there are.")
flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")
flags.mark_flags_as_required(["config", "workdir"])


def main() -> None:
    counted = FLAGS.num_processes is not None or FLAGS.process_id is not None
    if FLAGS.coordinator == "auto":
        checks.require(not counted, "--coordinator", "auto finds the other two out; leave them, or give HOST:PORT")
        processes.start()
    elif FLAGS.coordinator or counted:
        processes.start(FLAGS.coordinator, FLAGS.num_processes, FLAGS.process_id)
    trainer.run(
        FLAGS.config,
        FLAGS.workdir,
        resume=FLAGS.resume,
        overwrite=FLAGS.overwrite,
        on_divergence=FLAGS.on_divergence,
    )


if __name__ == "__main__":
    cli.run(main)
