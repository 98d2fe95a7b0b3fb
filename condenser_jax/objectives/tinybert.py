"""TinyBERT, general stage (Jiao et al., Findings of EMNLP 2020): the student imitates hidden states
and attention scores of the teacher on unmasked text.

    loss = hidden_weight * sum over the student's states (embeddings first) of MSE(W_fit h_S, h_T)
         + attention_weight * sum over its layers of MSE of attention scores

The layer map is uniform, one fit serves all states, and padding is outside of both means.
"""

import dataclasses

from condenser_jax.errors import UserError
from condenser_jax.models.config import BackboneConfig, ComputeConfig
from condenser_jax.objectives.base import Loss, Objective
from condenser_jax.objectives.distillation import (
    FIT,
    HIDDEN,
    SCORES,
    DistillationConfig,
    Pair,
    Teacher,
    build_baseline,
    check_heads,
    check_layers,
    check_weights,
    original_ids,
    shares_of,
)


@dataclasses.dataclass(frozen=True)
class TinyBertConfig(DistillationConfig):
    """The choices of TinyBERT."""

    name: str = "tinybert"
    hidden_weight: float = 1.0
    attention_weight: float = 1.0  # 0 where heads of teacher and student differ in number

    def __post_init__(self) -> None:
        super().__post_init__()
        check_weights(self, "attention_weight")
        if not self.hidden_weight > 0:
            raise UserError(f"objective.hidden_weight is {self.hidden_weight}; expected above 0.")


def build(
    backbone: BackboneConfig, compute: ComputeConfig, options: TinyBertConfig, teacher: Teacher
) -> Objective:
    """The objective `tinybert` of a student `backbone`."""
    check_layers(teacher.config, backbone)
    if options.attention_weight:
        check_heads(teacher.config, backbone, "do without: objective.attention_weight=0")
    pair = Pair(teacher.config, backbone, compute)

    def loss(params, frozen, batch, counts, dropout) -> Loss:
        ids = original_ids(batch)
        _, theirs = pair.read_teacher(frozen, batch, ids, HIDDEN, SCORES)
        _, ours = pair.read_student(params, batch, ids, dropout, HIDDEN, SCORES)
        hidden = pair.hidden_loss(params, ours[HIDDEN], theirs[HIDDEN], batch, counts)
        terms, value = {"hidden_loss": hidden}, options.hidden_weight * hidden
        if options.attention_weight:
            attention = pair.attention_loss(ours[SCORES], theirs[SCORES], batch, counts)
            terms["attention_loss"] = attention
            value = value + options.attention_weight * attention
        terms["loss"] = value
        return Loss(value, shares_of(terms, batch["masked_weights"], counts))

    return build_baseline(pair, ("backbone", FIT), loss, teacher)
