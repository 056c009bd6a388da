"""DM on MNIST, Fashion-MNIST, SVHN, CIFAR-10 and CIFAR-100 at 1, 10 or 50 images per class. At paper scale: not run.

python -m experiments.distill --config=configs/dm/images.py --workdir=runs/dm_fashion_mnist
python -m experiments.distill --config=configs/dm/images.py:cifar10,10 --workdir=runs/dm_cifar10_10
python -m experiments.distill --config=configs/dm/images.py:cpu,10 --workdir=runs/dm_fashion_mnist_10_cpu

The paper's setting (arXiv:2110.04181): real images, width 128, 20,000 steps. Its test accuracies in percent at 1, 10,
50 a class: MNIST 89.7, 97.5, 98.6; CIFAR-10 26.0, 48.9, 63.0; CIFAR-100 11.4, 29.7, 43.6 (others not in the paper).
``configs/matching.py`` lists the words of a variant and the flags of the ablations.
"""

from configs import common, matching


def get_config(variant: str = ""):
    config = matching.base("dm")
    config.steps = 20_000
    ipc = {str(count): common.ipc(count) for count in (1, 10, 50)}
    return matching.words(config, variant, ipc | {"cpu": cpu, "tiny": matching.tiny})


def cpu(config):
    """1000 steps, at four times the learning rate: a quarter of the features adds up to a quarter of the loss."""
    matching.cpu(config)
    config.steps = 1000
    config.method.learning_rate = 4.0
