"""FRePo on CIFAR-100, 1, 10 or 50 images per class. Paper: 28.7 ± 0.1, 42.5 ± 0.2, 44.3 ± 0.2 %. Not run.

python -m experiments.distill --config=configs/frepo/cifar100.py --workdir=runs/frepo_cifar100

As ``configs/frepo/fashion_mnist.py``, whitened; mirror images at 1 a class alone; labels start divided by sqrt(10)
(arXiv:2206.00719).
"""

from configs.frepo import fashion_mnist


def get_config(variant: str = "", counts=(10, 50)):
    config = fashion_mnist.get_config(variant, counts)
    config.data.name = "cifar100"
    config.data.preprocess = {"kind": "zca", "variant": "frepo", "constants": "cifar100"}
    config.method.flip = config.init.ipc == 1
    config.init.scale = 10**-0.5
    return config
