"""Data: sources, preprocessing, samplers, starting sets, augmentation. Importing it loads no data-set library."""

from kipjax.data import augment, diffaug, draw, initial, preprocess, samplers, sources, streaming, text
from kipjax.data.sources import KNOWN, Dataset, from_arrays, load

__all__ = [
    "KNOWN",
    "Dataset",
    "augment",
    "diffaug",
    "draw",
    "from_arrays",
    "initial",
    "load",
    "preprocess",
    "samplers",
    "sources",
    "streaming",
    "text",
]
