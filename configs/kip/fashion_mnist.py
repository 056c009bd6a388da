"""KIP on Fashion-MNIST, FC1 NTK, 10 images, images learned.

python -m experiments.distill --config=configs/kip/fashion_mnist.py --workdir=runs/kip_fashion_mnist

Reproduces: the setting of the FC1 KIP row of arXiv:2011.00050, Table 1 (which is on MNIST; the paper has no such
table for Fashion-MNIST). Learning rate 0.01, 6000 targets, lambda 1e-6 trace-scaled, b_std 0.1.
"""

from configs import common


def get_config(variant: str = ""):
    config = common.base()
    config.data.name = "fashion_mnist"
    config.method.learning_rate = 0.04
    config.method.decay_steps = -1
    config.steps = 5000
    config.batch.size = 6000
    config.log_every = 100
    config.eval_every = 1000
    config.checkpoint_every = 1000
    return common.by_variant(config, variant, {"tiny": tiny, "rbf": rbf, "notebook": notebook})


def rbf(config):
    """RBF kernel, 100 images, images and labels learned, 2000 steps."""
    config.kernel = {"name": "rbf", "gamma": 1.0}
    config.init.ipc = 10
    config.method.learn_labels = True
    config.method.learning_rate = 0.06
    config.steps = 2000


def notebook(config):
    """The settings of the authors' notebook: 100 images, 5000 targets, learning rate 0.04, 300 steps."""
    config.init.ipc = 10
    config.method.learning_rate = 0.04
    config.method.decay_steps = 0
    config.batch.size = 5000
    config.steps = 300
    config.log_every, config.eval_every, config.checkpoint_every = 20, 100, 100


def tiny(config):
    config.steps, config.log_every, config.eval_every, config.checkpoint_every = 4, 2, 4, 4
    config.batch.size = 100
    config.evaluation.update(seeds=2, full_size=100)
