"""BERT, and by configuration RoBERTa and ELECTRA (Devlin et al. 2019; Liu et al. 2019; Clark et al.
2020), as Flax modules.

A stack of layers runs from any layer to any other, so that early and late layers are two calls and
no hidden state is kept that nobody reads. A layer runs on a subset of its positions as queries
(`queries`), all positions serving as keys: whoever reads only the CLS and the masked positions of
the last layer pays only for those.

Parameters are one subtree per layer whether the stack is unrolled or scanned; `scan_layers` stacks
them on the fly, which costs one copy (in the compute dtype, a copy that mixed precision makes
anyway) and keeps checkpoints independent of the form.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from condenser_jax.axes import divided_by_rows, divided_by_vocabulary
from condenser_jax.models.config import BackboneConfig, ComputeConfig
from condenser_jax.models.dropout import Dropout, drop_attention, drop_hidden
from condenser_jax.precision import precision_of
from condenser_jax.types import Array

SITES_PER_LAYER = 3  # attention probabilities, attention output, feed-forward output
EMBEDDING_SITE = 0
BACKBONE_SITE = 1
HEAD_SITE = 1024  # layers of heads number their dropout sites from here
NEGATIVE = -1e9  # added to scores of padding: large, but finite, so that nothing becomes NaN
INTERMEDIATES = ("hidden_states", "queries", "keys", "values", "attention_scores")


def gather_positions(hidden: Array, positions: Array | None) -> Array:
    """Rows of `hidden` [B, L, D] at `positions` int32 [B, R]; all of them if None."""
    if positions is None:
        return hidden

    def gather(rows: Array, index: Array) -> Array:
        return rows.at[index].get(mode="promise_in_bounds")

    return jax.vmap(gather)(hidden, positions)


def gelu(x: Array) -> Array:
    """The erf form, as BERT has it (`jax.nn.gelu` by default is off by up to 4e-3)."""
    return jax.nn.gelu(x, approximate=False)


class Dense(nn.Module):
    """A dense layer on rows [S, D] -> [S, features] with BERT's initialisation: kernels
    N(0, initializer_range), biases 0.
    """

    features: int
    config: BackboneConfig
    compute: ComputeConfig

    @nn.compact
    def __call__(self, rows: Array) -> Array:
        dtype, shape = jnp.dtype(self.compute.dtype), (rows.shape[-1], self.features)
        init = nn.initializers.normal(self.config.initializer_range)
        kernel = self.param("kernel", init, shape, jnp.float32).astype(dtype)
        bias = self.param("bias", nn.initializers.zeros, shape[1:], jnp.float32)
        out = jnp.dot(rows.astype(dtype), kernel, precision=precision_of(dtype))
        # Repeated before it is cast: the gradient of a bias is a sum over all rows, which a GPU
        # would add up in bfloat16. What is computed forward is the same.
        return out + jnp.broadcast_to(bias, out.shape).astype(dtype)


def dense(
    x: Array, features: int, config: BackboneConfig, compute: ComputeConfig, name: str
) -> Array:
    """A dense layer [..., D] -> [..., features].

    The product runs on rows [B * L, D]: on CPU the gradient of a kernel otherwise transposes its
    inputs first, which costs 7 % of a training step.
    """
    layer = Dense(features, config, compute, name=name)
    return layer(x.reshape(-1, x.shape[-1])).reshape(*x.shape[:-1], features)


def layer_norm(
    config: BackboneConfig, compute: ComputeConfig, name: str = "layer_norm"
) -> nn.LayerNorm:
    """Layer norm with statistics in at least float32."""
    return nn.LayerNorm(
        config.layer_norm_eps, dtype=jnp.dtype(compute.dtype), use_fast_variance=False, name=name
    )


class Embeddings(nn.Module):
    """Sum of word, position and token-type embeddings, normalised, with dropout; factorised ones
    are then projected from E to D.
    """

    config: BackboneConfig
    compute: ComputeConfig

    @nn.compact
    def __call__(
        self,
        input_ids: Array,  # B L
        attention_mask: Array,  # B L
        token_type_ids: Array | None,  # B L
        dropout: Dropout | None,
    ) -> Array:  # B L D
        config = self.config
        table = divided_by_vocabulary(self._table("word", config.padded_vocab_size).embedding)
        words = jnp.take(table, input_ids, axis=0)
        places = self._position_ids(attention_mask)
        positions = self._table("position", config.max_positions)(places)
        kinds = jnp.zeros_like(input_ids[:, :1]) if token_type_ids is None else token_type_ids
        types = self._table("token_type", config.type_vocab_size)(kinds)
        hidden = layer_norm(config, self.compute)(divided_by_rows(words + positions + types))
        hidden = drop_hidden(hidden, config.hidden_dropout, dropout, EMBEDDING_SITE)
        if config.embedding_width == config.hidden_size:
            return hidden
        return dense(hidden, config.hidden_size, config, self.compute, "projection")

    def _table(self, name: str, rows: int) -> nn.Embed:
        """Looked up in the parameters' dtype: the gradient of a row is a sum over all its uses,
        thousands for [MASK], which bfloat16 cannot hold. The layer norm casts to the compute dtype.
        """
        init = nn.initializers.normal(self.config.initializer_range)
        return nn.Embed(rows, self.config.embedding_width, embedding_init=init, name=name)

    def _position_ids(self, attention_mask: Array) -> Array:
        """Rows of the position table [1 or B, L]: RoBERTa counts tokens from its padding id on."""
        if self.config.model_type != "roberta":
            return jnp.arange(attention_mask.shape[1])[None]
        return jnp.cumsum(attention_mask, axis=1) * attention_mask + self.config.pad_token_id


class SelfAttention(nn.Module):
    """Self-attention of `queries` over all positions, with output projection, residual and norm."""

    config: BackboneConfig
    compute: ComputeConfig

    @nn.compact
    def __call__(
        self,
        hidden: Array,  # B L D
        attention_mask: Array,  # B L
        dropout: Dropout | None,
        site: int | Array,
        queries: Array | None,  # B R
    ) -> tuple[Array, dict[str, Array]]:  # B R D
        config = self.config
        rows = gather_positions(hidden, queries)
        parts = {
            "queries": self._heads("query", rows),  # B R H K
            "keys": self._heads("key", hidden),  # B L H K
            "values": self._heads("value", hidden),
        }
        context, scores = self._attend(parts, attention_mask, dropout, site, queries)
        out = dense(context, config.hidden_size, config, self.compute, "output")
        out = drop_hidden(out, config.hidden_dropout, dropout, site + 1, queries)
        return layer_norm(config, self.compute)(rows + out), parts | {"attention_scores": scores}

    def _heads(self, name: str, x: Array) -> Array:
        projected = dense(x, self.config.hidden_size, self.config, self.compute, name)
        return projected.reshape(*x.shape[:2], self.config.num_heads, self.config.head_width)

    def _attend(
        self,
        parts: dict[str, Array],
        attention_mask: Array,
        dropout: Dropout | None,
        site: int | Array,
        queries: Array | None,
    ) -> tuple[Array, Array]:
        """Context [B, R, D], and scores [B, H, R, L] before softmax and the padding's bias."""
        wide = jnp.promote_types(jnp.float32, jnp.dtype(self.compute.dtype))
        multiply = partial(jnp.einsum, precision=precision_of(self.compute.dtype))
        scores = multiply("brhk,blhk->bhrl", parts["queries"], parts["keys"]).astype(wide)
        scores = scores * self.config.head_width**-0.5
        bias = jnp.where(attention_mask[:, None, None, :] > 0, 0.0, NEGATIVE).astype(wide)
        weights = jax.nn.softmax(scores + bias, axis=-1).astype(parts["values"].dtype)
        weights = drop_attention(weights, self.config.attention_dropout, dropout, site, queries)
        # The values of a head are laid together first: on CPU a product that strides over the heads
        # takes twice as long at 12 heads of 32, forward.
        values = parts["values"].transpose(0, 2, 1, 3)  # B H L K
        context = multiply("bhrl,bhlk->bhrk", weights, values).transpose(0, 2, 1, 3)
        return context.reshape(*context.shape[:2], self.config.hidden_size), scores


