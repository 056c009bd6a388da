"""DD on Fashion-MNIST with LeNet, the setting of MNIST. The paper has no such row. Not run here.

python -m experiments.distill --config=configs/dd/fashion_mnist.py:fixed_cpu --workdir=runs/dd_fashion_fixed
python -m experiments.distill --config=configs/dd/fashion_mnist.py:cpu --workdir=runs/dd_fashion

Variants ``fixed`` and ``cpu`` as for MNIST; ``fixed_cpu`` is both.
"""

from configs import common
from configs.dd import mnist


def get_config(variant: str = ""):
    config = mnist.get_config()
    config.data.name = "fashion_mnist"
    config.data.preprocess = {"kind": "fixed", "constants": "fashion_mnist"}
    variants = {"fixed": mnist.fixed, "cpu": mnist.cpu, "fixed_cpu": fixed_cpu, "tiny": common.tiny_unrolled}
    return common.by_variant(config, variant, variants)


def fixed_cpu(config):
    mnist.cpu(config)
    mnist.fixed(config)
