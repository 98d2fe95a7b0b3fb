"""The methods that can be trained: name -> its options, its objective, what it learns from. A new
method is a file in `objectives`, a row here, and a feed if it learns from data of a new kind.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from condenser_jax.config import OfMethod, RunConfig, read_config
from condenser_jax.feeds.base import Feed
from condenser_jax.feeds.ranking import RANKING
from condenser_jax.feeds.sentences import SCORED_PAIRS, TRIPLETS
from condenser_jax.feeds.spans import PAIRS, SPANS
from condenser_jax.models.config import BackboneConfig, ComputeConfig
from condenser_jax.objectives import cocondenser, condenser, mlm, retriever, sections, similarity
from condenser_jax.objectives.base import Goal, Objective
from condenser_jax.training.flops import FORWARD_PASSES, encode_flops, train_flops_per_token


class Method(NamedTuple):
    """What a method brings."""

    options: type  # the dataclass of the configuration's section `objective`
    build: Callable[[BackboneConfig, ComputeConfig, Any], Objective]
    goal: Goal
    feed: Feed
    flops: Callable[[BackboneConfig, RunConfig], float]  # of a step, per token of its batch


def pretraining_flops(backbone: BackboneConfig, config: RunConfig) -> float:
    """Operations per token of a step on masked spans."""
    data = config.data
    return train_flops_per_token(backbone, config.objective, data.max_length, data.mask_rate)


def retriever_flops(backbone: BackboneConfig, config: RunConfig) -> float:
    """Operations per token of a step on queries and their passages."""
    data, pooling = config.data, config.objective.pooling
    query = encode_flops(backbone, data.query_length, pooling)
    passage = encode_flops(backbone, data.passage_length, pooling)
    tokens = data.query_length + data.group * data.passage_length
    return FORWARD_PASSES * (query + data.group * passage) / tokens


def sentence_flops(backbone: BackboneConfig, config: RunConfig) -> float:
    """Operations per token of a step on pairs or triplets of sentences."""
    length = config.data.max_length
    return FORWARD_PASSES * encode_flops(backbone, length, config.objective.pooling) / length


METHODS: dict[str, Method] = {
    "mlm": Method(mlm.MlmConfig, mlm.build, Goal("heldout/late_loss"), SPANS, pretraining_flops),
    "condenser": Method(
        condenser.CondenserConfig,
        condenser.build,
        Goal("heldout/head_loss"),
        SPANS,
        pretraining_flops,
    ),
    "cocondenser": Method(
        cocondenser.CoCondenserConfig,
        cocondenser.build,
        Goal("heldout/span_retrieval_mrr", lower_is_better=False),
        PAIRS,
        pretraining_flops,
    ),
    "retriever": Method(
        retriever.RetrieverConfig,
        retriever.build,
        Goal("heldout/mrr@10", lower_is_better=False),
        RANKING,
        retriever_flops,
    ),
    "similarity": Method(
        similarity.SimilarityConfig,
        similarity.build,
        Goal("heldout/spearman", lower_is_better=False),
        SCORED_PAIRS,
        sentence_flops,
    ),
    "sections": Method(
        sections.SectionsConfig,
        sections.build,
        Goal("heldout/accuracy", lower_is_better=False),
        TRIPLETS,
        sentence_flops,
    ),
}


def configure(values: Mapping[str, Any]) -> RunConfig:
    """Checks a nested mapping (a ConfigDict's `to_dict()`) and freezes it; see `read_config`."""
    sections = {
        name: OfMethod(method.options, method.feed.data, method.feed.evaluation)
        for name, method in METHODS.items()
    }
    return read_config(values, sections)
