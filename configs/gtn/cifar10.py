"""GTN on CIFAR-10, 128 batches of 130 images. Not run here.

python -m experiments.distill --config=configs/gtn/cifar10.py --workdir=runs/gtn_cifar10

The program's setting (arXiv:1912.07768), batches of 130 for 128; a loss of 256 real images, cropped (4 pixels of black
padding) and mirrored, every 16 steps. Variants as for ``configs/gtn/mnist.py``.
"""

from configs import common
from configs.gtn import mnist


def get_config(variant: str = ""):
    config = mnist.get_config()
    config.data.name = "cifar10"
    config.data.preprocess = {"kind": "fixed", "constants": "cifar10_rcig"}
    config.model = {"name": "gtn_larger", "weight_norm": True}
    config.method.update(inner_steps=128, every=16, learning_rate=0.004, b2=0.9, eps=1e-5)
    config.init.ipc, config.batch.size = 13 * 128, 8 * 256
    config.augment.update(crop=4, crop_mode="constant", flip=True)
    return common.by_variant(config, variant, mnist.VARIANTS)
