"""Dataset condensation with differentiable siamese augmentation.

Paper: Zhao, Bilen, "Dataset Condensation with Differentiable Siamese Augmentation", ICML 2021, arXiv:2102.08259.

It is DC whose real and synthetic images of a class go through one and the same transformation, drawn anew for each
class at each matching step (section 3.2), and whose networks are trained on augmented images, each with its own draw.
"""

from flax import linen as nn

from kipjax.data import diffaug
from kipjax.methods import dc
from kipjax.types import Method

__all__ = ["make"]


def make(
    model: nn.Module,
    *,
    strategy: str = "color_crop_cutout_flip_scale_rotate",
    mode: diffaug.Mode = "single",
    outer: int = 0,
    inner: int = 0,
    learning_rate: float = 0.1,
    momentum: float = 0.5,
    network_learning_rate: float = 0.01,
    network_batch_size: int = 256,
    kind: str = "dc",
    statistics_size: int = 16,
    classes: str = "auto",
    block_size: int = 0,
) -> Method:
    """DSA as a ``Method``.

    Args:
      model: as in ``dc.make``.
      strategy: operations joined by underscores, as ``data.diffaug`` lists them; digits take no ``flip``. ``"none"``
        makes it DC.
      mode: ``"single"`` draws one of them each time, ``"multiple"`` applies all in their order.
      outer, inner, learning_rate, momentum, network_learning_rate, network_batch_size, kind, statistics_size, classes,
        block_size: as in ``dc.make``.

    Returns:
      The method; batches and sets as in ``dc.make``. The paper starts from real images.

    Raises:
      InputError: as in ``dc.make``, or an operation or the mode does not exist.

    References:
      arXiv:2102.08259, section 3.2.
    """
    return dc.make(
        model,
        outer=outer,
        inner=inner,
        learning_rate=learning_rate,
        momentum=momentum,
        network_learning_rate=network_learning_rate,
        network_batch_size=network_batch_size,
        kind=kind,
        statistics_size=statistics_size,
        classes=classes,
        block_size=block_size,
        match_augment=diffaug.siamese(strategy, mode=mode),
        train_augment=diffaug.independent(strategy, mode=mode),
    )
