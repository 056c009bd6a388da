"""LD on CIFAR-100, AlexCifarNet, ridge form, 100 images. Paper: about 11.5 %, recalled. Not run here.

python -m experiments.distill --config=configs/ld/cifar100.py --workdir=runs/ld_cifar100

The paper's setting (arXiv:2006.08572): 800 epochs of 44 batches of 1024, all 100 images in each step. Variants as for
``configs/ld/mnist.py`` but for those of other sizes.
"""

from configs import common
from configs.ld import cifar10, mnist


def get_config(variant: str = ""):
    config = cifar10.get_config()
    config.data.name = "cifar100"
    config.init.ipc, config.method.batch_size, config.validation_ipc = 1, 100, 50
    config.steps = 800 * 44
    variants = {name: change for name, change in mnist.VARIANTS.items() if not name.isdigit()}
    return common.by_variant(config, variant, variants)
