"""RCIG on the embedded digits, 10 images (variant ``10``: 100): minutes on a CPU.

python -m experiments.distill --config=configs/rcig/digits.py --workdir=runs/rcig_digits
"""

from configs import common


def get_config(variant: str = ""):
    config = common.networks("rcig")
    config.model.update(activation="softplus", width=16, depth=2)
    config.evaluation.width = 16
    config.batch.size = 200
    config.steps = 300
    config.log_every, config.checkpoint_every = 20, 100
    return common.by_variant(config, variant, {"10": common.ipc(10), "tiny": common.tiny_networks})
