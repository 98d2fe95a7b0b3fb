"""Where an encoder comes from: a work directory, a directory of Hugging Face's or of
sentence-transformers' format, or the hub; and the card that says how it is used.
"""

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


def says_pooling(path: str) -> bool:
    """Whether something at `path` says how its encoder pools, so that nobody has to."""
    if is_workdir(path):
        return True
    directory = find_directory(path)
    return (directory / CARD_FILE).is_file() or sentence_modules.has_modules(directory)


def source_of_run(path: str, run: Finished) -> Source:
    """The encoder of a checkpoint that was read."""
    tokenizer = load_tokenizer(run.workdir.tokenizer)
    groups = {name: tree for name, tree in run.params.items() if name.endswith("backbone")}
    return Source(path, run.workdir.root, run.backbone, groups, tokenizer, run)


def card_of(source: Source, pooling: str | None = None) -> EncoderCard:
    """The card beside the weights: ours, else that of sentence-transformers' modules. `pooling` is
    for a directory that has neither.

    Raises UserError if there is no card and no `pooling`, if they differ, and if the tokenizer is
    not that of the card.
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
    elif pooling is None:
        raise UserError(
            f"nothing at {source.path} says how this encoder pools ({CARD_FILE} or modules.json); "
            "name it: cls for a Condenser, mean for most others (--pooling=cls, or "
            'Encoder.load(..., pooling="cls"))'
        )
    else:
        card = EncoderCard(
            pooling, query_max_length=longest, passage_max_length=longest, tokenizer_hash=own
        )
    _check_card(card, source, pooling, own)
    return card


def _check_card(card: EncoderCard, source: Source, pooling: str | None, own_hash: str) -> None:
    if pooling not in (None, card.pooling):
        raise UserError(
            f"pooling {pooling} was asked for, but the card of {source.path} says {card.pooling}; "
            "leave the choice to the card"
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
