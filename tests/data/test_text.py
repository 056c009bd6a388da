"""Sentences to images and back, vectors from files and from the corpus, and what is refused."""

import os
import pathlib

import numpy as np
import pytest
import threadpoolctl

from kipjax import checks, data
from kipjax.data import text
from kipjax.methods import tdd
from kipjax.types import Distilled

TEXTS = ["The cat sat on the mat!", "A dog ate the cat.", "dogs, cats & mats", "The dog sat."]


def vectors(dimension=3):
    words = text.vocabulary(TEXTS)
    table = np.random.default_rng(0).normal(size=(len(words), dimension)).astype(np.float32)
    table[:2] = 0
    return text.Vectors(words, table)


def test_words():
    assert text.tokenize("Don't STOP, e.g. now!?") == ["don't", "stop", "e", "g", "now", "!", "?"]
    assert text.tokenize("Don't STOP, now!", plain=True) == ["don't", "stop,", "now!"]
    words = text.vocabulary(TEXTS)
    assert words[:3] == (text.UNKNOWN, text.PADDING, "the") and len(set(words)) == len(words)
    assert text.vocabulary(TEXTS, size=4) == (text.UNKNOWN, text.PADDING, "the", "cat")
    assert text.vocabulary(TEXTS, size=2) == (text.UNKNOWN, text.PADDING)
    with pytest.raises(checks.InputError, match="size is 1 and <unk> and <pad> take two"):
        text.vocabulary(TEXTS, size=1)


def test_embedding_and_decoding_gives_the_sentence_back():
    v = vectors()
    x = text.embed(TEXTS, v, length=7)
    assert x.shape == (4, 7, 3, 1) and x.dtype == np.float32
    assert text.decode(x, v) == [" ".join(text.tokenize(t)) for t in TEXTS]
    np.testing.assert_array_equal(x[3, 3:], 0)  # "the dog sat" and four of padding
    assert text.decode(text.embed(TEXTS[:1], v, length=2), v) == ["the cat"]
    unknown = text.embed(["the zebra sat"], v, length=3)
    assert text.decode(unknown, v) == [f"the {text.UNKNOWN} sat"], "the first of equally near words"
    near = x + 1e-3 * np.random.default_rng(1).normal(size=x.shape)
    assert text.decode(near[..., 0], v)[0] == "the cat sat on the mat !"


def test_distilled_sentences():
    v = vectors()
    y = np.array([[0.1, 0.9], [2.0, -1.0]], np.float32)
    first, second = tdd.sentences(Distilled(text.embed(TEXTS[:2], v, length=4), y), v)
    assert first.words == "the cat sat on"
    np.testing.assert_array_equal(second.label, y[1])


def write(path, lines):
    path.write_text("\n".join(lines) + "\n")
    return path


def test_glove(tmp_path):
    lines = ["cat 1 2 3", "the -1 0.5 2e-1", "zebra 9 9 9"]
    v = text.glove(write(tmp_path / "a.txt", lines), text.vocabulary(TEXTS))
    np.testing.assert_allclose(v.table[v.words.index("cat")], [1, 2, 3])
    np.testing.assert_allclose(v.table[v.words.index("the")], [-1, 0.5, 0.2])
    assert not np.any(v.table[[0, 1, v.words.index("dog")]])
    same = text.glove(write(tmp_path / "b.txt", ["3 3", *lines]), v.words, dimension=3)
    np.testing.assert_array_equal(same.table, v.table)
    spaced = text.glove(write(tmp_path / "c.txt", [". . . 7 8 9", *lines]), v.words, dimension=3)
    np.testing.assert_array_equal(spaced.table, v.table)


@pytest.mark.parametrize(
    ("lines", "options", "words"),
    [
        (["2 3", "cat 1 2 3"], {}, "the header says 2 words of dimension 3 and the file has 1 of dimension 3"),
        (["1 4", "cat 1 2 3"], {}, "line 2 has 3 numbers and 4 are expected"),
        (["cat 1 2 3", "dog 1 2"], {}, "line 2 has 2 numbers and 3 are expected"),
        (["cat 1 2 3"], {"dimension": 50}, "line 1 has 3 numbers and 50 are expected"),
        (["cat 1 2 x"], {}, "line 1 has entries that are no numbers"),
        ([""], {}, "the file has no vectors"),
        (["cat 1 2 3 4"], {"dimension": 2}, "line 1 has 4 numbers and 2 are expected"),
        (["cat 1 2"], {"dimension": 0}, "dimension is 0"),
        (["CAT 1 2", "THE 3 4"], {}, r"none of the \d+ words is in the file, .* words are lower case"),
    ],
)
def test_wrong_embedding_files(lines, options, words, tmp_path):
    with pytest.raises(checks.InputError, match=words):
        text.glove(write(tmp_path / "a.txt", lines), text.vocabulary(TEXTS), **options)


