"""SLDD on MNIST. Paper: fixed LeNet 98.6 %, random LeNets 82.7 ± 2.8 %, 100 images. Not run here.

python -m experiments.distill --config=configs/sldd/mnist.py --workdir=runs/sldd_mnist
python -m experiments.distill --config=configs/sldd/mnist.py:fixed --workdir=runs/sldd_mnist_fixed

The program's setting (arXiv:1910.02551): as DD's, 350 epochs, the rate halved every 35, first step size 0.01, labels
free. Variants as for ``configs/dd/mnist.py``.
"""

from configs import common
from configs.dd import mnist


def get_config(variant: str = ""):
    config = mnist.get_config()
    config.method = common.method("sldd", halve_every=35 * 59)
    config.steps = 350 * 59
    return common.by_variant(config, variant, {"fixed": mnist.fixed, "cpu": mnist.cpu, "tiny": common.tiny_unrolled})
