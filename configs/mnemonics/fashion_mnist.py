"""Exemplars of Fashion-MNIST for a network that was trained on it: Mnemonics' exemplar level by itself.

python -m experiments.distill --config=configs/mnemonics/fashion_mnist.py --workdir=runs/mnemonics_fashion

The paper learns exemplars phase after phase (configs/continual/); this is one phase with all classes. Not run here.
"""

from configs import common
from configs.mnemonics import digits


def get_config(variant: str = ""):
    config = digits.get_config()
    config.data.name = config.pretrain.name = "fashion_mnist"
    config.data.preprocess = {"kind": "fixed", "constants": "fashion_mnist"}
    config.init.ipc = 10
    return common.by_variant(config, variant, {"tiny": digits.tiny})
