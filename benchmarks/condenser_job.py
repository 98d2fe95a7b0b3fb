"""The job that every contender of the benchmark gets: the same sizes, the same synthetic batch."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

VOCABULARY, SPECIALS, MASK_RATE, DROPOUT = 30_522, 999, 0.15, 0.1
HEAD_LAYERS, CLIP_NORM, LEARNING_RATE, WEIGHT_DECAY = 2, 1.0, 1e-4, 0.01
SIZES = {  # layers, width, heads, feed-forward, batch
    "small": (6, 384, 6, 1536, 16),
    "base": (12, 768, 12, 3072, 4),
}


@dataclasses.dataclass(frozen=True)
class Job:
    """What is trained, on how much. A paragraph of BERT's vocabulary, dropout as published."""

    layers: int
    width: int
    heads: int
    inner: int
    batch: int
    length: int
    dtype: str

    @property
    def early_layer(self) -> int:
        """The hidden state that skips to the head."""
        return self.layers // 2

    @property
    def masked(self) -> int:
        """Masked tokens of a row."""
        return round(MASK_RATE * (self.length - 2))


class Contender(NamedTuple):
    """A training step that is ready to run."""

    run: Callable[[int], float]  # runs so many steps, waits for the device, returns the last loss
    peak_memory: Callable[[], int]  # bytes, so far
    versions: dict[str, str]
    device: str


def make_batch(job: Job) -> dict[str, Any]:
    """Full rows (no padding), every row with all of its masked tokens; docs/design.md section 5."""
    rng = np.random.default_rng(0)
    shape = (job.batch, job.length)
    ids = rng.integers(SPECIALS, VOCABULARY, shape, np.int32)
    body = np.arange(1, job.length - 1, dtype=np.int32)
    order = rng.permuted(np.broadcast_to(body, (job.batch, len(body))), axis=1)
    places = np.sort(order[:, : job.masked], axis=1)
    originals = np.take_along_axis(ids, places, axis=1)
    np.put_along_axis(ids, places, rng.integers(SPECIALS, VOCABULARY, places.shape, np.int32), 1)
    return {
        "input_ids": ids,
        "attention_mask": np.ones(shape, np.int32),
        "masked_positions": places,
        "masked_ids": originals,
        "masked_weights": np.ones(places.shape, np.float32),
    }
