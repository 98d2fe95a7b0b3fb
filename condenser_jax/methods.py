"""The methods that can be trained: name -> its options, its objective, what it learns from. A new
method is a file in `objectives`, a row here, and a feed if it learns from data of a new kind.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from condenser_jax.config import OfMethod, RunConfig, read_config
from condenser_jax.data.masking import slots_of
from condenser_jax.feeds.base import Feed
from condenser_jax.feeds.distillation import DISTILLATION
from condenser_jax.feeds.glue import GLUE, row_length
from condenser_jax.feeds.ranking import RANKING
from condenser_jax.feeds.sentences import SCORED_PAIRS, TRIPLETS
from condenser_jax.feeds.spans import PAIRS, SPANS
from condenser_jax.glue.tasks import find_task
from condenser_jax.hf import names
from condenser_jax.hf.load import QUERIES
from condenser_jax.models.config import BackboneConfig
from condenser_jax.objectives import (
    classifier,
    cocondenser,
    condenser,
    kd,
    minilm,
    mlm,
    retriever,
    sections,
    similarity,
    tinybert,
    tutor_kd,
)
from condenser_jax.objectives.base import Goal, Objective
from condenser_jax.objectives.distillation import Teacher
from condenser_jax.training.distillation_flops import distillation_flops
from condenser_jax.training.flops import FORWARD_PASSES, encode_flops, train_flops_per_token


class Method(NamedTuple):
    """What a method brings."""

    options: type  # the dataclass of the configuration's section `objective`
    build: Callable[..., Objective]  # of backbone, compute, options and, if taught, the teacher
    goal: Goal
    feed: Feed
    flops: Callable[..., float]  # of a step, per token; of backbone, config and perhaps the teacher
    taught: bool = False  # a student, who has a teacher
    has_plain_form: bool = False  # which compute.lean=False asks for
    reads: tuple[str, ...] = names.GROUPS  # groups that are looked for where a run starts from


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


def classifier_flops(backbone: BackboneConfig, config: RunConfig) -> float:
    """Operations per token of a step on labelled texts."""
    length, width = row_length(config), backbone.hidden_size
    head = 2 * width * (width + find_task(config.objective.task).outputs)
    return FORWARD_PASSES * (encode_flops(backbone, length, "cls") + head) / length


def student_flops(backbone: BackboneConfig, config: RunConfig, teacher: Teacher) -> float:
    """Operations per token of a mean step of a student, its teacher and perhaps its tutor."""
    length, slots = config.data.max_length, slots_of(config.data.mask_rate, config.data.max_length)
    return distillation_flops(backbone, teacher.config, config.objective, length, slots) / length


def _student(options: type, build: Callable[..., Objective]) -> Method:
    return Method(options, build, Goal("heldout/loss"), DISTILLATION, student_flops, taught=True)


METHODS: dict[str, Method] = {
    "mlm": Method(
        mlm.MlmConfig,
        mlm.build,
        Goal("heldout/late_loss"),
        SPANS,
        pretraining_flops,
        has_plain_form=True,
    ),
    "condenser": Method(
        condenser.CondenserConfig,
        condenser.build,
        Goal("heldout/head_loss"),
        SPANS,
        pretraining_flops,
        has_plain_form=True,
    ),
    "cocondenser": Method(
        cocondenser.CoCondenserConfig,
        cocondenser.build,
        Goal("heldout/span_retrieval_mrr", lower_is_better=False),
        PAIRS,
        pretraining_flops,
        has_plain_form=True,
    ),
    "retriever": Method(
        retriever.RetrieverConfig,
        retriever.build,
        Goal("heldout/mrr@10", lower_is_better=False),
        RANKING,
        retriever_flops,
        reads=("backbone", QUERIES),
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
    "classifier": Method(
        classifier.ClassifierConfig,
        classifier.build,
        Goal("heldout/score", lower_is_better=False),
        GLUE,
        classifier_flops,
        reads=("backbone", "pooler"),
        has_plain_form=True,
    ),
    "tutor_kd": _student(tutor_kd.TutorKdConfig, tutor_kd.build),
    "kd": _student(kd.KdConfig, kd.build),
    "distilbert": _student(kd.DistilBertConfig, kd.build),
    "tinybert": _student(tinybert.TinyBertConfig, tinybert.build),
    "minilm": _student(minilm.MiniLmConfig, minilm.build),
    "minilmv2": _student(minilm.MiniLmV2Config, minilm.build_v2),
}


def configure(values: Mapping[str, Any]) -> RunConfig:
    """Checks a nested mapping (a ConfigDict's `to_dict()`) and freezes it; see `read_config`."""
    sections = {
        name: OfMethod(method.options, method.feed.data, method.feed.evaluation)
        for name, method in METHODS.items()
    }
    return read_config(values, sections)
