"""RFAD on SVHN, 1, 10 or 50 images per class (arXiv:2210.12067). Not run.

python -m experiments.distill --config=configs/rfad/svhn.py --workdir=runs/rfad_svhn

As ``configs/rfad/fashion_mnist.py``; images standardised, centred, of unit norm and whitened.
"""

from configs.rfad import fashion_mnist


def get_config(variant: str = ""):
    config = fashion_mnist.get_config(variant)
    config.data.name = "svhn"
    config.data.preprocess = {"kind": "zca", "variant": "rfad_svhn"}
    return config
