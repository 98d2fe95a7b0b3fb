"""Prepared data, read back: spans of token ids in memory-mapped files, and the card that describes
them.
"""

import hashlib
import json
import os
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from condenser_jax.errors import UserError

FORMAT = 2
CARD = "card.json"
HASH_BLOCK = 1 << 20


def _open_array(path: Path, dtype: Any) -> np.ndarray:
    if os.path.getsize(path) == 0:
        return np.zeros(0, dtype)  # an empty file cannot be mapped
    return np.memmap(path, dtype, mode="r")


class Spans:
    """The spans of one split, without special tokens; S spans of D documents.

    Files are mapped at first use, and anew in every process that this object is sent to.
    """

    def __init__(self, directory: Path, dtype: Any, pad_id: int) -> None:
        self.directory, self.dtype, self.pad_id = Path(directory), np.dtype(dtype), pad_id

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in ("directory", "dtype", "pad_id")}

    @cached_property
    def ids(self) -> np.ndarray:
        """Token ids of all spans, joined."""
        return _open_array(self.directory / "ids.bin", self.dtype)

    @cached_property
    def offsets(self) -> np.ndarray:
        """int64 [S + 1]: span s is ids[offsets[s]:offsets[s + 1]]."""
        return _open_array(self.directory / "offsets.bin", np.int64)

    @cached_property
    def documents(self) -> np.ndarray:
        """int64 [D + 1]: document d has the spans documents[d]:documents[d + 1]."""
        return _open_array(self.directory / "documents.bin", np.int64)

    @cached_property
    def lengths(self) -> np.ndarray:
        """int32 [S]: tokens of each span."""
        return np.diff(self.offsets).astype(np.int32)

    @cached_property
    def copied(self) -> np.ndarray:
        """float32 [S]: share of each held-out span's 8-grams of tokens that occur in train."""
        return _open_array(self.directory / "copied.bin", np.float32)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def gather(
        self, indices: np.ndarray, starts: np.ndarray, length: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns windows of spans: ids int32 [B, length], padded on the right, and lengths int32
        [B].

        Row b is span indices[b] from its token starts[b] on, cut to `length` tokens.
        """
        begins = self.offsets[indices] + starts
        lengths = np.clip(self.offsets[np.asarray(indices) + 1] - begins, 0, length)
        columns = np.arange(length)
        is_real = columns < lengths[:, None]  # B L
        places = np.where(is_real, begins[:, None] + columns, 0)
        if not len(self.ids):
            return np.full(places.shape, self.pad_id, np.int32), lengths.astype(np.int32)
        ids = np.where(is_real, self.ids[places], self.pad_id).astype(np.int32)
        return ids, lengths.astype(np.int32)


class Prepared(NamedTuple):
    """A prepared directory: its card and its two splits."""

    directory: Path
    card: dict[str, Any]
    train: Spans
    heldout: Spans

    @property
    def tokenizer_directory(self) -> Path:
        """The tokenizer as transformers saves it."""
        return self.directory / "tokenizer"

    @property
    def unigram(self) -> np.ndarray:
        """int64 [V]: how often each token of the vocabulary occurs in train."""
        return np.fromfile(self.directory / "train" / "unigram.bin", np.int64)


def file_hash(path: Path) -> str:
    """Returns a hash of the whole content of a file."""
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def is_prepared(directory: str | os.PathLike[str]) -> bool:
    """True when a directory holds finished prepared data of this format."""
    try:
        card = json.loads((Path(directory) / CARD).read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(card, dict) and card.get("format") == FORMAT


def open_prepared(directory: str | os.PathLike[str]) -> Prepared:
    """Opens a prepared directory, reading its card only. Raises UserError when it is none."""
    path = Path(directory)
    if not is_prepared(path):
        raise UserError(
            f"{path} holds no prepared data (no {CARD} of format {FORMAT}); "
            "remove it and run prepare"
        )
    card = json.loads((path / CARD).read_text("utf-8"))
    dtype, pad_id = card["dtype"], card["tokenizer"]["pad_id"]
    splits = [Spans(path / name, dtype, pad_id) for name in ("train", "heldout")]
    return Prepared(path, card, *splits)


def verify(prepared: Prepared) -> None:
    """Raises UserError when a file is missing or differs from the hash in the card."""
    for name, expected in prepared.card["files"].items():
        path = prepared.directory / name
        remedy = f"remove {prepared.directory} and run prepare again"
        if not path.is_file():
            raise UserError(f"prepared file {path} is missing; {remedy}")
        if path.stat().st_size != expected["bytes"] or file_hash(path) != expected["hash"]:
            raise UserError(f"prepared file {path} has changed since it was written; {remedy}")