class FeedForward(nn.Module):
    """Dense, erf-GELU, dense, with dropout and residual norm."""

    config: BackboneConfig
    compute: ComputeConfig

    @nn.compact
    def __call__(
        self, hidden: Array, dropout: Dropout | None, site: int | Array, positions: Array | None
    ) -> Array:  # B R D -> B R D
        config = self.config
        wide = dense(hidden, config.intermediate_size, config, self.compute, "intermediate")
        out = dense(gelu(wide), config.hidden_size, config, self.compute, "output")
        out = drop_hidden(out, config.hidden_dropout, dropout, site + 2, positions)
        return layer_norm(config, self.compute)(hidden + out)


class Layer(nn.Module):
    """One transformer layer, post-norm. Returns its output and its intermediates.

    The compiler drops intermediates that nobody reads.
    """

    config: BackboneConfig
    compute: ComputeConfig

    @nn.compact
    def __call__(
        self,
        hidden: Array,  # B L D
        attention_mask: Array,  # B L
        dropout: Dropout | None = None,
        site: int | Array = 0,
        queries: Array | None = None,  # B R
    ) -> tuple[Array, dict[str, Array]]:  # B R D
        hidden = divided_by_rows(hidden)
        attention = SelfAttention(self.config, self.compute, name="attention")
        attended, parts = attention(hidden, attention_mask, dropout, site, queries)
        feed_forward = FeedForward(self.config, self.compute, name="feed_forward")
        out = divided_by_rows(feed_forward(attended, dropout, site, queries))
        return out, parts | {"hidden_states": out}


