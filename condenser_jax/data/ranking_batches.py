"""Batches of queries with their passages, as functions of the step: one positive of each query and
hard negatives, drawn anew at every visit.
"""

from functools import cached_property
from typing import NamedTuple

import numpy as np

from condenser_jax.data.buckets import SPECIALS
from condenser_jax.data.hashing import hash_u32, integers_below
from condenser_jax.data.rows import NumpyBatch, SpanStore, read_beginnings
from condenser_jax.data.vocabulary import Vocabulary
from condenser_jax.data.walk import Walk
from condenser_jax.errors import UserError

POSITIVE, NEGATIVE, RANDOM = 41, 42, 43  # what a hash is drawn for
ABSENT = -1  # in a list of passages: none
AT_ONCE = 8192  # passages
LAST = np.iinfo(np.uint32).max


class Lists(NamedTuple):
    """A list of passages for each query: query q has numbers[offsets[q]:offsets[q + 1]]."""

    offsets: np.ndarray  # int64 [Q + 1]
    numbers: np.ndarray  # int32 [N]
    scores: np.ndarray | None = None  # float32 [N], of a cross-encoder, if there are any

    def of(self, query: int) -> np.ndarray:
        """The passages of one query."""
        return self.numbers[self.offsets[query] : self.offsets[query + 1]]

    def lengths(self, queries: np.ndarray) -> np.ndarray:
        """How many passages each of the queries [B] has."""
        return self.offsets[queries + 1] - self.offsets[queries]

    def take(self, queries: np.ndarray) -> "Lists":
        """The lists of some queries [B], in their order."""
        lengths = self.lengths(queries)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[queries] - offsets[:-1], lengths)
        scores = None if self.scores is None else self.scores[places]
        return Lists(offsets, self.numbers[places], scores)

    def padded(self, queries: np.ndarray) -> np.ndarray:
        """int32 [B, longest]: the lists of the queries, ABSENT at their ends."""
        lengths = self.lengths(queries)
        columns = np.arange(max(1, lengths.max(initial=0)))
        is_real = columns < lengths[:, None]
        places = np.where(is_real, self.offsets[queries, None] + columns, 0)
        if not len(self.numbers):
            return np.full(places.shape, ABSENT, np.int32)
        return np.where(is_real, self.numbers[places], ABSENT).astype(np.int32)


class TrainingSet(NamedTuple):
    """Queries and passages as token ids, and which belong together."""

    queries: SpanStore
    passages: SpanStore
    positives: Lists  # every query has one or more
    negatives: Lists  # hard negatives; a query may have none


