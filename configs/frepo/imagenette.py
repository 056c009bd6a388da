"""FRePo on ImageNette, 128 x 128, 1 or 10 images per class. Paper: 48.1, 66.5 %. Not run.

python -m experiments.distill --config=configs/frepo/imagenette.py --workdir=runs/frepo_imagenette

As ``configs/frepo/cifar10.py``, whitened as a checkerboard of 64 x 64 (arXiv:2206.00719). For ImageWoof give its folder
of class folders: ``--config.data.name=FOLDER``.
"""

from configs.frepo import cifar10


def get_config(variant: str = ""):
    config = cifar10.get_config(variant, counts=(10,))
    config.data.name = "imagenette"
    config.data.image_size = config.data.image_size or 128
    config.data.preprocess = {"kind": "zca", "variant": "frepo", "constants": "imagenet", "stride": 2}
    return config
