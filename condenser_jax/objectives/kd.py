"""Distillation of what the teacher predicts: KD (Hinton et al. 2015) and DistilBERT (Sanh et al.
2019), on masked text.

    loss = kd_weight * T^2 KL(p_T || p_S at temperature T)     at the masked tokens
         + mlm_weight * CE(p_S, x)                             the same
         + cosine_weight * (1 - cosine of the last states)     at every attended position

DistilBERT is the three at 5 : 2 : 1 with T = 2, and was published with a student that starts from
every other layer of its teacher (`student_layers`); KD is the first alone. The public code of
DistilBERT compares distributions at every position; here all methods have the vocabulary product at
the masked tokens. Where student and teacher differ in width, a fit stands between their states.
"""

import dataclasses

import jax.numpy as jnp

from condenser_jax.errors import UserError
from condenser_jax.losses.cross_entropy import token_nll
from condenser_jax.losses.distillation import cosine_distance, kl_divergence
from condenser_jax.losses.masked_lm import masked_lm
from condenser_jax.models.bert import gather_positions
from condenser_jax.models.config import BackboneConfig, ComputeConfig
from condenser_jax.objectives.base import Loss, Objective
from condenser_jax.objectives.distillation import (
    FIT,
    DistillationConfig,
    Pair,
    Teacher,
    build_baseline,
    check_weights,
    mean,
    shares_of,
    text_mask,
)
from condenser_jax.types import Array, Mean


@dataclasses.dataclass(frozen=True)
class KdConfig(DistillationConfig):
    """The choices of KD; `distilbert` has others by default."""

    name: str = "kd"
    temperature: float = 2.0  # of both distributions
    kd_weight: float = 1.0
    mlm_weight: float = 0.0
    cosine_weight: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperature > 0:
            raise UserError(f"objective.temperature is {self.temperature}; expected above 0.")
        check_weights(self, "kd_weight", "mlm_weight", "cosine_weight")
        if not self.kd_weight + self.mlm_weight:
            raise UserError(
                "objective.kd_weight and objective.mlm_weight are 0: the student's MLM head would "
                "learn nothing; set one of them above 0."
            )

    @property
    def trains_mlm_head(self) -> bool:
        """It does: on masked text."""
        return True


@dataclasses.dataclass(frozen=True)
class DistilBertConfig(KdConfig):
    """The weights of DistilBERT's public code."""

    name: str = "distilbert"
    kd_weight: float = 5.0
    mlm_weight: float = 2.0
    cosine_weight: float = 1.0


def needs_fit(options: KdConfig, student: BackboneConfig, teacher: BackboneConfig) -> bool:
    """Whether states are compared that differ in width."""
    return options.cosine_weight > 0 and student.hidden_size != teacher.hidden_size


def build(
    backbone: BackboneConfig, compute: ComputeConfig, options: KdConfig, teacher: Teacher
) -> Objective:
    """The objectives `kd` and `distilbert` of a student `backbone`."""
    pair = Pair(teacher.config, backbone, compute)
    has_fit = needs_fit(options, backbone, teacher.config)

    def loss(params, frozen, batch, counts, dropout) -> Loss:
        ids, slots, weights = (
            batch[x] for x in ("input_ids", "masked_positions", "masked_weights")
        )
        queries = None if options.cosine_weight else slots  # the cosine reads every state
        theirs, _ = pair.read_teacher(frozen, batch, ids, queries=queries)
        ours, _ = pair.read_student(params, batch, ids, dropout, queries=queries)

        def at_slots(states: Array) -> Array:
            return gather_positions(states, slots) if queries is None else states

        logits = pair.student.logits(params, at_slots(ours))
        value, metrics = jnp.zeros(()), dict[str, Mean]()
        if options.kd_weight:
            wanted = pair.teacher_logits(frozen, at_slots(theirs))
            divergence = kl_divergence(wanted, logits, options.temperature)
            value = options.kd_weight * (divergence * weights).sum() / counts["masked"]
            metrics = {"kd_loss": mean(divergence, weights)}
        if options.mlm_weight:
            nll, correct = token_nll(logits, batch["masked_ids"])
            share, own = masked_lm(nll, correct, weights, counts["masked"], "mlm_")
            value, metrics = value + options.mlm_weight * share, metrics | own
        if options.cosine_weight:
            fitted = pair.fitted(params, ours) if has_fit else ours
            distance = cosine_distance(fitted, theirs, text_mask(batch), counts["attended"])
            value = value + options.cosine_weight * distance
            metrics |= shares_of({"cosine_loss": distance}, weights, counts)
        return Loss(value, metrics | shares_of({"loss": value}, weights, counts))

    groups = ("backbone", "mlm_head", *((FIT,) if has_fit else ()))
    return build_baseline(pair, groups, loss, teacher)
