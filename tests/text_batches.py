"""Batches of texts for tests of objectives: queries with passages, rows of sentences, labels."""

import numpy as np

from condenser_jax.models.config import BackboneConfig
from tests.helpers import SPECIALS, masked_batch


def random_texts(
    config: BackboneConfig, *shape: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Ids and masks int32 of `shape`, the last axis being the length; padded on the right."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, shape[-1] + 1, shape[:-1])
    mask = (np.arange(shape[-1]) < lengths[..., None]).astype(np.int32)
    return rng.integers(SPECIALS, config.vocab_size, shape).astype(np.int32) * mask, mask


def ranking_batch(
    config: BackboneConfig, queries: int = 4, group: int = 3
) -> dict[str, np.ndarray]:
    """Queries with their passages; the positive of query 0 comes again as a negative of query 3."""
    query, query_mask = random_texts(config, queries, 7)
    passage, passage_mask = random_texts(config, queries, group, 11, seed=1)
    passages = np.arange(queries * group, dtype=np.int32).reshape(queries, group)
    for values in (passage, passage_mask, passages):
        values[3, 1] = values[0, 0]
    scores = np.random.default_rng(2).normal(size=(queries, group))
    return {
        "query_input_ids": query,
        "query_attention_mask": query_mask,
        "passage_input_ids": passage,
        "passage_attention_mask": passage_mask,
        "passages": passages,
        "positives": passages[:, :1],
        "teacher_scores": scores.astype(np.float32),
    }


def rows_batch(config: BackboneConfig, texts: int, rows: int = 4) -> dict[str, np.ndarray]:
    """Rows of so many sentences, with a similarity each."""
    ids, mask = random_texts(config, rows, texts, 7)
    similarity = np.random.default_rng(1).random(rows).astype(np.float32)
    return {"input_ids": ids, "attention_mask": mask, "similarity": similarity}


def labelled_batch(config: BackboneConfig, labels: np.ndarray, length: int = 16):
    """A row of two sentences for each label; rows are of different lengths."""
    batch = masked_batch(config, rows=len(labels), length=length)
    halves = (np.arange(length) >= length // 2) * batch["attention_mask"]
    texts = {name: batch[name] for name in ("input_ids", "attention_mask")}
    return texts | {"token_type_ids": halves.astype(np.int32), "labels": labels}


def batch_of(
    method: str, config: BackboneConfig, rows: int = 4, length: int = 16
) -> dict[str, np.ndarray]:
    """So many rows of what a method learns from; `length` is that of spans and labelled texts."""
    if method == "retriever":
        return ranking_batch(config, rows)
    if method == "classifier":
        return labelled_batch(config, np.resize(np.array([0, 1, 1, 0], np.int32), rows), length)
    texts = {"similarity": 2, "sections": 3}
    if method in texts:
        return rows_batch(config, texts[method], rows)
    return masked_batch(config, rows, length)
