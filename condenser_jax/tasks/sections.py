"""The task `sections`: whether a sentence is nearer to one of its own section than to one of
another section of the same article (Ein Dor et al. 2018).
"""

from condenser_jax.retrieval.metrics import triplet_hits
from condenser_jax.retrieval.sentence_sources import open_triplets
from condenser_jax.tasks.contract import Options, Report
from condenser_jax.tasks.sentences import encode_columns, numbered
from condenser_jax.tasks.systems import report_systems


def report_sections(options: Options) -> Report:
    """The share of a split's triplets with d(anchor, positive) < d(anchor, negative), Euclid's."""
    triplets = open_triplets(options.data, options.split, options.reading)
    names = numbered(triplets)
    systems = (
        (name, {"accuracy": dict(zip(names, triplet_hits(*vectors).astype(float), strict=True))})
        for name, vectors in encode_columns(options, triplets)
    )
    what, texts = f"{len(triplets):,} triplets", (text for row in triplets for text in row)
    return report_systems("sections", systems, names, options, what, texts)
