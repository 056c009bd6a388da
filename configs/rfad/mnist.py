"""RFAD on MNIST, 1, 10 or 50 images per class. Paper: 94.4 ± 1.5, 98.5 ± 0.1, 98.8 ± 0.1 %. Not run.

python -m experiments.distill --config=configs/rfad/mnist.py --workdir=runs/rfad_mnist

All as in ``configs/rfad/fashion_mnist.py``, variants included.
"""

from configs.rfad import fashion_mnist


def get_config(variant: str = ""):
    config = fashion_mnist.get_config(variant)
    config.data.name = "mnist"
    return config