class LayerStack(nn.Module):
    """`num_layers` layers, run from `start` to `stop`; the last of them on `queries` alone."""

    config: BackboneConfig
    compute: ComputeConfig
    num_layers: int
    first_site: int

    @nn.compact
    def __call__(
        self,
        hidden: Array,  # B L D
        attention_mask: Array,  # B L
        dropout: Dropout | None = None,
        start: int = 0,
        stop: int | None = None,
        queries: Array | None = None,  # B R, positions that the last layer computes; None means all
        collect: tuple[str, ...] = (),  # static: which of INTERMEDIATES to return
    ) -> tuple[Array, dict[str, tuple[Array, ...]]]:
        """Returns hidden states [B, R, D] and, per collected name, one array per layer run."""
        params = self._params()
        stop = self.num_layers if stop is None else stop
        run = self._layer_function(attention_mask, dropout, collect)
        full = stop if queries is None else stop - 1  # layers before the last see every position
        kept: list[dict[str, Array]] = []
        if self.compute.scan_layers and full - start > 1:
            hidden, kept = self._scan(run, hidden, params, start, full)
            start = full
        for i in range(start, stop):
            hidden, parts = run(params[i], hidden, self._site(i), queries if i >= full else None)
            kept.append(parts)
        return hidden, {name: tuple(parts[name] for parts in kept) for name in collect}

    def _site(self, layer: int | Array) -> int | Array:
        return self.first_site + SITES_PER_LAYER * layer

    def _params(self) -> list[Any]:
        """The parameters of each layer. All are drawn in one loop, whose body is compiled once:
        those of a BERT-base, layer by layer, take nearly twice as long to compile.
        """
        names = [f"layer_{i}" for i in range(self.num_layers)]
        if not self.is_initializing() or self.num_layers < 2:
            return [self.param(name, self._init_layer) for name in names]
        keys = jnp.stack([self.make_rng("params") for _ in names])
        drawn = jax.lax.map(self._init_layer, keys)
        return [
            self.param(name, lambda _, i=i: jax.tree.map(lambda x: x[i], drawn))
            for i, name in enumerate(names)
        ]

    def _init_layer(self, key: Array) -> Any:
        hidden = jnp.zeros((1, 1, self.config.hidden_size))
        layer = Layer(self.config, self.compute, parent=None)
        return layer.init(key, hidden, jnp.ones((1, 1)))["params"]

    def _layer_function(
        self, attention_mask: Array, dropout: Dropout | None, collect: tuple[str, ...]
    ) -> Callable:
        layer = Layer(self.config, self.compute, parent=None)

        def run(params, hidden, site, queries=None):
            out, parts = layer.apply(
                {"params": params}, hidden, attention_mask, dropout, site, queries
            )
            return out, {name: parts[name] for name in collect}

        if self.compute.remat:
            return jax.checkpoint(run)
        if self.compute.scan_layers:
            # A scan keeps all that its way back reads, and writes it to memory: of products that is
            # needed, of what lies between them (norms, GELU, softmax, dropout) not.
            keep = jax.checkpoint_policies.dots_saveable
            return jax.checkpoint(run, policy=keep, prevent_cse=False)
        return run

    def _scan(self, run: Callable, hidden: Array, params: list, start: int, stop: int) -> tuple:
        """Runs layers start..stop-1 as one compiled body, their kernels in the compute dtype."""
        dtype = jnp.dtype(self.compute.dtype)

        def stack(*leaves: Array) -> Array:
            return jnp.stack([x.astype(dtype) if x.ndim > 1 else x for x in leaves])

        stacked = jax.tree.map(stack, *params[start:stop])
        sites = self._site(jnp.arange(start, stop))

        def body(hidden: Array, layer: tuple) -> tuple:
            return run(layer[0], hidden, layer[1])

        out: tuple[Array, dict[str, Array]] = jax.lax.scan(body, hidden, (stacked, sites))
        hidden, ys = out
        return hidden, [jax.tree.map(lambda y, i=i: y[i], ys) for i in range(stop - start)]


