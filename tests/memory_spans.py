"""Spans in memory, and what tests of batches share."""

import numpy as np

from condenser_jax.data.vocabulary import Vocabulary

SIZE, MAX_LENGTH = 1000, 12
VOCABULARY = Vocabulary(
    pad_id=0,
    cls_id=1,
    sep_id=2,
    mask_id=3,
    unk_id=4,
    special_ids=np.arange(5, dtype=np.int32),
    continues_word=np.arange(SIZE) % 4 == 3,
    replaceable_ids=np.arange(5, SIZE, dtype=np.int32),
)


class MemorySpans:
    """Spans in memory, with the attributes that batches read of the memory-mapped ones."""

    def __init__(self, lengths, first=5, sizes=None):
        """Spans of these lengths, whose ids count upwards; `sizes`: spans of each document."""
        self.offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        self.documents = np.concatenate([[0], np.cumsum(sizes or [])]).astype(np.int64)
        self.ids = (first + np.arange(self.offsets[-1])).astype(np.uint16)

    def gather(self, indices, starts, length):
        ids = np.full((len(indices), length), VOCABULARY.pad_id, np.int32)
        windows = [self.span(i)[start:][:length] for i, start in zip(indices, starts, strict=True)]
        for row, window in zip(ids, windows, strict=True):
            row[: len(window)] = window
        return ids, np.array([len(window) for window in windows], np.int32)

    def span(self, index):
        return self.ids[self.offsets[index] : self.offsets[index + 1]].tolist()


def assert_equal(left, right):
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)


def join(parts):
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def bodies_of(batch):
    """The original tokens of each row, without specials and padding."""
    ids = batch["input_ids"].copy()
    for row, (positions, originals, weights) in enumerate(
        zip(batch["masked_positions"], batch["masked_ids"], batch["masked_weights"], strict=True)
    ):
        ids[row, positions[weights > 0]] = originals[weights > 0]
    lengths = batch["attention_mask"].sum(1)
    return [row[1 : length - 1].tolist() for row, length in zip(ids, lengths, strict=True)]


def stream_of(batches, steps):
    return join([batches.batch(step) for step in range(steps)])
