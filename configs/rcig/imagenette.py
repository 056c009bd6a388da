"""RCIG on ImageNette, 128 x 128, 1 or 10 images per class. Paper: 53.0, 65.0 %. Not run here.

python -m experiments.distill --config=configs/rcig/imagenette.py --workdir=runs/rcig_imagenette

The paper's setting (arXiv:2302.06755, appendix): five blocks, ReLU, mirror images, a ridge of 0.05 an image, whitening
as a checkerboard of 64 x 64. Different from it: the inner problem is solved exactly, at 10 a class by conjugate
gradients; variant ``adam`` is the paper's.
For ImageWoof give its folder of class folders: ``--config.data.name=FOLDER``.
"""

from configs import common
from configs.rcig import cifar100


def get_config(variant: str = ""):
    config = common.networks("rcig")
    config.data.update(name="imagenette", image_size=128)
    config.data.preprocess = {"kind": "zca", "variant": "rcig", "constants": "imagenet", "stride": 2}
    config.method.update(flip=True, reg=5e-2, block_size=64)
    config.batch.size = 1024
    config.steps = 6000
    return common.by_variant(config, variant, {"10": ten, "adam": cifar100.adam, "tiny": common.tiny_networks})


def ten(config):
    config.init.ipc, config.steps = 10, 3000
    config.method.solve = "cg"
