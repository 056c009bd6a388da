"""Label Solve on digits, FC1 NTK, 50 images.

python -m experiments.distill --config=configs/label_solve/digits.py --workdir=runs/ls_digits
"""

from configs import common


def get_config(variant: str = ""):
    config = common.base()
    config.method = common.method("label_solve")
    config.init.ipc = 5
    config.batch.kind = "all"
    config.steps = config.log_every = config.checkpoint_every = 1
    return common.by_variant(config, variant, {"tiny": tiny})


def tiny(config):
    config.init.ipc = 1
    config.evaluation.update(seeds=2, full_size=50)
