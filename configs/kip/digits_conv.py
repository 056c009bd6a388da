"""KIP on digits (8 x 8) with convolutional kernels, 10 images.

python -m experiments.distill --config=configs/kip/digits_conv.py --workdir=runs/kip_digits_convnet

The kernel is that of three (conv, ReLU, 2x2 average pooling), as in arXiv:2107.13034, or Myrtle-5 (``:myrtle``).
"""

from configs import common
from configs.kip import digits


def get_config(variant: str = ""):
    config = digits.get_config()
    config.kernel.name = "convpool3"
    config.batch.size = 200
    config.steps = 200
    config.log_every, config.eval_every = 20, 0
    config.evaluation.full_size = 0
    return common.by_variant(config, variant, {"tiny": tiny, "myrtle": myrtle})


def myrtle(config):
    config.kernel.name = "myrtle5"


def tiny(config):
    digits.tiny(config)
    config.steps, config.batch.size = 4, 20
    config.evaluation.update(seeds=1, full_size=0)
