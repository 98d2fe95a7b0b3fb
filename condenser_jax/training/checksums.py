"""What an array is, in a line of JSON: dtype, shape and a checksum of its bits.

Nothing below us notices a byte that changed on disk: the chunks of an array are compressed without
a checksum, and most damaged ones come back as wrong numbers. So a checkpoint's record says what
its arrays were. The checksum is computed where the array lies, does not depend on how it is
sharded, and reads it once.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from condenser_jax.types import Array, Tree

_GOLDEN, _MIX_1, _MIX_2 = 0x9E3779B9, 0x85EBCA6B, 0xC2B2AE35  # odd constants of murmur3's finaliser


class Described(NamedTuple):
    """One array of a tree."""

    dtype: str
    shape: tuple[int, ...]
    checksum: int | None = None  # None: of a ShapeDtypeStruct


def named_leaves(tree: Tree) -> Iterator[tuple[str, Any]]:
    """(path, leaf) of a tree; paths are joined by "/"."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        yield "/".join(map(_key, path)), leaf


def describe(tree: Tree) -> dict[str, Described]:
    """{path: description} of arrays or ShapeDtypeStructs."""
    return {
        name: Described(str(leaf.dtype), tuple(leaf.shape)) for name, leaf in named_leaves(tree)
    }


def describe_with_checksums(tree: Tree) -> dict[str, Described]:
    """The same with checksums, of arrays alone; all processes that hold the arrays must call it."""
    sums = jax.device_get([_checksum(array) for array in jax.tree.leaves(tree)])
    return {
        name: described._replace(checksum=int(total))
        for (name, described), total in zip(describe(tree).items(), sums, strict=True)
    }


@jax.jit
def _checksum(array: Array) -> Array:
    """uint32 []: the sum, modulo 2^32, over all elements of a hash of (bits, position).

    For a given position the hash is a bijection of the bits, so one element that changed is always
    noticed; any other damage goes unnoticed once in 2^32 times. One program per shape: a single one
    for all arrays takes several times as long, to compile and to run.
    """
    bits = _bits(array)
    position = jnp.zeros((), jnp.uint32)
    for axis in range(bits.ndim):
        stride = math.prod(bits.shape[axis + 1 :]) % 2**32
        iota = jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
        position = position + iota * jnp.uint32(stride)
    x = bits + position * jnp.uint32(_GOLDEN)
    x = (x ^ (x >> 16)) * jnp.uint32(_MIX_1)
    x = (x ^ (x >> 13)) * jnp.uint32(_MIX_2)
    return jnp.sum(x ^ (x >> 16), dtype=jnp.uint32)


def _bits(array: Array) -> Array:
    """The bits of each element as uint32; of one of 64 bits as two, along a new last axis."""
    if array.dtype == jnp.bool_:
        return array.astype(jnp.uint32)
    width = min(8 * array.dtype.itemsize, 32)
    return jax.lax.bitcast_convert_type(array, f"uint{width}").astype(jnp.uint32)


def _key(key: Any) -> str:
    return str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key))))
