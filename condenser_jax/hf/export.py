"""Writes a trained encoder as a directory that the Hugging Face libraries load, all or nothing.

`AutoModel`, `AutoModelForMaskedLM`, `AutoTokenizer` and `SentenceTransformer` read it. All is
written to a hidden sibling, which then takes the name of the output: nobody ever sees half a model.
"""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from condenser_jax.errors import UserError
from condenser_jax.hf import names
from condenser_jax.hf.card import CARD_FILE, EncoderCard, write_card
from condenser_jax.hf.config import config_to_hf, without_pooler
from condenser_jax.hf.load import (
    EARLY_LAYER,
    HEAD_FILES,
    QUERY_ENCODER,
    TOKENIZER_FILES,
    WEIGHT_FILES,
)
from condenser_jax.hf.model_card import Facts, model_card
from condenser_jax.hf.onnx_file import ONNX_FILE, write_onnx
from condenser_jax.models.config import BackboneConfig

_NORMALIZE_FOLDER = "2_Normalize"
_POOLING_FOLDER = "1_Pooling"
# Files that an earlier export may have written and the present one does not.
_OPTIONAL_FILES = {
    *HEAD_FILES.values(),
    ONNX_FILE,
    f"{_NORMALIZE_FOLDER}/config.json",
    *TOKENIZER_FILES,
}


def export(
    params: Mapping[str, Any],
    config: BackboneConfig,
    tokenizer_directory: str | Path,
    output: str | Path,
    card: EncoderCard,
    facts: Facts,
    *,
    early_layer: int | None = None,
    with_onnx: bool = False,
    check: Callable[[Path], None] = lambda directory: None,
) -> Path:
    """Writes backbone, mlm_head, condenser_head and ratio_head (all but the first if there) to
    `output`.

    `params` is {group: tree of host arrays}; padded vocabulary rows are cut off, other groups are
    passed over. A `query_backbone` becomes a directory of the same kind inside, QUERY_ENCODER.
    `early_layer` is the hidden state that the condenser head reads, written into its file.
    `with_onnx` adds a graph (`onnx_file`). `check` is called with the directory when it is whole
    and has not its name yet; what it raises ends the export. An earlier export at `output` is
    replaced. Raises UserError if `output` holds anything else, if there is no tokenizer, if a
    length of the card exceeds the model's, or if the disk is full; nothing half-written stays.
    """
    output = Path(output).expanduser().resolve()
    with exported(output, config, card) as folder:
        _write_encoder(folder, params, config, Path(tokenizer_directory), card, early_layer)
        own = "query_backbone" in params
        if own:
            queries = {"backbone": params["query_backbone"]}
            (folder / QUERY_ENCODER).mkdir()
            _write_encoder(
                folder / QUERY_ENCODER, queries, config, Path(tokenizer_directory), card, None
            )
        text = model_card(output.name, config, card, facts, "mlm_head" in params, with_onnx, own)
        (folder / "README.md").write_text(text, encoding="utf-8")
        check_nothing_is_lost(output, folder)
        if with_onnx:
            for each in (folder, folder / QUERY_ENCODER) if own else (folder,):
                write_onnx(each)
        check(folder)
    return output


@contextlib.contextmanager
def exported(output: Path, config: BackboneConfig, card: EncoderCard) -> Iterator[Path]:
    """An empty folder, to be filled: it becomes `output` whole, in the place of an earlier export.
    Raises UserError as `export` says.
    """
    _check_lengths(card, config)
    _check_replaceable(output)
    with _replacing(output) as folder:
        yield folder


def _write_encoder(
    folder: Path,
    params: Mapping[str, Any],
    config: BackboneConfig,
    tokenizer: Path,
    card: EncoderCard,
    early_layer: int | None,
) -> None:
    _write_weights(folder, params, config, early_layer)
    copy_tokenizer(folder, tokenizer)
    _write_sentence_transformer(folder, config, card)
    write_card(card, folder / CARD_FILE)


def _write_weights(
    folder: Path, params: Mapping[str, Any], config: BackboneConfig, early_layer: int | None
) -> None:
    encoder_groups = [group for group in ("backbone", "mlm_head") if group in params]
    _save_tensors(names.to_hf(params, config, encoder_groups), folder / WEIGHT_FILES[0])
    _write_json(folder / "config.json", config_to_hf(config, "mlm_head" in params))
    read = {} if early_layer is None else {EARLY_LAYER: str(early_layer)}
    for group, file in HEAD_FILES.items():
        if group in params:
            known = read if group == "condenser_head" else {}
            _save_tensors(names.to_hf(params, config, [group]), folder / file, known)


