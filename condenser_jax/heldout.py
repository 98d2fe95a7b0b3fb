"""What a run is evaluated on: the held-out part of its corpus, always the same spans and masks."""

from collections.abc import Callable

import numpy as np
from jax.sharding import Mesh

from condenser_jax.config import DataConfig, EvaluationConfig
from condenser_jax.corpus import Corpus
from condenser_jax.data.fixed_batches import fixed_batches, unmasked_batches
from condenser_jax.data.rows import NumpyBatch
from condenser_jax.errors import UserError
from condenser_jax.evaluation.masked_lm import masked_lm_evaluator
from condenser_jax.evaluation.span_retrieval import choose_pairs, span_retrieval_evaluator
from condenser_jax.objectives.base import Objective
from condenser_jax.types import Frozen, Params


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
