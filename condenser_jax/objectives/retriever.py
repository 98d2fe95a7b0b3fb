"""A dense retriever (Karpukhin et al. 2020; Gao and Callan 2022, section 4): queries and passages
are encoded apart, and a query's positive is to score higher than all other passages of the batch.

    loss = mean over queries of InfoNCE (+ distillation from a cross-encoder's scores)

Rows of a batch are queries; each brings its group of passages, the positive first. The contrast is
over the global batch, whatever devices, hosts and chunks.
"""

import dataclasses

import jax
import jax.numpy as jnp

from condenser_jax.errors import UserError, choose
from condenser_jax.losses import ranking
from condenser_jax.losses.gradient_cache import Valued, contrast_over_chunks
from condenser_jax.models.bert import Backbone
from condenser_jax.models.config import BackboneConfig, ComputeConfig
from condenser_jax.models.dropout import Dropout
from condenser_jax.models.pooling import POOLINGS, mean_pool, normalise
from condenser_jax.objectives.base import Loss, Objective, Phase, Schedule
from condenser_jax.types import Array, Batch, Counts, Mean, Params, Tree

GLOBAL = "global"
DISTILLATIONS = {"kl": ranking.distil_kl, "margin_mse": ranking.distil_margin_mse}
NO_DISTILLATION = "none"


@dataclasses.dataclass(frozen=True)
class RetrieverConfig:
    """The choices of fine-tuning a retriever."""

    name: str = "retriever"
    tied: bool = True  # one encoder for queries and passages; False: two, from the same start
    pooling: str = "cls"  # or "mean"
    normalise: bool = False  # vectors of length 1: scores are cosines
    temperature: float = 1.0  # scores are divided by it
    negatives: int | str = GLOBAL  # "global": the whole batch; n: blocks of n queries, as some runs
    exclude_copies: bool = True  # known positives elsewhere in the batch are no negatives
    distillation: str = NO_DISTILLATION  # or "kl", "margin_mse": from scores in the training file
    distillation_weight: float = 1.0  # of the distillation beside InfoNCE
    contrast_weight: float = 1.0  # of InfoNCE; 0: distillation alone

    def __post_init__(self) -> None:
        choose("objective.pooling", self.pooling, POOLINGS)
        choose("objective.distillation", self.distillation, (NO_DISTILLATION, *DISTILLATIONS))
        if not self.temperature > 0:
            raise UserError(f"objective.temperature is {self.temperature}; expected above 0.")
        negatives = str(self.negatives)
        if negatives != GLOBAL and not (negatives.isdecimal() and int(negatives) > 0):
            raise UserError(
                f"objective.negatives is {self.negatives!r}; expected 'global', or how many "
                "queries share their passages."
            )
        if self.contrast_weight == 0 and self.distillation == NO_DISTILLATION:
            raise UserError(
                "objective.contrast_weight is 0 and there is no distillation: nothing is learned; "
                "set objective.distillation to 'kl' or 'margin_mse'."
            )


class TextEncoder:
    """A backbone and its pooling: token ids to vectors, as functions of one group's parameters."""

    def __init__(
        self, config: BackboneConfig, compute: ComputeConfig, pooling: str, normalises: bool
    ) -> None:
        self.backbone = Backbone(config, compute)
        self.pooling, self.normalises = choose("pooling", pooling, POOLINGS), normalises

    def init(self, key: Array) -> Tree:
        """Fresh parameters."""
        ids = jnp.zeros((1, 1), jnp.int32)
        return self.backbone.init(key, ids, ids)["params"]

    def __call__(self, group: Tree, ids: Array, mask: Array, dropout: Dropout | None) -> Array:
        """Token ids and attention mask [B, L] -> vectors [B, D], at least float32."""
        queries = jnp.zeros((len(ids), 1), jnp.int32) if self.pooling == "cls" else None
        variables = {"params": group}
        hidden, _ = self.backbone.apply(variables, ids, mask, None, dropout, queries)
        vectors = hidden[:, 0] if self.pooling == "cls" else mean_pool(hidden, mask)
        if self.normalises:
            return normalise(vectors)
        return vectors.astype(jnp.promote_types(jnp.float32, vectors.dtype))


