"""FRePo on Tiny-ImageNet, 64 x 64, 1 or 10 images per class. Paper: 15.4 ± 0.3, 25.4 ± 0.2 %. Not run.

python -m experiments.distill --config=configs/frepo/tiny_imagenet.py --config.data.data_dir=FOLDER --workdir=RUN

As ``configs/frepo/cifar100.py``, with labels that start divided by sqrt(20) (arXiv:2206.00719).
"""

from configs.frepo import cifar100


def get_config(variant: str = ""):
    config = cifar100.get_config(variant, counts=(10,))
    config.data.name = config.data.preprocess.constants = "tiny_imagenet"
    config.init.scale = 20**-0.5
    return config
