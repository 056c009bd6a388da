"""CIG on the embedded digits, 10 images (variant ``10``: 100), beside ``configs/rcig/digits.py``. Results: RESULTS.md.

python -m experiments.distill --config=configs/cig/digits.py --workdir=runs/cig_digits

The paper's comparison is on MNIST at 1, 10, 50 a class (arXiv:2302.06755, table 1): VIG 77.4, 90.2, 91.4; CIG 69.2,
95.4, 95.8; RCIG 94.8, 98.9, 99.2 %; random subsets 62.7, 93.2, 97.8 %.
"""

from configs import common
from configs.rcig import digits


def get_config(variant: str = ""):
    config = digits.get_config("10" if variant == "10" else "")
    config.method = common.method("cig")
    return common.by_variant(config, variant, {"10": lambda config: None, "tiny": common.tiny_networks})
