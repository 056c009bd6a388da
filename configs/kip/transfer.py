"""KIP with a kernel drawn from FC1-3 and Conv1-3 at each step: arXiv:2011.00050, section 4.2 and Figure A1.

python -m experiments.distill --config=configs/kip/transfer.py --workdir=runs/kip_transfer

Standard parametrisation, widths 1024 and 128, a smaller target batch (appendix D: several hundred to several thousand).
"""

from configs import common
from kipjax.kernels.family import FAMILIES


def get_config(variant: str = ""):
    config = common.base()
    config.batch.size = 500
    config.steps = 500
    family(config, "fc1-3+conv1-3")
    return common.by_variant(config, variant, {"tiny": tiny})


def family(config, name="fc1-3+conv1-2"):
    """The family that trains sets for networks, or another of ``kipjax.kernels.family.FAMILIES``."""
    fc_depths, conv_depths = FAMILIES[name]
    names = [f"fc{depth}" for depth in fc_depths] + [f"conv{depth}" for depth in conv_depths]
    del config.kernel  # a tuple takes the place of a single kernel
    config.kernel = tuple({"name": n, "kind": "ntk", "b_std": 0.1, "parameterization": "standard"} for n in names)


def for_networks(config):
    """A variant for networks (arXiv:2011.00050, figure 3, tables A5 and A6): FC1-3, Conv1-2, few hundred steps."""
    family(config)
    config.batch.update(kind="class_balanced", size=500)
    config.steps = 500
    config.log_every, config.eval_every, config.checkpoint_every = 50, 0, 250


def tiny(config):
    config.steps, config.log_every, config.eval_every, config.checkpoint_every = 4, 2, 0, 4
    config.batch.size = 20
    config.evaluation.update(seeds=2, full_size=20)
