"""KIP on Fashion-MNIST with convolutional kernels, 10 images; for an accelerator.

python -m experiments.distill --config=configs/kip/fashion_mnist_conv.py --workdir=runs/kip_fashion_convnet

The kernel is that of three (conv, ReLU, 2x2 average pooling), as in arXiv:2107.13034, or Myrtle-5 (``:myrtle``).
"""

from configs import common
from configs.kip import digits_conv, fashion_mnist


def get_config(variant: str = ""):
    config = fashion_mnist.get_config()
    config.kernel.name = "convpool3"
    config.batch.size = 500
    config.steps = 1000
    config.evaluation.full_size = 0
    return common.by_variant(config, variant, {"tiny": digits_conv.tiny, "myrtle": digits_conv.myrtle})
