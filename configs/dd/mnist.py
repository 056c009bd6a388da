"""DD on MNIST. Paper: fixed LeNet, 100 images 96.6 %; random LeNets, 100 images 79.5 ± 8.1 % (n=200). Not run here.

python -m experiments.distill --config=configs/dd/mnist.py --workdir=runs/dd_mnist
python -m experiments.distill --config=configs/dd/mnist.py:fixed --workdir=runs/dd_mnist_fixed

The program's setting (arXiv:1811.10959): ten batches of ten, three epochs, 400 epochs of 59 batches of 1024, the rate
halved every 40. Variant ``fixed``: one network, ten images, one batch. Variant ``cpu``: batches of 256, 600 steps.
"""

from configs import common


def get_config(variant: str = ""):
    config = common.unrolled("dd")
    config.data.name = "mnist"
    config.data.preprocess = {"kind": "fixed", "constants": "mnist"}
    config.method.halve_every = 40 * 59
    config.init.update(kind="noise", std=1.0, ipc=10)
    config.batch.size = 1024
    config.steps, config.evaluation.seeds = 400 * 59, 200
    config.log_every, config.checkpoint_every = 100, 1000
    return common.by_variant(config, variant, {"fixed": fixed, "cpu": cpu, "tiny": common.tiny_unrolled})


def fixed(config):
    config.method.update(start="fixed", inner_steps=1)
    config.init.ipc, config.evaluation.subset_seeds = 1, 20


def cpu(config):
    config.batch.size, config.steps, config.evaluation.seeds = 256, 600, 20
    config.method.halve_every, config.checkpoint_every = 150, 300
