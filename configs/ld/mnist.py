"""LD on MNIST, ridge form, LeNet, 100 images. Paper: 87.9 % (second order 87.3 %), true labels 82.1 %. Not run here.

python -m experiments.distill --config=configs/ld/mnist.py --workdir=runs/ld_mnist
python -m experiments.distill --config=configs/ld/mnist.py:second_order --workdir=runs/ld_mnist_second_order
python -m experiments.distill --config=configs/ld/mnist.py:cross --workdir=runs/ld_mnist_cross

The paper's setting (arXiv:2006.08572): 400 epochs of 49 batches of 1024, parts of 50 images; the labels are those of
the least error on 10,000 held-out training images, looked at every 5 epochs. ``true_labels`` is its
baseline, ``cross`` has images of KMNIST instead (the paper: EMNIST). Variant ``cpu``: batches of 256, 2000 steps.
Variants ``10``, ``20``, ``50``, ``200``, ``500``: so many images, with the paper's parts and epochs.
"""

from configs import common


def get_config(variant: str = ""):
    config = common.networks("ld")
    config.data.name = "mnist"
    config.data.preprocess = {"kind": "fixed", "constants": "mnist"}
    config.model = {"name": "lenet", "initial": "torch"}
    config.init.update(ipc=10, centered=False)
    config.batch.size, config.steps = 1024, 400 * 49
    config.log_every, config.checkpoint_every = 100, 1000
    config.validation_ipc, config.validation_held_out = 1000, True
    config.evaluation.update(protocol="ld", arch="", seeds=20, subset_seeds=20)
    return common.by_variant(config, variant, VARIANTS)


def second_order(config):
    config.method.form = "second_order"


def true_labels(config):
    config.method.learn_labels = False


def cross(config):
    config.init.base = "kmnist"


def cpu(config):
    """Looks at 1,000 held-out images."""
    config.batch.size, config.steps = 256, 2000
    config.validation_ipc = min(config.validation_ipc, 100)


def second_order_cpu(config):
    second_order(config)
    cpu(config)


def true_labels_cpu(config):
    true_labels(config)
    cpu(config)


def tiny(config):
    common.tiny_unrolled(config)
    config.validation_ipc, config.method.validate_every = 2, 2


def size(count, part, epochs_factor=1):
    """A variant: ``count`` images, of which a step takes ``part``, and so many times the epochs."""

    def change(config):
        config.init.ipc, config.method.batch_size = count // 10, part
        config.steps *= epochs_factor

    return change


VARIANTS = {
    "10": size(10, 10),
    "20": size(20, 10),
    "50": size(50, 25),
    "200": size(200, 50, 2),
    "500": size(500, 50, 2),
    "second_order": second_order,
    "true_labels": true_labels,
    "cross": cross,
    "cpu": cpu,
    "second_order_cpu": second_order_cpu,
    "true_labels_cpu": true_labels_cpu,
    "tiny": tiny,
}
