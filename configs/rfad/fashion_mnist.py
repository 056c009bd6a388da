"""RFAD on Fashion-MNIST, 1, 10 or 50 images per class. Paper: 78.6 ± 1.3, 87.0 ± 0.5, 88.8 ± 0.4 %. Not run.

python -m experiments.distill --config=configs/rfad/fashion_mnist.py --workdir=runs/rfad_fashion_mnist

The authors' program: eight fresh networks of width 256 at every step, 5120 uniformly drawn targets, at most 100,000
steps; every 40 a look at 500 training images a class, and an end after 1000 steps without gain (arXiv:2210.12067).
Scored by networks of width 1024, and by ridge regression with the exact kernels that the random networks stand for.
"""

from configs import common


def get_config(variant: str = "", counts=(10, 50)):
    config = common.networks("rfad")
    config.data.name = "fashion_mnist"
    config.model.update(name="rfad_convnet", width=256)
    config.evaluation.update(protocol="rfad", arch="rfad_convnet", width=1024, reg=5e-3, full_size=0)
    config.evaluation.kernels = tuple({"name": "convpool3", "kind": kind, "b_std": 0.1} for kind in ("nngp", "ntk"))
    config.batch.size = 5120
    config.validation_ipc = 500
    config.steps = 100_000
    return common.by_variant(config, variant, common.ipcs(counts) | {"cpu": cpu, "tiny": tiny})


def cpu(config):
    """Width 32, 500 targets, 1000 steps."""
    config.model.width = config.evaluation.width = 32
    config.batch.size = 500
    config.validation_ipc = 100
    config.steps = 1000
    config.evaluation.kernels = ()


def tiny(config):
    common.tiny_networks(config)
    config.evaluation.protocol = "rcig"
    config.evaluation.kernels = ({"name": "fc1", "kind": "nngp"},)
    config.method.update(validate_every=2, validation_networks=2)
    config.validation_ipc = 2
