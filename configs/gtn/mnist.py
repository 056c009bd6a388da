"""GTN on MNIST, 32 batches of 130 images. Paper: about 98.9 % after 32 steps. Not run here.

python -m experiments.distill --config=configs/gtn/mnist.py --workdir=runs/gtn_mnist

The program's setting (arXiv:1912.07768) with batches of 130 for 128, to have every class in them, and 32 steps, as the
paper, for 64; each of the 32 losses of a step has 128 real images. Variants: ``noise``, ``all_shuffled`` and
``shuffled_batch`` are the other curricula, ``plain`` is without weight normalisation. Variant ``cpu``: 16 batches of
20, a small generator and learner, a loss every 4 steps, 500 steps.
"""

from configs import common


def get_config(variant: str = ""):
    config = common.unrolled("gtn")
    config.data.name = "mnist"
    config.data.preprocess = {"kind": "fixed", "constants": "mnist"}
    config.model = {"name": "gtn", "weight_norm": True}
    config.method.decay_steps = -1
    config.init.update(kind="noise", std=1.0, ipc=13 * 32)
    config.batch.size, config.steps = 32 * 128, 2000
    config.log_every, config.checkpoint_every = 20, 200
    return common.by_variant(config, variant, VARIANTS)


def noise(config):
    config.method.curriculum = "noise"


def all_shuffled(config):
    config.method.curriculum = "all_shuffled"


def shuffled_batch(config):
    config.method.curriculum = "shuffled_batch"


def plain(config):
    config.method.weight_norm = config.model.weight_norm = False


def cpu(config):
    config.model = {"name": "gtn", "widths": (8, 16), "hidden": 32, "weight_norm": True}
    config.method.update(inner_steps=16, hidden=64, filters=16, latent_size=32, every=4, segment=0)
    config.init.ipc = 2 * 16
    config.batch.size, config.steps = 4 * 64, 500
    config.evaluation.seeds = config.evaluation.subset_seeds = 5


def tiny(config):
    common.tiny_unrolled(config)
    config.model = {"name": "gtn", "widths": (2,), "hidden": 3}


def _small(change):
    def both(config):
        cpu(config)
        change(config)

    return both


VARIANTS = {"noise": noise, "all_shuffled": all_shuffled, "shuffled_batch": shuffled_batch, "plain": plain}
VARIANTS |= {f"{name}_cpu": _small(change) for name, change in VARIANTS.items()} | {"cpu": cpu, "tiny": tiny}
