"""Masked language modelling alone (Devlin et al. 2019, without next-sentence prediction): the
baseline.
"""

import dataclasses

import jax

from condenser_jax.losses.cross_entropy import tied_cross_entropy
from condenser_jax.losses.masked_lm import masked_lm
from condenser_jax.models.config import BackboneConfig, ComputeConfig
from condenser_jax.objectives.base import Loss, Objective, Phase, Schedule
from condenser_jax.objectives.language_model import LanguageModel, count_masked, slots_of
from condenser_jax.types import Array


@dataclasses.dataclass(frozen=True)
class MlmConfig:
    """The choices of masked language modelling."""

    name: str = "mlm"
    frozen_backbone: bool = False  # train the MLM head alone, for a teacher that has none


def build(backbone: BackboneConfig, compute: ComputeConfig, options: MlmConfig) -> Objective:
    """The objective `mlm`: mean cross entropy of the masked tokens of the global batch."""
    model = LanguageModel(backbone, compute)
    trained = ("mlm_head",) if options.frozen_backbone else model.groups

    def vocabulary_terms(params, batch, slots, dropout) -> tuple[Array, Array, Array]:
        hidden = model.embed(params, batch, dropout)
        states = model.run_layers(params, hidden, batch, dropout=dropout, queries=slots.positions)
        return model.vocabulary_terms(params, states)

    def losses(params, frozen, batch, counts, dropout):
        del frozen
        slots = slots_of(batch, compute.lean)
        if options.frozen_backbone:
            params = {**params, "backbone": jax.lax.stop_gradient(params["backbone"])}
        terms = vocabulary_terms(params, batch, slots, dropout)
        nll, correct = tied_cross_entropy(*terms, slots.ids)
        return {"train": Loss(*masked_lm(nll, correct, slots.weights, counts["masked"]))}

    def predict_masked_lm(params, frozen, batch):
        """Per masked slot [B, M]: negative log likelihood (nats) and correctness."""
        del frozen
        slots = slots_of(batch, lean=True)
        return {
            "late": tied_cross_entropy(*vocabulary_terms(params, batch, slots, None), slots.ids)
        }

    return Objective(
        init=model.init,
        counts=count_masked,
        losses=losses,
        phases=(Phase("train", trained),),
        schedule=Schedule(cycle=(("train",),)),
        exports=model.groups,
        predict={
            "embed": model.embed_text,
            "masked_lm": predict_masked_lm,
            "cls_scores": model.cls_scores,
        },
    )
