"""Masked-LM loss on held-out spans, always the same masks, beside the unigram that any model must
beat.

Half of a random sample of held-out documents may be near-copies of training text, so three figures
stand side by side: all spans, `new` ones, and `copied` ones (over 20 % of their 8-grams of tokens
occur in the training part).
"""

from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from condenser_jax.evaluation.base import over_mesh, place
from condenser_jax.types import Frozen, Params

COPIED = 0.2  # share of 8-grams known from training above which a span counts as a near-copy
KINDS = ("heldout", "heldout_new", "heldout_copied")  # prefixes of the figures


def masked_lm_evaluator(
    predict: Callable,
    batches: Sequence[Mapping[str, np.ndarray]],
    copied: np.ndarray,
    unigram: np.ndarray,
    mesh: Mesh,
) -> Callable[[Params, Frozen], dict[str, float]]:
    """Builds the evaluation.

    Args:
      predict: (params, frozen, batch) -> {state: (nll [B, M], correct [B, M])}.
      batches: of fixed masks; all of one size.
      copied: [rows of all batches] share of known 8-grams of each row's span (any number for
        filling rows).
      unigram: int [V] counts of the training tokens.

    Returns:
      (params, frozen) -> {"heldout/head_loss", "heldout/late_accuracy", ..., "heldout/unigram",
      "heldout_new/head_loss", ...}, losses in nats.
    """
    kinds = _kinds_of_rows(copied, sum(len(batch["input_ids"]) for batch in batches))
    placed, weighted, start = [], [], 0
    for batch in batches:
        rows = len(batch["input_ids"])
        by_kind = kinds[:, start : start + rows, None] * batch["masked_weights"]  # kinds B M
        weighted.append(by_kind)
        placed.append(place({**batch, "by_kind": by_kind.transpose(1, 0, 2)}, mesh))
        start += rows
    baseline = _unigram_figures(unigram, batches, weighted)

    def sums(params, frozen, batch):
        weights = batch["by_kind"]  # B kinds M
        outcome = {
            f"{state}_{measure}": jnp.einsum("bm,bkm->k", values, weights, precision="highest")
            for state, pair in predict(params, frozen, batch).items()
            for measure, values in zip(("loss", "accuracy"), pair, strict=True)
        }
        return outcome, weights.sum((0, 2))

    compiled = over_mesh(sums, mesh)

    def evaluate(params: Params, frozen: Frozen) -> dict[str, float]:
        results = jax.device_get([compiled(params, frozen, batch) for batch in placed])
        counts = sum(count for _, count in results)
        figures = dict(baseline)
        for name in results[0][0]:
            totals = sum(outcome[name] for outcome, _ in results)
            figures |= _named(name, totals, counts)
        return figures

    return evaluate


def _kinds_of_rows(copied: np.ndarray, rows: int) -> np.ndarray:
    """float32 [kinds, rows]: whether a row is counted under each of KINDS."""
    is_copy = np.asarray(copied) > COPIED
    assert is_copy.shape == (rows,), f"{len(is_copy)} shares of copies for {rows} rows"
    return np.stack([np.ones(rows), ~is_copy, is_copy]).astype(np.float32)


def _named(name: str, totals: np.ndarray, counts: np.ndarray) -> dict[str, float]:
    """Means under the three prefixes; a kind without tokens is left out."""
    return {
        f"{prefix}/{name}": float(total / count)
        for prefix, total, count in zip(KINDS, totals, counts, strict=True)
        if count > 0
    }


def _unigram_figures(
    unigram: np.ndarray, batches: Sequence[Mapping], weighted: Sequence[np.ndarray]
) -> dict[str, float]:
    """Cross entropy (nats) of the training unigram (add-one smoothed) on the very masked tokens."""
    nll = -log_unigram(unigram)
    totals = sum(
        (nll[batch["masked_ids"]] * weights).sum((1, 2))
        for batch, weights in zip(batches, weighted, strict=True)
    )
    return _named("unigram", totals, sum(weights.sum((1, 2)) for weights in weighted))


def log_unigram(unigram: np.ndarray) -> np.ndarray:
    """Log probabilities [V] of add-one smoothed counts [V]."""
    smoothed = np.asarray(unigram, np.float64) + 1.0
    return np.log(smoothed / smoothed.sum())
