"""How many floating-point operations a step needs: its matrix products, counted on paper.

A multiply and an add are two operations; element-wise work, a few percent, is left out, as it is
in published MFU. The backward pass of a matrix product is two products of the same size, so a
training step is three forward passes.

The lean form counts what docs/design.md section 8 computes: the last late layer on the CLS and the
masked positions, the last head layer and the vocabulary product on the masked positions. The plain
form computes every layer, and the vocabulary product of head and late states, at every position.
"""

from condenser_jax.data.masking import slots_of
from condenser_jax.models.config import BackboneConfig
from condenser_jax.objectives.condenser import CondenserConfig
from condenser_jax.objectives.mlm import MlmConfig

FORWARD_PASSES = 3  # what a training step costs


def layer_flops(config: BackboneConfig, length: int, rows: int) -> int:
    """Forward operations of one layer on one text of `length` tokens, `rows` of them as queries."""
    width, inner = config.hidden_size, config.intermediate_size
    keys_and_values = 2 * length * width * width
    queries_and_output = 2 * rows * width * width
    scores_and_context = 2 * rows * length * width
    feed_forward = 2 * rows * width * inner
    return 2 * (keys_and_values + queries_and_output + scores_and_context + feed_forward)


def vocabulary_flops(config: BackboneConfig, rows: int) -> int:
    """Forward operations of the MLM head and its vocabulary product on `rows` states."""
    narrow = config.embedding_width
    return 2 * rows * narrow * (config.hidden_size + config.padded_vocab_size)


def embedding_flops(config: BackboneConfig, length: int) -> int:
    """Forward operations of the embeddings of one text: none, unless they are factorised."""
    is_factorised = config.embedding_width != config.hidden_size
    return 2 * length * config.embedding_width * config.hidden_size * is_factorised


def encode_flops(config: BackboneConfig, length: int, pooling: str) -> int:
    """Forward operations of the vector of one text; of the last layer CLS pooling needs one row."""
    last = layer_flops(config, length, 1 if pooling == "cls" else length)
    full = layer_flops(config, length, length)
    return embedding_flops(config, length) + (config.num_layers - 1) * full + last


def forward_flops(
    config: BackboneConfig,
    options: MlmConfig | CondenserConfig,
    length: int,
    mask_rate: float = 0.15,
    lean: bool = True,
) -> int:
    """Operations of the forward pass of one text of `length` tokens under an objective.

    The result does not depend on `early_layer`: an early layer costs what a late one does.
    """
    head_layers = options.head_layers if isinstance(options, CondenserConfig) else 0
    late_mlm = not isinstance(options, CondenserConfig) or options.late_mlm
    slots = slots_of(mask_rate, length) if lean else length
    full = layer_flops(config, length, length)
    late_rows = late_mlm * slots + (head_layers > 0) if lean else length
    total = embedding_flops(config, length) + (config.num_layers - 1) * full
    total += layer_flops(config, length, late_rows)
    if head_layers:
        total += (head_layers - 1) * full + layer_flops(config, length, slots)
    return total + ((head_layers > 0) + late_mlm) * vocabulary_flops(config, slots)


def train_flops_per_token(
    config: BackboneConfig,
    options: MlmConfig | CondenserConfig,
    length: int,
    mask_rate: float = 0.15,
    lean: bool = True,
) -> float:
    """Operations of a training step per token of input, padding included."""
    return FORWARD_PASSES * forward_flops(config, options, length, mask_rate, lean) / length
