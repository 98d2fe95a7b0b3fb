"""Which thing stands where in an endless stream: weighted sources, each shuffled anew per epoch.

A thing is what a method draws: a span, or a document. Nothing is drawn in order, so any position of
the stream can be asked for by itself.
"""

from collections.abc import Sequence

import numpy as np

from condenser_jax.data.hashing import hash_u64, permute
from condenser_jax.errors import UserError

SHUFFLE = 11  # what a hash is drawn for
SHARE_BITS = 20  # a mixture's weights are rounded to 2**-20: exact integers up to 2**43 positions


class Walk:
    """The stream over the things of weighted sources.

    Sources are interleaved evenly by their weights (no draw: after any number of positions each
    source has given its share to within one per source before it; shares below 2**-21 are none),
    and each walks its own shuffles. Raises UserError for weights that are not positive.

    Args:
      totals: how many things each source has, at least 1.
      weights: relative shares of the stream.
    """

    def __init__(self, totals: Sequence[int], weights: Sequence[float], seed: int) -> None:
        self.totals, self.shares, self.seed = list(totals), _nested_shares(weights), seed

    def at(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns what stands at positions [B]: number of the source, its epoch, the thing; int64
        [B] each.
        """
        which, position = _interleave(positions, self.shares)
        epoch, thing = np.empty_like(position), np.empty_like(position)
        for number, total in enumerate(self.totals):
            own = np.flatnonzero(which == number)
            epoch[own], within = np.divmod(position[own], total)
            thing[own] = permute(within, total, hash_u64(SHUFFLE, self.seed, number, epoch[own]))
        return which, epoch, thing


def _nested_shares(weights: Sequence[float]) -> list[int]:
    """Each source's share of what the sources before it leave, in units of 2**-SHARE_BITS."""
    for weight in weights:
        if not 0 < weight < float("inf"):
            raise UserError(
                f"mixture weight {weight} is not a positive number; "
                "remove the source or give it a weight above 0"
            )
    rest = np.cumsum(weights[::-1])[::-1]
    return [round(w / r * 2**SHARE_BITS) for w, r in zip(weights, rest, strict=True)]


def _interleave(stream: np.ndarray, shares: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the mixed stream -> (number of the source [B], position within it [B]).

    The first source takes position p where floor(share * p) steps up, and that floor is its own
    position; what it leaves is a stream again, shared out likewise among the others.
    """
    which = np.full(stream.shape, -1)
    position = stream.copy()
    for number, share in enumerate(shares):
        taken = position * share >> SHARE_BITS
        takes = (which < 0) & (((position + 1) * share >> SHARE_BITS) > taken)
        passes_on = (which < 0) & ~takes
        which[takes] = number
        position = np.where(takes, taken, np.where(passes_on, position - taken, position))
    return which, position
