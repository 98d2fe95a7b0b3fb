"""Texts as token ids on disk: encoded once for each tokenizer, mapped into memory, found again.

Fine-tuning and its evaluation read texts at random, also millions of passages: they are kept as
spans are, ids joined and offsets beside them.
"""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from condenser_jax.data.built_once import built_once
from condenser_jax.data.columns import Column
from condenser_jax.data.progress import Progress
from condenser_jax.data.store import Spans
from condenser_jax.data.tokenization import (
    encode,
    load_backend,
    load_tokenizer,
    save_tokenizer,
    tokenizer_hash,
    tokenizer_identity,
    train_wordpiece,
)
from condenser_jax.data.vocabulary import Vocabulary
from condenser_jax.environment import cache_directory

FORMAT = 1
AT_ONCE = 4096  # texts
SHOWN_FROM = 100_000  # texts: fewer are done before a bar is read


class Tokens(NamedTuple):
    """A tokenizer, and where it lies as transformers saves it."""

    directory: Path
    tokenizer: Any
    vocabulary: Vocabulary

    @classmethod
    def load(cls, where: str | Path) -> "Tokens":
        """A tokenizer of a directory or hub id, copied into the cache."""
        directory = cache_directory() / "tokenizers" / tokenizer_identity(where)
        with built_once(directory) as partial:
            if partial is not None:
                save_tokenizer(str(where), partial)
        tokenizer = load_tokenizer(directory)
        return cls(directory, tokenizer, Vocabulary.from_tokenizer(tokenizer))

    @classmethod
    def train(cls, texts: Sequence[str], vocab_size: int, max_length: int) -> "Tokens":
        """A WordPiece trained on texts, or found in the cache."""
        what = [FORMAT, hash_texts(texts), vocab_size, max_length]
        directory = cache_directory() / "tokenizers" / _key(*what)
        with built_once(directory) as partial:
            if partial is not None:
                train_wordpiece(texts, vocab_size, partial, max_length)
        return cls.load(directory)

    def store(self, texts: Sequence[str], prefix: str, room: int) -> Spans:
        """The ids of texts with `prefix` in front, each cut to `room` tokens, without specials."""
        what = [FORMAT, hash_texts(texts), tokenizer_hash(self.directory), prefix, room]
        directory = cache_directory() / "tokens" / _key(*what)
        dtype = "uint16" if self.vocabulary.size <= 1 << 16 else "uint32"
        with built_once(directory) as partial:
            if partial is not None:
                self._write(texts, prefix, room, partial, dtype)
        return Spans(directory, dtype, self.vocabulary.pad_id)

    def _write(
        self, texts: Sequence[str], prefix: str, room: int, directory: Path, dtype: str
    ) -> None:
        backend = load_backend(self.directory)
        remaining = iter(texts)
        with (
            Column(directory / "ids.bin", dtype) as ids,
            Column(directory / "offsets.bin", np.int64) as offsets,
            Progress("tokenize", len(texts) >= SHOWN_FROM, len(texts)) as bar,
        ):
            offsets.append(np.zeros(1, np.int64))
            while part := [prefix + text for text in itertools.islice(remaining, AT_ONCE)]:
                cut = [found[:room] for found in encode(backend, part)]
                first = ids.rows
                ids.append(np.fromiter(itertools.chain.from_iterable(cut), dtype))
                offsets.append(first + np.cumsum(list(map(len, cut))))
                bar.advance(len(part))


@dataclasses.dataclass(frozen=True, kw_only=True)
class OfTokens:
    """What all materials answer alike whose texts are kept by a `Tokens`."""

    tokens: Tokens

    @property
    def tokenizer(self) -> Any:
        """The fast tokenizer, loaded."""
        return self.tokens.tokenizer

    @property
    def tokenizer_directory(self) -> Path:
        """The tokenizer as transformers saves it."""
        return self.tokens.directory

    @property
    def vocabulary(self) -> Vocabulary:
        """Special ids."""
        return self.tokens.vocabulary

    @property
    def unigram(self) -> None:
        """No language model is trained."""
        return None


def hash_texts(texts: Iterable[str]) -> str:
    """A hash of texts in their order."""
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()


def _key(*parts: Any) -> str:
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).hexdigest()
