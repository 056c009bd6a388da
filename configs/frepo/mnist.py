"""FRePo on MNIST, 1, 10 or 50 images per class. Paper: 93.0 ± 0.4, 98.6 ± 0.1, 99.2 ± 0.0 %. Not run.

python -m experiments.distill --config=configs/frepo/mnist.py --workdir=runs/frepo_mnist

All as in ``configs/frepo/fashion_mnist.py``, variants included.
"""

from configs.frepo import fashion_mnist


def get_config(variant: str = ""):
    config = fashion_mnist.get_config(variant)
    config.data.name = config.data.preprocess.constants = "mnist"
    return config
