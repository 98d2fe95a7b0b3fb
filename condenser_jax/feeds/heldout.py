"""What a run is evaluated on: the held-out part of its corpus, always the same spans and masks."""

import dataclasses
import functools
import logging
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from condenser_jax.data.fixed_batches import fixed_batches, unmasked_batches
from condenser_jax.data.rows import NumpyBatch
from condenser_jax.errors import UserError
from condenser_jax.evaluation.base import spread
from condenser_jax.evaluation.cls_attention import cls_entropy_evaluator
from condenser_jax.evaluation.masked_lm import masked_lm_evaluator
from condenser_jax.evaluation.span_retrieval import choose_pairs
from condenser_jax.evaluation.text_vectors import text_vectors_evaluator
from condenser_jax.feeds.corpus import Corpus, DataConfig
from condenser_jax.objectives.base import Goal, Objective
from condenser_jax.types import Frozen, Params

log = logging.getLogger("condenser_jax")
ATTENTION_SPANS = 256  # for the CLS's attention: its mean over so many is exact to a percent


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """What is measured on held-out documents."""

    spans: int = 1024  # spans for the masked-LM loss
    documents: int = 1000  # documents among which a span's other span is searched
    batch_size: int = 128


class Sample(NamedTuple):
    """Batches of held-out spans of all sources, each source's last batch filled up."""

    masked: list[NumpyBatch]
    copied: np.ndarray  # of each row of `masked`: share of 8-grams known from training
    plain: list[NumpyBatch]  # unmasked, for the CLS's attention
    sides: tuple[list[NumpyBatch], list[NumpyBatch]]  # unmasked pairs of spans, row by row

    @property
    def pairs(self) -> int:
        """Documents with two spans: the pool of span retrieval."""
        return sum(int((batch["attention_mask"].sum(1) > 1).sum()) for batch in self.sides[0])


def heldout_evaluation(
    corpus: Corpus,
    objective: Objective,
    goal: Goal,
    mesh: Mesh,
    data: DataConfig,
    config: EvaluationConfig,
    seed: int,
) -> Callable[[Params, Frozen], dict[str, float]]:
    """Masked-LM loss beside the unigram, the CLS's attention, and the worth of text vectors."""
    sample = draw_sample(corpus, data, config, seed)
    check_sample(sample, goal, data)
    predict = objective.predict

    @functools.cache  # made when they are first asked: a dry run places nothing on a device
    def evaluators() -> list[Callable[[Params, Frozen], dict[str, float]]]:
        figures = [
            masked_lm_evaluator(
                predict["masked_lm"], sample.masked, sample.copied, corpus.unigram, mesh
            ),
            cls_entropy_evaluator(predict["cls_scores"], sample.plain, mesh),
        ]
        if sample.pairs > 1:
            figures.append(text_vectors_evaluator(predict["embed"], sample.sides, mesh))
        return figures

    log.info(
        "evaluation: a held-out span's other span is searched among %d documents%s",
        sample.pairs,
        f" (evaluation.documents {config.documents}: no more are held out that have two spans)"
        if sample.pairs < config.documents
        else "",
    )

    def evaluate(params: Params, frozen: Frozen) -> dict[str, float]:
        return {name: v for figure in evaluators() for name, v in figure(params, frozen).items()}

    return evaluate


def draw_sample(corpus: Corpus, data: DataConfig, config: EvaluationConfig, seed: int) -> Sample:
    """What is evaluated: as many spans of each source, whatever the sources' weights."""
    sample = Sample([], np.zeros(0), [], ([], []))
    sources = len(corpus.sources)
    how = (corpus.vocabulary, config.batch_size, data.max_length)
    for spans in (prepared.heldout for prepared, _ in corpus.sources):
        if len(spans) == 0:
            continue
        chosen = spread(len(spans), -(-config.spans // sources))
        sample.masked.extend(fixed_batches(spans, chosen, *how, data.mask_rate, seed))
        copied = np.append(sample.copied, _padded(spans.copied[chosen], config.batch_size))
        sample = sample._replace(copied=copied)
        looked_at = spread(len(spans), -(-ATTENTION_SPANS // sources))
        sample.plain.extend(unmasked_batches(spans, looked_at, *how, seed))
        pairs = choose_pairs(spans.documents, -(-config.documents // sources), seed)
        for side, numbers in zip(sample.sides, pairs.T, strict=True):
            side.extend(unmasked_batches(spans, numbers, *how, seed))
    return sample


def check_sample(sample: Sample, goal: Goal, data: DataConfig) -> None:
    """Raises UserError where there is nothing to evaluate."""
    if not sample.masked:
        raise UserError(
            f"nothing is held out of {data.source!r} (data.heldout_share "
            f"{data.heldout_share:g}), so nothing can be evaluated; raise it or "
            "give more documents."
        )
    if not any(batch["masked_weights"].any() for batch in sample.masked):
        raise UserError(
            f"no word of what is held out of {data.source!r} is short enough to be masked; text "
            "without spaces is one word to a byte-level BPE: use a WordPiece (data.tokenizer='' "
            "trains one), or raise data.mask_rate."
        )
    if sample.pairs < 2 and goal.figure.startswith("heldout/span_retrieval"):
        raise UserError(
            f"{sample.pairs} of the documents held out of {data.source!r} have two spans (data."
            f"heldout_share {data.heldout_share:g}); span retrieval, by which the best checkpoint "
            "is chosen, needs 2: raise it or give more documents."
        )


def _padded(values: np.ndarray, multiple: int) -> np.ndarray:
    """Filled up with zeros to whole batches, as `fixed_batches` fills rows."""
    return np.pad(values, (0, -len(values) % multiple))
