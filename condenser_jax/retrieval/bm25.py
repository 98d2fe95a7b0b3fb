"""BM25, the baseline of every table: words alone, no training (Robertson and Zaragoza 2009).

The scores are bm25s's, in the variant of Lucene, with Pyserini's k1 and b for passages. A word is
two or more letters or digits in a row, in lower case. The default knows no language: no stop
words, no stemming; both are English when asked for.
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from condenser_jax.errors import UserError
from condenser_jax.retrieval.texts import Text, Texts


@dataclass(frozen=True)
class Bm25Options:
    """How words are counted."""

    k1: float = 0.9  # how soon further occurrences of a word stop to matter
    b: float = 0.4  # how much long passages are discounted, 0 to 1
    stop_words: bool = False  # leave out English words such as "the"
    stemming: bool = False  # English word stems, by PyStemmer

    def __post_init__(self) -> None:
        if self.k1 < 0 or not 0 <= self.b <= 1:
            raise UserError(
                f"BM25 with k1 {self.k1:g} and b {self.b:g}: expected k1 >= 0 and b within 0 and 1"
            )


class Bm25:
    """An index of a corpus, in memory: 8 bytes for each distinct word of each passage, and several
    times that while it is built.

    Equal scores are ranked as trec_eval ranks them, so results are the same every time. Raises
    UserError for a corpus without words.
    """

    def __init__(self, corpus: Texts, options: Bm25Options | None = None) -> None:
        # Late: bm25s starts jax's backend when it is imported.
        import bm25s
        from bm25s.tokenization import Tokenizer

        logging.getLogger("bm25s").setLevel(logging.WARNING)  # it asks for DEBUG
        self.options = options or Bm25Options()
        self._words = Tokenizer(
            stopwords="english" if self.options.stop_words else [],
            stemmer=_stemmer() if self.options.stemming else None,
        )
        ids = self._tokenize(corpus, True)
        vocabulary = self._words.get_vocab_dict()
        if not vocabulary:
            raise UserError("no passage of the corpus holds a word; BM25 has nothing to count")
        self._index = bm25s.BM25(k1=self.options.k1, b=self.options.b, method="lucene")
        self._index.index((ids, vocabulary), show_progress=False)
        self._ids = np.array(corpus.ids, dtype=np.dtypes.StringDType())

    def _tokenize(self, texts: Iterable[Text], is_corpus: bool) -> list[list[int]]:
        joined = (text.joined for text in texts)
        return list(self._words.streaming_tokenize(joined, is_corpus, allow_empty=False))

    def search(self, queries: Texts, k: int) -> dict[str, dict[str, float]]:
        """Returns a run: of each query the best k of the passages that share a word with it."""
        if k < 1:
            raise UserError(f"k {k} asks for no passage; use 1 or more")
        words = self._tokenize(queries, False)
        found = (self._best(ids, k) for ids in words)
        return {
            query: dict(zip(self._ids[rows].tolist(), scores.tolist(), strict=True))
            for query, (rows, scores) in zip(queries.ids, found, strict=True)
        }

    def rank(
        self, queries: Texts, k: int, advance: Callable[[int], None] = lambda count: None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns rows of the corpus int64 [Q, k], best first and -1 where no other shares a word,
        and their scores float32 [Q, k]; `advance` is told of every query that is done.
        """
        rows = np.full((len(queries), k), -1, np.int64)
        scores = np.zeros((len(queries), k), np.float32)
        for query, words in enumerate(self._tokenize(queries, False)):
            best, theirs = self._best(words, k)
            rows[query, : len(best)], scores[query, : len(best)] = best, theirs
            advance(1)
        return rows, scores

    def _best(self, words: list[int], k: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and scores, best first."""
        if not words:
            return np.zeros(0, np.int64), np.zeros(0, np.float32)
        scores = self._index.get_scores_from_ids(words)
        rows = np.flatnonzero(scores > 0)
        if len(rows) > k:
            least = np.partition(scores[rows], -k)[-k]
            rows = rows[scores[rows] >= least]  # with all that tie for the last place
        order = np.lexsort((self._ids[rows], scores[rows]))[::-1][:k]
        return rows[order], scores[rows][order]


def check_packages(options: Bm25Options) -> None:
    """Raises UserError for stemming without its package: to be asked before work that else would be
    lost.
    """
    if options.stemming:
        _stemmer()


def _stemmer() -> Callable[[str], Any]:
    try:
        import Stemmer
    except ImportError as error:
        raise UserError("BM25 with stemming needs PyStemmer; pip install PyStemmer") from error
    return Stemmer.Stemmer("english").stemWord
