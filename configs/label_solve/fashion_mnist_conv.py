"""Label Solve on Fashion-MNIST with the three-layer pooled ConvNet kernel, 10 images, 2,000 targets.

python -m experiments.distill --config=configs/label_solve/fashion_mnist_conv.py --workdir=runs/ls_fashion_convnet

The authors' label-solved sets with all 60,000 targets (arXiv:2107.13034) reach 65.30 / 80.84 / 86.85 % at 1 / 10 / 50
images per class; every 1,000 pairs take some seconds on two cores, so the targets are a sample here.

Our results, three layers with pooling, 2,000 targets, real images as they were drawn, one seed (n=1), JAX 0.10.2:
- 10 images: 65.44 % on all 10,000 test images; a random subset of 10 images 54.46 % (n=1).
- 100 images, --config.init.ipc=10 --config.data.test_size=2000: 76.15 % on the first 2,000 test images; a random subset
  of 100 images 67.30 % (n=1). About 25 minutes.
"""

from configs import common
from configs.label_solve import digits_conv


def get_config(variant: str = ""):
    config = digits_conv.get_config()
    config.data.name = "fashion_mnist"
    config.batch.update(kind="class_balanced", size=2000)
    config.method.dtype = config.evaluation.dtype = "float32"
    config.evaluation.update(seeds=1)
    return common.by_variant(config, variant, {"tiny": digits_conv.tiny, "myrtle": digits_conv.myrtle})
