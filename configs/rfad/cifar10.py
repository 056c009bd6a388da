"""RFAD on CIFAR-10, 1, 10 or 50 images per class. Paper: 53.6 ± 1.2, 66.3 ± 0.5, 71.1 ± 0.4 %. Not run.

python -m experiments.distill --config=configs/rfad/cifar10.py --workdir=runs/rfad_cifar10

As ``configs/rfad/fashion_mnist.py``, whitened without subtracting a mean image (arXiv:2210.12067).
"""

from configs.rfad import fashion_mnist


def get_config(variant: str = "", counts=(10, 50)):
    config = fashion_mnist.get_config(variant, counts)
    config.data.name = "cifar10"
    config.data.preprocess = {"kind": "zca", "variant": "rfad"}
    return config
