"""Loads a checkpoint from a directory or the Hugging Face hub into {group: tree of numpy arrays}.

Read are `config.json`, the weights (safetensors or torch's zip format, one file or shards) and the
heads that lie beside: of a Condenser from our `condenser_head.safetensors` or the reference code's
`model.pt`, of a Tutor-KD student from `ratio_head.safetensors`.
"""

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from condenser_jax.errors import UserError
from condenser_jax.hf import names
from condenser_jax.hf.config import config_from_hf
from condenser_jax.hf.torch_files import read_torch_file
from condenser_jax.models.config import BackboneConfig

HEAD_FILES = {
    "condenser_head": "condenser_head.safetensors",
    "ratio_head": "ratio_head.safetensors",
}
REFERENCE_HEAD_FILE = "model.pt"
QUERY_ENCODER = "query_encoder"  # of a retriever whose queries have an encoder of their own
QUERIES = "query_backbone"  # the group that lies there
LEFT_OUT = "left out, for one encoder is read: that of passages"
RARE = {"ratio_head"}  # nobody misses it: only Tutor-KD students have one
EARLY_LAYER = "early_layer"  # in the metadata of a condenser head: the hidden state that it reads
WEIGHT_FILES = (  # the first that exists is read
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)
_HUB_FOLDERS = ("", f"{QUERY_ENCODER}/", "0_*/")  # `0_Transformer`: of old sentence-transformers
_HUB_FILES = (
    "config.json",
    "encoder_card.json",
    *HEAD_FILES.values(),
    REFERENCE_HEAD_FILE,
    "model*.safetensors",
    "model.safetensors.index.json",
    *TOKENIZER_FILES,
    "modules.json",  # of sentence-transformers, and what it names
    "config_sentence_transformers.json",
    "sentence_*_config.json",
)
_HUB_MODULES = "[0-9]_*/config.json"
_HUB_BIN_FILES = ("pytorch_model*.bin", "pytorch_model.bin.index.json")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What was found: architecture, {group: tree of float32}, tokenizer and where all came from."""

    config: BackboneConfig
    params: dict[str, Any]
    tokenizer_path: Path | None
    notes: list[str]
    early_layer: int | None = None  # hidden state that its condenser head reads, if that is known


def load_checkpoint(path_or_hub_id: str | Path, groups: Iterable[str] = names.GROUPS) -> Checkpoint:
    """Loads the groups that the checkpoint has; one that it has not is absent and noted (but for
    QUERIES, which few have).

    Raises UserError if the checkpoint is not found or not readable, is no BERT, RoBERTa or ELECTRA,
    or has a parameter that is missing, left over or of another shape.
    """
    directory, wanted = find_directory(path_or_hub_id), set(groups)
    found = _read_encoder(directory, wanted - {QUERIES})
    if not (directory / QUERY_ENCODER).is_dir():
        return found
    if QUERIES not in wanted:
        return dataclasses.replace(found, notes=[*found.notes, f"{QUERIES}: {LEFT_OUT}"])
    queries = _read_encoder(directory / QUERY_ENCODER, {"backbone"})
    params = {**found.params, QUERIES: queries.params["backbone"]}
    notes = [*found.notes, f"{QUERIES}: from {_weights_file(directory / QUERY_ENCODER)}"]
    return dataclasses.replace(found, params=params, notes=notes)


def _read_encoder(directory: Path, wanted: set[str]) -> Checkpoint:
    """The groups of one directory."""
    config = config_from_hf(read_json(directory / "config.json"))
    weights_file = _weights_file(directory)
    wanted = wanted if config.has_pooler else wanted - {"pooler"}
    tensors, notes = names.canonical(_read_tensors(weights_file), config, "pooler" in wanted)
    sources = dict.fromkeys((*names.GROUPS, "pooler"), weights_file)
    for group, file in _head_files(directory).items():
        if group in wanted:
            head, head_notes = _read_head(file, group)
            tensors, notes = tensors | head, notes + head_notes
            sources[group] = file
    tensors = {k: v for k, v in tensors.items() if names.group_of(k) in {None, *wanted}}
    found = {"backbone", *map(names.group_of, tensors)}
    present = [group for group in sources if group in wanted & found]
    params = names.from_hf(tensors, config, present)
    notes += [f"{group}: from {sources[group]}" for group in present]
    notes += [f"{group}: not in {directory}" for group in sorted(wanted - found - RARE)]
    has_head = "condenser_head" in present
    early_layer = _early_layer(sources["condenser_head"]) if has_head else None
    return Checkpoint(config, params, tokenizer_path(directory), notes, early_layer)


def find_directory(path_or_hub_id: str | Path) -> Path:
    """Returns the directory itself, or the hub's snapshot (from the local cache when offline).

    Raises UserError if it is neither.
    """
    path = Path(path_or_hub_id).expanduser()
    if path.is_dir():
        return path
    import huggingface_hub

    hub_id = str(path_or_hub_id)
    try:
        wanted = [*_in_folders(_HUB_FILES), _HUB_MODULES]
        found = Path(huggingface_hub.snapshot_download(hub_id, allow_patterns=wanted))
        if not _has_weights(found):
            # Only now, because a repository with both would be twice the download.
            huggingface_hub.snapshot_download(hub_id, allow_patterns=_in_folders(_HUB_BIN_FILES))
    except Exception as e:  # a dozen kinds: offline, unknown, private, malformed
        reason = (str(e).strip() or type(e).__name__).splitlines()[0].split(". ")[0]
        raise UserError(
            f"{hub_id!r} is neither a directory here nor a hub id that can be reached ({reason}); "
            "give the path of a directory with config.json and weights, or download it first"
        ) from e
    return found


def _in_folders(names: Iterable[str]) -> list[str]:
    return [folder + name for name in names for folder in _HUB_FOLDERS]


def _has_weights(snapshot: Path) -> bool:
    """Whether weights lie in every folder of a snapshot that has an encoder's config.json."""
    configs = [path for name in _in_folders(["config.json"]) for path in snapshot.glob(name)]
    folders = [path.parent for path in configs]
    return all(any((folder / name).exists() for name in WEIGHT_FILES) for folder in folders)


