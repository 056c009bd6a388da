"""KIP, digits (8 x 8, embedded), FC1 NTK, 10 images. The demo.

python -m experiments.distill --config=configs/kip/digits.py --workdir=runs/kip_digits
"""

from configs import common


def get_config(variant: str = ""):
    config = common.base()
    config.method.learning_rate = 0.04
    config.batch.size = 1000
    config.steps = 2000
    config.log_every = 100
    config.eval_every = 500
    return common.by_variant(config, variant, {"tiny": tiny})


def tiny(config):
    config.steps, config.log_every, config.eval_every, config.checkpoint_every = 6, 2, 0, 4
    config.batch.size = 50
    config.evaluation.update(seeds=2, full_size=100)
