"""GTN on the embedded digits, the setting of MNIST. The paper has no such row.

python -m experiments.distill --config=configs/gtn/digits.py:cpu --workdir=runs/gtn_digits
python -m experiments.distill --config=configs/gtn/digits.py:noise_cpu --workdir=runs/gtn_digits_noise

Variants as for ``configs/gtn/mnist.py``. Ours, n=5: full curriculum (``cpu``) 54.89 ± 3.58, all shuffled
(``all_shuffled_cpu``) 30.56 ± 9.91, noise (``noise_cpu``) 15.50 ± 2.91 %; 320 random images 76.67 ± 2.03 %. In 4000
steps, full curriculum: 77.89 ± 8.37 against 81.50 ± 3.70 %. With 160 images (``--config.init.ipc=16``) in 6000 steps,
n=20: 75.67 ± 3.64 against 72.00 ± 6.14; without weight normalisation (``plain_cpu``) 68.89 ± 6.56, noise 63.26 %.
"""

from configs import common
from configs.gtn import mnist


def get_config(variant: str = ""):
    config = mnist.get_config()
    config.data.name = "digits"
    config.data.preprocess = {"kind": "standardize"}
    config.batch.size = 32 * 16
    return common.by_variant(config, variant, mnist.VARIANTS)