class Retriever:
    """Queries and passages of a batch, encoded and scored."""

    def __init__(
        self, config: BackboneConfig, compute: ComputeConfig, options: RetrieverConfig
    ) -> None:
        self.options, self.compute = options, compute
        self.encoder = TextEncoder(config, compute, options.pooling, options.normalise)
        self.groups = ("backbone",) if options.tied else ("backbone", "query_backbone")

    def init(self, key: Array, loaded: Params) -> dict[str, Tree]:
        """All groups; untied encoders start equal."""
        passage = loaded.get("backbone") or self.encoder.init(key)
        if self.options.tied:
            return {"backbone": passage}
        query = loaded.get("query_backbone") or jax.tree.map(jnp.copy, passage)
        return {"backbone": passage, "query_backbone": query}

    def embed_queries(self, params: Params, ids: Array, mask: Array, dropout=None) -> Array:
        """Vectors [B, D] of queries."""
        return self.encoder(params[self.groups[-1]], ids, mask, dropout)

    def embed_passages(self, params: Params, ids: Array, mask: Array, dropout=None) -> Array:
        """Vectors [B, D] of passages."""
        return self.encoder(params["backbone"], ids, mask, dropout)

    def loss(self, params: Params, batch: Batch, counts: Counts, dropout: Dropout | None) -> Loss:
        """InfoNCE over the global batch, with distillation if configured."""
        queries, group = batch["passages"].shape
        rows = {"batch": batch} | ({} if dropout is None else {"row": dropout.rows})

        def encode(params: Params, rows: Tree) -> dict[str, Array]:
            part, of_query, of_passage = rows["batch"], None, None
            if dropout is not None:
                number = queries + rows["row"][:, None] * group + jnp.arange(group)
                of_query = dropout._replace(rows=rows["row"])
                of_passage = dropout._replace(rows=number.reshape(-1))
            ids, mask = part["passage_input_ids"], part["passage_attention_mask"]
            ids, mask = (x.reshape(-1, x.shape[-1]) for x in (ids, mask))
            passages = self.embed_passages(params, ids, mask, of_passage)
            ids, mask = part["query_input_ids"], part["query_attention_mask"]
            return {
                "query": self.embed_queries(params, ids, mask, of_query),  # Q D
                "passage": passages.reshape(-1, group, passages.shape[-1]),  # Q G D
            }

        def encode_with_loss(params: Params, rows: Tree) -> tuple[dict[str, Array], Valued]:
            return encode(params, rows), (jnp.zeros(()), {})

        def contrast(vectors: dict[str, Array]) -> Valued:
            return self._contrast(vectors, batch, counts)

        chunks = self.compute.chunks_of(queries)
        run = contrast_over_chunks(encode, encode_with_loss, contrast, chunks)
        return Loss(*run(params, rows))

    def _contrast(self, vectors: dict[str, Array], batch: Batch, counts: Counts) -> Valued:
        options, group = self.options, batch["passages"].shape[1]
        passages = vectors["passage"].reshape(-1, vectors["passage"].shape[-1])
        scores = jnp.einsum("qd,pd->qp", vectors["query"], passages, precision="highest")
        scores = scores / options.temperature
        together = len(scores) if options.negatives == GLOBAL else int(options.negatives)
        candidates = ranking.is_candidate(
            batch["passages"], batch["positives"], together, options.exclude_copies
        )
        nll, correct = ranking.info_nce(scores, candidates, group)
        count = jnp.asarray(len(scores), scores.dtype)
        value = options.contrast_weight * nll.sum() / counts["queries"]
        metrics = {"contrast_loss": Mean(nll.sum(), count), "accuracy": Mean(correct.sum(), count)}
        if options.distillation != NO_DISTILLATION:
            distil = DISTILLATIONS[options.distillation]
            losses = distil(ranking.own_scores(scores, group), batch["teacher_scores"])
            metrics["distillation_loss"] = Mean(losses.sum(), count)
            value = value + options.distillation_weight * losses.sum() / counts["queries"]
        return value, metrics | {"loss": Mean(value, jnp.ones_like(value))}


def count_queries(batch: Batch) -> Counts:
    """The queries of the global batch."""
    return {"queries": jnp.asarray(len(batch["passages"]), jnp.float32)}


def build(backbone: BackboneConfig, compute: ComputeConfig, options: RetrieverConfig) -> Objective:
    """The objective `retriever`: one phase, one or two encoders."""
    model = Retriever(backbone, compute, options)

    def losses(params, frozen, batch, counts, dropout):
        del frozen
        return {"train": model.loss(params, batch, counts, dropout)}

    def embed(side):
        def vectors(params, frozen, batch):
            del frozen
            return side(params, batch["input_ids"], batch["attention_mask"])

        return vectors

    return Objective(
        init=model.init,
        counts=count_queries,
        losses=losses,
        phases=(Phase("train", model.groups),),
        schedule=Schedule((("train",),)),
        exports=model.groups,
        predict={"embed": embed(model.embed_passages), "embed_query": embed(model.embed_queries)},
        accumulates=False,
    )
