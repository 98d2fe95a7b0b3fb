"""Translates the architecture: `BackboneConfig` <-> the fields of a Hugging Face `config.json`."""

from collections.abc import Mapping
from typing import Any

from condenser_jax.errors import UserError, choose
from condenser_jax.models.config import BackboneConfig

_ARCHITECTURES = {
    "bert": ("BertModel", "BertForMaskedLM"),
    "roberta": ("RobertaModel", "RobertaForMaskedLM"),
    "electra": ("ElectraModel", "ElectraForMaskedLM"),
}
_ELECTRA_FIELDS = (("embedding_size", "embedding_size", 128),)
# Our field, their field, the value that an absent field means (None: it must be there).
_FIELDS: tuple[tuple[str, str, Any], ...] = (
    ("vocab_size", "vocab_size", None),
    ("hidden_size", "hidden_size", None),
    ("num_layers", "num_hidden_layers", None),
    ("num_heads", "num_attention_heads", None),
    ("intermediate_size", "intermediate_size", None),
    ("max_positions", "max_position_embeddings", 512),
    ("type_vocab_size", "type_vocab_size", 2),
    ("layer_norm_eps", "layer_norm_eps", 1e-12),
    ("hidden_dropout", "hidden_dropout_prob", 0.1),
    ("attention_dropout", "attention_probs_dropout_prob", 0.1),
    ("initializer_range", "initializer_range", 0.02),
)
_REQUIRED_VALUES: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("gelu",),  # by erf; "gelu_new" and its like are other functions
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),
    "add_cross_attention": (False,),
}


def config_from_hf(fields: Mapping[str, Any]) -> BackboneConfig:
    """Reads a Hugging Face `config.json`.

    Raises UserError for all but BERT, RoBERTa and ELECTRA encoders with erf-GELU and absolute
    positions.
    """
    if "model_type" not in fields:
        raise UserError(
            "config.json names no model_type; add "
            '"model_type": "bert" or "model_type": "roberta", whichever the weights are'
        )
    model_type = choose("model_type in config.json", str(fields["model_type"]), _ARCHITECTURES)
    for field, supported in _REQUIRED_VALUES.items():
        value = fields.get(field, supported[0])
        if value not in supported:
            raise UserError(
                f"config.json has {field} {value!r}, but only {supported[0]!r} is supported; "
                "choose a checkpoint of a plain BERT, RoBERTa or ELECTRA encoder"
            )
    absent = [theirs for _, theirs, default in _FIELDS if default is None and theirs not in fields]
    if absent:
        raise UserError(
            f"config.json lacks {', '.join(absent)}; complete it from the model's source"
        )
    table = _FIELDS + (_ELECTRA_FIELDS if model_type == "electra" else ())
    ours = {field: fields.get(theirs, default) for field, theirs, default in table}
    padding = fields.get("pad_token_id")
    ours["pad_token_id"] = (1 if model_type == "roberta" else 0) if padding is None else padding
    if ours["hidden_size"] % ours["num_heads"]:
        raise UserError(
            f"config.json has hidden_size {ours['hidden_size']}, which does not divide by "
            f"num_attention_heads {ours['num_heads']}; correct one of them"
        )
    return BackboneConfig(model_type=model_type, **ours)


def without_pooler(model_type: str) -> dict[str, bool]:
    """What `AutoModel` must be told to make no pooler: nothing for an ELECTRA, which has none."""
    return {} if model_type == "electra" else {"add_pooling_layer": False}


def config_to_hf(config: BackboneConfig, has_mlm_head: bool) -> dict[str, Any]:
    """Writes the fields of a Hugging Face `config.json` for the exported directory."""
    fields = {theirs: getattr(config, field) for field, theirs, _ in _FIELDS}
    if config.model_type == "electra":
        fields["embedding_size"] = config.embedding_width
    fields |= {field: values[0] for field, values in _REQUIRED_VALUES.items()}
    return fields | {
        "architectures": [_ARCHITECTURES[config.model_type][has_mlm_head]],
        "model_type": config.model_type,
        "pad_token_id": config.pad_token_id,
        "tie_word_embeddings": True,
        "dtype": "float32",
    }
