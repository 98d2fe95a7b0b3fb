"""How many masked spans of length 128 one core builds per second.

    taskset -c 0 python benchmarks/masking.py [--output=FILE] [--batch_size=N ...]

A batch is built as training does: spans chosen by a shuffle of random access, windows gathered out
of memory-mapped files, words masked. Beside it stands the same definition as a loop over records,
with a random generator per record, as collators are usually written. Spans are synthetic: ids by
Zipf's law of a vocabulary in which a quarter of the tokens continue a word. Prints a table and
appends one line of JSON to the output.
"""

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import record
from flag_types import count

from condenser_jax.data.batches import SpanBatches
from condenser_jax.data.store import Spans
from condenser_jax.data.vocabulary import Vocabulary

LENGTH, MASK_RATE, SPECIALS = 128, 0.15, 5
NUM_SPANS, VOCABULARY_SIZE, CONTINUING_SHARE = 50_000, 30_522, 0.25
OUTPUT = record.FOLDER / "masking.jsonl"


def synthetic_vocabulary() -> Vocabulary:
    rng = np.random.default_rng(0)
    continues = rng.random(VOCABULARY_SIZE) < CONTINUING_SHARE
    continues[:SPECIALS] = False
    special = np.arange(SPECIALS, dtype=np.int32)
    real = np.arange(SPECIALS, VOCABULARY_SIZE, dtype=np.int32)
    return Vocabulary(0, 1, 2, 3, 4, special, continues, real)


def write_spans(directory: Path) -> Spans:
    """Writes NUM_SPANS spans of 126 to 200 tokens: every row is full, most are cut to a window."""
    rng = np.random.default_rng(1)
    lengths = rng.integers(LENGTH - 2, 200, NUM_SPANS)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    ranks = (VOCABULARY_SIZE - SPECIALS) ** rng.random(offsets[-1])  # density 1 / rank
    (ranks.astype(np.uint16) - 1 + SPECIALS).astype(np.uint16).tofile(directory / "ids.bin")
    offsets.tofile(directory / "offsets.bin")
    return Spans(directory, np.uint16, pad_id=0)


def mask_record(body: list[int], vocabulary: Vocabulary, rng: random.Random) -> tuple:
    """One record as a collator does it: window, words, budget, replacement, padding."""
    if len(body) > LENGTH - 2:
        start = rng.randrange(len(body) - LENGTH + 3)
        body = body[start : start + LENGTH - 2]
    words: list[list[int]] = []
    for position, token in enumerate(body, start=1):
        if words and vocabulary.continues_word[token]:
            words[-1].append(position)
        else:
            words.append([position])
    rng.shuffle(words)
    left, positions = max(1, round(MASK_RATE * len(body))), []
    for word in words:
        if len(word) <= left:
            positions += word
            left -= len(word)
    padding = LENGTH - 2 - len(body)
    ids = [vocabulary.cls_id, *body, vocabulary.sep_id] + [vocabulary.pad_id] * padding
    originals = [ids[position] for position in positions]
    for position in positions:
        draw = rng.random()
        if draw < 0.8:
            ids[position] = vocabulary.mask_id
        elif draw < 0.9:
            ids[position] = int(rng.choice(vocabulary.replaceable_ids))
    return ids, positions, originals


def loop_over_records(spans: Spans, vocabulary: Vocabulary, batch_size: int) -> Callable:
    ids, offsets = np.asarray(spans.ids), np.asarray(spans.offsets)

    def build(step: int) -> None:
        rng = random.Random(step)
        indices = [rng.randrange(NUM_SPANS) for _ in range(batch_size)]
        bodies = [ids[offsets[i] : offsets[i + 1]].tolist() for i in indices]
        records = [mask_record(body, vocabulary, rng) for body in bodies]
        np.array([record[0] for record in records], np.int32)

    return build


def spans_per_second(build: Callable, batch_size: int, seconds: float = 0.5) -> float:
    """Best of three turns of at least `seconds`: the machine may have other work."""
    build(0)
    best, step = 0.0, 1
    for _ in range(3):
        start, first = time.perf_counter(), step
        while (passed := time.perf_counter() - start) < seconds:
            build(step)
            step += 1
        best = max(best, (step - first) * batch_size / passed)
    return best


def measure(spans: Spans, batch_sizes: list[int]) -> dict:
    vocabulary = synthetic_vocabulary()
    figures: dict = {"spans_per_second": {}, "loop_spans_per_second": {}}
    for size in batch_sizes:
        batches = SpanBatches(spans, vocabulary, size, LENGTH, MASK_RATE, seed=0)
        loop = loop_over_records(spans, vocabulary, size)
        figures["spans_per_second"][size] = round(spans_per_second(batches.batch, size))
        figures["loop_spans_per_second"][size] = round(spans_per_second(loop, size))
    batch = SpanBatches(spans, vocabulary, 8192, LENGTH, MASK_RATE, seed=0).batch(0)
    body_tokens = (batch["attention_mask"].sum(1) - 2).sum()
    return {**figures, "masking_rate": round(float(batch["masked_weights"].sum() / body_tokens), 5)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=OUTPUT)
    parser.add_argument("--batch_size", type=count, nargs="+", default=[32, 256, 1024])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        figures = measure(write_spans(Path(directory)), arguments.batch_size)
    print(f"{'batch':>6} {'vectorised':>12} {'loop':>9} {'ratio':>6}   spans/s of length {LENGTH}")
    for size, ours in figures["spans_per_second"].items():
        loop = figures["loop_spans_per_second"][size]
        print(f"{size:>6} {ours:>12,} {loop:>9,} {ours / loop:>6.1f}")
    print(f"masked: {figures['masking_rate']:.2%} of the tokens between [CLS] and [SEP]")
    record.append(arguments.output, {"numpy": np.__version__, "length": LENGTH, **figures})


if __name__ == "__main__":
    main()
