"""MiniLM (Wang et al., NeurIPS 2020) and MiniLMv2 (Findings of ACL 2021): the student's last layer
relates positions as a layer of the teacher does, on unmasked text.

    MiniLM    KL of attention distributions + KL of value relations, head by head
    MiniLMv2  KL of query-query, key-key and value-value relations, the widths cut anew into a free
              number of relation heads

Each KL is a mean over heads and attended queries. What the student's last layer does after its
attention is told nothing, for fine-tuning to find: only weight decay moves it.
"""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp

from condenser_jax.errors import UserError
from condenser_jax.losses.distillation import relation_kl, relations
from condenser_jax.models.config import BackboneConfig, ComputeConfig
from condenser_jax.objectives.base import Loss, Objective
from condenser_jax.objectives.distillation import (
    SCORES,
    TEACHER,
    DistillationConfig,
    Pair,
    Teacher,
    build_baseline,
    check_heads,
    original_ids,
    shares_of,
    text_mask,
)
from condenser_jax.types import Array


@dataclasses.dataclass(frozen=True)
class MiniLmConfig(DistillationConfig):
    """The choices of MiniLM."""

    name: str = "minilm"
    teacher_layer: int | None = None  # counted from 1; None: the last (large teachers: a lower one)


@dataclasses.dataclass(frozen=True)
class MiniLmV2Config(MiniLmConfig):
    """The choices of MiniLMv2."""

    name: str = "minilmv2"
    relation_heads: int = 48  # divides the widths of teacher and student


Scores = Callable[[dict[str, Array]], dict[str, Array]]  # of the parts of a layer


def build(
    backbone: BackboneConfig, compute: ComputeConfig, options: MiniLmConfig, teacher: Teacher
) -> Objective:
    """The objective `minilm` of a student `backbone`."""
    check_heads(teacher.config, backbone, "use minilmv2, which has relation heads of its own")

    def scores(parts: dict[str, Array]) -> dict[str, Array]:
        values = relations(parts["values"], backbone.num_heads)
        return {"attention": parts[SCORES], "values": values}

    return _build(backbone, compute, options, teacher, (SCORES, "values"), scores)


def build_v2(
    backbone: BackboneConfig, compute: ComputeConfig, options: MiniLmV2Config, teacher: Teacher
) -> Objective:
    """The objective `minilmv2` of a student `backbone`."""
    heads, names = options.relation_heads, ("queries", "keys", "values")
    widths = backbone.hidden_size, teacher.config.hidden_size
    if heads < 1 or any(width % heads for width in widths):
        fits = [n for n in range(1, min(widths) + 1) if not any(width % n for width in widths)]
        raise UserError(
            f"objective.relation_heads {heads} does not divide the widths {widths[0]} of the "
            f"student and {widths[1]} of the teacher; use one of {', '.join(map(str, fits))}."
        )

    def scores(parts: dict[str, Array]) -> dict[str, Array]:
        return {name: relations(parts[name], heads) for name in names}

    return _build(backbone, compute, options, teacher, names, scores)


def _build(
    backbone: BackboneConfig,
    compute: ComputeConfig,
    options: MiniLmConfig,
    teacher: Teacher,
    collect: tuple[str, ...],
    scores: Scores,
) -> Objective:
    pair = Pair(teacher.config, backbone, compute)
    layers = teacher.config.num_layers
    taught = layers if options.teacher_layer is None else options.teacher_layer
    if not 1 <= taught <= layers:
        raise UserError(
            f"objective.teacher_layer is {taught}; expected 1 to {layers}, the layers of the "
            "teacher."
        )

    def loss(params, frozen, batch, counts, dropout) -> Loss:
        texts, mask = {**batch, "input_ids": original_ids(batch)}, text_mask(batch)
        theirs = pair.teacher.parts_of_layer(frozen[TEACHER], texts, None, taught - 1, collect)
        last = backbone.num_layers - 1
        ours = pair.student.parts_of_layer(params, texts, dropout, last, collect)
        wanted, given = scores(theirs), scores(ours)
        terms = {
            f"{name}_loss": relation_kl(given[name], wanted[name], mask, counts["attended"])
            for name in wanted
        }
        terms["loss"] = value = sum(terms.values(), jnp.zeros(()))
        return Loss(value, shares_of(terms, batch["masked_weights"], counts))

    return build_baseline(pair, ("backbone",), loss, teacher)
