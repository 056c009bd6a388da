"""SLDD on Fashion-MNIST with LeNet, the setting of MNIST. The paper has no such row. Not run here.

python -m experiments.distill --config=configs/sldd/fashion_mnist.py:fixed_cpu --workdir=runs/sldd_fashion_fixed

Variants as for ``configs/dd/fashion_mnist.py``.
"""

from configs import common
from configs.dd import fashion_mnist, mnist


def get_config(variant: str = ""):
    config = fashion_mnist.get_config()
    config.method = common.method("sldd", halve_every=35 * 59)
    config.steps = 350 * 59
    variants = {"fixed": mnist.fixed, "cpu": mnist.cpu, "fixed_cpu": fashion_mnist.fixed_cpu}
    return common.by_variant(config, variant, variants | {"tiny": common.tiny_unrolled})
