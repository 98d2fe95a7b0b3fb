"""The task `sts`: how well the cosine of two sentences agrees with people (STS benchmark)."""

from condenser_jax.retrieval.metrics import correlation_shares, cosines
from condenser_jax.retrieval.sentence_sources import open_pairs
from condenser_jax.tasks.contract import Options, Report
from condenser_jax.tasks.sentences import encode_columns, numbered
from condenser_jax.tasks.systems import report_systems


def report_sts(options: Options) -> Report:
    """Spearman's and Pearson's correlation of cosines with the scores of a split's pairs."""
    pairs = open_pairs(options.data, options.split, options.reading)
    scores = [pair.score for pair in pairs]
    systems = (
        (name, correlation_shares(cosines(first, second), scores))
        for name, (first, second) in encode_columns(options, [pair[:2] for pair in pairs])
    )
    what, texts = f"{len(pairs):,} pairs", (str(value) for pair in pairs for value in pair)
    return report_systems("sts", systems, numbered(pairs), options, what, texts)
