"""Exact distillation on MNIST: the regressor of the training set from 1, 10 or 50 images a class. Not run here.

python -m experiments.distill --config=configs/krr_exact/mnist.py --workdir=runs/krr_exact_mnist
python -m experiments.distill --config=configs/krr_exact/mnist.py:leaky,10 --workdir=runs/krr_exact_mnist_leaky_10

The paper (NeurIPS 2024, table 3): linear 86.41 at 1, 10 and 50 a class, LeakyReLU network 93.89, 93.89, 93.85, Fourier
93.82 %. Variants as in ``digits.py``, and ``10`` and ``50``.
"""

from configs.krr_exact import fashion_mnist


def get_config(variant: str = ""):
    config = fashion_mnist.get_config(variant)
    config.data.name = "mnist"
    return config
