"""Coresets of Fashion-MNIST in pixel space, 1, 10 or 50 images a class (--config.init.ipc).

python -m experiments.distill --config=configs/coreset/fashion_mnist.py --workdir=runs/herding_1
python -m experiments.evaluate --artifact=runs/herding_1/distilled.npz --protocol=krr --kernels=fc1:ntk
python -m experiments.evaluate --artifact=runs/herding_1/distilled.npz --protocol=dc

With ConvNets trained on them the papers report, at 1 / 10 / 50 a class and with features of a trained network
(``configs/network_coreset``): random 51.4 / 73.8 / 82.5, herding 67.0 / 71.1 / 71.9, farthest-first centres 66.9 / 54.7
/ 68.3, forgetting 42.0 / 53.9 / 55.0 %.
"""

from configs import common
from configs.coreset import digits


def get_config(variant: str = ""):
    config = digits.get_config()
    config.data.name = "fashion_mnist"
    return common.by_variant(config, variant, {"tiny": digits.tiny})
