"""FRePo on CIFAR-10, 1, 10 or 50 images per class. Paper: 46.8 ± 0.7, 65.5 ± 0.4, 71.7 ± 0.2 %. Not run.

python -m experiments.distill --config=configs/frepo/cifar10.py --workdir=runs/frepo_cifar10

As ``configs/frepo/fashion_mnist.py``, with mirror images and whitened (arXiv:2206.00719).
"""

from configs.frepo import fashion_mnist


def get_config(variant: str = "", counts=(10, 50)):
    config = fashion_mnist.get_config(variant, counts)
    config.data.name = "cifar10"
    config.data.preprocess = {"kind": "zca", "variant": "frepo", "constants": "cifar10_rcig"}
    config.method.flip = True
    return config
