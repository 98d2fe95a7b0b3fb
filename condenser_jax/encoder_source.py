"""Where an encoder comes from: a work directory, a directory of Hugging Face's or of
sentence-transformers' format, or the hub; and the card that says how it is used.
"""

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

from condenser_jax.data.buckets import SPECIALS
from condenser_jax.data.tokenization import load_tokenizer, tokenizer_hash
from condenser_jax.errors import UserError
from condenser_jax.finished import Finished, read_run
from condenser_jax.hf import sentence_modules
from condenser_jax.hf.card import CARD_FILE, EncoderCard, read_card
from condenser_jax.hf.load import QUERIES, check_vocabulary, find_directory, load_checkpoint
from condenser_jax.models.config import BackboneConfig
from condenser_jax.training.workdir import is_workdir
from condenser_jax.types import Tree

PASSAGE, QUERY = "passage", "query"
KINDS = (PASSAGE, QUERY)


class Usage(NamedTuple):
    """What a user tells of an encoder whose files do not tell it; None leaves it to them."""

    pooling: str | None = None  # "cls" or "mean"
    query_prefix: str | None = None  # in front of every query, as E5 and BGE want it
    passage_prefix: str | None = None


UNSAID = Usage()  # the files tell all


class Source(NamedTuple):
    """What was found where an encoder was looked for."""

    path: str
    directory: Path  # in which the encoder card lies, if there is one
    config: BackboneConfig
    params: dict[str, Tree]  # `backbone`, and `query_backbone` where queries have their own
    tokenizer: Any
    run: Finished | None  # of a work directory


def read_source(path: str) -> Source:
    """Reads the last checkpoint of a work directory, a directory of Hugging Face's or
    sentence-transformers' format, or one of the hub. Raises UserError for anything else.
    """
    if is_workdir(path):
        return source_of_run(path, read_run(path))
    directory = inner = find_directory(path)
    is_foreign = not (directory / CARD_FILE).is_file() and sentence_modules.has_modules(directory)
    if is_foreign:
        inner = sentence_modules.transformer_directory(directory)
    if not (inner / "config.json").is_file():
        raise UserError(
            f"{path} is neither a work directory nor a Hugging Face directory: it has no "
            "config.json; name another --model"
        )
    checkpoint = load_checkpoint(inner, groups=("backbone", QUERIES))
    if checkpoint.tokenizer_path is None:
        raise UserError(f"{path} has no tokenizer; copy that of its model (tokenizer.json) there")
    tokenizer = load_tokenizer(checkpoint.tokenizer_path)
    if is_foreign and sentence_modules.lowercases(directory):
        _lowercase(tokenizer.backend_tokenizer)
    check_vocabulary(checkpoint.config, tokenizer)
    return Source(path, directory, checkpoint.config, checkpoint.params, tokenizer, None)


def _lowercase(backend: Any) -> None:
    """Puts small letters before all else that a tokenizer does, as sentence-transformers has it for
    `do_lower_case`; one that knows small letters alone stays as it is.
    """
    from tokenizers import normalizers

    own = backend.normalizer
    if own is None:
        backend.normalizer = normalizers.Lowercase()
    elif own.normalize_str("ABC") != "abc":
        backend.normalizer = normalizers.Sequence([normalizers.Lowercase(), own])


def untold(path: str) -> set[str]:
    """The fields of `Usage` that nothing at `path` tells, so that a user may."""
    return set() if is_workdir(path) else _untold_in(find_directory(path))


def _untold_in(directory: Path) -> set[str]:
    if (directory / CARD_FILE).is_file():
        return set()
    if not sentence_modules.has_modules(directory):
        return set(Usage._fields)
    return {name for name, prefix in sentence_modules.prefixes(directory).items() if not prefix}


def source_of_run(path: str, run: Finished) -> Source:
    """The encoder of a checkpoint that was read."""
    tokenizer = load_tokenizer(run.workdir.tokenizer)
    groups = {name: tree for name, tree in run.params.items() if name.endswith("backbone")}
    return Source(path, run.workdir.root, run.backbone, groups, tokenizer, run)


def card_of(source: Source, usage: Usage = UNSAID) -> EncoderCard:
    """The card beside the weights: ours, else that of sentence-transformers' modules. `usage` tells
    what neither does: of a directory without modules everything, of one with modules prefixes.

    Raises UserError if nothing tells the pooling, if `usage` differs from what the files tell, and
    if the tokenizer is not that of the card.
    """
    own = tokenizer_hash(source.tokenizer)
    longest = min(source.config.max_length, source.tokenizer.model_max_length)
    if source.run:
        card = source.run.card
    elif (source.directory / CARD_FILE).is_file():
        card = read_card(source.directory / CARD_FILE)
    elif sentence_modules.has_modules(source.directory):
        positions = source.config.max_length
        card = sentence_modules.card_of_modules(source.directory, longest, positions, own)
    elif usage.pooling is None:
        raise UserError(
            f"nothing at {source.path} says how this encoder pools ({CARD_FILE} or modules.json); "
            "name it: cls for a Condenser, mean for most others (--pooling=cls, or "
            'Encoder.load(..., pooling="cls"))'
        )
    else:
        card = EncoderCard(query_max_length=longest, passage_max_length=longest, tokenizer_hash=own)
    told = {name: value for name, value in usage._asdict().items() if value is not None}
    free = set() if source.run else _untold_in(source.directory)
    card = dataclasses.replace(card, **{name: told[name] for name in free & told.keys()})
    _check_card(card, source, told, own)
    return card


def _check_card(card: EncoderCard, source: Source, told: dict[str, str], own_hash: str) -> None:
    for name, value in told.items():
        if value != getattr(card, name):
            raise UserError(
                f"{name} {value!r} was asked for, but the card of {source.path} says "
                f"{getattr(card, name)!r}; leave the choice to the card"
            )
    if card.tokenizer_hash not in ("", own_hash):
        raise UserError(
            f"the tokenizer of {source.path} is not the one that its card names (hash "
            f"{own_hash[:8]}, not {card.tokenizer_hash[:8]}); put back the tokenizer of the weights"
        )
    for kind in KINDS:
        length = getattr(card, f"{kind}_max_length")
        if not SPECIALS < length <= source.config.max_length:
            raise UserError(
                f"the card of {source.path} has {kind}_max_length {length}; expected "
                f"{SPECIALS + 1} to {source.config.max_length}, the positions of the model"
            )
