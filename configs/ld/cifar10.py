"""LD on CIFAR-10, AlexCifarNet, ridge form, 100 images. Paper: 37.9 %, true labels 25.8 %. Not run here.

python -m experiments.distill --config=configs/ld/cifar10.py --workdir=runs/ld_cifar10

The paper's setting (arXiv:2006.08572). Variants as for ``configs/ld/mnist.py``; ``cross`` takes images of SVHN (the
paper: CUB).
"""

from configs import common
from configs.ld import mnist


def get_config(variant: str = ""):
    config = mnist.get_config()
    config.data.name = "cifar10"
    config.data.preprocess = {"kind": "fixed", "constants": "cifar10_rcig"}
    config.model = {"name": "alex_cifar", "initial": "torch"}
    config.steps, config.method.validate_every = 400 * 44, 5 * 44
    config.validation_ipc = 500
    return common.by_variant(config, variant, mnist.VARIANTS | {"cross": cross})


def cross(config):
    config.init.base = "svhn"
