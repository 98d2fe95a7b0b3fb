"""BM25 scores by its formula, ranks ties as trec_eval does, and knows English only if asked."""

import logging
import sys

import numpy as np
import pytest

from condenser_jax.errors import UserError
from condenser_jax.retrieval.bm25 import Bm25, Bm25Options
from condenser_jax.retrieval.texts import Text, Texts

CORPUS = Texts.of(
    [
        Text("d1", "sort the array"),
        Text("d2", "join the arrays the array"),
        Text("d3", "nothing of it"),
        Text("d4", "the array sort"),
        Text("d5", "words", "Sort"),
    ]
)


def queries(*texts):
    return Texts.of(Text(f"q{i}", text) for i, text in enumerate(texts))


def by_hand(words, passages, k1, b):
    """Robertson's sum with Lucene's idf; scores without the constant factor k1 + 1."""
    counts = [[passage.count(word) for word in words] for passage in passages]
    lengths = np.array([len(passage) for passage in passages])
    total = np.zeros(len(passages))
    for column in np.array(counts, float).T:
        found = (column > 0).sum()
        idf = np.log(1 + (len(passages) - found + 0.5) / (found + 0.5))
        total += idf * column / (column + k1 * (1 - b + b * lengths / lengths.mean()))
    return total


def test_scores_are_those_done_by_hand():
    words = [text.joined.lower().split() for text in CORPUS]
    expected = by_hand(["sort", "array"], words, 1.2, 0.75)
    run = Bm25(CORPUS, Bm25Options(k1=1.2, b=0.75)).search(queries("Sort: array!"), 5)["q0"]
    assert run == pytest.approx(
        {name: score for name, score in zip(CORPUS.ids, expected, strict=True) if score > 0},
        rel=1e-5,
    )


def test_the_best_come_first_and_ties_fall_by_id_also_where_they_are_cut():
    run = Bm25(CORPUS).search(queries("sort array"), 5)["q0"]
    assert run["d1"] == run["d4"] and list(run)[:2] == ["d4", "d1"]
    assert list(Bm25(CORPUS).search(queries("sort array"), 1)["q0"]) == ["d4"]
    assert "d3" not in run  # shares no word


def test_a_query_without_known_words_finds_nothing():
    assert Bm25(CORPUS).search(queries("unknown", "!", "sort"), 5) | {"q2": 0} == {
        "q0": {},
        "q1": {},
        "q2": 0,
    }


def test_the_default_knows_no_language():
    plain = Bm25(CORPUS).search(queries("the", "arrays"), 5)
    assert set(plain["q0"]) == {"d1", "d2", "d4"} and set(plain["q1"]) == {"d2"}
    english = Bm25(CORPUS, Bm25Options(stop_words=True)).search(queries("the", "arrays"), 5)
    assert english["q0"] == {} and set(english["q1"]) == {"d2"}


def test_stemming_finds_other_forms_of_a_word():
    pytest.importorskip("Stemmer")
    stemmed = Bm25(CORPUS, Bm25Options(stemming=True)).search(queries("arrays sorting"), 5)["q0"]
    assert set(stemmed) == {"d1", "d2", "d4", "d5"}


def test_stemming_without_its_package_names_the_remedy(monkeypatch):
    monkeypatch.setitem(sys.modules, "Stemmer", None)
    with pytest.raises(UserError, match="BM25 with stemming needs PyStemmer; pip install PyStemme"):
        Bm25(CORPUS, Bm25Options(stemming=True))


def test_it_tells_nothing_to_the_log(caplog):
    with caplog.at_level(logging.DEBUG):
        Bm25(CORPUS).search(queries("unknown"), 5)
    assert "bm25s" not in {record.name for record in caplog.records}


def test_what_cannot_be_counted_is_refused():
    with pytest.raises(UserError, match="BM25 with k1 -1 and b 0.4: expected k1 >= 0 and b within"):
        Bm25Options(k1=-1)
    with pytest.raises(UserError, match="no passage of the corpus holds a word"):
        Bm25(Texts.of([Text("d", "!")]))
    with pytest.raises(UserError, match="k 0 asks for no passage; use 1 or more"):
        Bm25(CORPUS).search(queries("sort"), 0)
