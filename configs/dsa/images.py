"""DSA on MNIST, Fashion-MNIST, SVHN, CIFAR-10 and CIFAR-100 at 1, 10 or 50 images per class. At paper scale: not run.

python -m experiments.distill --config=configs/dsa/images.py --workdir=runs/dsa_fashion_mnist
python -m experiments.distill --config=configs/dsa/images.py:cifar10,10 --workdir=runs/dsa_cifar10_10
python -m experiments.distill --config=configs/dsa/images.py:cpu,10 --workdir=runs/dsa_fashion_mnist_10_cpu

The paper's setting (arXiv:2102.08259): as DC, from real images, siamese augmentation. Its test accuracies in percent at
1, 10, 50 a class: MNIST 88.7, 97.8, 99.2; Fashion-MNIST 70.6, 84.6, 88.7; SVHN 27.5, 79.2, 84.4; CIFAR-10 28.8, 52.1,
60.6; CIFAR-100 13.9, 32.3, 42.8. ``configs/matching.py`` lists the words of a variant and the flags of the ablations.
"""

from configs import matching
from configs.dc import images as dc_images


def get_config(variant: str = ""):
    config = matching.base("dsa")
    config.steps = 1000
    ipc = {str(count): dc_images.ipc(count) for count in (1, 10, 50)}
    return matching.words(config, variant, ipc | {"cpu": dc_images.cpu, "tiny": matching.tiny})
