"""Condenser (Gao and Callan, EMNLP 2021, section 3): the head predicts masked tokens from the late
CLS and the early tokens.

    early = layers 1..E of the backbone; late = layers E+1..N; head over [late CLS; early tokens]
    loss  = mean over masked tokens of CE(head) + the same of CE(late)          (eq. 6, and 7 for a
    warm start)

The text must pass through the late CLS to reach the head, so the CLS learns to condense it.
"""

import dataclasses

import jax
import jax.numpy as jnp

from condenser_jax.errors import UserError, choose
from condenser_jax.losses.cross_entropy import tied_cross_entropy
from condenser_jax.losses.masked_lm import masked_lm
from condenser_jax.models.config import BackboneConfig, ComputeConfig
from condenser_jax.models.dropout import Dropout
from condenser_jax.models.heads import condenser_head
from condenser_jax.objectives.base import Loss, Objective, Phase, Schedule
from condenser_jax.objectives.language_model import LanguageModel, Slots, count_masked, slots_of
from condenser_jax.types import Array, Batch, Mean, Params, Tree

HEAD_INITS = ("random", "late")


@dataclasses.dataclass(frozen=True)
class CondenserConfig:
    """The choices of Condenser pre-training."""

    name: str = "condenser"
    early_layer: int | None = None  # hidden state that skips to the head; None: half of the layers
    head_layers: int = 2
    late_mlm: bool = (
        True  # also predict from the late states: keeps a warm-started backbone healthy
    )
    head_init: str = "random"  # "random", or "late": copies of the last late layers
    head_warmup_steps: int = 0  # first steps, in which the condenser head alone is trained

    def __post_init__(self) -> None:
        choose("objective.head_init", self.head_init, HEAD_INITS)
        if self.head_layers < 1:
            raise UserError(
                f"objective.head_layers is {self.head_layers}; a head has at least 1 layer."
            )
        if self.head_warmup_steps < 0:
            raise UserError(
                f"objective.head_warmup_steps is {self.head_warmup_steps}; "
                "expected 0 (none) or more."
            )


class Condenser:
    """A language model with a Condenser head, as functions of `params`."""

    def __init__(
        self, config: BackboneConfig, compute: ComputeConfig, options: CondenserConfig
    ) -> None:
        self.early_layer = early_layer_of(config, options)
        check_head(config, self.early_layer, options)
        self.options, self.config, self.compute = options, config, compute
        self.model = LanguageModel(config, compute)
        self.head = condenser_head(config, compute, options.head_layers)

    def init(self, key: Array, loaded: Params) -> dict[str, Tree]:
        """All groups; a head that was not loaded is fresh, or copied from the last late layers."""
        keys = jax.random.split(key)
        params = self.model.init(keys[0], loaded)
        if "condenser_head" in loaded:
            head = loaded["condenser_head"]
        elif self.options.head_init == "late":
            layers, first = (
                params["backbone"]["layers"],
                self.config.num_layers - self.options.head_layers,
            )
            copy = [layers[f"layer_{first + j}"] for j in range(self.options.head_layers)]
            head = {f"layer_{j}": jax.tree.map(jnp.copy, layer) for j, layer in enumerate(copy)}
        else:
            dtype = jnp.dtype(self.compute.dtype)  # a scan refuses to change it on the way
            hidden = jnp.zeros((1, 1, self.config.hidden_size), dtype)
            head = self.head.init(keys[1], hidden, jnp.ones((1, 1), jnp.int32))["params"]
        return params | {"condenser_head": head}

    def states(
        self, params: Params, batch: Batch, slots: Slots, dropout: Dropout | None
    ) -> tuple[Array, Array | None, Array]:
        """Head states [B, M, D], late states [B, M, D] (None with late MLM off) and late CLS [B, D]
        at the slots.
        """
        hidden = self.model.embed(params, batch, dropout)
        early = self.model.run_layers(
            params, hidden, batch, dropout=dropout, start=0, stop=self.early_layer
        )
        late_cls, late = self._late(params, early, batch, slots, dropout)
        head, _ = self.head.apply(
            {"params": params["condenser_head"]},
            jnp.concatenate([late_cls, early[:, 1:]], axis=1),
            batch["attention_mask"],
            dropout,
            queries=slots.positions,
        )
        return head, late, late_cls[:, 0]

    def _late(self, params, early, batch, slots, dropout) -> tuple[Array, Array | None]:
        """Late CLS [B, 1, D] and late states at the slots: the last layer runs on what is read
        alone.
        """
        queries = None
        if slots.positions is not None:
            queries = jnp.zeros_like(slots.positions[:, :1])
            if self.options.late_mlm:
                queries = jnp.concatenate([queries, slots.positions], axis=1)
        late = self.model.run_layers(
            params, early, batch, dropout=dropout, start=self.early_layer, queries=queries
        )
        if not self.options.late_mlm:
            return late[:, :1], None
        return late[:, :1], late if queries is None else late[:, 1:]

    def losses(self, params, batch, counts, dropout) -> Loss:
        """The sum of head and late MLM losses; both share one vocabulary product."""
        slots = slots_of(batch, self.compute.lean)
        head, late, _ = self.states(params, batch, slots, dropout)
        return self.masked_lm_loss(params, head, late, slots, counts)

    def masked_lm_loss(self, params, head, late, slots: Slots, counts) -> Loss:
        """Masked-LM losses of head states and (unless None) late states [B, M, D]."""
        parts = {"head": head} | ({} if late is None else {"late": late})
        states = jnp.stack(list(parts.values()), axis=1)  # B 2 M D
        terms = self.model.vocabulary_terms(params, states)
        ids = jnp.broadcast_to(slots.ids[:, None], states.shape[:3])
        nll, correct = tied_cross_entropy(*terms, ids)
        value, metrics = jnp.zeros((), nll.dtype), dict[str, Mean]()
        for i, name in enumerate(parts):
            share, own = masked_lm(
                nll[:, i], correct[:, i], slots.weights, counts["masked"], f"{name}_"
            )
            value, metrics = value + share, metrics | own
        both = Mean(value * counts["masked"], slots.weights.sum())
        return Loss(value, metrics | {"loss": both})

    def predict_masked_lm(self, params, frozen, batch) -> dict[str, tuple[Array, Array]]:
        """Per masked slot [B, M]: negative log likelihood (nats) and correctness, of head and late
        states.
        """
        del frozen
        slots = slots_of(batch, lean=True)
        head, late, _ = self.states(params, batch, slots, None)
        states = {"head": head} | ({} if late is None else {"late": late})
        return {
            name: tied_cross_entropy(*self.model.vocabulary_terms(params, x), slots.ids)
            for name, x in states.items()
        }


