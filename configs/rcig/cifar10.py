"""RCIG on CIFAR-10, 1, 10 or 50 images per class. Paper: 53.9 ± 1.0, 69.1 ± 0.4, 73.5 ± 0.3 %. Not run here.

python -m experiments.distill --config=configs/rcig/cifar10.py --workdir=runs/rcig_cifar10

Mirror images, and images whitened with a ridge of a tenth of the mean variance (arXiv:2302.06755, appendix).
"""

from configs import common
from configs.rcig import fashion_mnist


def get_config(variant: str = ""):
    config = fashion_mnist.get_config(variant if variant != "tiny" else "")
    config.data.name = "cifar10"
    config.data.preprocess = {"kind": "zca", "variant": "rcig", "constants": "cifar10_rcig"}
    config.method.flip = True
    return common.tiny_networks(config) if variant == "tiny" else config
