"""The job that every contender of benchmarks/tutor_kd.py gets: the same sizes, the same batch."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

SPECIALS, MASK_RATE, LEARNING_RATE, WEIGHT_DECAY = 999, 0.15, 5e-4, 0.01
SIZES = {  # teacher layers, width; student layers, width; heads of both; batch; vocabulary
    "tiny": (4, 64, 2, 32, 2, 4, 2048),
    "small": (6, 384, 3, 192, 6, 16, 8192),
    "base": (12, 768, 6, 768, 12, 4, 30522),
}


@dataclasses.dataclass(frozen=True)
class Job:
    """A teacher, a student, and how much of text. Dropout of the student is 0.1, as published."""

    teacher_layers: int
    teacher_width: int
    student_layers: int
    student_width: int
    heads: int
    batch: int
    vocabulary: int
    length: int
    dtype: str

    @property
    def slots(self) -> int:
        """Masked tokens of a row."""
        return round(MASK_RATE * (self.length - 2))


class Contender(NamedTuple):
    """A joint step that is ready to run."""

    run: Callable[[int], float]  # runs so many steps, waits for the device, returns the last loss
    versions: dict[str, str]
    device: str


def make_batch(job: Job) -> dict[str, Any]:
    """Full rows, each with all of its masked tokens, [MASK] being id 4."""
    rng = np.random.default_rng(0)
    shape = (job.batch, job.length)
    ids = rng.integers(SPECIALS, job.vocabulary, shape, np.int32)
    body = np.arange(1, job.length - 1, dtype=np.int32)
    order = rng.permuted(np.broadcast_to(body, (job.batch, len(body))), axis=1)
    places = np.sort(order[:, : job.slots], axis=1)
    originals = np.take_along_axis(ids, places, axis=1)
    np.put_along_axis(ids, places, np.int32(4), 1)
    return {
        "input_ids": ids,
        "attention_mask": np.ones(shape, np.int32),
        "masked_positions": places,
        "masked_ids": originals,
        "masked_weights": np.ones(places.shape, np.float32),
    }