def early_layer_of(config: BackboneConfig, options: CondenserConfig) -> int:
    """The hidden state that skips to the head: as configured, else half of the layers."""
    return config.num_layers // 2 if options.early_layer is None else options.early_layer


def check_head(config: BackboneConfig, early_layer: int, options: CondenserConfig) -> None:
    """Refuses a head that the backbone cannot feed."""
    if not 0 <= early_layer < config.num_layers:
        raise UserError(
            f"objective.early_layer {early_layer} is out of range for a backbone of "
            f"{config.num_layers} layers; use 0 (the embedding output) to {config.num_layers - 1}."
        )
    if options.head_init == "late" and options.head_layers > config.num_layers - early_layer:
        raise UserError(
            f"objective.head_init='late' copies {options.head_layers} late layers, but there are "
            f"only {config.num_layers - early_layer}; use fewer head_layers or head_init='random'."
        )


def build(backbone: BackboneConfig, compute: ComputeConfig, options: CondenserConfig) -> Objective:
    """The objective `condenser`: phase `train`, and before it, if asked for, `head_warmup`."""
    condenser = Condenser(backbone, compute, options)
    groups = (*LanguageModel.groups, "condenser_head")
    warmup = options.head_warmup_steps

    def losses(params, frozen, batch, counts, dropout):
        del frozen
        result = {"train": condenser.losses(params, batch, counts, dropout)}
        if warmup:
            held = {group: jax.lax.stop_gradient(params[group]) for group in LanguageModel.groups}
            result["head_warmup"] = condenser.losses({**params, **held}, batch, counts, dropout)
        return result

    phases: tuple[Phase, ...] = (Phase("train", groups),)
    if warmup:
        phases = (Phase("head_warmup", ("condenser_head",)), *phases)
    return Objective(
        init=condenser.init,
        counts=count_masked,
        losses=losses,
        phases=phases,
        schedule=Schedule((("train",),), prelude=((("head_warmup",), warmup),) if warmup else ()),
        exports=groups,
        predict={
            "embed": condenser.model.embed_text,
            "masked_lm": condenser.predict_masked_lm,
            "cls_scores": condenser.model.cls_scores,
        },
    )
