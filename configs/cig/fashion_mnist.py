"""CIG: RCIG without its reparameterisation, on Fashion-MNIST, 10 images. 250 steps: RESULTS.md.

python -m experiments.distill --config=configs/cig/fashion_mnist.py --workdir=runs/cig_fashion_mnist

The paper has it on MNIST alone: 69.2 % at one image per class (arXiv:2302.06755, table 1).
"""

from configs import common
from configs.rcig import fashion_mnist


def get_config(variant: str = ""):
    config = fashion_mnist.get_config("cpu" if variant == "cpu" else "")
    config.method = common.method("cig", learning_rate=config.method.learning_rate)
    return common.by_variant(config, variant, {"cpu": lambda config: None, "tiny": common.tiny_networks})
