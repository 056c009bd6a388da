"""TDD: which of several files is a sentence from? A folder of files of sentences (id, rating, text, by tabs).

python -m experiments.distill --config=configs/tdd/domain.py --config.data.data_dir=FOLDER --workdir=runs/tdd_domain

All as in ``configs/tdd/sentiment.py``, five sentences for each class. Variant ``cpu``, four classes: 79.11 ± 2.09 %
(n=20), random sentences 67.05 ± 6.08 %.
"""

from configs import common
from configs.tdd import sentiment


def get_config(variant: str = ""):
    config = sentiment.get_config()
    config.data.name = "text:domain:30x50"
    config.init.ipc = 5
    variants = {"fixed": sentiment.fixed, "cpu": sentiment.cpu, "fixed_cpu": sentiment.fixed_cpu}
    variants |= {"bi_rnn": sentiment.bi_rnn, "bi_lstm": sentiment.bi_lstm, "tiny": sentiment.tiny}
    return common.by_variant(config, variant, variants)
