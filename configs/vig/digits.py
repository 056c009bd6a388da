"""VIG: implicit gradients of the network itself, on the embedded digits. Results: RESULTS.md.

python -m experiments.distill --config=configs/vig/digits.py --workdir=runs/vig_digits

All as in ``configs/cig/digits.py``, variants and the paper's figures included.
"""

from configs.cig import digits


def get_config(variant: str = ""):
    config = digits.get_config(variant)
    config.method.name = "vig"  # the same arguments, other predictions
    return config