@pytest.mark.parametrize(
    ("vocabulary", "said"), [(("<unk>", "<pad>", "cat", "cat"), "'cat' twice"), (("cat", "dog"), "'cat', 'dog'")]
)
def test_words_that_are_no_vocabulary(vocabulary, said, tmp_path):
    with pytest.raises(checks.InputError, match=said):
        text.glove(write(tmp_path / "a.txt", ["cat 1 2"]), vocabulary)


def test_learned_vectors_put_words_of_one_company_together():
    rng = np.random.default_rng(0)
    themes = [[f"{name}{i}" for i in range(6)] for name in ("animal", "metal")]
    texts = [" ".join(rng.choice(themes[i % 2], 5)) for i in range(200)]
    v = text.learned(texts, text.vocabulary(texts), dimension=4)
    assert v.table.shape == (14, 4) and not np.any(v.table[:2])
    np.testing.assert_array_equal(v.table, text.learned(texts, v.words, dimension=4).table)
    unit = v.table[2:] / np.linalg.norm(v.table[2:], axis=1, keepdims=True)
    same = np.array([[a[0] == b[0] for b in v.words[2:]] for a in v.words[2:]])
    cosines = unit @ unit.T
    assert cosines[same].mean() > cosines[~same].mean() + 0.3
    np.testing.assert_allclose(np.linalg.norm(v.table[2:], axis=1).mean(), 1, rtol=1e-5)


def test_sources(tmp_path):
    a = write(tmp_path / "films_x.txt", ["1\t2.5\tGood one.", "2\t-0.5\tBad one.", "3\t0.1\tSo so."])
    b = write(tmp_path / "news_x.txt", ["1\t-3\tTerrible news."])
    both = text.sentiment([a, b], margin=0.2)
    assert both.texts == ("Good one.", "Bad one.", "Terrible news.") and both.labels.tolist() == [1, 0, 0]
    which = text.domains([a, b])
    assert which.class_names == ("films", "news") and which.labels.tolist() == [0, 0, 0, 1]


def test_words_of_test_sentences_have_no_vector_from_a_file(tmp_path):
    lines = [f"{i}\t{1 if i % 2 else -1}\tword{i} word{i + 1}" for i in range(20)]
    write(tmp_path / "films_x.txt", lines)
    write(tmp_path / "glove.txt", [f"word{i} {i + 1} 0.5" for i in range(21)])
    made, v = text.load("text:sentiment:2x2", str(tmp_path))
    seen = set(np.unique(made.x_train[..., 0, 0])) - {0}
    assert {int(word[4:]) + 1 for word in v.words[2:]} == seen, "the words of the training sentences and no others"
    only_in_test = {i + 1 for i in range(21)} - seen
    assert only_in_test and not only_in_test & set(np.unique(made.x_test[..., 0, 0]))


def test_files_of_vectors_are_found_by_their_first_letters(tmp_path):
    write(tmp_path / "films_x.txt", [f"{i}\t{1 if i % 2 else -1}\tword{i} word{i + 1}" for i in range(20)])
    for name in ("glove.6B.2d", "glove.vec"):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + b"".join(b"word%d %d 0.5\n" % (i, i + 1) for i in range(21)))
        _, v = text.load.__wrapped__("text:sentiment:2x2", str(tmp_path))
        first = v.words.index("word0") if "word0" in v.words else None
        assert np.all(v.table[2:, 1] == 0.5) and (first is None or v.table[first, 0] == 1), "with a byte-order mark"
        if name == "glove.6B.2d":
            (tmp_path / "glove.other").write_text("x 1 2\n")
            with pytest.raises(checks.InputError, match=r"several files of vectors: glove.6B.2d, glove.other"):
                text.load.__wrapped__("text:sentiment:2x2", str(tmp_path))
            (tmp_path / "glove.other").unlink()
        (tmp_path / name).unlink()


