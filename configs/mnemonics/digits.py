"""Exemplars of the digits for a network that was trained on MNIST: Mnemonics' exemplar level by itself.

python -m experiments.distill --config=configs/mnemonics/digits.py --workdir=runs/mnemonics_digits

In continual learning the network is the one that has just learned a phase, and experiments.continual makes exemplars
beside it (``--builder=mnemonics``). Our result: not run.
"""

from configs import common


def get_config(variant: str = ""):
    config = common.networks("mnemonics")
    config.model.update(name="dc_convnet", norm="instance", width=32)
    config.method.update(inner_steps=10, step_size=0.05, optimizer="adam")
    config.pretrain.update(name="mnist", networks=1, steps=1000, learning_rate=1e-3)
    config.init.ipc, config.batch.size, config.steps = 5, 128, 1000
    config.evaluation.update(protocol="dc", arch="dc_convnet", width=32)
    return common.by_variant(config, variant, {"tiny": tiny})


def tiny(config):
    common.tiny_networks(config)
    config.pretrain.steps = 2
    config.evaluation.protocol = "rcig"
