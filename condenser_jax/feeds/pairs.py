"""Texts and pairs of texts as token ids, by the tokenizer's own template: what a pipeline of
transformers would hand to the exported model. Encoded once, kept in the cache.
"""

import hashlib
import itertools
import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from condenser_jax.data.built_once import built_once
from condenser_jax.data.columns import Column, read_rows
from condenser_jax.data.labelled_batches import EncodedTexts
from condenser_jax.data.tokenization import tokenizer_identity
from condenser_jax.environment import cache_directory
from condenser_jax.errors import UserError
from condenser_jax.feeds.tokens import Tokens, hash_texts

FORMAT = 1
AT_ONCE = 4096  # texts
IDS, TYPES, OFFSETS, CUT = "ids.bin", "token_types.bin", "offsets.bin", "cut.json"
log = logging.getLogger("condenser_jax")


def encode_pairs(
    tokens: Tokens, texts: tuple[list[str], ...], max_length: int, what: str
) -> EncodedTexts:
    """Texts, or pairs (two lists), with special tokens, cut to `max_length` tokens, the longer of
    two first. How many are cut is logged, under the name `what`.

    Raises UserError for a tokenizer that puts no CLS in front.
    """
    hashes = [hash_texts(side) for side in texts]
    described = [FORMAT, hashes, tokenizer_identity(tokens.tokenizer), max_length]
    key = hashlib.blake2b(json.dumps(described).encode(), digest_size=8).hexdigest()
    directory = cache_directory() / "pairs" / key
    with built_once(directory) as partial:
        if partial is not None:
            _write(tokens, texts, max_length, partial)
    cut = json.loads((directory / CUT).read_text(encoding="utf-8"))
    if cut:
        total = f"{len(texts[0]):,}"
        log.info("data: %s of %s texts of %s are cut to %d", f"{cut:,}", total, what, max_length)
    return EncodedTexts(
        read_rows(directory / IDS, np.int32),
        read_rows(directory / TYPES, np.uint8),
        read_rows(directory / OFFSETS, np.int64),
    )


def _write(tokens: Tokens, texts: tuple[list[str], ...], max_length: int, directory: Path) -> None:
    import tokenizers

    backend = tokenizers.Tokenizer.from_str(tokens.tokenizer.backend_tokenizer.to_str())
    backend.no_padding()
    backend.enable_truncation(max_length, strategy="longest_first")
    has_types = "token_type_ids" in tokens.tokenizer.model_input_names
    remaining = iter(texts[0] if len(texts) == 1 else zip(*texts, strict=True))
    cut = 0
    with (
        Column(directory / IDS, np.int32) as ids,
        Column(directory / TYPES, np.uint8) as types,
        Column(directory / OFFSETS, np.int64) as offsets,
    ):
        offsets.append(np.zeros(1, np.int64))
        while part := list(itertools.islice(remaining, AT_ONCE)):
            found = backend.encode_batch(part)
            _check_template(found[0], tokens)
            first = ids.rows
            ids.append(_joined(encoding.ids for encoding in found))
            types.append(_joined(encoding.type_ids for encoding in found) * has_types)
            offsets.append(first + np.cumsum([len(encoding.ids) for encoding in found]))
            cut += sum(bool(encoding.overflowing) for encoding in found)
    (directory / CUT).write_text(json.dumps(cut), encoding="utf-8")


def _joined(lists: Iterable[list[int]]) -> np.ndarray:
    return np.fromiter(itertools.chain.from_iterable(lists), np.int32)


def _check_template(encoding: Any, tokens: Tokens) -> None:
    if encoding.ids[:1] != [tokens.vocabulary.cls_id]:
        raise UserError(
            f"the tokenizer {tokens.directory} puts no CLS in front of a text: its tokenizer.json "
            "has no template; use the tokenizer of a BERT, RoBERTa or ELECTRA checkpoint"
        )