def check_vocabulary(config: BackboneConfig, tokenizer: Any) -> None:
    """Raises UserError if the tokenizer has ids for which the word table has no row."""
    last = max(tokenizer.get_vocab().values())
    if last >= config.vocab_size:
        raise UserError(
            f"the tokenizer has ids up to {last}, but the weights have a vocabulary of "
            f"{config.vocab_size}; use the tokenizer that belongs to the weights"
        )


def _weights_file(directory: Path) -> Path:
    for name in WEIGHT_FILES:
        if (directory / name).exists():
            return directory / name
    raise UserError(
        f"{directory} holds no weights (looked for {', '.join(WEIGHT_FILES)}); "
        "other formats are not read: save the model again as safetensors"
    )


def _read_tensors(path: Path) -> dict[str, np.ndarray]:
    """Reads one file of weights, or all shards that an index names."""
    if not path.exists():
        raise UserError(f"{path} is named by an index but is not there; copy the checkpoint again")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix != ".json":
        return read_torch_file(path)
    tensors: dict[str, np.ndarray] = {}
    for shard in sorted(set(read_json(path).get("weight_map", {}).values())):
        tensors |= _read_tensors(path.parent / Path(shard).name)
    return tensors


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    import safetensors
    import safetensors.numpy

    try:
        return safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, OSError) as e:
        raise UserError(f"{path} is broken or not complete ({e}); copy or download it again") from e


def _head_files(directory: Path) -> dict[str, Path]:
    """The files of the heads that there are; of a Condenser's ours, if there is one."""
    found = {group: directory / name for group, name in HEAD_FILES.items()}
    if not found["condenser_head"].exists():
        found["condenser_head"] = directory / REFERENCE_HEAD_FILE
    return {group: path for group, path in found.items() if path.exists()}


def _read_head(path: Path, group: str) -> tuple[dict[str, np.ndarray], list[str]]:
    """The tensors of a head; the reference keeps other things beside them, which are noted."""
    tensors = _read_tensors(path)
    head = {k: v for k, v in tensors.items() if names.group_of(k) == group}
    others = sorted(set(tensors) - set(head))
    return head, [f"ignored in {path}: {', '.join(others)}"] if others else []


def _early_layer(head_file: Path) -> int | None:
    """The hidden state that a head reads, if its file says so: the reference's does not."""
    import safetensors

    if head_file.name != HEAD_FILES["condenser_head"]:
        return None
    with safetensors.safe_open(head_file, "numpy") as file:
        found = (file.metadata() or {}).get(EARLY_LAYER, "")
    return int(found) if found.isdecimal() else None


def tokenizer_path(directory: Path) -> Path | None:
    """The directory itself if a tokenizer lies in it."""
    markers = ("tokenizer.json", "vocab.txt", "vocab.json")
    return directory if any((directory / name).exists() for name in markers) else None


def read_json(path: Path) -> dict[str, Any]:
    """Reads an object of JSON; raises UserError where there is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing; give a directory with config.json and weights, "
            "as save_pretrained writes it"
        ) from None
    except (OSError, ValueError) as e:
        raise UserError(f"{path} is not readable JSON ({e}); copy or download it again") from e
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise UserError(f"{path} holds a {kind}, not a JSON object; copy or download it again")
    return content
