"""RCIG on Tiny-ImageNet, 64 x 64, 1 or 10 images per class. Paper: 25.6 ± 0.3, 29.4 ± 0.2 %. Not run here.

python -m experiments.distill --config=configs/rcig/tiny_imagenet.py --config.data.data_dir=FOLDER --workdir=RUN

The paper's setting (arXiv:2302.06755, appendix): four blocks, ReLU, a ridge of 0.005 an image (the authors' configs
have 0.0005), mirror images at 1 a class; at 10 a class gradients through 500 images at a time, and networks scored with
augmentation, as in its table S3. Different from it: solved by conjugate gradients; variant ``adam`` is the paper's.
"""

from configs import common
from configs.rcig import cifar100


def get_config(variant: str = ""):
    config = common.networks("rcig")
    config.data.name = "tiny_imagenet"
    config.data.preprocess = {"kind": "zca", "variant": "rcig", "constants": "tiny_imagenet"}
    config.method.update(solve="cg", flip=True, block_size=128, reg=5e-3)
    config.batch.size = 1024
    config.steps = 5000
    return common.by_variant(config, variant, {"10": ten, "adam": cifar100.adam, "tiny": tiny})


def ten(config):
    config.init.ipc, config.steps = 10, 2000
    config.method.update(flip=False, subsample=500, pool_batch_size=500)
    config.evaluation.protocol = "rcig_aug"


def tiny(config):
    common.tiny_networks(config)
    config.method.cg_steps = 3