def copy_tokenizer(folder: Path, source: Path) -> None:
    """Copies a tokenizer's files; raises UserError where there are none."""
    found = [name for name in TOKENIZER_FILES if (source / name).is_file()]
    if not {"tokenizer.json", "vocab.txt", "vocab.json"} & set(found):
        raise UserError(
            f"{source} holds no tokenizer (tokenizer.json, vocab.txt or vocab.json); "
            "give the directory in which the run's tokenizer is saved"
        )
    for name in found:
        shutil.copyfile(source / name, folder / name)


def _write_sentence_transformer(folder: Path, config: BackboneConfig, card: EncoderCard) -> None:
    """Names the pooling: without these files, sentence-transformers silently takes the mean."""
    modules = [("", "Transformer"), (_POOLING_FOLDER, "Pooling")]
    modules += [(_NORMALIZE_FOLDER, "Normalize")] if card.normalize else []
    listed = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(modules)
    ]
    _write_json(folder / "modules.json", listed)
    transformer = {
        "max_seq_length": card.passage_max_length,
        "do_lower_case": False,  # the tokenizer's own business
        "model_args": without_pooler(config.model_type),
    }
    _write_json(folder / "sentence_bert_config.json", transformer)
    pooling = {
        "word_embedding_dimension": config.hidden_size,
        "pooling_mode_cls_token": card.pooling == "cls",
        "pooling_mode_mean_tokens": card.pooling == "mean",
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
    }
    _write_json(folder / _POOLING_FOLDER / "config.json", pooling)
    if card.normalize:
        _write_json(folder / _NORMALIZE_FOLDER / "config.json", {})
    usage = {
        "prompts": {"query": card.query_prefix, "document": card.passage_prefix},
        "default_prompt_name": None,
        "similarity_fn_name": "dot",
    }
    _write_json(folder / "config_sentence_transformers.json", usage)


def _save_tensors(
    tensors: dict[str, np.ndarray], path: Path, notes: Mapping[str, str] | None = None
) -> None:
    import safetensors.numpy

    # transformers refuses a file whose metadata does not name the framework.
    safetensors.numpy.save_file(tensors, path, metadata={"format": "pt", **(notes or {})})


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


@contextlib.contextmanager
def _replacing(output: Path) -> Iterator[Path]:
    """Yields an empty folder that becomes `output` if all goes well and disappears otherwise."""
    import safetensors

    folder = None
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
        folder.chmod(0o755)  # mkdtemp's 0700 would lock out other users of the model
        yield folder
        _swap(folder, output)
    except (OSError, safetensors.SafetensorError) as e:
        raise UserError(
            f"cannot write {output} ({e}); free some space there or choose another --output"
        ) from e
    finally:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


def _swap(folder: Path, output: Path) -> None:
    """Puts `folder` in the place of `output`, which is removed only after that."""
    if not output.exists():
        os.replace(folder, output)
        return
    old = folder.with_name(f"{folder.name}.old")
    os.replace(output, old)
    try:
        os.replace(folder, output)
    except OSError:
        os.replace(old, output)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _check_lengths(card: EncoderCard, config: BackboneConfig) -> None:
    for name in ("query_max_length", "passage_max_length"):
        if getattr(card, name) > config.max_length:
            raise UserError(
                f"{name} {getattr(card, name)} of the encoder card exceeds the {config.max_length} "
                f"positions of the model; set it to {config.max_length} or less"
            )


def _check_replaceable(output: Path) -> None:
    is_free = not output.exists() or (output.is_dir() and not any(output.iterdir()))
    if not is_free and not (output / CARD_FILE).is_file():
        raise UserError(
            f"{output} exists and is not an earlier export; choose another --output or remove it"
        )


def check_nothing_is_lost(output: Path, folder: Path) -> None:
    """Raises UserError for a file at `output` that no export writes: `folder` will replace it."""
    known = _files(folder) | _OPTIONAL_FILES
    inner = f"{QUERY_ENCODER}/"
    strangers = {name for name in _files(output) if name.removeprefix(inner) not in known}
    if strangers:
        raise UserError(
            f"{output} holds {min(strangers)}, which no export wrote and replacing would delete; "
            "move it away or choose another --output"
        )


def _files(directory: Path) -> set[str]:
    found = directory.rglob("*") if directory.exists() else ()
    return {path.relative_to(directory).as_posix() for path in found if not path.is_dir()}
