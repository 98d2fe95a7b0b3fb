"""Batches of a few texts that belong together, such as pairs or triplets of sentences, as functions
of the step.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from condenser_jax.data.rows import NumpyBatch, SpanStore, read_beginnings
from condenser_jax.data.vocabulary import Vocabulary
from condenser_jax.data.walk import Walk


class TextRows(NamedTuple):
    """Rows of T texts each, and what is known of each row."""

    texts: SpanStore  # every text once, as token ids
    numbers: np.ndarray  # int32 [N, T], which texts
    values: Mapping[str, np.ndarray]  # name -> float32 [N]


class TextRowBatches:
    """The batches of an endless, shuffled stream of rows. A batch holds

        input_ids, attention_mask   int32 [B, T, L]
        the rows' values            float32 [B], each under its name

    Texts that are too long lose their ends.
    """

    def __init__(
        self, rows: TextRows, vocabulary: Vocabulary, batch_size: int, max_length: int, seed: int
    ) -> None:
        self.rows, self.vocabulary = rows, vocabulary
        self.batch_size, self.max_length = batch_size, max_length
        self._walk = Walk([len(rows.numbers)], [1.0], seed)

    @property
    def steps_per_epoch(self) -> int:
        """Steps that visit every row once, the last step running over."""
        return -(-len(self.rows.numbers) // self.batch_size)

    def batch(self, step: int, rows: slice | np.ndarray = slice(None)) -> NumpyBatch:
        """Returns these rows of global batch `step`."""
        stream = step * self.batch_size + np.arange(self.batch_size, dtype=np.int64)[rows]
        _, _, place = self._walk.at(stream)
        numbers = self.rows.numbers[place]  # B T
        texts = numbers.reshape(-1)
        arrays = read_beginnings(self.rows.texts, texts, self.vocabulary, self.max_length)
        ids, mask = (array.reshape(*numbers.shape, -1) for array in arrays)
        values = {name: column[place] for name, column in self.rows.values.items()}
        return {"input_ids": ids, "attention_mask": mask, **values}
