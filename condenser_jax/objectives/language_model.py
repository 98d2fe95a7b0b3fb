"""What every masked-language-model objective shares: its two groups, its slots, its text vector."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from condenser_jax.losses.cross_entropy import tied_logits
from condenser_jax.models.bert import Backbone
from condenser_jax.models.config import BackboneConfig, ComputeConfig
from condenser_jax.models.dropout import Dropout
from condenser_jax.models.heads import MlmHead
from condenser_jax.types import Array, Batch, Counts, Params, Tree


class Slots(NamedTuple):
    """Where the vocabulary product is computed, and what it should say there."""

    positions: Array | None  # B M; None: at every position (the plain form, M = L)
    ids: Array  # B M
    weights: Array  # B M


def slots_of(batch: Batch, lean: bool) -> Slots:
    """The masked slots of a batch; in the plain form every position is one, of weight 0 unless
    masked.
    """
    positions, ids, weights = (batch[f"masked_{name}"] for name in ("positions", "ids", "weights"))
    if lean:
        return Slots(positions, ids, weights)

    def spread(values: Array) -> Array:
        empty = jnp.zeros(batch["input_ids"].shape, values.dtype)
        return jax.vmap(lambda row, at, value: row.at[at].add(value))(empty, positions, values)

    return Slots(None, spread(jnp.where(weights > 0, ids, 0)), spread(weights))


def count_masked(batch: Batch) -> Counts:
    """The number of masked tokens of the global batch, at least 1."""
    return {"masked": jnp.maximum(batch["masked_weights"].sum(), 1.0)}


class LanguageModel:
    """A backbone with its MLM head: two groups, as functions of `params`."""

    groups = ("backbone", "mlm_head")

    def __init__(self, config: BackboneConfig, compute: ComputeConfig) -> None:
        self.config, self.compute = config, compute
        self.backbone, self.mlm_head = Backbone(config, compute), MlmHead(config, compute)

    def init(self, key: Array, loaded: Params) -> dict[str, Tree]:
        """Both groups: as loaded, else fresh."""
        keys = jax.random.split(key)
        ids = jnp.zeros((1, 1), jnp.int32)
        states = jnp.zeros((1, self.config.hidden_size))
        fresh = {
            "backbone": lambda: self.backbone.init(keys[0], ids, ids)["params"],
            "mlm_head": lambda: self.mlm_head.init(keys[1], states)["params"],
        }
        return {group: loaded.get(group) or make() for group, make in fresh.items()}

    def encode(
        self,
        params: Params,
        batch: Batch,
        dropout: Dropout | None = None,
        queries: Array | None = None,
        collect: tuple[str, ...] = (),
    ) -> tuple[Array, dict[str, tuple[Array, ...]]]:
        """Last hidden states [B, R, D] at `queries`, and what `collect` names of every layer."""
        texts = (batch["input_ids"], batch["attention_mask"], batch.get("token_type_ids"))
        found: Any = self.backbone.apply(
            {"params": params["backbone"]}, *texts, dropout, queries, collect
        )
        return found

    def logits(self, params: Params, states: Array) -> Array:
        """Of the masked tokens: hidden states [..., D] -> [..., padded V], at least float32."""
        return tied_logits(*self.vocabulary_terms(params, states))

    def embed(self, params: Params, batch: Batch, dropout: Dropout | None) -> Array:
        """Hidden state 0 [B, L, D]."""
        texts = (batch["input_ids"], batch["attention_mask"], batch.get("token_type_ids"))
        variables = {"params": params["backbone"]}
        hidden: Any = self.backbone.apply(variables, *texts, dropout, method="embed")
        return hidden

    def run_layers(self, params: Params, hidden: Array, batch: Batch, **options) -> Array:
        """Layers start..stop-1 of the backbone; options as `LayerStack.__call__`. [B, L, D] -> [B,
        R, D]
        """
        variables = {"params": params["backbone"]}
        mask = batch["attention_mask"]
        return self.backbone.apply(variables, hidden, mask, **options, method="run_layers")[0]

    def vocabulary_terms(self, params: Params, states: Array) -> tuple[Array, Array, Array]:
        """What the tied vocabulary product needs: transformed states [..., D], word table [V, D],
        bias [V].
        """
        head: Any = self.mlm_head.apply({"params": params["mlm_head"]}, states)
        transformed, bias = head
        return transformed, params["backbone"]["embeddings"]["word"]["embedding"], bias

    def late_cls(self, params: Params, batch: Batch, dropout: Dropout | None) -> Array:
        """The last layer's CLS [B, D], computed for the CLS alone."""
        cls = jnp.zeros((batch["input_ids"].shape[0], 1), jnp.int32)
        hidden = self.embed(params, batch, dropout)
        return self.run_layers(params, hidden, batch, dropout=dropout, queries=cls)[:, 0]

    def embed_text(self, params: Params, frozen: Params, batch: Batch) -> Array:
        """Text vectors [B, D]: the last layer's CLS, no dropout."""
        del frozen
        return self.late_cls(params, batch, None)

    def cls_scores(self, params: Params, frozen: Params, batch: Batch) -> tuple[Array, ...]:
        """What the CLS of each layer attends to: scores before softmax [B, H, L], no dropout.

        One layer at a time: a scan would keep the scores of all positions of all layers.
        """
        del frozen
        hidden, found = self.embed(params, batch, None), []
        for layer in range(self.config.num_layers):
            hidden, parts = self._run_layer(
                params, hidden, batch, None, layer, ("attention_scores",)
            )
            found.append(parts["attention_scores"][:, :, 0])
        return tuple(found)

    def parts_of_layer(
        self,
        params: Params,
        batch: Batch,
        dropout: Dropout | None,
        layer: int,
        collect: tuple[str, ...],
    ) -> dict[str, Array]:
        """What `collect` names of one layer, from 0. Nothing is kept of those below, which a scan
        that collects would do for all.
        """
        hidden = self.embed(params, batch, dropout)
        hidden = self.run_layers(params, hidden, batch, dropout=dropout, stop=layer)
        return self._run_layer(params, hidden, batch, dropout, layer, collect)[1]

    def _run_layer(
        self,
        params: Params,
        hidden: Array,
        batch: Batch,
        dropout: Dropout | None,
        layer: int,
        collect: tuple[str, ...],
    ) -> tuple[Array, dict[str, Array]]:
        """One layer on hidden states [B, L, D], and what `collect` names of it."""
        options: Any = {"start": layer, "stop": layer + 1, "collect": collect, "dropout": dropout}
        variables, mask = {"params": params["backbone"]}, batch["attention_mask"]
        out: Any = self.backbone.apply(variables, hidden, mask, **options, method="run_layers")
        hidden, kept = out
        return hidden, {name: parts[0] for name, parts in kept.items()}
