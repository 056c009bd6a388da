"""Coresets of digits (8 x 8, embedded) by a network trained on all of them, 10 images.

python -m experiments.distill --config=configs/network_coreset/digits.py --workdir=runs/network_coreset_digits

``--config.method.select``: herding, k_center, k_means, forgetting.
"""

from configs import common


def get_config(variant: str = ""):
    config = common.networks("network_coreset")
    config.model.update(name="dc_convnet", norm="instance", width=32)
    config.batch.kind = "all"
    config.steps = config.log_every = config.checkpoint_every = 1
    config.evaluation.update(protocol="dc", arch="dc_convnet", width=32)
    return common.by_variant(config, variant, {"tiny": tiny})


def tiny(config):
    common.tiny_networks(config)
    config.steps = config.log_every = config.checkpoint_every = 1
    config.batch.kind, config.batch.size = "class_balanced", 50
    config.method.epochs = 1
    config.evaluation.protocol = "rcig"
