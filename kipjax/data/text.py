"""Sentences as images: from words to ``[length, dimension, 1]`` arrays of word vectors, and back (arXiv:1910.02551).

``read_tsv -> Vocabulary -> Vectors -> sentences``: a source is a file of lines of tab-separated fields, and words are
in lower case (``_corpus``); vectors are read from a file in GloVe's format, or, with none at hand, learned from the
corpus itself by ``learned`` (``_vectors``); here they become images and data sets.
"""

import functools
import math
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from kipjax import checks
from kipjax.data._corpus import PADDING, UNKNOWN, Corpus, domains, read_tsv, sentiment, tokenize, vocabulary
from kipjax.data._vectors import Vectors, check_words, glove, learned
from kipjax.data.sources import Dataset, from_arrays

__all__ = [
    "PADDING",
    "UNKNOWN",
    "Corpus",
    "Vectors",
    "dataset",
    "decode",
    "domains",
    "embed",
    "glove",
    "learned",
    "load",
    "read_tsv",
    "sentiment",
    "tokenize",
    "vocabulary",
]


def embed(
    texts: Sequence[str], vectors: Vectors, *, length: int, plain: bool = False, where: str = "text.embed"
) -> np.ndarray:
    """Sentences as one-channel images: cut, or padded on the right, to ``length`` words.

    Args:
      texts: sentences with at least one word each; words without a vector are ``<unk>``.
      vectors: the vocabulary.
      length: words in each.
      plain: as in ``tokenize``.
      where: what error messages start with.

    Returns:
      ``[n, length, d, 1]`` float32.

    Raises:
      InputError: a text has no words, or there is not one finite vector for each word of a vocabulary.
    """
    checks.whole(where, "length", length)
    index = check_words(where, vectors.words)
    checks.same_length(where, "vectors.words", vectors.words, "vectors.table", vectors.table)
    checks.finite(where, "vectors.table", vectors.table)
    rows = np.full((len(texts), length), index[PADDING])
    for i, text in enumerate(texts):
        words = tokenize(text, plain=plain)
        checks.require(bool(words), where, f"text {i} is {text!r}, which has no words; remove it")
        ids = [index.get(word, index[UNKNOWN]) for word in words[:length]]
        rows[i, : len(ids)] = ids
    return vectors.table[rows][..., None]


def decode(x: Any, vectors: Vectors) -> list[str]:
    """The nearest word to each vector, by Euclidean distance; ties go to the first in the vocabulary.

    Args:
      x: ``[n, length, d]`` or ``[n, length, d, 1]``.
      vectors: the vocabulary.

    Returns:
      ``n`` sentences without the padding at their end. Padding and unknown words share the zero vector, whose first
      word is ``<unk>``.

    Raises:
      InputError: ``x`` has another shape or is not finite.

    References:
      arXiv:1910.02551, section 3.3.
    """
    shape, x = np.shape(x), np.asarray(x)
    x = x[..., 0] if x.ndim == 4 and x.shape[-1] == 1 else x
    checks.require(
        x.ndim == 3 and x.shape[-1] == vectors.table.shape[1],
        "text.decode",
        f"x has shape {shape} and word vectors have {vectors.table.shape[1]} entries; expected [n, length, entries]",
    )
    checks.finite("text.decode", "x", x)
    table = vectors.table.astype(np.float64)
    squares = (table**2).sum(axis=1)
    nearest = [(squares - 2 * rows.astype(np.float64) @ table.T).argmin(axis=1) for rows in x]
    return [" ".join(_stripped([vectors.words[row] for row in rows])) for rows in nearest]


