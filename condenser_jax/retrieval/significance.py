"""Whether two systems differ: a paired randomisation test over queries.

Under the null hypothesis either system could have given either value of a query, so the sign of
each difference is a coin's throw (Fisher's test; Smucker, Allan and Carterette, CIKM 2007). With
few queries all throws are counted; else a number of them is drawn from a fixed seed.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from condenser_jax.errors import UserError

EXACT_QUERIES = 16  # up to here all 2**n throws are counted
THROWS = 20_000
CHUNK = 256
SEED = 0


class Comparison(NamedTuple):
    """What a paired test found; `difference` is the mean of first minus second."""

    queries: int
    difference: float
    p: float  # two-sided
    is_exact: bool

    def __str__(self) -> str:
        kind = "exact" if self.is_exact else f"{THROWS:,} throws"
        return (
            f"difference {self.difference:+.4f} over {self.queries:,} queries, "
            f"p {self.p:.4g} ({kind})"
        )


def compare(first: Mapping[str, float], second: Mapping[str, float]) -> Comparison:
    """Tests whether the mean of {query id: value} differs between two systems.

    p is the share of throws that give a mean at least as far from 0; with drawn throws the observed
    one is counted among them, so p is never 0. Raises UserError for different queries, or none.
    """
    if set(first) != set(second) or not first:
        apart = len(set(first) ^ set(second))
        raise UserError(
            f"queries that only one of the two systems has: {apart} (they have {len(first)} and "
            f"{len(second)}); a paired test compares the same queries, at least one"
        )
    differences = np.array([first[query] - second[query] for query in sorted(first)])
    n, observed = len(differences), differences.mean()
    is_exact = n <= EXACT_QUERIES
    signs = _all_signs(n) if is_exact else _drawn_signs(n)
    limit = abs(observed) - 1e-12  # sums in another order differ by rounding
    throws = far = 0
    for chunk in signs:
        throws += len(chunk)
        far += int((np.abs(chunk @ differences / n) >= limit).sum())
    p = far / throws if is_exact else (far + 1) / (throws + 1)
    return Comparison(n, float(observed), p, is_exact)


def _all_signs(n: int) -> Iterator[np.ndarray]:
    """Every row of n signs once, in chunks [c, n]."""
    for start in range(0, 2**n, CHUNK):
        throws = np.arange(start, min(start + CHUNK, 2**n))
        yield 1.0 - 2.0 * (throws[:, None] >> np.arange(n) & 1)


def _drawn_signs(n: int) -> Iterator[np.ndarray]:
    generator = np.random.default_rng(SEED)
    for start in range(0, THROWS, CHUNK):
        rows = min(CHUNK, THROWS - start)
        yield 1.0 - 2.0 * generator.integers(0, 2, (rows, n), np.int8)
