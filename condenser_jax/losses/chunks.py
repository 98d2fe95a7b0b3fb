"""A batch in chunks, each of which takes rows of every device: chunk c has the rows c, c + chunks,
c + 2 chunks, ... No row changes its device on the way.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from condenser_jax.axes import DATA
from condenser_jax.types import Tree


def split_rows(tree: Tree, chunks: int) -> Tree:
    """Leaves [B, ...] -> [chunks, B / chunks, ...]; `chunks` divides B."""
    return jax.tree.map(
        lambda x: x.reshape(x.shape[0] // chunks, chunks, *x.shape[1:]).swapaxes(0, 1), tree
    )


def join_rows(tree: Tree) -> Tree:
    """Leaves [chunks, b, ...] -> [chunks * b, ...], rows where `split_rows` took them from."""
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), tree)


def sum_over_chunks(run: Callable[[Tree], Tree], chunks: Tree) -> Tree:
    """The sum of `run(chunk)` over chunks, one after the other: memory for one of them.

    Along the axis `data` each device sums what its own rows give, and the sums meet once, after the
    last chunk. Left to the compiler, the whole gradient would be exchanged in every chunk.

    Args:
      run: chunk -> a tree of arrays, each of them a sum over rows.
      chunks: leaves [chunks, b, ...], as `split_rows` returns them.
    """

    def sum_own(chunks: Tree) -> Tree:
        shapes = jax.eval_shape(run, jax.tree.map(lambda x: x[0], chunks))
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

        def add(total: Tree, chunk: Tree) -> tuple[Tree, None]:
            return jax.tree.map(jnp.add, total, run(chunk)), None

        return jax.lax.scan(add, zeros, chunks)[0]

    if jax.sharding.get_abstract_mesh().shape.get(DATA, 1) == 1:
        return sum_own(chunks)
    return jax.shard_map(
        lambda chunks: jax.lax.psum(sum_own(chunks), DATA),
        in_specs=PartitionSpec(None, DATA),
        out_specs=PartitionSpec(),
        axis_names={DATA},
        check_vma=False,  # else each chunk's gradient would be summed over devices on the way
    )(chunks)
