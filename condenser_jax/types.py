"""The words of the type system: arrays, trees of parameters, batches, metrics.

Shape letters, used in every docstring and comment:
B batch, L length, D width, V vocabulary, H heads, K head width, N layers, M masked slots,
F feed-forward width, R query rows of a layer, S spans.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

Array = jax.Array
Scalar = jax.Array
Tree = Any  # a pytree of arrays
Params = Mapping[str, Tree]  # group -> its parameters
Frozen = Mapping[str, Tree]  # group -> parameters that no phase trains
Batch = Mapping[str, Array]  # name -> array with the global batch as leading axis
Counts = Mapping[str, Scalar]  # name -> denominator of the uncut global batch


class Mean(NamedTuple):
    """A mean as total and count, so that parts add up; divided once, where it is written."""

    total: Scalar
    count: Scalar  # type: ignore[assignment]

    def __add__(self, other: "Mean") -> "Mean":  # type: ignore[override]
        return Mean(self.total + other.total, self.count + other.count)
