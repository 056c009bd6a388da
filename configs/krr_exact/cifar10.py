"""Exact distillation on CIFAR-10: the regressor of the training set from 1, 10 or 50 images a class. Not run here.

python -m experiments.distill --config=configs/krr_exact/cifar10.py --workdir=runs/krr_exact_cifar10
python -m experiments.distill --config=configs/krr_exact/cifar10.py:leaky,10 --workdir=runs/krr_exact_cifar10_leaky_10

The paper (NeurIPS 2024, table 3): linear 39.48 at 1, 10 and 50 a class, LeakyReLU network 47.87, 47.84, 47.81, Fourier
42.84, 42.87, 42.73 %. Variants as in ``digits.py``, and ``10`` and ``50``.
"""

from configs.krr_exact import fashion_mnist


def get_config(variant: str = ""):
    config = fashion_mnist.get_config(variant)
    config.data.name = "cifar10"
    return config
