"""Dropout whose masks depend on where a number stands, never on the shape of the computation.

A bit is a hash of (step key, site, global row, position, channel or key). So the plain, lean,
chunked, accumulated, scanned and sharded forms of a model drop the same numbers, and equalities
between them hold with dropout on. It is also the cheapest form on a CPU: the hash fuses into its
consumer, a stateful generator does not.

A row gets two 32-bit seeds per site; within the row a counter numbers the elements.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from condenser_jax.types import Array

POSITION_BITS = 13  # attention counters are head | query position | key position: 6 + 13 + 13 bits
CHANNEL_BITS = 16  # hidden counters are position | channel: 16 + 16 bits
MAX_ATTENTION_LENGTH = 1 << POSITION_BITS
MAX_HEADS = 1 << (32 - 2 * POSITION_BITS)
_GOLDEN, _MIX_1, _MIX_2 = 0x9E3779B9, 0x85EBCA6B, 0xC2B2AE35  # odd constants of murmur3's finaliser


class Dropout(NamedTuple):
    """The randomness of one step: its key and the global number of each row at hand."""

    key: Array  # uint32 [2]
    rows: Array  # int32 [B]


def key_of_run(seed: int) -> Array:
    """The key of a run, uint32 [2]."""
    return jax.random.key_data(jax.random.key(seed))


def dropout_of_step(key: Array, step: Array, rows: Array) -> Dropout:
    """The randomness of a step, by the key of its run, for global rows (int32 [B])."""
    key = jax.random.fold_in(jax.random.wrap_key_data(key), step)
    return Dropout(jax.random.key_data(key).astype(jnp.uint32), rows)


def _mix(x: Array) -> Array:
    """Murmur3's finaliser: every input bit moves every output bit."""
    x = (x ^ (x >> 16)) * jnp.uint32(_MIX_1)
    x = (x ^ (x >> 13)) * jnp.uint32(_MIX_2)
    return x ^ (x >> 16)


def _bits(dropout: Dropout, site: int | Array, counters: Array) -> Array:
    """uint32 [B, ...], of which the high bits count. `counters` uint32 [B or 1, ...] number the
    elements of a row.
    """
    word = jnp.asarray(site, jnp.uint32) * jnp.uint32(_GOLDEN) + dropout.rows.astype(jnp.uint32)
    first = _mix(word ^ dropout.key[0])
    second = _mix(first ^ dropout.key[1])
    shape = (-1,) + (1,) * (counters.ndim - 1)
    bits = (counters ^ first.reshape(shape)) * jnp.uint32(_MIX_1)
    bits = (bits ^ (bits >> 16)) + second.reshape(shape)
    return bits * jnp.uint32(_MIX_2)  # the high bits depend on all


def _keeps(dropout: Dropout, site: int | Array, rate: float, counters: Array) -> Array:
    """True where an element stays."""
    return _bits(dropout, site, counters) >= jnp.uint32(min(round(rate * 2**32), 2**32 - 1))


def uniforms(dropout: Dropout, site: int, positions: Array) -> Array:
    """float32 [B, M] in [0, 1), multiples of 2**-24: one for each of `positions` int32 [B, M].

    They depend on where a number stands as dropout does, so samples drawn by them do not change
    with chunks, micro-batches and meshes. No dropout of the model has the number `site`.
    """
    bits = _bits(dropout, site, positions.astype(jnp.uint32))
    return (bits >> 8).astype(jnp.float32) * jnp.float32(2.0**-24)


def _drop(x: Array, keeps: Array, rate: float) -> Array:
    return jnp.where(keeps, x * jnp.asarray(1.0 / (1.0 - rate), x.dtype), jnp.zeros((), x.dtype))


def drop_hidden(
    x: Array,
    rate: float,
    dropout: Dropout | None,
    site: int | Array,
    positions: Array | None = None,
) -> Array:
    """Dropout on hidden states.

    Args:
      x: [B, R, D].
      rate: share of elements set to 0; the others are scaled by 1 / (1 - rate).
      dropout: None turns dropout off.
      site: number of the place in the model; two places never share one.
      positions: int32 [B, R], the positions that the rows of `x` stand at; None means 0..R-1.
    """
    if dropout is None or rate == 0.0:
        return x
    where = jnp.arange(x.shape[1])[None] if positions is None else positions
    channels = jnp.arange(x.shape[2], dtype=jnp.uint32)
    counters = (where.astype(jnp.uint32)[..., None] << CHANNEL_BITS) | channels
    return _drop(x, _keeps(dropout, site, rate, counters), rate)


def drop_attention(
    x: Array,
    rate: float,
    dropout: Dropout | None,
    site: int | Array,
    positions: Array | None = None,
) -> Array:
    """Dropout on attention probabilities [B, H, R, L]; `positions` [B, R] are the queries'."""
    if dropout is None or rate == 0.0:
        return x
    _, heads, rows, length = x.shape
    where = jnp.arange(rows)[None] if positions is None else positions
    head = jnp.arange(heads, dtype=jnp.uint32)[None, :, None, None] << (2 * POSITION_BITS)
    query = where.astype(jnp.uint32)[:, None, :, None] << POSITION_BITS
    counters = head | query | jnp.arange(length, dtype=jnp.uint32)
    return _drop(x, _keeps(dropout, site, rate, counters), rate)
