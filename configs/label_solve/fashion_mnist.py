"""Label Solve on Fashion-MNIST with all 60,000 targets, FC1 NTK: arXiv:2011.00050, Figure 2 (a curve, no table).

python -m experiments.distill --config=configs/label_solve/fashion_mnist.py --workdir=runs/ls_fashion_mnist
"""

from configs import common
from configs.label_solve import digits


def get_config(variant: str = ""):
    config = digits.get_config()
    config.data.name = "fashion_mnist"
    config.init.ipc = 50
    return common.by_variant(config, variant, {"tiny": digits.tiny})