class RankingBatches:
    """The batches of an endless, shuffled stream of queries, each with its group of passages.

    A visit draws one of the query's positives and `group` - 1 of its hard negatives: distinct ones
    while the list lasts, then some of them again; for a query without any, passages at random. A
    batch holds (Q = batch_size queries, G = group)

        query_input_ids, query_attention_mask       int32 [Q, query_length]
        passage_input_ids, passage_attention_mask   int32 [Q, G, passage_length]
        passages        int32 [Q, G]     numbers in the corpus, the positive first
        positives       int32 [Q, K]     all known positives of the query, ABSENT at the end
        teacher_scores  float32 [Q, G]   if the training set has scores, and a negative

    Passages that the encoder reads alike have one number, that of the first (`first_alike`). Texts
    that are too long lose their ends. Raises UserError for a query without a positive.
    """

    def __init__(
        self,
        data: TrainingSet,
        vocabulary: Vocabulary,
        batch_size: int,
        group: int,
        query_length: int,
        passage_length: int,
        seed: int,
    ) -> None:
        self.data, self.vocabulary, self.batch_size, self.seed = data, vocabulary, batch_size, seed
        self.group, self.lengths = group, (query_length, passage_length)
        counts = np.diff(data.positives.offsets)
        if not counts.size or not counts.all():
            raise UserError(
                f"{int((counts == 0).sum())} of {counts.size} training queries have no positive; "
                "expected at least one for each: drop the others from the training file"
            )
        self._most_positives = int(counts.max())
        self._walk = Walk([len(counts)], [1.0], seed)

    @property
    def steps_per_epoch(self) -> int:
        """Steps that visit every query once, the last step running over."""
        return -(-self._walk.totals[0] // self.batch_size)

    @cached_property
    def _alike(self) -> np.ndarray:
        return first_alike(self.data.passages, self.lengths[1] - SPECIALS)

    def batch(self, step: int, rows: slice | np.ndarray = slice(None)) -> NumpyBatch:
        """Returns these rows (queries) of global batch `step`."""
        stream = step * self.batch_size + np.arange(self.batch_size, dtype=np.int64)[rows]
        _, epoch, query = self._walk.at(stream)
        chosen, places = self._draw(epoch, query)
        query_ids, query_mask = read_beginnings(
            self.data.queries, query, self.vocabulary, self.lengths[0]
        )
        ids, mask = read_beginnings(
            self.data.passages, chosen.reshape(-1), self.vocabulary, self.lengths[1]
        )
        known = self.data.positives.padded(query)
        positives = np.full((len(query), self._most_positives), ABSENT, np.int32)
        positives[:, : known.shape[1]] = np.where(known < 0, ABSENT, self._alike[known])
        batch = {
            "query_input_ids": query_ids,
            "query_attention_mask": query_mask,
            "passage_input_ids": ids.reshape(*chosen.shape, -1),
            "passage_attention_mask": mask.reshape(*chosen.shape, -1),
            "passages": self._alike[chosen],
            "positives": positives,
        }
        return batch | self._scores(places)

    def _draw(self, epoch: np.ndarray, query: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """Passages int32 [B, G], and where positive [B] and negatives [B, G - 1] stand in their
        lists.
        """
        positives, negatives = self.data.positives, self.data.negatives
        of_visit = (self.seed, epoch, query)
        first = positives.offsets[query]
        positive = first + integers_below(positives.lengths(query), POSITIVE, *of_visit)
        places = self._draw_negatives(epoch, query)
        chosen = np.empty((len(query), self.group), np.int32)
        chosen[:, 0] = positives.numbers[positive]
        column = np.arange(self.group - 1)
        total = len(self.data.passages.offsets) - 1
        anything = integers_below(
            total, RANDOM, self.seed, epoch[:, None], query[:, None], column
        ).astype(np.int32)
        if len(negatives.numbers):
            has_own = negatives.lengths(query)[:, None] > 0
            anything = np.where(has_own, negatives.numbers[places], anything)
        chosen[:, 1:] = anything
        return chosen, [positive, places]

    def _draw_negatives(self, epoch: np.ndarray, query: np.ndarray) -> np.ndarray:
        """int64 [B, G - 1]: places in the list of negatives, in a new random order at every
        visit, from its start again where the list is too short; 0 where there is none.
        """
        lengths = self.data.negatives.lengths(query)
        columns = np.arange(max(1, lengths.max(initial=0)))
        draws = hash_u32(NEGATIVE, self.seed, epoch[:, None], query[:, None], columns)
        order = np.argsort(np.where(columns < lengths[:, None], draws, LAST), 1, kind="stable")
        wanted = np.arange(self.group - 1) % np.maximum(lengths, 1)[:, None]
        places = self.data.negatives.offsets[query, None] + np.take_along_axis(order, wanted, 1)
        return np.where(lengths[:, None] > 0, places, 0)

    def _scores(self, places: list[np.ndarray]) -> NumpyBatch:
        positive, negatives = self.data.positives.scores, self.data.negatives.scores
        if positive is None or negatives is None or not len(negatives):
            return {}
        columns = [positive[places[0]][:, None], negatives[places[1]]]
        return {"teacher_scores": np.concatenate(columns, axis=1).astype(np.float32)}


def first_alike(passages: SpanStore, length: int) -> np.ndarray:
    """int32 [P]: for every passage the number of the first one that begins with the same `length`
    tokens. An encoder cannot tell them apart, whatever their ids.
    """
    total = len(passages.offsets) - 1
    hashes = np.empty(total, np.int64)
    for start in range(0, total, AT_ONCE):
        which = np.arange(start, min(start + AT_ONCE, total))
        ids, lengths = passages.gather(which, np.zeros_like(which), length)
        hashes[which] = [hash(row[:n].tobytes()) for row, n in zip(ids, lengths, strict=True)]
    _, first, group = np.unique(hashes, return_index=True, return_inverse=True)
    return first[group].astype(np.int32)
