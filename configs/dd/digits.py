"""DD on the embedded digits with a small ConvNet.

python -m experiments.distill --config=configs/dd/digits.py --workdir=runs/dd_digits
python -m experiments.distill --config=configs/dd/digits.py:fixed --workdir=runs/dd_digits_fixed

Ten images, one batch, five epochs. Variant ``fixed``: one fixed network instead of a fresh one at each step.
Variant ``cpu``: 1000 steps instead of 4000. Ours, variants ``fixed_cpu`` and ``cpu``: 66.94 (n=1) and 38.94 ± 7.39 %
(n=20), random subsets 25.88 ± 4.77 and 22.61 ± 5.58 % (n=20).
"""

from configs import common


def get_config(variant: str = ""):
    config = common.unrolled("dd")
    config.model = {"name": "convnet", "depth": 2, "width": 16, "initial": "xavier", "norm": "none"}
    config.method.update(inner_steps=1, epochs=5, halve_every=1000)
    config.init.update(kind="noise", std=1.0, ipc=1)
    config.batch.size, config.steps = 512, 4000
    config.log_every, config.checkpoint_every = 100, 1000
    variants = {"fixed": fixed, "cpu": cpu, "fixed_cpu": fixed_cpu, "tiny": common.tiny_unrolled}
    return common.by_variant(config, variant, variants)


def fixed(config):
    config.method.start = "fixed"


def cpu(config):
    config.steps, config.method.halve_every = 1000, 300


def fixed_cpu(config):
    fixed(config)
    cpu(config)
