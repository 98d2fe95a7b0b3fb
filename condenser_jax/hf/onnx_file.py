"""One ONNX graph from token ids to vectors, beside an exported encoder.

torch.onnx makes it from the directory itself, as transformers loads it; pooling and normalisation,
as the encoder card says, are inside the graph. Batch and length are free.

    input_ids, attention_mask   int64 [B, L]
    sentence_embedding          float32 [B, D]
"""

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from condenser_jax.errors import UserError
from condenser_jax.hf.card import CARD_FILE, EncoderCard, read_card
from condenser_jax.hf.config import without_pooler
from condenser_jax.hf.load import read_json

ONNX_FILE = "encoder.onnx"
INPUTS, OUTPUT = ("input_ids", "attention_mask"), "sentence_embedding"
_PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime")


def check_packages() -> None:
    """Raises UserError if a package of the extra `onnx` is not installed."""
    for name in _PACKAGES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise UserError(
                f'ONNX needs {name}, which is not installed; pip install "condenser_jax[onnx]"'
            ) from error


def write_onnx(directory: Path) -> Path:
    """Adds ONNX_FILE to an exported directory; returns its path."""
    import torch

    path = directory / ONNX_FILE
    encoder = _module(directory, read_card(directory / CARD_FILE))
    # Two tensors: of one that is given twice the graph would make one input.
    example = tuple(torch.ones(2, 5, dtype=torch.long) for _ in INPUTS)
    axes = {0: "batch", 1: "length"}
    with _silence(), torch.no_grad():
        torch.onnx.export(
            encoder,
            example,
            path,
            input_names=list(INPUTS),
            output_names=[OUTPUT],
            dynamic_shapes=dict.fromkeys(INPUTS, axes),
            dynamo=True,
            external_data=False,  # one file
        )
    return path


def run_onnx(path: Path, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The vectors [B, D] that ONNX Runtime computes on CPU for ids and mask [B, L]."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    feeds = zip(INPUTS, (ids, mask), strict=True)
    return session.run([OUTPUT], {name: x.astype(np.int64) for name, x in feeds})[0]


def _module(directory: Path, card: EncoderCard) -> Any:
    """The encoder as torch has it: token ids and mask to vectors."""
    import torch
    from transformers import AutoModel

    options = without_pooler(read_json(directory / "config.json")["model_type"])

    class TextEncoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.backbone = AutoModel.from_pretrained(
                directory,
                **options,
                attn_implementation="eager",
                trust_remote_code=False,
                dtype=torch.float32,
            )

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            hidden = self.backbone(input_ids=input_ids, attention_mask=attention_mask)[0]
            vectors = hidden[:, 0]
            if card.pooling == "mean":
                attended = attention_mask.unsqueeze(-1).to(hidden.dtype)
                vectors = (hidden * attended).sum(1) / attended.sum(1).clamp(min=1.0)
            return torch.nn.functional.normalize(vectors) if card.normalize else vectors

    return TextEncoder().eval()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """torch.onnx tells its progress, and warns that two inputs share their axes, which they do."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
