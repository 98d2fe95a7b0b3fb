"""The axes of the mesh, and what is held to lie on them within a step (docs/design.md section 11).

What lies between parameters and losses follows from where these are, by the compiler's choice. Two
things it cannot know. Under fsdp rows and weights are cut by the same axis, and a loop over layers
has a state of no place of its own: then the compiler may move the activations of all rows to each
device's share of a weight, where the weights should move. And the gradient of a look-up is a sum
over all its uses, which is added up where the table lies whole unless it is told otherwise.
"""

import math

import jax
from jax.sharding import AxisType, PartitionSpec

from condenser_jax.types import Array

DATA = "data"  # its devices share rows, not weights
FSDP = "fsdp"  # its devices share rows and weights
TENSOR = "tensor"  # its devices share weights, not rows
AXES = (DATA, FSDP, TENSOR)
ROWS = (DATA, FSDP)
VOCABULARY = (TENSOR, FSDP)


def divided_by_rows(x: Array) -> Array:
    """`x` [B, ...], held to be divided by the rows of the batch."""
    return _divided(x, ROWS)


def divided_by_vocabulary(table: Array) -> Array:
    """`table` [V, D], held to be divided by the vocabulary; so is its gradient."""
    return _divided(table, VOCABULARY)


def _divided(x: Array, axes: tuple[str, ...]) -> Array:
    """`x` with its first dimension divided over those of `axes` that are the compiler's business
    (others are a `shard_map`'s); of the other dimensions nothing is said.

    Nothing happens outside of a mesh (`jax.set_mesh`), on one device, or where they do not divide.
    """
    mesh = jax.sharding.get_abstract_mesh()
    kinds = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    axes = tuple(a for a in axes if kinds.get(a) == AxisType.Auto and mesh.shape[a] > 1)
    if not axes or x.shape[0] % math.prod(mesh.shape[axis] for axis in axes):
        return x
    others = (PartitionSpec.UNCONSTRAINED,) * (x.ndim - 1)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(axes, *others))
