"""LD on the embedded digits, 100 images. Not run here.

python -m experiments.distill --config=configs/ld/digits.py:cpu --workdir=runs/ld_digits
python -m experiments.distill --config=configs/ld/digits.py:cross_cpu --workdir=runs/ld_digits_cross

Variants as for ``configs/ld/mnist.py``, but ``cross``, and ``cross_cpu``, take images of Fashion-MNIST.
"""

from configs import common
from configs.ld import mnist


def get_config(variant: str = ""):
    config = mnist.get_config()
    config.data.name = "digits"
    config.data.preprocess = {"kind": "standardize"}
    config.model = {"name": "mlp", "width": 64}
    config.batch.size, config.validation_ipc = 512, 20
    return common.by_variant(config, variant, mnist.VARIANTS | {"cross": cross, "cross_cpu": cross_cpu})


def cross(config):
    config.init.base = "fashion_mnist"


def cross_cpu(config):
    cross(config)
    mnist.cpu(config)
