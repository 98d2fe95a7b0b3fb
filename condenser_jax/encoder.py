"""An encoder for use: `Encoder.load("my-encoder").encode(["a text"])`.

Whatever it is read from, the encoder card alone says how texts become vectors: prefixes, lengths,
pooling, normalisation.
"""

import dataclasses
import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from condenser_jax.data.buckets import SPECIALS, Bucket, TokenIds, in_buckets
from condenser_jax.data.tokenization import encode as tokenize
from condenser_jax.data.tokenization import tokenizer_hash
from condenser_jax.encoder_source import KINDS, PASSAGE, QUERY, Source, Usage, card_of, read_source
from condenser_jax.errors import UserError, choose
from condenser_jax.hf.card import EncoderCard
from condenser_jax.models.config import ComputeConfig
from condenser_jax.objectives.retriever import TextEncoder
from condenser_jax.search.top_k import Hits, search_vectors
from condenser_jax.training.sharding import batch_sharding, make_mesh, replicated
from condenser_jax.types import Array, Tree

# Tokens of a batch on one device, padding included. On CPU inner states stay in the caches: batches
# of 4096 take a third more time.
TOKENS = {"cpu": 1024}
TOKENS_OF_ACCELERATORS = 65536
TOKENIZED_AT_ONCE = 1024  # texts
SORTED_AT_ONCE = 65536  # texts
IN_FLIGHT = 2  # batches that the device computes while the next one is made


def default_dtype() -> str:
    """Of matrix products: bfloat16 on accelerators."""
    return "float32" if jax.local_devices()[0].platform == "cpu" else "bfloat16"


