"""DC on MNIST, Fashion-MNIST, SVHN, CIFAR-10 and CIFAR-100 at 1, 10 or 50 images per class. At paper scale: not run.

python -m experiments.distill --config=configs/dc/images.py --workdir=runs/dc_fashion_mnist
python -m experiments.distill --config=configs/dc/images.py:cifar10,10 --workdir=runs/dc_cifar10_10
python -m experiments.distill --config=configs/dc/images.py:cpu,10 --workdir=runs/dc_fashion_mnist_10_cpu

The paper's setting (arXiv:2006.05929): noise N(0, 1), width 128, 1000 iterations, which are 1000, 10,000 and 50,000
steps here. Its test accuracies in percent at 1, 10, 50 a class: MNIST 91.7, 97.4, 98.8; Fashion-MNIST 70.5, 82.3, 83.6;
SVHN 31.2, 76.1, 82.3; CIFAR-10 28.3, 44.9, 53.9; CIFAR-100 12.8, 25.2 (50: not in the paper). ``cpu`` has 500 steps
from real images, a start that was taken after the test accuracy from noise in so few steps had been seen.
``configs/matching.py`` lists the words of a variant and the flags of the ablations.
"""

from configs import matching
from kipjax.methods import dc


def get_config(variant: str = ""):
    config = matching.base("dc")
    config.init.update(kind="noise", std=1.0)
    config.steps = 1000
    counts = {str(count): ipc(count) for count in (1, 10, 50)}
    return matching.words(config, variant, counts | {"cpu": cpu, "tiny": matching.tiny})


def ipc(count):
    """Images per class, and so many steps that they make 1000 iterations."""

    def change(config):
        config.init.ipc, config.steps = count, 1000 * dc.loops(count)[0]

    return change


def cpu(config):
    """500 steps from real images: from noise so few lose to random ones at 10 a class. Ten epochs between two steps."""
    matching.cpu(config)
    config.init.kind = "real"
    config.steps = 500
    config.method.inner = 10
