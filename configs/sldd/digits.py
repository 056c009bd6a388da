"""SLDD on the embedded digits with a small ConvNet.

python -m experiments.distill --config=configs/sldd/digits.py --workdir=runs/sldd_digits

Variants as for ``configs/dd/digits.py``. Ours: ``fixed_cpu`` 61.39 (n=1), ``cpu`` 37.06 ± 6.81, 4000 steps
45.39 ± 7.37 % (n=20); random subsets 31.74 ± 5.61 and 31.94 ± 8.14 % (n=20).
"""

from configs import common
from configs.dd import digits


def get_config(variant: str = ""):
    config = digits.get_config()
    config.method = common.method("sldd", inner_steps=1, epochs=5, halve_every=1000)
    variants = {"fixed": digits.fixed, "cpu": digits.cpu, "fixed_cpu": digits.fixed_cpu, "tiny": common.tiny_unrolled}
    return common.by_variant(config, variant, variants)
