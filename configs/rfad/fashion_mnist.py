"""RFAD on Fashion-MNIST, 1, 10 or 50 images per class. Paper: 78.6 ± 1.3, 87.0 ± 0.5, 88.8 ± 0.4 %. Not run.

python -m experiments.distill --config=configs/rfad/fashion_mnist.py --workdir=runs/rfad_fashion_mnist

The authors' program: eight fresh networks of width 256 at every step, 5120 uniformly drawn targets. It stops early by a
loss on training images; here the number of steps is fixed.
"""

from configs import common


def get_config(variant: str = ""):
    config = common.networks("rfad")
    config.data.name = "fashion_mnist"
    config.model.update(name="rfad_convnet", width=256)
    config.evaluation.update(protocol="rfad", arch="rfad_convnet", width=1024)
    config.batch.size = 5120
    config.steps = 10_000
    return common.by_variant(config, variant, {"10": common.ipc(10), "50": common.ipc(50), "cpu": cpu, "tiny": tiny})


def cpu(config):
    """Width 32, 500 targets, 1000 steps."""
    config.model.width = config.evaluation.width = 32
    config.batch.size = 500
    config.steps = 1000


def tiny(config):
    common.tiny_networks(config)
    config.evaluation.protocol = "rcig"
