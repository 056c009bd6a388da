"""Coresets of digits (8 x 8, embedded) in pixel space, 10 images.

python -m experiments.distill --config=configs/coreset/digits.py --workdir=runs/coreset_digits

``--config.method.select``: random, herding, k_center, k_means, centroids, leverage, optimized, class_means (one
a class).
"""

from configs import common


def get_config(variant: str = ""):
    config = common.base()
    config.method = common.method("coreset")
    config.kernel = {"name": "linear"}
    config.batch.kind = "all"
    config.steps = config.log_every = config.checkpoint_every = 1
    return common.by_variant(config, variant, {"tiny": tiny})


def tiny(config):
    config.evaluation.update(seeds=2, full_size=50)
