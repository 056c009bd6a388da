"""Label Solve on Fashion-MNIST with all 60,000 targets, FC1 NTK: arXiv:2011.00050, Figure 2 (a curve, no table).

python -m experiments.distill --config=configs/label_solve/fashion_mnist.py --workdir=runs/ls_fashion_mnist

Our result with 500 images, test accuracy on all 10,000 test images: 84.43 ± 0.00 % (seeds 0-2, n=3); random subsets of
500 with their own labels 79.3 ± 0.1 % (n=3 means of 5 subsets). A run took 18 s on two cores.
"""

from configs import common
from configs.label_solve import digits


def get_config(variant: str = ""):
    config = digits.get_config()
    config.data.name = "fashion_mnist"
    config.init.ipc = 50
    return common.by_variant(config, variant, {"tiny": digits.tiny})
