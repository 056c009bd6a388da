"""RFAD on CIFAR-100, 1 or 10 images per class. Paper: 26.3 ± 1.1, 33.0 ± 0.3 %. Not run.

python -m experiments.distill --config=configs/rfad/cifar100.py --workdir=runs/rfad_cifar100

As ``configs/rfad/cifar10.py``, with 100 images of each class to validate on (arXiv:2210.12067).
"""

from configs.rfad import cifar10


def get_config(variant: str = ""):
    config = cifar10.get_config(variant, counts=(10,))
    config.data.name = "cifar100"
    config.validation_ipc = min(config.validation_ipc, 100)
    return config
