"""Distils a data set with any method.

python -m experiments.distill --config=configs/kip/digits.py --workdir=RUN [--config.FIELD=VALUE ...] [--resume]

The run folder holds config.json, metrics.jsonl, checkpoints/, distilled.npz (the artifact), distilled.png, labels.png
where labels were learned, and summary.json.
"""

from absl import flags
from ml_collections import config_flags

from experiments import cli, trainer

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file("config", None, "The experiment: FILE.py or FILE.py:VARIANT.", lock_config=True)
flags.DEFINE_string("workdir", None, "The run folder.")
flags.DEFINE_bool("resume", False, "Go on from the last checkpoint in the run folder.")
flags.DEFINE_bool("overwrite", False, "Delete a run that is in the run folder and start anew.")
flags.mark_flags_as_required(["config", "workdir"])


def main() -> None:
    trainer.run(FLAGS.config, FLAGS.workdir, resume=FLAGS.resume, overwrite=FLAGS.overwrite)


if __name__ == "__main__":
    cli.run(main)
