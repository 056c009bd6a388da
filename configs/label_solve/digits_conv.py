"""Label Solve on digits (8 x 8) with convolutional kernels, 10 images, all targets.

python -m experiments.distill --config=configs/label_solve/digits_conv.py --workdir=runs/ls_digits_convnet
python -m experiments.distill --config=configs/label_solve/digits_conv.py:myrtle --workdir=runs/ls_digits_myrtle

The kernel is that of three (conv, ReLU, 2x2 average pooling), as in arXiv:2107.13034 and 2210.12067, or Myrtle-5.
"""

from configs import common
from configs.label_solve import digits


def get_config(variant: str = ""):
    config = digits.get_config()
    config.init.ipc = 1
    config.kernel.name = "convpool3"
    config.evaluation.full_size = 0
    return common.by_variant(config, variant, {"tiny": tiny, "myrtle": myrtle, "myrtle_tiny": myrtle_tiny})


def myrtle(config):
    config.kernel.name = "myrtle5"


def tiny(config):
    digits.tiny(config)
    config.evaluation.update(seeds=1, full_size=0)
    config.batch.update(kind="uniform", size=20)


def myrtle_tiny(config):
    myrtle(config)
    tiny(config)