class Backbone(nn.Module):
    """The encoder that is exported: embeddings and layers."""

    config: BackboneConfig
    compute: ComputeConfig

    def setup(self) -> None:
        """Its two parts, whose parameters are those of docs/design.md section 4."""
        self.embeddings = Embeddings(self.config, self.compute)
        self.layers = LayerStack(self.config, self.compute, self.config.num_layers, BACKBONE_SITE)

    def embed(
        self,
        input_ids: Array,  # B L
        attention_mask: Array,  # B L
        token_type_ids: Array | None = None,  # B L
        dropout: Dropout | None = None,
    ) -> Array:
        """Hidden state 0 [B, L, D]."""
        return self.embeddings(input_ids, attention_mask, token_type_ids, dropout)

    def run_layers(
        self, hidden: Array, attention_mask: Array, **options: Any
    ) -> tuple[Array, dict]:
        """Layers start..stop-1 of the backbone on `hidden`; options as `LayerStack.__call__`."""
        return self.layers(hidden, attention_mask, **options)

    def __call__(
        self,
        input_ids: Array,  # B L
        attention_mask: Array,  # B L
        token_type_ids: Array | None = None,  # B L
        dropout: Dropout | None = None,
        queries: Array | None = None,  # B R
        collect: tuple[str, ...] = (),
    ) -> tuple[Array, dict[str, tuple[Array, ...]]]:
        """Last hidden states [B, R, D] at `queries` (None: all), and what `collect` names.

        `collect=("hidden_states",)` returns the N + 1 states that Hugging Face returns, the
        embedding output first.
        """
        hidden = self.embed(input_ids, attention_mask, token_type_ids, dropout)
        out, kept = self.run_layers(
            hidden, attention_mask, dropout=dropout, queries=queries, collect=collect
        )
        if "hidden_states" in kept:
            kept = kept | {"hidden_states": (hidden, *kept["hidden_states"])}
        return out, kept
