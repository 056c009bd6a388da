"""Exact distillation on digits (8 x 8, embedded): the linear regressor of the training set from ten images.

python -m experiments.distill --config=configs/krr_exact/digits.py --workdir=runs/krr_exact_digits

Variants: ``leaky``, ``fourier``, ``convolution`` are other features; ``noise`` hides the images (10 a class); ``soft``
takes the teacher's labels, which brings 10 a class closer to real images.
"""

from configs import common


def get_config(variant: str = ""):
    config = common.base()
    config.method = common.method("krr_exact")
    config.kernel = {"name": "linear"}
    config.batch.kind = "all"
    config.steps = config.log_every = config.checkpoint_every = 1
    config.evaluation.update(reg=0.0, reg_unit="absolute")
    return common.by_variant(config, variant, VARIANTS | {"tiny": tiny})


def features(**kernel):
    """A variant: other features."""

    def edit(config):
        config.kernel = kernel

    return edit


def noise(config):
    config.init.ipc, config.method.images = 10, "noise"


def soft(config):
    config.init.ipc, config.method.labels = 10, "teacher"


def tiny(config):
    config.evaluation.update(seeds=2, full_size=50)


VARIANTS = {
    "leaky": features(name="leaky_net"),
    "fourier": features(name="fourier"),
    "convolution": features(name="convolution"),
    "noise": noise,
    "soft": soft,
}
