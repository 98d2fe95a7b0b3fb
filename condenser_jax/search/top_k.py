"""Exact search: the best k passages of each query, while the corpus streams past.

A block of the corpus is divided over the devices; each multiplies its part with a block of queries
in float32 and keeps its best k, which are merged with the best so far. Of equal scores the passage
that stands first in the corpus is kept, whatever the blocks and devices.

Memory does not grow with the corpus. On the devices, with blocks of P passages and q queries, D
wide, and Q queries in all:

    2 blocks in the dtype of the corpus and one in float32, scores 4qP, queries 4QD, best 8Qk bytes

and on the host the queries, 4QD, and what is returned, 12Qk bytes: on a CPU 8QD + 20Qk together,
since the C library keeps what the best blocks leave.

The scores lie in one buffer that goes from block to block: temporaries of that size the C library
would keep for each thread of the program, two of them or four, as it happens. On a CPU a block that
one shard holds is read where it is mapped: its pages are the kernel's.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from condenser_jax.errors import UserError
from condenser_jax.types import Array

P = PartitionSpec
QUERIES = 256  # of a block
PASSAGES = {"cpu": 16384}  # of a block, on each device
PASSAGES_ON_ACCELERATORS = 65536
ALIGNMENT = 64  # bytes


class Hits(NamedTuple):
    """The best passages of each query, best first."""

    ids: np.ndarray  # int64 [Q, k], rows of the corpus; -1 where an approximate index found no more
    scores: np.ndarray  # float32 [Q, k], dot products


class Corpus(Protocol):
    """Vectors [n, D] in any float dtype: an array, or shards on disk."""

    def __len__(self) -> int: ...
    def __getitem__(self, rows: slice, /) -> np.ndarray: ...


class _Best(NamedTuple):
    """The best of one block of queries so far."""

    scores: Array  # float32 [q, k]
    rows: Array  # int32 [q, k]


def search_vectors(
    queries: np.ndarray,
    corpus: Corpus,
    k: int,
    mesh: Mesh,
    *,
    recall: float = 0.0,
    block: int = 0,
    advance: Callable[[int], None] = lambda count: None,
) -> Hits:
    """Returns the best k (or all, if there are fewer) passages of each query.

    Args:
      queries: [Q, D].
      corpus: passages [n, D].
      k: how many to keep.
      mesh: its devices, all of this process, share the passages of a block.
      recall: 0 searches exactly; else the least expected share of the true best that
        `jax.lax.approx_max_k` is asked for, which is faster on TPUs.
      block: passages of a block on each device; 0 chooses by the kind of device.
      advance: is told how many more passages have been seen.

    Raises UserError as `check_wishes` does.
    """
    check_wishes(k, recall)
    k = min(k, len(corpus))
    if not k or not len(queries):
        return Hits(np.zeros((len(queries), k), np.int64), np.zeros((len(queries), k), np.float32))
    rows = block_rows(corpus, mesh, block)
    place = partial(jax.device_put, device=NamedSharding(mesh, P()))
    parts = [place(part) for part in _query_blocks(np.asarray(queries, np.float32))]
    best = [_nothing(len(part), k, mesh) for part in parts]
    step = _make_step(mesh, k, recall)
    places = NamedSharding(mesh, P(None, mesh.axis_names))
    buffer = jnp.zeros((len(parts[0]), rows), jnp.float32, device=places)
    for start, count, passages in _blocks(corpus, rows, mesh):
        jax.block_until_ready(best)  # else blocks would pile up, read faster than they are searched
        for number, part in enumerate(parts):
            best[number], buffer = step(best[number], buffer, part, passages, start, count)
        advance(count)
    hits = Hits(np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.float32))
    for start in range(0, len(queries), len(parts[0])):
        found = best.pop(0)  # whose memory is free when it is copied
        for ours, theirs in zip(hits, (found.rows, found.scores), strict=True):
            ours[start : start + len(theirs)] = np.asarray(theirs)[: len(queries) - start]
    return hits


def check_wishes(k: int, recall: float = 0.0) -> None:
    """Raises UserError for a k that is not positive, and a recall that is not from 0 to below 1."""
    if k < 1:
        raise UserError(f"k {k} asks for no passage; use 1 or more")
    if not 0 <= recall < 1:
        raise UserError(
            f"approximate {recall:g} is no share of the true best to aim at; expected from 0 to "
            "below 1, e.g. 0.95, or leave it out (0) to find all of them"
        )


def block_rows(corpus: Corpus, mesh: Mesh, block: int = 0) -> int:
    """Passages of a block, on all devices; fewer for a small corpus. `block` as for
    `search_vectors`.
    """
    platform = mesh.devices.flat[0].platform
    share = -(-len(corpus) // mesh.size)
    part = block or PASSAGES.get(platform, PASSAGES_ON_ACCELERATORS)
    return mesh.size * min(part, _power_of_two(share))


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()


def _query_blocks(queries: np.ndarray) -> Iterator[np.ndarray]:
    """Blocks of one size, the last filled up with zeros."""
    size = min(QUERIES, _power_of_two(len(queries)))
    for start in range(0, len(queries), size):
        part = queries[start : start + size]
        yield np.pad(part, ((0, size - len(part)), (0, 0)))


def _nothing(queries: int, k: int, mesh: Mesh) -> _Best:
    everywhere = NamedSharding(mesh, P())
    scores = jnp.full((queries, k), -jnp.inf, jnp.float32, device=everywhere)
    return _Best(scores, jnp.full((queries, k), -1, jnp.int32, device=everywhere))


def _blocks(corpus: Corpus, rows: int, mesh: Mesh) -> Iterator[tuple[int, int, Array]]:
    """Yields (row of the first, how many, vectors [rows, D] on the devices)."""
    sharding = NamedSharding(mesh, P(mesh.axis_names))
    for start in range(0, len(corpus), rows):
        found = corpus[start : start + rows]
        passages = _filled_up(found, rows) if len(found) < rows else found
        yield start, len(found), jax.device_put(passages, sharding)


def _filled_up(found: np.ndarray, rows: int) -> np.ndarray:
    """`found` with rows of zeros behind it. Aligned as XLA wants it, so that a CPU takes it without
    a copy; of the zeros, which nobody has written, there are no pages.
    """
    size = rows * found[0].nbytes
    raw = np.zeros(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    whole = raw[start : start + size].view(found.dtype).reshape(rows, -1)
    whole[: len(found)] = found
    return whole


@lru_cache(maxsize=32)  # else each search would compile it anew
def _make_step(mesh: Mesh, k: int, recall: float) -> Callable[..., tuple[_Best, Array]]:
    """(best, scores [q, P] to be overwritten, queries, passages, row of the first, how many are
    real) -> (best, scores).
    """
    axes = mesh.axis_names

    def best_of_part(queries, passages, start, count, buffer):
        size = len(passages)
        wide = passages.astype(jnp.float32)
        scores = jnp.einsum("qd,pd->qp", queries, wide, precision=lax.Precision.HIGHEST)
        places = lax.axis_index(axes) * size + jnp.arange(size)
        scores = jnp.where(places < count, scores, -jnp.inf)
        kept = min(k, size)  # `buffer` is not read: what is returned takes its place
        if recall:
            found, index = lax.approx_max_k(scores, kept, recall_target=recall)
        else:
            found, index = lax.top_k(scores, kept)
        return found, start + places[index], scores

    parts = jax.shard_map(
        best_of_part,
        mesh=mesh,
        in_specs=(P(), P(axes), P(), P(), P(None, axes)),
        out_specs=(P(None, axes), P(None, axes), P(None, axes)),
    )

    def step(best, buffer, queries, passages, start, count):
        found, rows, buffer = parts(queries, passages, start, count, buffer)
        kept, index = lax.top_k(jnp.concatenate([best.scores, found], 1), k)
        rows = jnp.concatenate([best.rows, rows.astype(jnp.int32)], 1)
        return _Best(kept, jnp.take_along_axis(rows, index, 1)), buffer

    return jax.jit(step, donate_argnums=(0, 1), keep_unused=True)
