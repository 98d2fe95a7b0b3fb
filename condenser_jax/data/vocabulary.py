"""What masking must know of a tokenizer: its special ids, and which tokens continue a word.

WordPiece marks the continuation (`##ing`), byte-level BPE the start (`Ġthe`). The public Condenser
code groups words by the `##` rule whatever the tokenizer, so that RoBERTa loses whole-word masking
without a word; here the rule follows the tokenizer's own type, and an unknown type is an error.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from condenser_jax.errors import UserError

SPECIAL, STARTS_WORD, CONTINUES_WORD = 0, 1, 2  # the kinds of a token


@dataclass(frozen=True)
class Vocabulary:
    """The ids of a tokenizer by their role; V = size, the highest id plus one.

    special_ids: int32, sorted: never masked, never drawn as a replacement (unk_id among them).
    continues_word: bool [V], True where a token continues the word before it.
    replaceable_ids: int32, sorted: the real ids that are not special.
    """

    pad_id: int
    cls_id: int
    sep_id: int
    mask_id: int
    unk_id: int | None
    special_ids: np.ndarray
    continues_word: np.ndarray
    replaceable_ids: np.ndarray

    @property
    def size(self) -> int:
        """V: the highest id plus one."""
        return len(self.continues_word)

    @cached_property
    def kinds(self) -> np.ndarray:
        """uint8 [V]: SPECIAL (or no token at all), STARTS_WORD or CONTINUES_WORD."""
        kinds = np.full(self.size, SPECIAL, np.uint8)
        continues = self.continues_word[self.replaceable_ids]
        kinds[self.replaceable_ids] = np.where(continues, CONTINUES_WORD, STARTS_WORD)
        return kinds

    @staticmethod
    def from_tokenizer(tokenizer: Any) -> "Vocabulary":
        """Reads a Hugging Face tokenizer of the WordPiece or the byte-level BPE family.

        RoBERTa's <s> and </s> play CLS and SEP. Raises UserError for another family of
        tokenizers, and for one without a mask, padding, CLS or SEP token.
        """
        ids = tokenizer.get_vocab()
        size = max(ids.values()) + 1
        special = _special_ids(tokenizer)
        continues = np.zeros(size, bool)
        continues_word = _continuation_rule(tokenizer)
        for token, token_id in ids.items():
            continues[token_id] = token_id not in special and continues_word(token)
        return Vocabulary(
            pad_id=_required_id(tokenizer, "pad"),
            cls_id=_required_id(tokenizer, "cls", "bos"),
            sep_id=_required_id(tokenizer, "sep", "eos"),
            mask_id=_required_id(tokenizer, "mask"),
            unk_id=tokenizer.unk_token_id,
            special_ids=np.array(sorted(special), np.int32),
            continues_word=continues,
            replaceable_ids=np.array(sorted(set(ids.values()) - special), np.int32),
        )


def _required_id(tokenizer: Any, *roles: str) -> int:
    """Returns the id of the first of `roles` that the tokenizer has."""
    for role in roles:
        token_id = getattr(tokenizer, f"{role}_token_id", None)
        if token_id is not None:
            return int(token_id)
    raise UserError(
        f"tokenizer {_name(tokenizer)} has no {roles[0]} token, which masked language modelling "
        f"needs; add one with add_special_tokens({{'{roles[0]}_token': ...}}) and save it, "
        "or choose a BERT or RoBERTa tokenizer"
    )


def _special_ids(tokenizer: Any) -> set[int]:
    """The ids of the named special tokens, and of the added ones that are declared special."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    declared = {token_id for token_id, token in added.items() if token.special}
    return {int(token_id) for token_id in {*tokenizer.all_special_ids, *declared}}


def _continuation_rule(tokenizer: Any) -> Any:
    """Returns token -> whether it continues a word, by the type of the tokenizer's own model."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    family = type(getattr(backend, "model", None)).__name__
    if family == "WordPiece":
        prefix = backend.model.continuing_subword_prefix
        return lambda token: token.startswith(prefix)
    if family == "BPE" and type(backend.decoder).__name__ == "ByteLevel":
        return lambda token: not token.startswith("Ġ")
    raise UserError(
        f"tokenizer {_name(tokenizer)} is of a family whose words cannot be told ({family}); "
        "expected WordPiece (BERT) or byte-level BPE (RoBERTa); convert it to one of these, "
        "or train one with prepare"
    )


def _name(tokenizer: Any) -> str:
    return repr(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)
