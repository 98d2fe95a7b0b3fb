"""What objectives on a few texts of a row share: one encoder for all texts, one loss of each row.

    loss = mean over rows of f(vectors of the row's texts)

Rows do not see each other, so parts of a batch add up and accumulation is exact.
"""

from collections.abc import Callable

import jax.numpy as jnp

from condenser_jax.models.config import BackboneConfig, ComputeConfig
from condenser_jax.models.dropout import Dropout
from condenser_jax.objectives.base import Loss, Objective, Phase, Schedule
from condenser_jax.objectives.retriever import TextEncoder
from condenser_jax.types import Array, Batch, Counts, Mean

GROUP = "backbone"
OfRows = Callable[[Array, Batch], dict[str, Array]]


def count_rows(batch: Batch) -> Counts:
    """The rows of the global batch."""
    return {"rows": jnp.asarray(len(batch["input_ids"]), jnp.float32)}


def build_siamese(
    backbone: BackboneConfig, compute: ComputeConfig, pooling: str, of_rows: OfRows
) -> Objective:
    """An objective of one phase and one group, on batches of input_ids and attention_mask int32
    [B, T, L], T texts of each row, and what else the loss reads.

    Args:
      of_rows: vectors [B, T, D] and batch -> {"loss": [B], and further metrics: [B]}.
    """
    encoder = TextEncoder(backbone, compute, pooling, normalises=False)

    def init(key, loaded):
        return {GROUP: loaded.get(GROUP) or encoder.init(key)}

    def embed(params, frozen, batch):
        del frozen
        return encoder(params[GROUP], batch["input_ids"], batch["attention_mask"], None)

    def losses(params, frozen, batch, counts, dropout):
        del frozen
        ids, mask = batch["input_ids"], batch["attention_mask"]
        rows, texts, length = ids.shape
        ids, mask = ids.reshape(-1, length), mask.reshape(-1, length)
        vectors = encoder(params[GROUP], ids, mask, _of_texts(dropout, texts))
        found = of_rows(vectors.reshape(rows, texts, -1), batch)
        total = found["loss"].sum()
        metrics = {
            name: Mean(values.sum(), jnp.asarray(rows, values.dtype))
            for name, values in found.items()
        }
        return {"train": Loss(total / counts["rows"], metrics)}

    return Objective(
        init=init,
        counts=count_rows,
        losses=losses,
        phases=(Phase("train", (GROUP,)),),
        schedule=Schedule((("train",),)),
        exports=(GROUP,),
        predict={"embed": embed},
    )


def _of_texts(dropout: Dropout | None, texts: int) -> Dropout | None:
    """The same randomness for `texts` texts of each row, which are numbered through."""
    if dropout is None:
        return None
    return dropout._replace(rows=(dropout.rows[:, None] * texts + jnp.arange(texts)).reshape(-1))
