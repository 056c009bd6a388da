"""GTN on Fashion-MNIST, the setting of MNIST. The paper has no such row. Not run here.

python -m experiments.distill --config=configs/gtn/fashion_mnist.py:cpu --workdir=runs/gtn_fashion_mnist
python -m experiments.distill --config=configs/gtn/fashion_mnist.py:noise_cpu --workdir=runs/gtn_fashion_mnist_noise

Variants as for ``configs/gtn/mnist.py``.
"""

from configs import common
from configs.gtn import mnist


def get_config(variant: str = ""):
    config = mnist.get_config()
    config.data.name = "fashion_mnist"
    config.data.preprocess = {"kind": "fixed", "constants": "fashion_mnist"}
    return common.by_variant(config, variant, mnist.VARIANTS)
