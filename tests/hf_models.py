"""Tiny encoders with random weights, as docs/design.md section 4 has them, for tests of hf/."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from condenser_jax.hf.names import unflatten
from condenser_jax.models.config import BackboneConfig

VOCABULARY = {"bert": 61, "roberta": 131, "electra": 61}  # odd on purpose: padded to 128 and 256
WORDS = "a small condenser the text vector of is its cls one".split()
SPECIALS = {
    "bert": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
    "roberta": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
}
SPECIALS["electra"] = SPECIALS["bert"]


def tiny_config(model_type: str) -> BackboneConfig:
    """Two layers of width 32; all sizes differ, so that no two axes can be mistaken for another."""
    is_roberta = model_type == "roberta"
    return BackboneConfig(
        vocab_size=VOCABULARY[model_type],
        model_type=model_type,
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        intermediate_size=48,
        max_positions=42 if is_roberta else 40,
        type_vocab_size=1 if is_roberta else 2,
        layer_norm_eps=1e-5 if is_roberta else 1e-12,
        pad_token_id=1 if is_roberta else 0,
        embedding_size=20 if model_type == "electra" else None,
    )


def random_params(
    config: BackboneConfig, seed: int = 0, num_head_layers: int = 2, ratio_head: bool = False
) -> dict[str, Any]:
    """Backbone and heads; rows of the padding of the vocabulary are zero."""
    rng = np.random.default_rng(seed)
    shapes = {f"backbone/{path}": shape for path, shape in _embedding_shapes(config).items()}
    for layer in range(config.num_layers):
        shapes |= _layer_shapes(config, f"backbone/layers/layer_{layer}/")
    for layer in range(num_head_layers):
        shapes |= _layer_shapes(config, f"condenser_head/layer_{layer}/")
    width, narrow = config.hidden_size, config.embedding_width
    shapes |= {"mlm_head/transform/kernel": (width, narrow), "mlm_head/transform/bias": (narrow,)}
    shapes |= {"mlm_head/layer_norm/scale": (narrow,), "mlm_head/layer_norm/bias": (narrow,)}
    shapes |= {"mlm_head/bias": (config.padded_vocab_size,)}
    if ratio_head:
        shapes |= _ratio_head_shapes(width)
    leaves = {path: _draw(rng, path, shape) for path, shape in shapes.items()}
    for path in ("backbone/embeddings/word/embedding", "mlm_head/bias"):
        leaves[path][config.vocab_size :] = 0
    return unflatten(leaves)


def _draw(rng: np.random.Generator, path: str, shape: tuple[int, ...]) -> np.ndarray:
    centre = 1.0 if path.endswith("scale") else 0.0
    return (centre + 0.2 * rng.standard_normal(shape)).astype(np.float32)


def _embedding_shapes(config: BackboneConfig) -> dict[str, tuple[int, ...]]:
    width = config.embedding_width
    projection = {
        "embeddings/projection/kernel": (width, config.hidden_size),
        "embeddings/projection/bias": (config.hidden_size,),
    }
    return ({} if width == config.hidden_size else projection) | {
        "embeddings/word/embedding": (config.padded_vocab_size, width),
        "embeddings/position/embedding": (config.max_positions, width),
        "embeddings/token_type/embedding": (config.type_vocab_size, width),
        "embeddings/layer_norm/scale": (width,),
        "embeddings/layer_norm/bias": (width,),
    }


def _ratio_head_shapes(width: int) -> dict[str, tuple[int, ...]]:
    return {
        "ratio_head/transform/kernel": (width, width),
        "ratio_head/transform/bias": (width,),
        "ratio_head/layer_norm/scale": (width,),
        "ratio_head/layer_norm/bias": (width,),
        "ratio_head/logit/kernel": (width, 1),
        "ratio_head/logit/bias": (1,),
    }


def _layer_shapes(config: BackboneConfig, prefix: str) -> dict[str, tuple[int, ...]]:
    width, inner = config.hidden_size, config.intermediate_size
    kernels = {f"attention/{name}": (width, width) for name in ("query", "key", "value", "output")}
    kernels |= {"feed_forward/intermediate": (width, inner), "feed_forward/output": (inner, width)}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in kernels.items():
        shapes |= {f"{prefix}{name}/kernel": shape, f"{prefix}{name}/bias": shape[1:]}
    for part in ("attention", "feed_forward"):
        for leaf in ("scale", "bias"):
            shapes[f"{prefix}{part}/layer_norm/{leaf}"] = (width,)
    return shapes


def save_tokenizer(folder: Path, model_type: str) -> None:
    """A word-level tokenizer with the special tokens of its family, as `tokenizers` saves it."""
    import tokenizers

    vocabulary = {token: i for i, token in enumerate([*SPECIALS[model_type], *WORDS])}
    kinds = ("pad", "unk", "cls", "sep", "mask")
    order = kinds if model_type != "roberta" else ("cls", "pad", "sep", "unk", "mask")
    special = dict(zip(order, SPECIALS[model_type], strict=True))
    model = tokenizers.models.WordLevel(vocabulary, unk_token=special["unk"])
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = tokenizers.normalizers.Lowercase()
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{special['cls']} $A {special['sep']}",
        special_tokens=[(special[kind], vocabulary[special[kind]]) for kind in ("cls", "sep")],
    )
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    fields = {f"{kind}_token": token for kind, token in special.items()}
    fields |= {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 40}
    (folder / "tokenizer_config.json").write_text(json.dumps(fields))
