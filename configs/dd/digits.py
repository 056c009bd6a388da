"""DD on the embedded digits with a small ConvNet.

python -m experiments.distill --config=configs/dd/digits.py --workdir=runs/dd_digits
python -m experiments.distill --config=configs/dd/digits.py:fixed --workdir=runs/dd_digits_fixed

Ten images, one batch, five epochs. Variant ``fixed``: one fixed network instead of a fresh one at each step.
Variant ``cpu``: 1000 steps instead of 4000. Variant ``attack``: an MLP in 2000 steps, for ``experiments.poison``.
Ours: ``fixed_cpu`` 66.94 (n=1), ``cpu`` 39.51 ± 7.20, 4000 steps 42.22 ± 7.59 % (n=20); random subsets 31.74 ± 5.61
and 31.94 ± 8.14 % (n=20).
"""

from configs import common


def get_config(variant: str = ""):
    config = common.unrolled("dd")
    config.model = {"name": "convnet", "depth": 2, "width": 16, "initial": "xavier", "norm": "none"}
    config.method.update(inner_steps=1, epochs=5, halve_every=1000)
    config.init.update(kind="noise", std=1.0, ipc=1)
    config.batch.size, config.steps = 512, 4000
    config.log_every, config.checkpoint_every = 100, 1000
    variants = {"fixed": fixed, "attack": attack, "cpu": cpu, "fixed_cpu": fixed_cpu, "tiny": common.tiny_unrolled}
    return common.by_variant(config, variant, variants)


def fixed(config):
    config.method.start = "fixed"


def attack(config):
    config.model = {"name": "mlp", "depth": 1, "width": 64}
    config.steps, config.method.halve_every = 2000, 600


def cpu(config):
    config.steps, config.method.halve_every = 1000, 300


def fixed_cpu(config):
    fixed(config)
    cpu(config)
