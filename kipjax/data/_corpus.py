"""Labelled sentences from files, and the words in them."""

import collections
import os
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from kipjax import checks

__all__ = ["PADDING", "UNKNOWN", "Corpus", "domains", "read_tsv", "sentiment", "tokenize", "vocabulary"]

UNKNOWN, PADDING = "<unk>", "<pad>"
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*|[!?]|[:;=][-']?[()DPp/]")


class Corpus(NamedTuple):
    """Labelled sentences: ``texts``, integer ``labels [n]`` and the names of the classes."""

    texts: tuple[str, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]


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
    checks.require(len(files) > 0, "text.sentiment", "files is empty; give at least one file of rated sentences")
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
    checks.require(len(files) > 1, "text.domains", f"there are {len(files)} files; a class is a file, give two or more")
    labels = np.repeat(np.arange(len(read), dtype=np.int32), [len(texts) for texts in read])
    return Corpus(tuple(t for texts in read for t in texts), labels, tuple(names))


def vocabulary(texts: Iterable[str], *, size: int = 0, plain: bool = False) -> tuple[str, ...]:
    """``<unk>``, ``<pad>``, then the words of the texts, the most frequent first, equal ones by alphabet.

    Args:
      texts: training sentences.
      size: number of entries at most, the first two included; 0 for all.
      plain: as in ``tokenize``.

    Raises:
      InputError: the size leaves no room for the first two.
    """
    checks.whole("text.vocabulary", "size", size, 0)
    checks.require(
        size != 1, "text.vocabulary", f"size is 1 and {UNKNOWN} and {PADDING} take two; give 2 or more, or 0 for all"
    )
    counts = collections.Counter(word for text in texts for word in tokenize(text, plain=plain))
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return (UNKNOWN, PADDING, *(ranked[: size - 2] if size else ranked))
