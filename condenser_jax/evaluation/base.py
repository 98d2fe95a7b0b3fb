"""What every evaluation during training shares: a fixed sample, batches placed on the mesh, results
read by all.
"""

from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import Mesh

from condenser_jax.training.sharding import local_rows, to_global
from condenser_jax.types import Batch


def place(batch: Mapping[str, np.ndarray], mesh: Mesh) -> Batch:
    """A batch that every host has whole, as global arrays over the mesh."""
    rows = next(iter(batch.values())).shape[0]
    mine = local_rows(rows, mesh)
    return to_global({name: values[mine] for name, values in batch.items()}, mesh, rows)


def replicated(mesh: Mesh) -> jax.sharding.NamedSharding:
    """The sharding of results that every host reads."""
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())


def spread(total: int, limit: int) -> np.ndarray:
    """At most `limit` numbers below `total`, evenly spread."""
    return np.unique(np.linspace(0, total - 1, min(limit, total)).round().astype(np.int64))
