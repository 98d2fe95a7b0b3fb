"""The work of one process of `prepare`: documents in, token ids of their spans out.

A task is a run of consecutive documents. Its result depends on the documents, on the index of the
first, and on the options alone, so the prepared data are the same for any number of processes.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from condenser_jax.data.documents import Document
from condenser_jax.data.duplicates import FIRST, NEVER, SECOND
from condenser_jax.data.spans import RECIPES, SpanOptions, cut_spans, uniform
from condenser_jax.data.tokenization import encode, load_backend

TASK_DOCUMENTS = 256
TASK_CHARACTERS = 1 << 20


class CutOptions(NamedTuple):
    """What a worker must know, once."""

    spans: SpanOptions
    tokenizer_directory: str
    min_tokens: int
    heldout_share: float
    dtype: str


class Task(NamedTuple):
    """Consecutive documents, and the index of the first."""

    first: int
    documents: list[Document]


class Cut(NamedTuple):
    """The spans of one task's documents; what is too short is left out already."""

    ids: np.ndarray  # [tokens]
    span_lengths: np.ndarray  # int32 [spans]
    span_hashes: np.ndarray  # uint64 [spans], of the token ids
    document_spans: np.ndarray  # int32 [documents]
    document_hashes: np.ndarray  # uint64 [documents], of the text
    document_ranks: (
        np.ndarray
    )  # uint8 [documents]: FIRST train, SECOND held out, NEVER without spans
    too_short: int


def make_tasks(documents: Iterable[Document]) -> Iterator[Task]:
    """Groups documents into tasks of bounded size."""
    first, gathered, characters = 0, [], 0
    for document in documents:
        gathered.append(document)
        characters += len(document.text)
        if len(gathered) == TASK_DOCUMENTS or characters >= TASK_CHARACTERS:
            yield Task(first, gathered)
            first, gathered, characters = first + len(gathered), [], 0
    if gathered:
        yield Task(first, gathered)


def text_hash(data: bytes) -> int:
    """Returns a 64-bit hash."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


def heldout_rank(group: str, seed: int) -> float:
    """Returns a number of [0, 1), a hash of the group's name: the lowest are held out first."""
    word = text_hash(group.encode()) >> 1  # within int64
    return uniform(seed, word)


def is_heldout(group: str, share: float, seed: int) -> bool:
    """True for `share` of all groups, by a hash of the group's name."""
    return heldout_rank(group, seed) < share


_options: CutOptions
_backend: Any


def start_worker(options: CutOptions) -> None:
    """Loads the tokenizer, once per process."""
    global _options, _backend
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one process per core already
    _options, _backend = options, load_backend(options.tokenizer_directory)


def cut_task(task: Task) -> Cut:
    """Splits, encodes and cuts the documents of a task."""
    options = _options
    split = RECIPES[options.spans.recipe].split
    pieces = [split(document.text) for document in task.documents]
    encoded = iter(encode(_backend, [piece for parts in pieces for piece in parts]))
    ids: list[list[int]] = []
    spans: list[list[int]] = []
    for index, parts in enumerate(pieces, start=task.first):
        tokens = [next(encoded) for _ in parts]
        ids += tokens
        spans.append(cut_spans([len(piece) for piece in tokens], options.spans, index))
    flat = np.fromiter((token for piece in ids for token in piece), np.dtype(options.dtype))
    return _without_short_spans(flat, spans, task, options)


def _without_short_spans(
    ids: np.ndarray, spans: list[list[int]], task: Task, options: CutOptions
) -> Cut:
    lengths = np.array([length for cuts in spans for length in cuts], np.int32)
    owners = np.repeat(np.arange(len(spans)), [len(cuts) for cuts in spans])
    is_kept = lengths >= options.min_tokens
    ids, lengths = ids[np.repeat(is_kept, lengths)], lengths[is_kept]
    counts = np.bincount(owners[is_kept], minlength=len(spans)).astype(np.int32)
    ends = np.cumsum(lengths)
    hashes = [text_hash(ids[end - n : end].tobytes()) for end, n in zip(ends, lengths, strict=True)]
    return Cut(
        ids,
        lengths,
        np.array(hashes, np.uint64),
        counts,
        np.array([text_hash(d.text.encode()) for d in task.documents], np.uint64),
        np.array(
            [_rank(d, n, options) for d, n in zip(task.documents, counts, strict=True)], np.uint8
        ),
        int(len(is_kept) - is_kept.sum()),
    )


def _rank(document: Document, spans: int, options: CutOptions) -> int:
    if spans == 0:
        return NEVER
    return (
        SECOND if is_heldout(document.group, options.heldout_share, options.spans.seed) else FIRST
    )
