"""The encoder card of a directory that sentence-transformers wrote, read from its modules.

`modules.json` lists them in order; a pipeline of Transformer, Pooling (CLS or mean) and perhaps
Normalize is what our encoders compute. Prefixes are the prompts that its `encode_query` and
`encode_document` use.
"""

import json
import logging
from pathlib import Path
from typing import Any

from condenser_jax.errors import UserError
from condenser_jax.hf.card import POOLINGS, EncoderCard
from condenser_jax.hf.load import read_json

log = logging.getLogger("condenser_jax")
MODULES = "modules.json"
PIPELINES = (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"])
DOCUMENT_PROMPTS = ("document", "passage", "corpus")  # the first that there is
_MODES = "pooling_mode_"  # one flag per pooling, in files of before version 5
_POOLINGS = {"cls_token": "cls", "mean_tokens": "mean"}


def has_modules(directory: Path) -> bool:
    """True for a directory of sentence-transformers."""
    return (directory / MODULES).is_file()


def transformer_directory(directory: Path) -> Path:
    """Where weights and tokenizer lie: the directory itself, or a folder of it."""
    return directory / _modules(directory)[0][1]


def lowercases(directory: Path) -> bool:
    """Whether texts lose their capitals before they are tokenized, whatever the tokenizer does."""
    return bool(_settings(transformer_directory(directory)).get("do_lower_case"))


def prefixes(directory: Path) -> dict[str, str]:
    """`query_prefix` and `passage_prefix`: "" where the directory names none."""
    prompts = _usage(directory).get("prompts") or {}
    passage = next((prompts[name] for name in DOCUMENT_PROMPTS if prompts.get(name)), "")
    return {"query_prefix": prompts.get("query") or "", "passage_prefix": passage}


def card_of_modules(
    directory: Path, longest: int, positions: int, tokenizer_hash: str
) -> EncoderCard:
    """Returns the card.

    Args:
      directory: holds `modules.json`.
      longest: tokens of a text where the directory does not say it.
      positions: of the model, never more tokens than these.
      tokenizer_hash: goes into the card.

    Raises UserError for modules that are not those of `PIPELINES`, and for another pooling.
    """
    modules = _modules(directory)
    kinds = [kind for kind, _ in modules]
    settings = _settings(directory / modules[0][1])
    told = prefixes(directory)
    length = settings.get("max_seq_length") or longest
    stated = _usage(directory).get("similarity_fn_name")
    similarity = stated or "cosine"  # as sentence-transformers takes it
    if not similarity.startswith("dot") and kinds[-1] != "Normalize":
        log.warning(
            "%s: VECTORS ARE COMPARED BY DOT PRODUCT, NOT BY %s as this encoder has it without "
            "normalising them; for a cosine add a module Normalize to its modules.json",
            directory,
            similarity.upper(),
        )
    return EncoderCard(
        pooling=_pooling(directory / modules[1][1] / "config.json"),
        normalize=kinds[-1] == "Normalize",
        query_prefix=told["query_prefix"],
        passage_prefix=told["passage_prefix"],
        query_max_length=min(settings.get("query_length") or length, positions),
        passage_max_length=min(settings.get("document_length") or length, positions),
        tokenizer_hash=tokenizer_hash,
        is_fine_tuned=True,  # nobody names a pooling for less
    )


def _modules(directory: Path) -> list[tuple[str, str]]:
    """(kind, folder) of each module."""
    path = directory / MODULES
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        found = [(str(one["type"]).rsplit(".", 1)[-1], str(one["path"])) for one in listed]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} lists no modules ({error!r}); copy the model again") from error
    kinds = [kind for kind, _ in found]
    if kinds not in PIPELINES:
        others = [kind for kind in kinds if kind not in PIPELINES[1]]
        what = f"a module {others[0]}" if others else f"the modules {', '.join(kinds) or 'none'}"
        raise UserError(
            f"{path} has {what}; expected Transformer, Pooling and perhaps Normalize, in this "
            "order: choose an encoder without other modules"
        )
    return found


def _pooling(path: Path) -> str:
    settings = read_json(path)
    modes = settings.get("pooling_mode")
    if modes is None:
        flags = [key.removeprefix(_MODES) for key in settings if key.startswith(_MODES)]
        modes = [_POOLINGS.get(name, name) for name in flags if settings[_MODES + name]]
    modes = [modes] if isinstance(modes, str) else list(modes)
    if len(modes) != 1 or modes[0] not in POOLINGS:
        raise UserError(
            f"{path} pools by {' and '.join(modes) or 'nothing'}; expected one of "
            f"{', '.join(POOLINGS)}: choose an encoder with such a pooling"
        )
    if not settings.get("include_prompt", True):
        raise UserError(
            f"{path} leaves the prompt out of the mean (include_prompt false), which we do not; "
            "choose an encoder that pools its prompt as well"
        )
    return modes[0]


def _settings(directory: Path) -> dict[str, Any]:
    """Those of a Transformer in its folder."""
    return _first(directory, "sentence_*_config.json")


def _usage(directory: Path) -> dict[str, Any]:
    """What holds whatever the modules are."""
    return _first(directory, "config_sentence_transformers.json")


def _first(directory: Path, pattern: str) -> dict[str, Any]:
    found = sorted(directory.glob(pattern))
    return read_json(found[0]) if found else {}
