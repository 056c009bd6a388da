"""Sentences as images: from words to ``[length, dimension, 1]`` arrays of word vectors, and back (arXiv:1910.02551).

``read_tsv -> Vocabulary -> Vectors -> sentences``: a source is a file of lines of tab-separated fields; words are
in lower case; vectors are read from a file in GloVe's format, or, with none at hand,
learned from the corpus itself by ``learned``.
"""

import collections
import functools
import os
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from kipjax import checks
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

UNKNOWN, PADDING = "<unk>", "<pad>"
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*|[!?]|[:;=][-']?[()DPp/]")


class Corpus(NamedTuple):
    """Labelled sentences: ``texts``, integer ``labels [n]`` and the names of the classes."""

    texts: tuple[str, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]


class Vectors(NamedTuple):
    """A vocabulary with vectors: ``words`` and ``table [words, d]``, one row each; the first two are ``<unk>`` and
    ``<pad>``, whose rows are zero."""

    words: tuple[str, ...]
    table: np.ndarray


def tokenize(text: str, *, plain: bool = False) -> list[str]:
    """The words of a sentence in lower case; ``!``, ``?`` and smileys are words.

    Args:
      text: the sentence.
      plain: split at white space and nowhere else, as the paper's program does.

    >>> tokenize("Damn, it's GREAT! :)")
    ['damn', "it's", 'great', '!', ':)']
    """
    lower = text.lower()
    return lower.split() if plain else _WORD.findall(lower)


def read_tsv(path: str | os.PathLike, *, text: int = -1, value: int = 1) -> tuple[list[str], np.ndarray]:
    """Texts, and the number beside each, from a file of tab-separated fields without a header.

    Args:
      path: the file, UTF-8 (bytes that are not are replaced).
      text, value: which field is which, from 0, or from the end if negative.

    Returns:
      ``(texts, values [n])``.

    Raises:
      InputError: no such file, a line with too few fields, a field that is no number, or a text without words.
    """
    where = f"text.read_tsv: {os.fspath(path)}"
    checks.require(pathlib.Path(path).is_file(), where, "there is no such file; check the path")
    texts, values = [], []
    for number, line in enumerate(pathlib.Path(path).read_text(encoding="utf-8", errors="replace").split("\n"), 1):
        if not line.strip():
            continue
        fields = line.split("\t")
        checks.require(
            -len(fields) <= text < len(fields) and -len(fields) <= value < len(fields),
            where,
            f"line {number} has {len(fields)} fields; expected at least {max(abs(text), abs(value) + 1)}, by tabs",
        )
        try:
            values.append(float(fields[value]))
        except ValueError:
            raise checks.InputError(f"{where}: line {number} has {fields[value]!r} where a number belongs") from None
        checks.require(np.isfinite(values[-1]), where, f"line {number} has {fields[value]!r}, no finite number")
        texts.append(fields[text].strip())
        checks.require(bool(texts[-1]), where, f"line {number} has an empty text; remove the line")
    checks.require(bool(texts), where, "the file has no lines")
    return texts, np.asarray(values)


def sentiment(files: Sequence[str | os.PathLike], *, margin: float = 0.0) -> Corpus:
    """Two classes, negative and positive, by the sign of each sentence's mean rating.

    Args:
      files: as ``read_tsv`` reads them, rating in the second field.
      margin: sentences rated no further from 0 than that are left out.
    """
    checks.at_least("text.sentiment", "margin", margin, 0.0)
    read = [read_tsv(path) for path in files]
    texts, ratings = [t for some, _ in read for t in some], np.concatenate([r for _, r in read])
    kept = np.abs(ratings) > margin
    labels = (ratings > 0).astype(np.int32)[kept]
    return Corpus(tuple(t for t, keep in zip(texts, kept) if keep), labels, ("negative", "positive"))


def domains(files: Sequence[str | os.PathLike], *, names: Sequence[str] | None = None) -> Corpus:
    """As many classes as files: which of them a sentence is from.

    Args:
      files: as ``read_tsv`` reads them.
      names: of the classes; those of the files up to the first underscore unless given.
    """
    read = [read_tsv(path)[0] for path in files]
    names = [pathlib.Path(path).stem.split("_")[0] for path in files] if names is None else names
    checks.require(
        len(names) == len(read), "text.domains", f"names has {len(names)} entries for {len(read)} files; give one each"
    )
    labels = np.repeat(np.arange(len(read), dtype=np.int32), [len(texts) for texts in read])
    return Corpus(tuple(t for texts in read for t in texts), labels, tuple(names))


def vocabulary(texts: Iterable[str], *, size: int = 0, plain: bool = False) -> tuple[str, ...]:
    """``<unk>``, ``<pad>``, then the words of the texts, the most frequent first, equal ones by alphabet.

    Args:
      texts: training sentences.
      size: number of entries at most, the first two included; 0 for all.
      plain: as in ``tokenize``.
    """
    checks.whole("text.vocabulary", "size", size, 0)
    counts = collections.Counter(word for text in texts for word in tokenize(text, plain=plain))
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return (UNKNOWN, PADDING, *(ranked[: size - 2] if size else ranked))


def glove(path: str | os.PathLike, words: Sequence[str], *, dimension: int | None = None) -> Vectors:
    """Vectors of a vocabulary from a file in GloVe's format: a word and ``d`` numbers on each line, by spaces.

    A first line of two whole numbers, as word2vec writes it (words and dimension), is allowed and checked. Words that
    the file lacks get zeros.

    Args:
      path: the file.
      words: the vocabulary, as of ``vocabulary``.
      dimension: what the file must have; that of its first vector unless given.

    Raises:
      InputError: no such file, a header that is not true, or a line of another dimension.
    """
    where = f"text.glove: {os.fspath(path)}"
    checks.require(pathlib.Path(path).is_file(), where, "there is no such file; check the path")
    rows = {word: i for i, word in enumerate(words)}
    found: dict[int, np.ndarray] = {}
    header, lines = None, 0
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            word, *entries = line.rstrip().split(" ")
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
                f"line {number} has {len(entries)} numbers and {dimension} are expected; the file is damaged or has "
                "another dimension",
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
    table = np.zeros((len(words), dimension or 0), np.float32)
    for row, vector in found.items():
        table[row] = vector
    table[:2] = 0
    return Vectors(tuple(words), table)


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
      ``Vectors``; the same for the same corpus.

    References:
      Levy, Goldberg, Dagan, "Improving Distributional Similarity with Lessons Learned from Word Embeddings", TACL 2015.
    """
    from scipy import sparse
    from sklearn.utils.extmath import randomized_svd

    where = "text.learned"
    checks.whole(where, "window", window)
    checks.whole(where, "dimension", dimension)
    checks.require(
        dimension < len(words) - 2,
        where,
        f"dimension is {dimension} and there are {len(words) - 2} words; it must be smaller",
    )
    index = {word: i for i, word in enumerate(words)}
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
    u, s, _ = randomized_svd(matrix, dimension, random_state=0)
    table = u * np.sqrt(s)
    table[:2] = 0
    lengths = np.linalg.norm(table, axis=1)
    return Vectors(tuple(words), (table / lengths[lengths > 0].mean()).astype(np.float32))


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
      InputError: a text has no words.
    """
    checks.whole(where, "length", length)
    index = {word: i for i, word in enumerate(vectors.words)}
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
      ``n`` sentences; padding at the end is left out.

    References:
      arXiv:1910.02551, section 3.3.
    """
    x = np.asarray(x)
    x = x[..., 0] if x.ndim == 4 else x
    checks.require(
        x.ndim == 3 and x.shape[-1] == vectors.table.shape[1],
        "text.decode",
        f"x has shape {x.shape} and word vectors have {vectors.table.shape[1]} entries; expected [n, length, entries]",
    )
    flat, table = x.reshape(-1, x.shape[-1]).astype(np.float64), vectors.table.astype(np.float64)
    distances = (table**2).sum(axis=1) - 2 * flat @ table.T
    nearest = distances.argmin(axis=1).reshape(x.shape[:2])
    # <unk> and <pad> share the zero vector; what is nearest to it is padding.
    sentences = [[PADDING if row < 2 else vectors.words[row] for row in rows] for rows in nearest]
    return [" ".join(_stripped(words)) for words in sentences]


def dataset(
    corpus: Corpus, vectors: Vectors | None = None, *, length: int = 30, dimension: int = 50, size: int = 5000,
    test_fraction: float = 0.2, seed: int = 0,
) -> tuple[Dataset, Vectors]:  # fmt: skip
    """A corpus as a data set of images, split at random, each class alike; words and vectors are of the training part.

    Args:
      corpus: labelled sentences; those without words are left out.
      vectors: word vectors; learned from the training sentences unless given.
      length: words of a sentence.
      dimension, size: of learned vectors, and of their vocabulary.
      test_fraction: share of the test set, above 0 and below 1.
      seed: of the split.

    Returns:
      ``(data set, vectors)``.
    """
    from sklearn.model_selection import train_test_split

    checks.require(0 < test_fraction < 1, "text.dataset", f"test_fraction is {test_fraction}; it must be in (0, 1)")
    rows = np.array([i for i, text in enumerate(corpus.texts) if tokenize(text)], int)
    classes = np.asarray(corpus.labels)
    counts = np.bincount(classes[rows], minlength=len(corpus.class_names))
    checks.require(
        counts.min() >= 2,
        "text.dataset",
        f"class {corpus.class_names[counts.argmin()]!r} has {counts.min()} sentences with words; each class needs two, "
        "one to train on and one to test",
    )
    parts = train_test_split(rows, test_size=test_fraction, random_state=seed, stratify=classes[rows])
    train, test = ([corpus.texts[i] for i in part] for part in parts)
    y_train, y_test = (classes[np.asarray(part)] for part in parts)
    if vectors is None:
        vectors = learned(train, vocabulary(train, size=size), dimension=dimension)
    x_train, x_test = (embed(some, vectors, length=length) for some in (train, test))
    return from_arrays(x_train, y_train, x_test, y_test, class_names=corpus.class_names), vectors


@functools.lru_cache(maxsize=4)
def load(name: str, data_dir: str | os.PathLike | None) -> tuple[Dataset, Vectors]:
    """A text task by name, for ``data.load`` and for reading what was distilled from it.

    Args:
      name: ``"text:TASK:LENGTHxDIMENSION"``: the task is ``sentiment`` (the sign of the rating) or ``domain`` (which
        file), sentences have that many words, vectors that dimension; ``30x50`` if it is left out.
      data_dir: folder of ``.txt`` or ``.tsv`` files as ``read_tsv`` reads them; one named ``glove*`` holds vectors.

    Raises:
      InputError: another name, no folder, or no files.
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
    paths = sorted(p for p in pathlib.Path(data_dir).iterdir() if p.suffix in (".txt", ".tsv"))
    files = [p for p in paths if not p.name.startswith("glove")]
    checks.require(bool(files), where, f"{data_dir} has no .txt or .tsv files")
    corpus = (sentiment if match[1] == "sentiment" else domains)(files)
    length, dimension = int(match[2] or 30), int(match[3] or 50)
    given = [p for p in paths if p not in files]
    vectors = glove(given[0], vocabulary(corpus.texts), dimension=dimension) if given else None
    return dataset(corpus, vectors, length=length, dimension=dimension)


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


def _stripped(words):
    while words and words[-1] == PADDING:
        words = words[:-1]
    return words
