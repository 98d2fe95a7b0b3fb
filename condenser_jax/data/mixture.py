"""A mixture in one string: "0.8 hf:wikipedia + 0.2 jsonl:mine/*.jsonl.gz"; one source needs no
weight.
"""

import re

from condenser_jax.errors import UserError

SEPARATOR = re.compile(r"\s\+\s")
WEIGHTED = re.compile(r"(?P<weight>[0-9][0-9.eE+-]*)\s+(?P<source>\S.*)", re.DOTALL)


def parse_mixture(text: str) -> list[tuple[str, float]]:
    """[(source, weight)] of a mixture; weights are relative shares of the rows of each batch, 1 if
    not given.

    Raises UserError for an empty part or a weight that is not a positive number.
    """
    parts = [part.strip() for part in SEPARATOR.split(text)]
    if not all(parts):
        raise UserError(
            f"data.source {text!r} has an empty part; expected 'kind:where', or "
            "'0.8 kind:where + 0.2 kind:where' for a mixture."
        )
    return [_weighted(part) for part in parts]


def _weighted(part: str) -> tuple[str, float]:
    found = WEIGHTED.fullmatch(part)
    if not found:
        return part, 1.0
    try:
        weight = float(found["weight"])
    except ValueError:
        weight = 0.0
    if not 0 < weight < float("inf"):
        raise UserError(
            f"weight {found['weight']!r} of {found['source']!r} is not a positive number."
        )
    return found["source"].strip(), weight
