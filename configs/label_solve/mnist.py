"""Label Solve on MNIST, FC1 NTK, 500 images, 60,000 targets: arXiv:2011.00050, Table 1 (94.4 ± 0.16).

python -m experiments.distill --config=configs/label_solve/mnist.py --workdir=runs/ls_mnist

Other supports of the table: 61.0 ± 0.28 at 10, 87.2 ± 0.71 at 100, 97.5 ± 0.06 at 5000 (--config.init.ipc=1, 10, 500).
Our result: not run.
"""

from configs import common
from configs.label_solve import digits


def get_config(variant: str = ""):
    config = digits.get_config()
    config.data.name = "mnist"
    config.init.ipc = 50
    return common.by_variant(config, variant, {"tiny": digits.tiny})
