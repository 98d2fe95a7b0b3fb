"""Batches of texts, or pairs of texts, with their labels, as functions of the step."""

from typing import NamedTuple

import numpy as np

from condenser_jax.data.rows import NumpyBatch
from condenser_jax.data.walk import Walk


class EncodedTexts(NamedTuple):
    """Texts as token ids, special tokens included, joined: text n is ids[offsets[n]:offsets[n + 1]]
    and as many token types.
    """

    ids: np.ndarray  # [T]
    token_types: np.ndarray  # uint8 [T]
    offsets: np.ndarray  # int64 [N + 1]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def rows(self, numbers: np.ndarray, length: int, pad_id: int) -> NumpyBatch:
        """Texts `numbers` [B] as input_ids, attention_mask and token_type_ids, int32 [B, length],
        padded on the right. No text is longer than `length`.
        """
        starts = self.offsets[numbers, None]
        columns = np.arange(length)
        is_real = columns < self.offsets[numbers + 1, None] - starts
        places = np.where(is_real, starts + columns, 0)
        return {
            "input_ids": np.where(is_real, self.ids[places], pad_id).astype(np.int32),
            "attention_mask": is_real.astype(np.int32),
            "token_type_ids": np.where(is_real, self.token_types[places], 0).astype(np.int32),
        }


class LabelledBatches:
    """The batches of an endless stream of labelled texts, shuffled anew in every epoch.

    A batch holds input_ids, attention_mask, token_type_ids int32 [B, length], and labels [B]: ids
    int32, or scores float32.
    """

    def __init__(
        self,
        texts: EncodedTexts,
        labels: np.ndarray,
        batch_size: int,
        length: int,
        pad_id: int,
        seed: int,
    ) -> None:
        self.texts, self.batch_size, self.length, self.pad_id = texts, batch_size, length, pad_id
        self.labels = labels.astype(np.float32 if labels.dtype.kind == "f" else np.int32)
        self._walk = Walk([len(texts)], [1.0], seed)

    @property
    def steps_per_epoch(self) -> int:
        """Steps that visit every text once; the last may run over."""
        return -(-len(self.texts) // self.batch_size)

    def batch(self, step: int, rows: slice | np.ndarray = slice(None)) -> NumpyBatch:
        """Returns these rows of global batch `step`."""
        stream = step * self.batch_size + np.arange(self.batch_size, dtype=np.int64)[rows]
        _, _, numbers = self._walk.at(stream)
        batch = self.texts.rows(numbers, self.length, self.pad_id)
        return batch | {"labels": self.labels[numbers]}


def all_rows(texts: EncodedTexts, batch_size: int, length: int, pad_id: int) -> list[NumpyBatch]:
    """All texts in their order; the last batch is filled up with the first text."""
    numbers = np.arange(-(-len(texts) // batch_size) * batch_size)
    parts = np.where(numbers < len(texts), numbers, 0).reshape(-1, batch_size)
    return [texts.rows(part, length, pad_id) for part in parts]
