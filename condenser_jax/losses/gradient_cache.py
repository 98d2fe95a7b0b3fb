"""Gradient caching (Gao et al., RepL4NLP 2021): a loss that contrasts over the whole batch, with
the memory of a chunk of it.

First every chunk is encoded, and nothing but its vectors is kept. The contrast of all vectors is
differentiated by the vectors. Then every chunk is encoded again, and its share of the gradient is
that of its own loss plus <vectors, what the contrast says of them>. This is the gradient, exactly:
own losses are weighted sums over the counts of the uncut batch, and dropout depends on the row.

It is a function of the parameters like any other loss, so there is no second training step: its
gradient is found on the way, and handed over where automatic differentiation asks for it.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from condenser_jax.losses.chunks import join_rows, split_rows, sum_over_chunks
from condenser_jax.types import Mean, Params, Scalar, Tree

Valued = tuple[Scalar, dict[str, Mean]]  # a loss and its metrics


def contrast_over_chunks(
    encode: Callable[[Params, Tree], Tree],
    encode_with_loss: Callable[[Params, Tree], tuple[Tree, Valued]],
    contrast: Callable[[Tree], Valued],
    chunks: int,
) -> Callable[[Params, Tree], Valued]:
    """The loss of a batch: what its rows cost alone, plus the contrast of all their vectors.

    Args:
      encode: (params, rows) -> vectors [b, ...] alone, as cheaply as they can be had.
      encode_with_loss: (params, rows) -> the same vectors, and the loss of these rows alone: their
        share of a weighted sum over the counts of the uncut batch.
      contrast: vectors [B, ...] of the whole batch -> their loss.
      chunks: how many; 1 is the plain computation.

    Returns:
      (params, batch) -> (value, metrics); leaves of `batch` are [B, ...]. Differentiable by params.
    """
    if chunks == 1:

        def plain(params: Params, batch: Tree) -> Valued:
            vectors, own = encode_with_loss(params, batch)
            return _sum(own, contrast(vectors))

        return plain

    def value_and_gradient(params: Params, batch: Tree) -> tuple[Valued, Tree]:
        parts = split_rows(batch, chunks)
        vectors = join_rows(jax.lax.map(lambda rows: encode(params, rows), parts))
        across, wanted = jax.value_and_grad(contrast, has_aux=True)(vectors)

        def chunk(part: tuple) -> tuple[Valued, Tree]:
            rows, wanted = part

            def share(params: Params) -> tuple[Scalar, Valued]:
                vectors, own = encode_with_loss(params, rows)
                return own[0] + _inner(vectors, wanted), own

            (_, own), gradient = jax.value_and_grad(share, has_aux=True)(params)
            return own, gradient

        own, gradient = sum_over_chunks(chunk, (parts, split_rows(wanted, chunks)))
        return _sum(own, across), gradient

    @jax.custom_vjp
    def cached(params: Params, batch: Tree) -> Valued:
        return value_and_gradient(params, batch)[0]

    def backward(gradient: Tree, cotangents: Valued) -> tuple[Tree, None]:
        return jax.tree.map(lambda g: g * cotangents[0].astype(g.dtype), gradient), None

    cached.defvjp(value_and_gradient, backward)
    return cached


def _sum(own: Valued, across: Valued) -> Valued:
    return own[0] + across[0], own[1] | across[1]


def _inner(vectors: Tree, wanted: Tree) -> Scalar:
    """<vectors, wanted>: its gradient by the vectors is `wanted`."""
    products = jax.tree.map(lambda v, w: (v.astype(w.dtype) * w).sum(), vectors, wanted)
    return jnp.stack(jax.tree.leaves(products)).sum()
