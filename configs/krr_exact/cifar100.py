"""Exact distillation on CIFAR-100: the regressor of the training set from 1, 10 or 50 images a class. Not run here.

python -m experiments.distill --config=configs/krr_exact/cifar100.py --workdir=runs/krr_exact_cifar100
python -m experiments.distill --config=configs/krr_exact/cifar100.py:leaky,10 --workdir=runs/krr_exact_cifar100_leaky_10

The paper (NeurIPS 2024, table 3): linear 14.37 at 1, 10 and 50 a class, LeakyReLU network 21.41, 21.52, 21.49,
Fourier 18.70, 18.69, 18.57 %. Variants as in ``digits.py``, and ``10`` and ``50``.
"""

from configs.krr_exact import fashion_mnist


def get_config(variant: str = ""):
    config = fashion_mnist.get_config(variant)
    config.data.name = "cifar100"
    return config
