"""VIG: implicit gradients of the network itself, on Fashion-MNIST, 10 images. 250 steps: RESULTS.md.

python -m experiments.distill --config=configs/vig/fashion_mnist.py --workdir=runs/vig_fashion_mnist

The paper has it on MNIST alone: 77.4 % at one image per class (arXiv:2302.06755, table 1).
"""

from configs.cig import fashion_mnist


def get_config(variant: str = ""):
    config = fashion_mnist.get_config(variant)
    config.method.name = "vig"  # the same arguments, other predictions
    return config
