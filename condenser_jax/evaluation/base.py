"""What every evaluation during training shares: a fixed sample, batches placed on the mesh, results
read by all.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from condenser_jax.training.sharding import local_rows, replicated, to_global
from condenser_jax.types import Batch


def place(batch: Mapping[str, np.ndarray], mesh: Mesh) -> Batch:
    """A batch that every host has whole, as global arrays over the mesh."""
    rows = next(iter(batch.values())).shape[0]
    mine = local_rows(rows, mesh)
    return to_global({name: values[mine] for name, values in batch.items()}, mesh, rows)


def over_mesh(function: Callable[..., Any], mesh: Mesh) -> Callable[..., Any]:
    """`function`, compiled, with results that every host reads.

    It is computed within the mesh, as a step is, so that under fsdp weights travel and not the
    activations of all rows (`axes`).
    """
    compiled = jax.jit(function, out_shardings=replicated(mesh))

    def within(*arguments: Any) -> Any:
        with jax.set_mesh(mesh):
            return compiled(*arguments)

    return within


def spread(total: int, limit: int) -> np.ndarray:
    """At most `limit` numbers below `total`, evenly spread."""
    return np.unique(np.linspace(0, total - 1, min(limit, total)).round().astype(np.int64))
