"""What a run reads: its prepared sources, their tokenizer, the batches and the held-out
evaluations.
"""

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from condenser_jax.config import DataConfig, EvaluationConfig, RunConfig
from condenser_jax.data.batches import NumpyBatch, SpanBatches, fixed_batches, unmasked_batches
from condenser_jax.data.documents import SourceOptions
from condenser_jax.data.mixture import parse_mixture
from condenser_jax.data.parallel import usable_cores
from condenser_jax.data.prepare import PrepareConfig, prepare_mixture
from condenser_jax.data.store import Prepared, open_prepared, verify
from condenser_jax.data.tokenization import load_tokenizer
from condenser_jax.data.vocabulary import Vocabulary
from condenser_jax.environment import cache_directory
from condenser_jax.errors import UserError
from condenser_jax.evaluation.masked_lm import masked_lm_evaluator
from condenser_jax.evaluation.span_retrieval import choose_pairs, span_retrieval_evaluator
from condenser_jax.hf.load import find_directory, tokenizer_path
from condenser_jax.objectives.base import Objective
from condenser_jax.types import Frozen, Params

log = logging.getLogger("condenser_jax")


class Corpus(NamedTuple):
    """Prepared sources with their weights, and the tokenizer that they share."""

    sources: tuple[tuple[Prepared, float], ...]
    tokenizer: Any
    vocabulary: Vocabulary

    @property
    def tokenizer_directory(self) -> Path:
        """The tokenizer as transformers saves it."""
        return self.sources[0][0].tokenizer_directory

    @property
    def unigram(self) -> np.ndarray:
        """int64 [V] counts of the training tokens of all sources."""
        return np.sum([prepared.unigram for prepared, _ in self.sources], axis=0)

    @property
    def hashes(self) -> dict[str, str]:
        """What must not change while a run lasts: a hash per source, over its files' hashes."""
        found = {}
        for prepared, _ in self.sources:
            files = json.dumps(prepared.card["files"], sort_keys=True)
            found[prepared.directory.name] = hashlib.blake2b(
                files.encode(), digest_size=16
            ).hexdigest()
        return found


def tokenizer_of(config: RunConfig) -> str:
    """The tokenizer that a run names, else its initial checkpoint's; "" trains one."""
    if config.data.tokenizer or not config.model.init:
        return config.data.tokenizer
    return str(tokenizer_path(find_directory(config.model.init)) or "")


def prepare_corpus(config: DataConfig, seed: int, tokenizer: str) -> Corpus:
    """Prepares what is not prepared yet, reuses what is, and checks that no file has changed.

    Args:
      tokenizer: directory or hub id; "" trains one on the training part of all sources.
    """
    sources = []
    for directory, weight in prepare_mixture(prepare_config(config, seed, tokenizer)):
        prepared = open_prepared(directory)
        verify(prepared)
        log.info("data: %s", summary(prepared.card))
        sources.append((prepared, weight))
    loaded = load_tokenizer(sources[0][0].tokenizer_directory)
    return Corpus(tuple(sources), loaded, Vocabulary.from_tokenizer(loaded))


def prepare_config(config: DataConfig, seed: int, tokenizer: str) -> PrepareConfig:
    """What `prepare` needs to know of a run's section `data`."""
    return PrepareConfig(
        source=parse_mixture(config.source),
        options=SourceOptions(
            text_layout=config.text_layout,
            text_field=config.text_field,
            bad_share=config.bad_share,
            split=config.split,
        ),
        tokenizer=tokenizer,
        vocab_size=config.vocab_size,
        recipe=config.recipe,
        max_length=config.max_length,
        short_probability=config.short_probability,
        min_tokens=config.min_tokens,
        heldout_share=config.heldout_share,
        seed=seed,
        workers=config.workers or usable_cores(),
        directory=config.directory or str(cache_directory() / "prepared"),
    )


def summary(card: dict[str, Any]) -> str:
    """One line on prepared data."""
    train, heldout = card["splits"]["train"], card["splits"]["heldout"]
    return (
        f"{card['spec']} {train['documents']:,} documents, {train['spans']:,} spans, "
        f"{train['tokens']:,} tokens to train on; {heldout['documents']:,} documents held out"
    )


def span_batches(corpus: Corpus, config: DataConfig, batch_size: int, seed: int) -> SpanBatches:
    """The masked batches of the training spans."""
    return SpanBatches(
        [(prepared.train, weight) for prepared, weight in corpus.sources],
        corpus.vocabulary,
        batch_size,
        config.max_length,
        config.mask_rate,
        seed,
    )


def heldout_evaluation(
    corpus: Corpus,
    objective: Objective,
    mesh: Mesh,
    data: DataConfig,
    config: EvaluationConfig,
    seed: int,
) -> Callable[[Params, Frozen], dict[str, float]]:
    """Masked-LM loss beside the unigram, and span retrieval, on what is held out."""
    masked: list[NumpyBatch] = []
    copied: list[np.ndarray] = []
    sides: tuple[list[NumpyBatch], list[NumpyBatch]] = ([], [])
    share = 1.0 / len(corpus.sources)
    for spans in (prepared.heldout for prepared, _ in corpus.sources):
        if len(spans) == 0:
            continue
        chosen = _spread(len(spans), round(config.spans * share))
        how = (corpus.vocabulary, config.batch_size, data.max_length)
        masked += fixed_batches(spans, chosen, *how, data.mask_rate, seed)
        copied.append(_padded(spans.copied[chosen], config.batch_size))
        pairs = choose_pairs(spans.documents, round(config.documents * share), seed)
        for side, numbers in zip(sides, pairs.T, strict=True):
            side.extend(unmasked_batches(spans, numbers, *how, seed))
    if not masked:
        raise UserError(
            f"nothing is held out of {data.source!r} (data.heldout_share "
            f"{data.heldout_share:g}), so nothing can be evaluated; raise it or "
            "give more documents."
        )
    if not any(batch["masked_weights"].any() for batch in masked):
        raise UserError(
            f"no word of what is held out of {data.source!r} is short enough to be masked; text "
            "without spaces is one word to a byte-level BPE: use a WordPiece (data.tokenizer='' "
            "trains one), or raise data.mask_rate."
        )
    known = np.concatenate(copied)
    figures = [
        masked_lm_evaluator(objective.predict["masked_lm"], masked, known, corpus.unigram, mesh)
    ]
    if sides[0]:
        figures.append(span_retrieval_evaluator(objective.predict["embed"], sides, mesh))

    def evaluate(params: Params, frozen: Frozen) -> dict[str, float]:
        return {name: v for figure in figures for name, v in figure(params, frozen).items()}

    return evaluate


def _spread(total: int, limit: int) -> np.ndarray:
    """At most `limit` numbers below `total`, evenly spread."""
    return np.unique(np.linspace(0, total - 1, min(limit, total)).round().astype(np.int64))


def _padded(values: np.ndarray, multiple: int) -> np.ndarray:
    """Filled up with zeros to whole batches, as `fixed_batches` fills rows."""
    return np.pad(values, (0, -len(values) % multiple))