class Encoder:
    """Texts to vectors, over all devices of this process."""

    def __init__(
        self,
        source: Source,
        card: EncoderCard,
        dtype: str = "float32",
        tokens_per_batch: int = 0,
        mesh: Mesh | None = None,
    ) -> None:
        self.source, self.card = source, card
        self.mesh = mesh or make_mesh(devices=jax.local_devices())
        platform = self.mesh.devices.flat[0].platform
        per_device = TOKENS.get(platform, TOKENS_OF_ACCELERATORS)
        self.tokens_per_batch = tokens_per_batch or per_device * self.mesh.size
        self._backend = _backend(source.tokenizer)
        self._special = _special_ids(source)
        model = TextEncoder(source.config, ComputeConfig(dtype=dtype), card.pooling, card.normalize)
        self._params = jax.device_put(source.params, replicated(self.mesh))

        def run(group: Tree, ids: Array, used: Array) -> Array:
            mask = (jnp.arange(ids.shape[1]) < used[:, None]).astype(jnp.int32)
            return model(group, ids, mask, None)

        self._run = jax.jit(run)

    @classmethod
    def load(
        cls,
        path_or_hub_id: str | Path,
        *,
        pooling: str | None = None,
        query_prefix: str | None = None,
        passage_prefix: str | None = None,
        dtype: str = "float32",
        tokens_per_batch: int = 0,
    ) -> "Encoder":
        """Reads an encoder.

        Args:
          path_or_hub_id: a work directory, an exported directory, one of sentence-transformers' (of
            BERT or RoBERTa type), any other of Hugging Face's format, or a hub id.
          pooling: "cls" or "mean", for a directory that does not say it.
          query_prefix, passage_prefix: likewise, e.g. "query: " and "passage: " for E5.
          dtype: of matrix products: float32, or bfloat16 on accelerators.
          tokens_per_batch: padding included; 0 chooses by the kind of device.

        Raises UserError for what is no encoder, or one whose card, tokenizer and weights disagree.
        """
        source = read_source(str(path_or_hub_id))
        usage = Usage(pooling, query_prefix, passage_prefix)
        return cls(source, card_of(source, usage), dtype, tokens_per_batch)

    @property
    def width(self) -> int:
        """D, the width of a vector."""
        return self.source.config.hidden_size

    @cached_property
    def weights_hash(self) -> str:
        """A hash of every weight that a vector depends on, the same in a run and its export."""
        digest = hashlib.blake2b(digest_size=16)
        rows = self.source.config.vocab_size  # the padding of the vocabulary is nobody's
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.source.params):
            name = jax.tree_util.keystr(path)
            leaf = np.ascontiguousarray(leaf[:rows] if "'word'" in name else leaf, np.float32)
            digest.update(name.encode() + leaf.tobytes())
        return digest.hexdigest()

    def described(self) -> dict[str, Any]:
        """What queries and passages must share, or their vectors cannot be compared; as JSON."""
        described = dataclasses.asdict(self.card)
        for of_the_weights in ("has_trained_mlm_head", "is_fine_tuned"):
            del described[of_the_weights]
        described["tokenizer_hash"] = tokenizer_hash(self.source.tokenizer)
        return described | {"weights_hash": self.weights_hash}

    def encode(
        self,
        texts: Sequence[str],
        kind: str = PASSAGE,
        advance: Callable[[int], None] = lambda count: None,
    ) -> np.ndarray:
        """Returns the vectors of texts, float32 [n, D], in their order.

        Args:
          texts: without prefixes; one that is too long is cut.
          kind: "passage" or "query", which may have different prefixes, lengths and weights.
          advance: is told how many more texts are done, now and then.
        """
        choose("kind of text", kind, KINDS)
        if isinstance(texts, str):
            raise UserError(
                f"expected a list of texts, not the one text {texts[:40]!r}; write [text]"
            )
        out = np.empty((len(texts), self.width), np.float32)
        for start in range(0, len(texts), SORTED_AT_ONCE):
            part = texts[start : start + SORTED_AT_ONCE]
            self._encode_sorted(part, kind, out[start : start + len(part)], advance)
        return out

    def search(self, queries: Sequence[str], texts: Sequence[str], k: int = 10) -> Hits:
        """Returns the best `k` of `texts` for each query, best first, by exact search: ids (places
        in `texts`) int64 [Q, k] and scores (dot products) float32 [Q, k].
        """
        passages = self.encode(texts)
        return search_vectors(self.encode(queries, QUERY), passages, k, self.mesh)

    def _encode_sorted(
        self, texts: Sequence[str], kind: str, out: np.ndarray, advance: Callable[[int], None]
    ) -> None:
        """Fills `out` [n, D]."""
        longest = getattr(self.card, f"{kind}_max_length")
        tokens = TokenIds(self._tokenize(texts, kind), longest - SPECIALS)
        group = self._params.get(f"{kind}_backbone", self._params["backbone"])
        running: deque[tuple[np.ndarray, Array]] = deque()

        def fetch() -> None:
            rows, vectors = running.popleft()
            out[rows] = np.asarray(vectors)[: len(rows)]
            advance(len(rows))

        lengths = tokens.lengths + SPECIALS
        for bucket in in_buckets(lengths, longest, self.tokens_per_batch, self.mesh.size):
            running.append((bucket.texts, self._run(group, *self._place(tokens, bucket))))
            if len(running) > IN_FLIGHT:
                fetch()
        while running:
            fetch()

    def _tokenize(self, texts: Sequence[str], kind: str) -> Iterator[list[int]]:
        prefix = getattr(self.card, f"{kind}_prefix")
        for start in range(0, len(texts), TOKENIZED_AT_ONCE):
            part = [prefix + text for text in texts[start : start + TOKENIZED_AT_ONCE]]
            yield from tokenize(self._backend, part)

    def _place(self, tokens: TokenIds, bucket: Bucket) -> list[Array]:
        arrays = tokens.rows(bucket.texts, bucket.shape, *self._special)
        return jax.device_put(list(arrays), batch_sharding(self.mesh))


def _backend(tokenizer: Any) -> Any:
    """A copy of the fast backend, which neither cuts nor pads."""
    import tokenizers

    backend = tokenizers.Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_truncation()
    backend.no_padding()
    return backend


def _special_ids(source: Source) -> tuple[int, int, int]:
    """Ids of CLS, SEP and padding."""
    ids = {name: getattr(source.tokenizer, f"{name}_token_id") for name in ("cls", "sep")}
    missing = [name for name, number in ids.items() if number is None]
    if missing:
        raise UserError(
            f"the tokenizer of {source.path} has no {' and no '.join(missing)} token; expected "
            "that of a BERT or RoBERTa encoder"
        )
    return ids["cls"], ids["sep"], source.config.pad_token_id
