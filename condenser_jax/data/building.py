"""Filling one prepared directory: cut, drop copies, write the splits, measure, and sign with a
card.
"""

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from condenser_jax.data.columns import Column
from condenser_jax.data.cutting import CutOptions, cut_task, make_tasks, start_worker
from condenser_jax.data.documents import Source
from condenser_jax.data.duplicates import NEVER
from condenser_jax.data.near_copies import write_copied
from condenser_jax.data.parallel import ordered_map
from condenser_jax.data.prepare_config import PrepareConfig
from condenser_jax.data.progress import Progress
from condenser_jax.data.report import describe_split
from condenser_jax.data.splits import (
    HELDOUT,
    TRAIN,
    Kept,
    Raw,
    SplitCounts,
    drop_copies,
    write_raw,
    write_splits,
)
from condenser_jax.data.store import CARD, FORMAT, Spans, file_hash
from condenser_jax.data.tokenization import load_backend, save_tokenizer, tokenizer_hash
from condenser_jax.errors import UserError

PREVIEW_SPANS = 10
NEAR_COPY = 0.2  # a held-out span that shares more of its 8-grams with train counts as a near-copy


def build(
    config: PrepareConfig,
    source: Source,
    named: dict[str, Any],
    tokenizer: str,
    directory: Path,
    progress: bool,
) -> None:
    """Fills `directory` with the prepared data of one source; `named` says in the card which it
    was.
    """
    saved = save_tokenizer(tokenizer, directory / "tokenizer")
    vocab_size = max(saved.get_vocab().values()) + 1
    dtype = "uint16" if vocab_size <= 1 << 16 else "uint32"
    raw = _cut(config, source, directory, dtype, progress)
    kept = drop_copies(raw)
    splits = write_splits(raw, kept, directory, vocab_size)
    _refuse_empty(config, splits)
    with Column(directory / TRAIN / "unigram.bin", np.int64) as unigram:
        unigram.append(splits[TRAIN].unigram)
    write_copied(directory / HELDOUT, directory / TRAIN, dtype)
    bad = source.bad
    card = named | {
        "format": FORMAT,
        "dtype": dtype,
        "tokenizer": {
            "hash": tokenizer_hash(directory / "tokenizer"),
            "vocab_size": vocab_size,
            "pad_id": saved.pad_token_id or 0,
        },
        "recipe": dataclasses.asdict(config.span_options) | {"min_tokens": config.min_tokens},
        "heldout_share": config.heldout_share,
        "bad_records": {"count": bad.bad, "records": bad.records, "first": bad.first},
        "splits": {name: describe_split(n, config.max_length) for name, n in splits.items()},
        "near_copies": _near_copies(Spans(directory / HELDOUT, dtype, 0).copied),
        "preview": _preview(directory, dtype),
        **_count_dropped(raw, kept),
    }
    shutil.rmtree(raw.directory)
    card["files"] = _hash_files(directory)
    (directory / CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")


def _cut(config: PrepareConfig, source: Source, directory: Path, dtype: str, progress: bool) -> Raw:
    options = CutOptions(
        config.span_options,
        str(directory / "tokenizer"),
        config.min_tokens,
        config.heldout_share,
        dtype,
    )
    with Progress("prepare", progress) as bar:
        tasks = make_tasks(source.documents())
        cuts = ordered_map(cut_task, tasks, config.workers, start_worker, (options,))
        return write_raw(cuts, directory / "raw", dtype, bar.advance)


def _refuse_empty(config: PrepareConfig, splits: dict[str, SplitCounts]) -> None:
    documents = {name: counts.documents for name, counts in splits.items()}
    if documents[TRAIN] == 0:
        raise UserError(
            f"no text is left to train on: no span of {config.min_tokens} tokens or more "
            f"(min_tokens) outside the held-out part (heldout_share {config.heldout_share:g})"
        )
    if config.heldout_share > 0 and documents[HELDOUT] == 0:
        raise UserError(
            f"none of {documents[TRAIN]} documents was held out at heldout_share "
            f"{config.heldout_share:g}; raise it or give more documents"
        )


def _count_dropped(raw: Raw, kept: Kept) -> dict[str, dict[str, int]]:
    ranks = raw.read("document_ranks")
    candidates = int((kept.ranks != NEVER).sum())
    return {
        "documents": {
            "read": len(ranks),
            "without_spans": int((ranks == NEVER).sum()),
            "duplicates": int(((ranks != NEVER) & ~kept.documents).sum()),
        },
        "spans": {
            "cut": len(kept.spans) + raw.too_short,
            "too_short": raw.too_short,
            "of_duplicate_documents": len(kept.spans) - candidates,
            "duplicates": candidates - int(kept.spans.sum()),
        },
    }


def _near_copies(copied: np.ndarray) -> dict[str, float]:
    if not len(copied):
        return {"mean_share": 0.0, "over_a_fifth": 0.0}
    return {
        "mean_share": round(float(copied.mean(dtype=np.float64)), 4),
        "over_a_fifth": round(float((copied > NEAR_COPY).mean()), 4),
    }


def _preview(directory: Path, dtype: str) -> list[str]:
    """Returns spans from all over the training part, as text."""
    backend = load_backend(directory / "tokenizer")
    spans = Spans(directory / TRAIN, dtype, 0)
    chosen = np.unique(np.linspace(0, len(spans) - 1, PREVIEW_SPANS).astype(np.int64))
    pairs = [(spans.offsets[index], spans.offsets[index + 1]) for index in chosen]
    return [backend.decode(spans.ids[begin:end].tolist()) for begin, end in pairs]


def _hash_files(directory: Path) -> dict[str, dict[str, Any]]:
    paths = sorted(Path(folder) / name for folder, _, names in os.walk(directory) for name in names)
    return {
        path.relative_to(directory).as_posix(): {
            "bytes": path.stat().st_size,
            "hash": file_hash(path),
        }
        for path in paths
    }
