"""DD on Fashion-MNIST with LeNet, the setting of MNIST. The paper has no such row.

python -m experiments.distill --config=configs/dd/fashion_mnist.py:fixed_cpu --workdir=runs/dd_fashion_fixed
python -m experiments.distill --config=configs/dd/fashion_mnist.py:cpu --workdir=runs/dd_fashion

Variants ``fixed`` and ``cpu`` as for MNIST; ``fixed_cpu`` is both. Ours, 6000 steps and halved every 600: random starts
66.87 ± 3.06 (n=200), ``fixed`` 66.88 %, random subsets 60.82 ± 3.59 and 17.11 ± 5.99 % (n=20).
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