def dataset(
    corpus: Corpus, vectors: Vectors | str | os.PathLike | None = None, *, length: int = 30, dimension: int = 50,
    size: int = 5000, test_fraction: float = 0.2, seed: int = 0, plain: bool = False,
) -> tuple[Dataset, Vectors]:  # fmt: skip
    """A corpus as a data set of images, split at random, each class alike; words and vectors are of the training part.

    Args:
      corpus: labelled sentences; those without words are left out.
      vectors: word vectors, or a file as ``glove`` reads it, for the words of the training sentences; learned from
        those sentences unless given.
      length: words of a sentence.
      dimension: of vectors that are learned or read.
      size: of the vocabulary of learned vectors.
      test_fraction: share of the test set, above 0 and below 1.
      seed: of the split.
      plain: as in ``tokenize``.

    Returns:
      ``(data set, vectors)``.

    Raises:
      InputError: labels are not one class for each text, a class has fewer than two sentences with words, or the split
        leaves a part fewer than the classes.
    """
    from sklearn.model_selection import train_test_split

    checks.require(0 < test_fraction < 1, "text.dataset", f"test_fraction is {test_fraction}; it must be in (0, 1)")
    checks.same_length("text.dataset", "corpus.texts", corpus.texts, "corpus.labels", corpus.labels)
    checks.labels_within("text.dataset", "corpus.labels", corpus.labels, len(corpus.class_names))
    rows = np.array([i for i, text in enumerate(corpus.texts) if tokenize(text, plain=plain)], int)
    classes = np.asarray(corpus.labels)
    counts = np.bincount(classes[rows], minlength=len(corpus.class_names))
    checks.require(
        counts.min() >= 2,
        "text.dataset",
        f"class {corpus.class_names[counts.argmin()]!r} has {counts.min()} sentences with words; each class needs two, "
        "one to train on and one to test",
    )
    tested = math.ceil(test_fraction * len(rows))
    for name, left in (("training", len(rows) - tested), ("test", tested)):
        checks.require(
            left >= len(counts),
            "text.dataset",
            f"test_fraction is {test_fraction} of {len(rows)} sentences, which leaves the {name} part fewer than the "
            f"{len(counts)} classes; choose another fraction",
        )
    parts = train_test_split(rows, test_size=test_fraction, random_state=seed, stratify=classes[rows])
    train, test = ([corpus.texts[i] for i in part] for part in parts)
    y_train, y_test = (classes[np.asarray(part)] for part in parts)
    if isinstance(vectors, str | os.PathLike):
        vectors = glove(vectors, vocabulary(train, plain=plain), dimension=dimension)
    elif vectors is None:
        words = vocabulary(train, size=size, plain=plain)
        vectors = learned(train, words, dimension=dimension, plain=plain)
    x_train, x_test = (embed(some, vectors, length=length, plain=plain) for some in (train, test))
    return from_arrays(x_train, y_train, x_test, y_test, class_names=corpus.class_names), vectors


@functools.lru_cache(maxsize=4)
def load(name: str, data_dir: str | os.PathLike | None) -> tuple[Dataset, Vectors]:
    """A text task by name, for ``data.load`` and for reading what was distilled from it.

    Args:
      name: ``"text:TASK:LENGTHxDIMENSION"``: the task is ``sentiment`` (the sign of the rating) or ``domain`` (which
        file), sentences have that many words, vectors that dimension; ``30x50`` if it is left out.
      data_dir: folder of ``.txt`` or ``.tsv`` files as ``read_tsv`` reads them; one named ``glove*``, whatever its end,
        holds vectors.

    Raises:
      InputError: another name, no folder, no files, or more than one of vectors.
    """
    where = "data.load"
    match = re.fullmatch(r"text:(sentiment|domain)(?::(\d+)x(\d+))?", name)
    checks.require(match is not None, where, f"name is {name!r}; expected text:sentiment:30x50 or text:domain:30x50")
    checks.require(
        data_dir is not None and pathlib.Path(data_dir).is_dir(),
        where,
        f"{name} needs data_dir, a folder of tab-separated .txt files (id, rating, text); it is {str(data_dir)!r}",
    )
    assert match is not None and data_dir is not None
    paths = sorted(p for p in pathlib.Path(data_dir).iterdir() if p.is_file())
    given = [p for p in paths if p.name.startswith("glove")]
    names = ", ".join(p.name for p in given)
    checks.require(len(given) < 2, where, f"{data_dir} has several files of vectors: {names}; leave one")
    files = [p for p in paths if p.suffix in (".txt", ".tsv") and p not in given]
    checks.require(bool(files), where, f"{data_dir} has no .txt or .tsv files")
    corpus = (sentiment if match[1] == "sentiment" else domains)(files)
    length, dimension = int(match[2] or 30), int(match[3] or 50)
    return dataset(corpus, given[0] if given else None, length=length, dimension=dimension)


def _stripped(words):
    while words and words[-1] in (UNKNOWN, PADDING):
        words = words[:-1]
    return words
