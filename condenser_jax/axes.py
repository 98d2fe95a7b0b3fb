"""The axes of the mesh, and where the rows of a batch lie on them (docs/design.md section 11)."""

import math

import jax
from jax.sharding import AxisType, PartitionSpec

from condenser_jax.types import Array

DATA = "data"  # its devices share rows, not weights
FSDP = "fsdp"  # its devices share rows and weights
TENSOR = "tensor"  # its devices share weights, not rows
AXES = (DATA, FSDP, TENSOR)
ROWS = (DATA, FSDP)


def divided_by_rows(x: Array) -> Array:
    """`x` [B, ...], held to be divided by rows where the compiler chooses; its other dimensions
    stay the compiler's choice.

    Under fsdp rows and weights are cut by the same axis. Left to itself the compiler may move the
    activations of all rows to each device's share of a weight, where the weights should move. Does
    nothing outside of a mesh (`jax.set_mesh`), on one device, or to rows that do not divide.
    """
    mesh = jax.sharding.get_abstract_mesh()
    kinds = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    axes = tuple(a for a in ROWS if kinds.get(a) == AxisType.Auto and mesh.shape[a] > 1)
    if not axes or x.shape[0] % math.prod(mesh.shape[axis] for axis in axes):
        return x
    others = (PartitionSpec.UNCONSTRAINED,) * (x.ndim - 1)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(axes, *others))
