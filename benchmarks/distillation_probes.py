"""Measures that every encoder has, whatever it was trained by: probes of frozen states.

`ratios`: whether the teacher finds a replaced token as good as the original (ratio at least 1/2),
by logistic regression on the last hidden state of that token, half of the held-out rows teaching
and the others asked; as the AUC, for replacements of the teacher's MLM and for uniform ones. It is
for methods what the AUC of a ratio head is for Tutor-KD, and may be compared between them.

`packages`: which package a held-out paragraph comes from (condenser_jax/tasks/packages.py).
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from condenser_jax.config import RunConfig
from condenser_jax.encoder import Encoder, default_dtype
from condenser_jax.encoder_source import Source
from condenser_jax.evaluation.agreement import AGREES, FIXED, auc
from condenser_jax.feeds.distillation import DISTILLATION, DistillationMaterial
from condenser_jax.hf.card import EncoderCard
from condenser_jax.losses.policy import log_ratio
from condenser_jax.models.config import BackboneConfig, ComputeConfig
from condenser_jax.objectives.distillation import (
    Pair,
    Replacements,
    predictions,
    replace_masked,
)
from condenser_jax.retrieval.collection import CollectionOptions
from condenser_jax.tasks.packages import guess_packages, logistic_regression, read_paragraphs
from condenser_jax.teachers import FoundTeacher
from condenser_jax.types import Tree

DECAY = 1.0  # of the regression's weights


class Probed(NamedTuple):
    """An encoder that is measured."""

    config: BackboneConfig
    backbone: Tree


def probe(
    probed: Probed, teacher: FoundTeacher, taught: RunConfig, packages: str, pooling: str
) -> dict[str, float]:
    """All measures.

    Args:
      taught: the configuration of a student of this teacher, for its held-out text.
      packages: whose docstrings the paragraphs are of, "docstrings:" or some packages of it.
    """
    material = DISTILLATION.open(taught)
    found = {
        f"ratio probe, {kind}": value
        for kind, value in probe_ratios(probed, teacher, material).items()
    }
    length = taught.data.max_length
    card = EncoderCard(pooling, query_max_length=length, passage_max_length=length)
    directory = material.tokenizer_directory
    groups = {"backbone": probed.backbone}
    source = Source("", directory, probed.config, groups, material.tokenizer, None)
    return found | {"packages": _packages(Encoder(source, card, default_dtype()), packages, taught)}


def probe_ratios(
    probed: Probed, teacher: FoundTeacher, material: DistillationMaterial
) -> dict[str, float]:
    """The AUC for each kind of replacement."""
    known = teacher.known_to(material.vocabulary)
    pair = Pair(known.config, probed.config, ComputeConfig(dtype=default_dtype()))
    read = jax.jit(_states_and_ratios(pair, Replacements(known)))
    frozen = jax.device_put(teacher.frozen(default_dtype()))
    params = jax.device_put({"backbone": probed.backbone})
    batches = material.heldout()
    read_all = [jax.device_get(read(params, frozen, batch)) for batch in batches]
    figures = {}
    for kind in FIXED:
        states, ratios, asked = [], [], []
        for batch, found in zip(batches, read_all, strict=True):
            used = batch["masked_weights"] > 0
            rows = np.broadcast_to(np.arange(len(used))[:, None], used.shape)
            states.append(found[kind][0][used])
            ratios.append(found[kind][1][used])
            asked.append(rows[used] % 2 == 1)
        whole = (np.concatenate(parts) for parts in (states, ratios, asked))
        figures[kind] = _probe_auc(*whole)
    return figures


def _states_and_ratios(pair: Pair, replacements: Replacements) -> Callable:
    """(params, frozen, batch) -> {kind: (states [B, M, D], the teacher's ratios [B, M])}."""
    draw = predictions(pair, replacements)["draw"]

    def read(params: Any, frozen: Any, batch: Any) -> dict[str, Any]:
        _, logits = pair.masked_logits(frozen, batch)
        found, slots = {}, batch["masked_positions"]
        for kind, ids in draw(params, frozen, batch).items():
            text = replace_masked(batch, ids)
            states, _ = pair.read_student(params, batch, text, None, queries=slots)
            found[kind] = states, jnp.exp(log_ratio(logits, ids, batch["masked_ids"]))
        return found

    return read


def _probe_auc(states: np.ndarray, ratios: np.ndarray, asked: np.ndarray) -> float:
    """The AUC on the slots that are asked of a regression on the others."""
    labels = (ratios >= AGREES).astype(int)
    if len(set(labels[~asked])) < 2:
        return float("nan")
    inputs = states.astype(np.float64)
    taught = inputs[~asked]
    inputs = (inputs - taught.mean(0)) / np.maximum(taught.std(0), 1e-9)
    weights = logistic_regression(inputs[~asked], labels[~asked], DECAY)
    scores = inputs[asked] @ (weights[:-1, 1] - weights[:-1, 0])
    return auc(scores, labels[asked] == 1)


def _packages(encoder: Encoder, packages: str, taught: RunConfig) -> float:
    found = _paragraphs(packages, taught.seed)
    hits = guess_packages(encoder, found) == found.packages[found.taught :]
    return float(hits.mean())


@functools.cache
def _paragraphs(packages: str, seed: int):
    """The paragraphs that runs of this seed hold out."""
    return read_paragraphs(
        packages.removeprefix("docstrings:"), "test", CollectionOptions(split_seed=seed)
    )
