"""A tiny encoder in a directory, for tests of what is done with one."""

import dataclasses
from pathlib import Path
from typing import Any

from condenser_jax.hf.card import EncoderCard
from condenser_jax.hf.export import export
from condenser_jax.hf.model_card import Facts
from tests.hf_models import WORDS, random_params, save_tokenizer, tiny_config

CARD = EncoderCard(query_max_length=20, passage_max_length=36)
# 60 texts of 0 to 44 words, in no order.
TEXTS = [" ".join(WORDS[(i * j) % len(WORDS)] for j in range(i * 17 % 45)) for i in range(60)]


def export_tiny(
    folder: Path,
    model_type: str = "bert",
    seed: int = 0,
    queries_seed: int | None = None,
    with_onnx: bool = False,
    **changes: Any,
) -> Path:
    """Exports a model with random weights and `CARD` with `changes`; returns its directory. With
    `queries_seed`, queries have an encoder of their own.
    """
    config = tiny_config(model_type)
    save_tokenizer(folder / "tokenizer", model_type)
    card = dataclasses.replace(CARD, **changes)
    params = {"backbone": random_params(config, seed)["backbone"]}
    if queries_seed is not None:
        params["query_backbone"] = random_params(config, queries_seed)["backbone"]
    tokenizer, output = folder / "tokenizer", folder / "model"
    return export(params, config, tokenizer, output, card, Facts("test"), with_onnx=with_onnx)
