"""Coresets of Fashion-MNIST by a ConvNet trained on all of it, 1, 10 or 50 images a class (--config.init.ipc).

python -m experiments.distill --config=configs/network_coreset/fashion_mnist.py --workdir=runs/network_herding_1

The papers' networks are of width 128; this one is of width 32. Their results, ConvNets trained on 1 / 10 / 50 a class:
random 51.4 / 73.8 / 82.5, herding 67.0 / 71.1 / 71.9, farthest-first centres 66.9 / 54.7 / 68.3, forgetting 42.0 / 53.9
/ 55.0 % (arXiv:2006.05929). Ours, 3 epochs on the first 20,000 images, n=3 networks: herding 66.35 ±
2.33 / 76.33 ± 0.34 / 82.94 ± 0.24, centres 66.35 ± 2.33 / 57.36 ± 2.09, forgetting 14.62 ± 1.49 / 29.21 ± 1.63 %.
"""

from configs import common
from configs.network_coreset import digits


def get_config(variant: str = ""):
    config = digits.get_config()
    config.data.name = "fashion_mnist"
    config.data.preprocess = {"kind": "fixed", "constants": "fashion_mnist"}
    return common.by_variant(config, variant, {"tiny": digits.tiny})
