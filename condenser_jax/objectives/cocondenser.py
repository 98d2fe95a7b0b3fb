"""coCondenser (Gao and Callan, ACL 2022, section 3.2): Condenser, and beside it the contrast of
spans: the late CLS of a span is to be nearer to another span of its document than to any span of
other documents in the batch.

    loss = mean over masked tokens of CE(head) + the same of CE(late) + mean over spans of L_co

The paper prints one mean over spans of per-span sums; like its public code we take the means of
Condenser over masked tokens. The contrast is over the global batch, whatever devices, hosts and
chunks: n documents give each span 2n - 2 negatives.
"""

import dataclasses

import jax
import jax.numpy as jnp

from condenser_jax.errors import UserError, choose
from condenser_jax.losses.contrastive import FILLER, SIMILARITIES, span_contrast
from condenser_jax.losses.gradient_cache import Valued, contrast_over_chunks
from condenser_jax.models.config import BackboneConfig, ComputeConfig
from condenser_jax.models.dropout import Dropout
from condenser_jax.objectives import condenser
from condenser_jax.objectives.base import Loss, Objective
from condenser_jax.objectives.condenser import Condenser, CondenserConfig
from condenser_jax.objectives.language_model import LanguageModel, count_masked, slots_of
from condenser_jax.types import Array, Batch, Counts, Mean, Params, Tree


@dataclasses.dataclass(frozen=True)
class CoCondenserConfig(CondenserConfig):
    """The choices of coCondenser pre-training: those of Condenser, and two on the contrast."""

    name: str = "cocondenser"
    similarity: str = "dot"  # of two vectors: "dot", or "cosine"
    temperature: float = 1.0  # similarities are divided by it

    def __post_init__(self) -> None:
        super().__post_init__()
        choose("objective.similarity", self.similarity, SIMILARITIES)
        if not self.temperature > 0:
            raise UserError(
                f"objective.temperature is {self.temperature}; expected above 0 (1 as published)."
            )


class CoCondenser(Condenser):
    """A Condenser whose text vectors are contrasted over the batch."""

    options: CoCondenserConfig

    def loss(
        self, params: Params, batch: Batch, counts: Counts, dropout: Dropout | None, contrasts: bool
    ) -> Loss:
        """Masked-LM losses of head and late states, plus the contrast if `contrasts`."""
        spans = batch["document"]
        rows = {"batch": batch} | ({} if dropout is None else {"row": dropout.rows})

        def dropout_of(rows: Tree) -> Dropout | None:
            return None if dropout is None else dropout._replace(rows=rows["row"])

        def encode(params: Params, rows: Tree) -> Array:
            return self.model.late_cls(params, rows["batch"], dropout_of(rows))

        def encode_with_loss(params: Params, rows: Tree) -> tuple[Array, Valued]:
            slots = slots_of(rows["batch"], self.compute.lean)
            head, late, cls = self.states(params, rows["batch"], slots, dropout_of(rows))
            value, metrics = self.masked_lm_loss(params, head, late, slots, counts)
            return cls, (value, metrics)

        def contrast(vectors: Array) -> Valued:
            if not contrasts:
                return jnp.zeros(()), {}
            return self._contrast(vectors, spans, counts)

        chunks = self.compute.chunks_of(len(spans))
        run = contrast_over_chunks(encode, encode_with_loss, contrast, chunks)
        value, metrics = run(params, rows)
        return Loss(value, metrics | {"loss": Mean(value, jnp.ones_like(value))})

    def _contrast(self, vectors: Array, documents: Array, counts: Counts) -> Valued:
        """The mean over the spans of the batch."""
        options = self.options
        nll, correct = span_contrast(vectors, documents, options.similarity, options.temperature)
        is_span = (documents != FILLER).astype(nll.dtype)
        total, count = (nll * is_span).sum(), is_span.sum()
        accuracy = Mean((correct * is_span).sum(), count)
        metrics = {"contrast_loss": Mean(total, count), "contrast_accuracy": accuracy}
        return total / counts["spans"], metrics


def count_spans(batch: Batch) -> Counts:
    """The masked tokens and the spans of the global batch, each at least 1."""
    spans = (batch["document"] != FILLER).sum().astype(jnp.float32)
    return {**count_masked(batch), "spans": jnp.maximum(spans, 1.0)}


def build(
    backbone: BackboneConfig, compute: ComputeConfig, options: CoCondenserConfig
) -> Objective:
    """The objective `cocondenser`: Condenser's groups and phases; the contrast joins `train`."""
    model = CoCondenser(backbone, compute, options)

    def losses(params, frozen, batch, counts, dropout):
        del frozen
        result = {"train": model.loss(params, batch, counts, dropout, contrasts=True)}
        if options.head_warmup_steps:
            held = {group: jax.lax.stop_gradient(params[group]) for group in LanguageModel.groups}
            warm = model.loss({**params, **held}, batch, counts, dropout, contrasts=False)
            result["head_warmup"] = warm
        return result

    return dataclasses.replace(
        condenser.build(backbone, compute, options),
        losses=losses,
        counts=count_spans,
        accumulates=False,
    )
