"""GTN on Fashion-MNIST, the setting of MNIST. The paper has no such row.

python -m experiments.distill --config=configs/gtn/fashion_mnist.py:cpu --workdir=runs/gtn_fashion_mnist
python -m experiments.distill --config=configs/gtn/fashion_mnist.py:noise_cpu --workdir=runs/gtn_fashion_mnist_noise

Variants as for ``configs/gtn/mnist.py``. Ours, 160 images (``--config.init.ipc=16``), 1500 steps, n=20: full curriculum
(``cpu``) 74.05 ± 1.62, without weight normalisation (``plain_cpu``) 72.72 ± 1.58, noise 63.90 ± 1.99, random images
62.01 to 66.80 %.
"""

from configs import common
from configs.gtn import mnist


def get_config(variant: str = ""):
    config = mnist.get_config()
    config.data.name = "fashion_mnist"
    config.data.preprocess = {"kind": "fixed", "constants": "fashion_mnist"}
    return common.by_variant(config, variant, mnist.VARIANTS)
