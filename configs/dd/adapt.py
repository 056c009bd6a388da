"""DD from networks trained on other data: domain adaptation. Not run here but for ``cpu``.

python -m experiments.distill --config=configs/dd/adapt.py --workdir=runs/dd_adapt
python -m experiments.distill --config=configs/dd/adapt.py:cpu --workdir=runs/dd_adapt_cpu

Networks trained on KMNIST are turned to MNIST by 100 images: four of 200 at each step, tested on others of their kind
(arXiv:1811.10959, section 4.2, which has USPS, MNIST and SVHN). Variant ``fixed``: a single network, the one tested.
Variant ``cpu``: five small networks from Fashion-MNIST to the digits, ten images: 29.33 ± 1.44 % (n=5), random images
17.92 ± 4.50 % (n=20).
"""

from configs import common
from configs.dd import digits, mnist


def get_config(variant: str = ""):
    config = mnist.get_config()
    config.pretrain.update(name="kmnist", networks=200, steps=40 * 235, learning_rate=2e-4)
    config.pretrain.update(b1=0.5, halve_every=20 * 235)
    config.method.networks = 4
    return common.by_variant(config, variant, {"fixed": fixed, "cpu": cpu, "tiny": tiny})


def fixed(config):
    config.pretrain.networks = config.method.networks = 1


def cpu(config):
    small = digits.get_config("cpu")
    config.update(small)
    config.data.preprocess = {"kind": "standardize"}
    config.pretrain.update(name="fashion_mnist", networks=5, steps=500, learning_rate=1e-3)
    config.pretrain.update(b1=0.5, halve_every=250)
    config.method.networks = 2


def tiny(config):
    cpu(config)
    common.tiny_unrolled(config)
    config.pretrain.name = "digits"
