"""The feeds of pre-training: masked spans of a corpus, alone or in pairs of one document."""

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from condenser_jax.config import RunConfig
from condenser_jax.data.batches import Batches, check_even
from condenser_jax.data.vocabulary import Vocabulary
from condenser_jax.errors import UserError
from condenser_jax.evaluation.span_retrieval import FEWER
from condenser_jax.feeds.base import Evaluate, Figures
from condenser_jax.feeds.corpus import (
    Corpus,
    DataConfig,
    prepare_corpus,
    tokenizer_of,
    train_batches,
)
from condenser_jax.feeds.heldout import EvaluationConfig, heldout_evaluation
from condenser_jax.hf.card import EncoderCard
from condenser_jax.objectives.base import Goal, Objective


@dataclasses.dataclass(frozen=True)
class SpanMaterial:
    """A prepared corpus, as a run of pre-training reads it."""

    config: RunConfig
    corpus: Corpus
    pairs: bool

    @property
    def tokenizer(self) -> Any:
        """The fast tokenizer, loaded."""
        return self.corpus.tokenizer

    @property
    def tokenizer_directory(self) -> Path:
        """The tokenizer as transformers saves it."""
        return self.corpus.tokenizer_directory

    @property
    def vocabulary(self) -> Vocabulary:
        """Special ids, and which pieces begin a word."""
        return self.corpus.vocabulary

    @property
    def hashes(self) -> dict[str, str]:
        """A hash for each prepared source."""
        return self.corpus.hashes

    @property
    def cards(self) -> list[dict[str, Any]]:
        """The card of each prepared source."""
        return [prepared.card for prepared, _ in self.corpus.sources]

    @functools.cached_property
    def unigram(self) -> np.ndarray:
        """int64 [V] counts of the training tokens of all sources."""
        return self.corpus.unigram

    def batches(self) -> Batches:
        """Masked spans, or pairs of them."""
        config = self.config
        return train_batches(
            self.corpus, config.data, config.training.batch_size, config.seed, self.pairs
        )

    def evaluation(self, objective: Objective, goal: Goal, mesh: Mesh) -> Evaluate:
        """Figures of held-out spans."""
        config = self.config
        return heldout_evaluation(
            self.corpus, objective, goal, mesh, config.data, config.evaluation, config.seed
        )


def check_mask_rate(rate: float) -> None:
    """Raises UserError for a share of which nothing or everything would be masked."""
    if not 0 < rate < 1:
        raise UserError(f"data.mask_rate is {rate}; expected a share between 0 and 1.")


@dataclasses.dataclass(frozen=True)
class SpanFeed:
    """Masked spans; with `pairs`, two of each document."""

    pairs: bool
    data: type = DataConfig
    evaluation: type = EvaluationConfig

    def check(self, config: RunConfig) -> None:
        """Raises UserError for an odd batch of pairs, too few documents, or an odd mask rate."""
        if self.pairs:
            check_even(config.training.batch_size)
        for name in ("spans", "documents"):
            value = getattr(config.evaluation, name)
            if value < 1:
                raise UserError(f"evaluation.{name} is {value}; expected at least 1.")
        if self.pairs and config.evaluation.documents < 2:
            raise UserError(
                f"evaluation.documents is {config.evaluation.documents}; expected at least 2, "
                "among which a span's other span is searched."
            )
        check_mask_rate(config.data.mask_rate)

    def longest(self, config: RunConfig) -> int:
        """Every row is as long."""
        return config.data.max_length

    def tokens_per_step(self, config: RunConfig) -> int:
        """Rows times their length."""
        return config.training.batch_size * config.data.max_length

    def open(self, config: RunConfig) -> SpanMaterial:
        """Prepares the corpus, or finds it prepared."""
        corpus = prepare_corpus(config.data, config.seed, tokenizer_of(config))
        return SpanMaterial(config, corpus, self.pairs)

    def card(self, config: RunConfig, tokenizer_hash: str) -> EncoderCard:
        """The late CLS, of unit length if cosines of it were contrasted."""
        return EncoderCard(
            normalize=getattr(config.objective, "similarity", "dot") == "cosine",
            query_max_length=config.data.max_length,
            passage_max_length=config.data.max_length,
            tokenizer_hash=tokenizer_hash,
            has_trained_mlm_head=getattr(config.objective, "late_mlm", True),
        )

    def describe(self, config: RunConfig) -> Iterator[str]:
        """How many spans each span is contrasted with."""
        if self.pairs:
            negatives = config.training.batch_size - 2
            yield f"contrast: {negatives:,} negatives of each span, from the whole batch"

    def closing(self, before: Figures, after: Figures) -> Iterator[str]:
        """The loss beside the unigram's; text vectors, where enough documents are held out."""
        state = "head" if "heldout/head_loss" in after else "late"
        loss, unigram = after[f"heldout/{state}_loss"], after["heldout/unigram"]
        yield (
            f"{state} MLM loss {loss:.3f} nats: {unigram - loss:.2f} under the training unigram's "
            f"{unigram:.3f} on the very same masked held-out tokens"
        )
        figure = f"heldout/span_retrieval@1_among_{FEWER}"
        if figure in after:
            yield (
                f"a document's other span is the nearest of {FEWER}: {before[figure]:.1%} before, "
                f"{after[figure]:.1%} after"
            )


SPANS, PAIRS = SpanFeed(pairs=False), SpanFeed(pairs=True)
