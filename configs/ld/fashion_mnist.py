"""LD on Fashion-MNIST, the setting of MNIST. The paper has no such row.

python -m experiments.distill --config=configs/ld/fashion_mnist.py:cpu --workdir=runs/ld_fashion
python -m experiments.distill --config=configs/ld/fashion_mnist.py:cross_cpu --workdir=runs/ld_fashion_cross

Variants as for ``configs/ld/mnist.py``, but ``cross``, and ``cross_cpu``, take images of the embedded digits. Ours,
``cpu`` 72.58 ± 0.78 and ``cross_cpu`` 58.56 ± 3.23 %, random images with true labels 66.10 ± 2.55;
``second_order_cpu`` 58.16 ± 1.06, after 19,600 steps 68.00 ± 0.53, against 67.64 ± 2.13 % (n=20).
"""

from configs import common
from configs.ld import mnist


def get_config(variant: str = ""):
    config = mnist.get_config()
    config.data.name = "fashion_mnist"
    config.data.preprocess = {"kind": "standardize"}
    return common.by_variant(config, variant, mnist.VARIANTS | {"cross": cross, "cross_cpu": cross_cpu})


def cross(config):
    config.init.base = "digits"


def cross_cpu(config):
    cross(config)
    mnist.cpu(config)