def test_the_papers_words_are_those_between_spaces():
    corpus = text.Corpus(("A cat.", "the dog...") * 10, np.arange(20) % 2, ("cats", "dogs"))
    _, v = text.dataset(corpus, plain=True, length=2, dimension=1)
    assert set(v.words[2:]) == {"a", "cat.", "the", "dog..."}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("1 2.5 no tabs", "line 1 has 1 fields"),
        ("1\tx\tText.", "'x' where a number belongs"),
        ("1\t2\t ", "empty text"),
    ],
)
def test_wrong_sources(line, words, tmp_path):
    with pytest.raises(checks.InputError, match=words):
        text.read_tsv(write(tmp_path / "a.txt", [line]))
    with pytest.raises(checks.InputError, match="no such file"):
        text.read_tsv(tmp_path / "b.txt")


def test_texts_without_words_and_shapes_that_do_not_fit():
    v = vectors()
    with pytest.raises(checks.InputError, match=r"text 1 is '\.\.\.', which has no words"):
        text.embed(["a cat", "..."], v, length=3)
    with pytest.raises(checks.InputError, match="length is 0"):
        text.embed(["a cat"], v, length=0)
    with pytest.raises(checks.InputError, match="word vectors have 3 entries"):
        text.decode(np.zeros((1, 2, 4)), v)
    with pytest.raises(checks.InputError, match=r"x has shape \(1, 2, 3, 2\)"):
        text.decode(np.zeros((1, 2, 3, 2)), v)
    with pytest.raises(checks.InputError, match=r"x has NaN"):
        text.decode(np.full((1, 2, 3), np.nan), v)
    with pytest.raises(checks.InputError, match=r"the words begin with"):
        text.embed(["a cat"], v._replace(words=v.words[2:], table=v.table[2:]), length=3)
    with pytest.raises(checks.InputError, match=r"vectors.table"):
        text.embed(["a cat"], v._replace(table=v.table[:2]), length=3)
    with pytest.raises(checks.InputError, match="dimension is 50 and there are"):
        text.learned(TEXTS, v.words, dimension=50)
    with pytest.raises(checks.InputError, match="names has 1 entries for 0 files"):
        text.domains([], names=["a"])
    with pytest.raises(checks.InputError, match="there are 0 files"):
        text.domains([])
    with pytest.raises(checks.InputError, match="files is empty"):
        text.sentiment([])
    corpus = text.Corpus(("a cat", "the dog") * 10, np.arange(20) % 2, ("cats", "dogs"))
    for classes, words in (
        (np.zeros(2, int), "same number"),
        (np.full(20, np.nan), "float64"),
        (np.full(20, -1), "spans -1..-1"),
        (np.full(20, 2), "spans 2..2"),
    ):
        with pytest.raises(checks.InputError, match=words):
            text.dataset(corpus._replace(labels=classes))
    for fraction, part in ((0.01, "test"), (0.92, "training"), (0.99, "training")):
        with pytest.raises(checks.InputError, match=f"leaves the {part} part fewer than the 2 classes"):
            text.dataset(corpus, test_fraction=fraction)


FOLDER = os.environ.get("KIPJAX_TEXT_DIR") or pathlib.Path(__file__).parents[3] / "shared" / "data" / "text"


@pytest.mark.skipif(not pathlib.Path(FOLDER).is_dir(), reason="no folder of rated sentences (KIPJAX_TEXT_DIR)")
def test_rated_sentences():
    files = sorted(pathlib.Path(FOLDER).glob("*.txt"))
    corpus = text.domains(files)
    assert len(corpus.class_names) == 4 and len(corpus.texts) == len(corpus.labels) > 20000
    made, v = text.dataset(corpus, length=20, dimension=20, size=2000)
    assert made.x_train.shape[1:] == (20, 20, 1) and made.num_classes == 4
    assert isinstance(made, data.Dataset) and len(v.words) == 2000
    mood = text.sentiment(files)
    assert set(mood.labels.tolist()) == {0, 1}


@pytest.mark.slow
@pytest.mark.skipif(not pathlib.Path(FOLDER).is_dir(), reason="no folder of rated sentences (KIPJAX_TEXT_DIR)")
def test_learned_vectors_do_not_depend_on_the_number_of_cores():
    """To the bit, as artifacts hold a fingerprint of the data. (Limits bind libraries that are loaded.)"""
    pytest.importorskip("sklearn.utils.extmath")
    texts = text.sentiment(sorted(pathlib.Path(FOLDER).glob("*.txt"))).texts
    words, found = text.vocabulary(texts, size=5000), []
    for threads in (1, 2):
        with threadpoolctl.threadpool_limits(threads):
            found.append(text.learned(texts, words).table)
    np.testing.assert_array_equal(*found)
