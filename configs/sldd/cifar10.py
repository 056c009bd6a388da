"""SLDD on CIFAR-10, AlexCifarNet, 100 images. Paper: fixed 60.0 %, random 39.8 ± 0.8 %. Not run here.

python -m experiments.distill --config=configs/sldd/cifar10.py --workdir=runs/sldd_cifar10

The program's setting (arXiv:1910.02551): as DD's, 350 epochs, the rate halved every 35.
Variants as for ``configs/dd/cifar10.py``.
"""

from configs import common
from configs.dd import cifar10


def get_config(variant: str = ""):
    config = cifar10.get_config()
    config.method = common.method("sldd", step_size=0.001, halve_every=35 * 49, segment=1)
    config.steps = 350 * 49
    return common.by_variant(
        config, variant, {"fixed": cifar10.fixed, "cpu": cifar10.cpu, "tiny": common.tiny_unrolled}
    )
