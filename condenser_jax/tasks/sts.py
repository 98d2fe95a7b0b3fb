"""The task `sts`: how well the cosine of two sentences agrees with people (STS benchmark)."""

import numpy as np

from condenser_jax.retrieval.metrics import correlation_shares
from condenser_jax.retrieval.sentences import find_sentences, read_sts
from condenser_jax.tasks.contract import Options, Report
from condenser_jax.tasks.sentences import encode_columns
from condenser_jax.tasks.systems import report_systems


def report_sts(options: Options) -> Report:
    """Spearman's and Pearson's correlation of cosines with the scores of a split's pairs."""
    pairs = read_sts(find_sentences(options.data, options.split))
    scores = [pair.score for pair in pairs]
    systems = {}
    for name, (first, second) in encode_columns(options, [pair[:2] for pair in pairs]):
        systems[name] = correlation_shares(_cosines(first, second), scores)
    return report_systems("sts", systems, options, f"{len(pairs):,} pairs")


def _cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """[n] of vectors [n, D]; 0 where one of them is 0."""
    wide, other = first.astype(np.float64), second.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1) * np.linalg.norm(other, axis=1)
    return (wide * other).sum(1) / np.maximum(lengths, 1e-12)
