"""The texts that a model is shown: spans held out of its own training, or any source's.

A source's texts are the beginnings of its documents, tokenised by the encoder's own tokenizer.
"""

import hashlib
import heapq
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

import numpy as np

from condenser_jax.data.batches import NumpyBatch
from condenser_jax.data.sources import open_source
from condenser_jax.data.store import Prepared
from condenser_jax.data.vocabulary import Vocabulary
from condenser_jax.errors import UserError
from condenser_jax.tasks.contract import Options
from condenser_jax.tasks.models import Weights

DEFAULT_SOURCE = "docstrings:"  # of encoders that are no runs of ours
SPECIALS = 2  # [CLS] and [SEP]
SEARCHED = 100_000  # documents of a source among which texts are chosen


class Texts(NamedTuple):
    """Token ids without specials, and where they come from."""

    ids: list[np.ndarray]  # one int array per text
    origin: str


def check_options(models: Sequence[Weights], options: Options) -> None:
    """Raises UserError, before any work, unless every model can read such texts."""
    if options.limit < 1:
        raise UserError(f"--limit={options.limit} leaves no text; use 1 or more")
    if options.max_length <= SPECIALS:
        raise UserError(
            f"--max_length={options.max_length} leaves no room between [CLS] and [SEP]; "
            f"use {SPECIALS + 1} or more"
        )
    for model in models:
        longest = model.config.max_length
        if options.max_length > longest:
            raise UserError(
                f"--max_length={options.max_length} is longer than the {longest} positions of "
                f"{model.path}; use {longest} or less"
            )


def read_texts(model: Weights, options: Options) -> Texts:
    """At most `options.limit` texts: of `options.data`, else held out of the run's own data, else
    of the docstrings. Raises UserError when there is none.
    """
    room = options.max_length - SPECIALS
    if model.prepared and not options.data:
        sources = model.prepared()
        origin = "held out of " + " + ".join(prepared.card["spec"] for prepared in sources)
        ids = _heldout_spans(sources, options.limit, room)
    else:
        origin = options.data or DEFAULT_SOURCE
        texts = _source_texts(origin, options.limit)
        how = {"add_special_tokens": False, "truncation": True, "max_length": room}
        # A tokenizer fails on an empty list.
        encoded = model.tokenizer(texts, **how)["input_ids"] if texts else []
        ids = [np.array(text) for text in encoded if text]
    if not ids:
        raise UserError(f"no text {origin} for {model.path}; name others: --data=text:my/*.txt")
    return Texts(ids, origin)


def _heldout_spans(sources: Sequence[Prepared], limit: int, room: int) -> list[np.ndarray]:
    """The beginnings of spans, evenly spread over the held-out part of every source."""
    share = -(-limit // len(sources))
    chosen = [
        spans.ids[spans.offsets[number] :][: min(spans.lengths[number], room)]
        for spans in (prepared.heldout for prepared in sources)
        for number in np.linspace(0, len(spans) - 1, min(len(spans), share)).astype(np.int64)
    ]
    return chosen[:limit]


@lru_cache(maxsize=1)
def _source_texts(data: str, limit: int) -> list[str]:
    """The documents whose keys have the smallest hashes: a sample that every encoder shares."""
    documents = islice(open_source(data).documents(), SEARCHED)
    chosen = heapq.nsmallest(
        limit, documents, key=lambda document: hashlib.blake2b(document.key.encode()).digest()
    )
    return [document.text for document in chosen]


def to_batches(
    ids: Sequence[np.ndarray], vocabulary: Vocabulary, rows: int
) -> Iterator[NumpyBatch]:
    """Yields batches of `rows` texts, all as long as the longest of all; rows that only fill up
    the last one attend to a lone CLS.
    """
    length = max(map(len, ids)) + SPECIALS
    for start in range(0, len(ids), rows):
        input_ids = np.full((rows, length), vocabulary.pad_id, np.int32)
        attention_mask = np.zeros_like(input_ids)
        input_ids[:, 0], attention_mask[:, 0] = vocabulary.cls_id, 1
        for row, body in enumerate(ids[start : start + rows]):
            end = len(body) + 1
            input_ids[row, 1:end], input_ids[row, end] = body, vocabulary.sep_id
            attention_mask[row, : end + 1] = 1
        yield {"input_ids": input_ids, "attention_mask": attention_mask}
