"""Label Solve on MNIST, FC1 NTK, 500 images, 60,000 targets: arXiv:2011.00050, Table 1 (94.4 ± 0.16).

python -m experiments.distill --config=configs/label_solve/mnist.py --workdir=runs/ls_mnist

Other supports of the table: 61.0 ± 0.28 at 10, 87.2 ± 0.71 at 100, 97.5 ± 0.06 at 5000 (--config.init.ipc=1, 10, 500).
The variant ``myrtle`` is its Myrtle-5 NNGP row (95.44 ± 0.17 at 100; the NTK 95.53 ± 0.22), for an accelerator.
Our result: not run.
"""

from configs import common
from configs.label_solve import digits


def get_config(variant: str = ""):
    config = digits.get_config()
    config.data.name = "mnist"
    config.init.ipc = 50
    return common.by_variant(config, variant, {"tiny": digits.tiny, "myrtle": myrtle})


def myrtle(config):
    """Myrtle-5 NNGP, 100 images."""
    config.kernel = {"name": "myrtle5", "kind": "nngp", "b_std": 0.1}
    config.init.ipc = 10
    config.method.block_size = 20
    config.evaluation.update(full_size=0, block_size=20, dtype="float32")
