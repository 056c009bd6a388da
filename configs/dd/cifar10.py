"""DD on CIFAR-10, AlexCifarNet, 100 images. Paper: fixed 54.0 %, random 36.8 ± 1.2 % (n=200). Not run here.

python -m experiments.distill --config=configs/dd/cifar10.py --workdir=runs/dd_cifar10

The program's setting (arXiv:1811.10959): first step size 0.001, 400 epochs of 49 batches of 1024, the rate halved every
40; real images are cropped (4 pixels reflected) and mirrored. Variant ``fixed``: one network.
Variant ``cpu``: 200 steps on 128 images.
"""

from configs import common


def get_config(variant: str = ""):
    config = common.unrolled("dd")
    config.data.name = "cifar10"
    config.data.preprocess = {"kind": "fixed", "constants": "cifar10_rcig"}
    config.model = {"name": "alex_cifar"}
    config.method.update(step_size=0.001, halve_every=40 * 49, segment=1)
    config.init.update(kind="noise", std=1.0, ipc=10)
    config.batch.size, config.steps, config.evaluation.seeds = 1024, 400 * 49, 200
    config.log_every, config.checkpoint_every = 100, 1000
    config.augment.update(crop=4, flip=True)
    return common.by_variant(config, variant, {"fixed": fixed, "cpu": cpu, "tiny": common.tiny_unrolled})


def fixed(config):
    config.method.start = "fixed"


def cpu(config):
    config.batch.size, config.steps, config.log_every, config.checkpoint_every = 128, 200, 50, 100
    config.evaluation.seeds = config.evaluation.subset_seeds = 5
