"""Label Solve on CIFAR-10, FC1 NTK, 500 images, 50,000 targets (the authors' notebook: 0.3211 -> 0.4699).

python -m experiments.distill --config=configs/label_solve/cifar10.py --workdir=runs/ls_cifar10

The variant ``myrtle`` is the Myrtle-10 NNGP + ZCA row of arXiv:2011.00050, Table 2 (31.7 ± 0.2 at 10 images, 56.0 ±
0.5 at 100); its pooling kernels want an accelerator. Our result: not run.
"""

from configs import common
from configs.label_solve import digits


def get_config(variant: str = ""):
    config = digits.get_config()
    config.data.name = "cifar10"
    config.init.ipc = 50
    return common.by_variant(config, variant, {"tiny": digits.tiny, "myrtle": myrtle})


def myrtle(config):
    """Myrtle-10 NNGP on regularised-ZCA images, 100 images."""
    config.kernel = {"name": "myrtle10", "kind": "nngp", "b_std": 0.1}
    config.data.preprocess = {"kind": "zca"}
    config.init.ipc = 10
    config.method.block_size = 20
    config.evaluation.update(full_size=0, block_size=20, dtype="float32")
