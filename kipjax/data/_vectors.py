"""Word vectors: read from a file in GloVe's format, or learned from the corpus itself."""

import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kipjax import checks
from kipjax.data._corpus import PADDING, UNKNOWN, tokenize

__all__ = ["Vectors", "check_words", "glove", "learned"]


class Vectors(NamedTuple):
    """A vocabulary with vectors: ``words`` and ``table [words, d]``, one row each; the first two are ``<unk>`` and
    ``<pad>``, whose rows are zero."""

    words: tuple[str, ...]
    table: np.ndarray


def glove(path: str | os.PathLike, words: Sequence[str], *, dimension: int | None = None) -> Vectors:
    """Vectors of a vocabulary from a file in GloVe's format: a word and ``d`` numbers on each line, by spaces.

    A first line of two whole numbers, as word2vec writes it (words and dimension), is allowed and checked. Words that
    the file lacks get zeros; it must have one.

    Args:
      path: the file.
      words: the vocabulary, as of ``vocabulary``.
      dimension: what the file must have; that of its first vector unless given.

    Raises:
      InputError: words are no vocabulary, no such file, a header that is not true, a line of another dimension, or
        none of the words.
    """
    where = f"text.glove: {os.fspath(path)}"
    if dimension is not None:
        checks.whole(where, "dimension", dimension)
    checks.require(pathlib.Path(path).is_file(), where, "there is no such file; check the path")
    rows = check_words(where, words)
    found: dict[int, np.ndarray] = {}
    header, lines = None, 0
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        for number, line in enumerate(file, 1):
            word, *entries = line.rstrip().split(" ")
            word, entries = _with_spaces(word, entries, dimension)
            if number == 1 and len(entries) == 1 and _whole(word) and _whole(entries[0]):
                header = int(word), int(entries[0])
                continue
            if not line.strip():
                continue
            lines += 1
            dimension = dimension or (header[1] if header else len(entries))
            checks.require(
                len(entries) == dimension > 0,
                where,
                f"line {number} has {len(entries)} numbers and {dimension} are expected; the file is damaged, or ask "
                "for its dimension (text:TASK:LENGTHxDIMENSION)",
            )
            if word in rows:
                found[rows[word]] = _numbers(where, number, entries)
    checks.require(lines > 0 and dimension is not None, where, "the file has no vectors")
    if header:
        checks.require(
            header == (lines, dimension),
            where,
            f"the header says {header[0]} words of dimension {header[1]} and the file has {lines} of dimension "
            f"{dimension}; mend or remove the first line",
        )
    checks.require(
        any(row > 1 for row in found) or len(words) <= 2,
        where,
        f"none of the {len(words) - 2} words is in the file, such as {words[-1]!r}; words are lower case, so give "
        "vectors of an uncased corpus, or of the same language",
    )
    table = np.zeros((len(words), dimension or 0), np.float32)
    for row, vector in found.items():
        table[row] = vector
    table[:2] = 0
    return Vectors(tuple(words), table)


def check_words(where: str, words: Sequence[str]) -> dict[str, int]:
    """``{word: row}`` of a vocabulary, which begins with ``<unk>`` and ``<pad>`` and has each word once.

    Raises:
      InputError: it does not.
    """
    rows = {word: i for i, word in enumerate(words)}
    twice = next((word for i, word in enumerate(words) if rows[word] != i), None)
    checks.require(
        twice is None and tuple(words[:2]) == (UNKNOWN, PADDING),
        where,
        f"the words begin with {tuple(words[:2])}, {'each once' if twice is None else f'{twice!r} twice'}; expected "
        f"{UNKNOWN}, {PADDING} and then each word once, as of text.vocabulary",
    )
    return rows


def _with_spaces(word, entries, dimension):
    """A word may have spaces, as some of GloVe's largest file have, once it is known how many numbers follow."""
    extra = len(entries) - (dimension or len(entries))
    if extra <= 0 or any(_is_number(entry) for entry in entries[:extra]):
        return word, entries
    return " ".join([word, *entries[:extra]]), entries[extra:]


def _is_number(entry):
    try:
        float(entry)
    except ValueError:
        return False
    return True


def _whole(entry):
    return entry.isascii() and entry.isdigit() and len(entry) < 16


def _numbers(where, number, entries):
    try:
        with np.errstate(over="ignore"):
            vector = np.array(entries, np.float32)
        checks.require(bool(np.isfinite(vector).all()), where, f"line {number} has entries that are not finite")
        return vector
    except checks.InputError:
        raise
    except ValueError:
        raise checks.InputError(f"{where}: line {number} has entries that are no numbers") from None


def learned(
    texts: Sequence[str], words: Sequence[str], *, dimension: int = 100, window: int = 5, plain: bool = False
) -> Vectors:
    """Vectors from the corpus itself: a truncated singular value decomposition of its positive mutual information.

    ``PPMI_ij = max(0, log p(i, j) / (p(i) p(j)^0.75))`` over pairs of words at most ``window`` apart, and the rows of
    ``U sqrt(S)``, scaled to a mean length of 1.

    Args:
      texts: training sentences; no labels are used.
      words: the vocabulary, as of ``vocabulary``.
      dimension: ``d``, below the number of words.
      window: in words.
      plain: as in ``tokenize``.

    Returns:
      ``Vectors``; the same for the same corpus, however many cores there are.

    References:
      Levy, Goldberg, Dagan, "Improving Distributional Similarity with Lessons Learned from Word Embeddings", TACL 2015.
    """
    from scipy import sparse
    from sklearn.utils.extmath import randomized_svd
    from threadpoolctl import threadpool_limits

    where = "text.learned"
    checks.whole(where, "window", window)
    checks.whole(where, "dimension", dimension)
    checks.require(
        dimension < len(words) - 2,
        where,
        f"dimension is {dimension} and there are {len(words) - 2} words; it must be smaller",
    )
    index = check_words(where, words)
    sentences = [[index[w] for w in tokenize(text, plain=plain) if w in index] for text in texts]
    pairs = np.array(
        [(s[i], s[j]) for s in sentences for i in range(len(s)) for j in range(i + 1, min(i + window + 1, len(s)))]
    ).reshape(-1, 2)
    checks.require(len(pairs) > 0, where, "no sentence has two words of the vocabulary; give more text")
    n = len(words)
    counts = sparse.coo_matrix((np.ones(len(pairs)), pairs.T), (n, n))
    counts = (counts + counts.T).tocoo()
    of_word = np.asarray(counts.sum(axis=0)).ravel()
    smooth = of_word**0.75 / np.sum(of_word**0.75)
    information = np.log(counts.data / of_word[counts.row] / smooth[counts.col])
    matrix = sparse.csr_matrix((np.maximum(information, 0), (counts.row, counts.col)), (n, n))
    with threadpool_limits(1):  # sums of several threads differ with their number, and so would the fingerprint
        u, s, _ = randomized_svd(matrix, dimension, random_state=0)
    table = u * np.sqrt(s)
    table[:2] = 0
    lengths = np.linalg.norm(table, axis=1)
    return Vectors(tuple(words), (table / lengths[lengths > 0].mean()).astype(np.float32))
