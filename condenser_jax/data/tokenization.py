"""Tokenizers: a WordPiece trained on our own text, any tokenizer of the hub, and a hash to tell
them apart.

Text is encoded by the fast backend of the `tokenizers` package alone, so that the processes which
prepare data never import transformers.
"""

import hashlib
import json
import os
import shutil
import unicodedata
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from condenser_jax.errors import UserError

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # ids 0..4
MIN_VOCAB_SIZE = 64
MIN_ALPHABET = 26
PIECES_PER_CHARACTER = 16  # the alphabet, and its continuations, may take an eighth
TRAINING_CHARACTERS = 200_000_000  # later text adds hardly a piece, only hours and memory
OF_THE_MACHINE = ("is_local", "local_files_only", "name_or_path")  # in tokenizer_config.json
LONGEST_WORD = 100  # a WordPiece makes [UNK] of longer ones; training on a few takes minutes


def train_wordpiece(
    texts: Iterable[str],
    vocab_size: int,
    directory: str | os.PathLike[str],
    max_length: int,
    lowercase: bool = True,
) -> Path:
    """Trains a WordPiece tokenizer as BERT has it and saves it as transformers does, with
    vocab.txt.

    The same texts give the same files. At most the first TRAINING_CHARACTERS are read. Returns
    `directory`; raises UserError for a vocabulary too small, or for texts without a letter.
    """
    if vocab_size < MIN_VOCAB_SIZE:
        raise UserError(
            f"vocab_size {vocab_size} is too small for a WordPiece; use {MIN_VOCAB_SIZE} or more"
        )
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    spool = directory / "normalised.txt"
    try:
        alphabet = _normalise(
            texts, spool, lowercase, max(MIN_ALPHABET, vocab_size // PIECES_PER_CHARACTER)
        )
        if not alphabet:
            raise UserError(
                "a tokenizer cannot be trained: the source has no text outside its held-out "
                "part; check its path and field"
            )
        pieces = _train_pieces(spool, alphabet, vocab_size)
    finally:
        spool.unlink(missing_ok=True)
    return _save(pieces, directory, max_length, lowercase)


def _normalise(texts: Iterable[str], spool: Path, lowercase: bool, limit: int) -> list[str]:
    """Writes normalised texts, one a line; returns the `limit` commonest characters, sorted."""
    from tokenizers import normalizers

    normalise = normalizers.BertNormalizer(lowercase=lowercase).normalize_str
    characters: Counter[str] = Counter()
    left = TRAINING_CHARACTERS
    with open(spool, "w", encoding="utf-8") as file:
        for text in texts:
            words = normalise(text).split()
            line = " ".join(word for word in words if len(word) <= LONGEST_WORD)
            characters.update(line)
            file.write(line + "\n")
            left -= len(line)
            if left <= 0:
                break
    del characters[" "]
    common = sorted(characters, key=lambda c: (-characters[c], c))
    return sorted(common[:limit])


def _continues_words(character: str) -> bool:
    """True for what the pre-tokenizer does not split off as punctuation or as a CJK character."""
    is_ascii_symbol = character.isascii() and not character.isalnum()
    is_cjk = "\u3400" <= character <= "\u9fff"
    return not (is_ascii_symbol or is_cjk or unicodedata.category(character).startswith("P"))


def _train_pieces(spool: Path, alphabet: list[str], vocab_size: int) -> dict[str, int]:
    """Returns {piece: id}, the special tokens first.

    The trainer numbers the pieces ##a, ##b, ... in the order of a random hash map of words, and
    breaks ties between merges by these numbers: two runs differ. So they are numbered for it.
    """
    import tokenizers
    from tokenizers import models, pre_tokenizers, trainers

    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    continuations = [f"##{character}" for character in alphabet if _continues_words(character)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=[*SPECIAL_TOKENS, *continuations],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    with open(spool, encoding="utf-8") as file:
        tokenizer.train_from_iterator(file, trainer)
    return tokenizer.get_vocab()


def _save(pieces: dict[str, int], directory: Path, max_length: int, lowercase: bool) -> Path:
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers, processors
    from transformers import BertTokenizerFast  # type: ignore[attr-defined]

    tokenizer = tokenizers.Tokenizer(models.WordPiece(pieces, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    wrapped = BertTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=max_length, do_lower_case=lowercase
    )
    wrapped.save_pretrained(directory)
    lines = "".join(f"{piece}\n" for piece in sorted(pieces, key=lambda piece: pieces[piece]))
    (directory / "vocab.txt").write_text(lines, encoding="utf-8")
    return directory


def load_tokenizer(path_or_id: str | os.PathLike[str]) -> Any:
    """Returns the fast tokenizer of a directory or of a hub id.

    Raises UserError when there is none, or none with a fast backend.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(os.fspath(path_or_id), trust_remote_code=False)
    except Exception as error:  # OSError, ValueError, and what the hub's client raises
        raise UserError(
            f"no tokenizer at {os.fspath(path_or_id)!r}: expected a directory with tokenizer.json, "
            "or a hub id and a network"
        ) from error
    if not getattr(tokenizer, "is_fast", False):
        raise UserError(
            f"the tokenizer {os.fspath(path_or_id)!r} has no fast backend (tokenizer.json)"
        )
    return tokenizer


def save_tokenizer(path_or_id: str | os.PathLike[str], directory: Path) -> Any:
    """Loads a tokenizer, saves it to `directory` (with vocab.txt, where it has one), and returns
    it. What it pads and cuts to by itself is left out: who reads the file alone would get that.
    """
    tokenizer = load_tokenizer(path_or_id)
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.save_pretrained(directory)
    _forget_how_it_was_loaded(directory / "tokenizer_config.json")
    vocabulary = Path(path_or_id) / "vocab.txt"
    if vocabulary.is_file():
        shutil.copyfile(vocabulary, directory / "vocab.txt")
    return tokenizer


def _forget_how_it_was_loaded(path: Path) -> None:
    """Removes what transformers notes of the machine, so that all machines write the same file."""
    config = json.loads(path.read_text(encoding="utf-8"))
    kept = {key: value for key, value in config.items() if key not in OF_THE_MACHINE}
    path.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def tokenizer_hash(tokenizer: Any) -> str:
    """Returns a hash of how a tokenizer encodes; of a directory, a hub id, or a loaded tokenizer.

    A directory has that of what is loaded from it, as `save_tokenizer` would write it: files of
    older versions say the same in other words. Truncation, padding and maximum length do not count:
    they do not change an id.
    """
    is_place = isinstance(tokenizer, str | os.PathLike)
    loaded = load_tokenizer(tokenizer) if is_place else tokenizer
    described = json.loads(loaded.backend_tokenizer.to_str())
    for key in ("truncation", "padding"):
        described.pop(key, None)
    canonical = json.dumps(described, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(canonical.encode(), digest_size=16).hexdigest()


def tokenizer_identity(tokenizer: Any) -> str:
    """Returns a hash of how a tokenizer encodes and of what else it tells a model: the names of its
    inputs, its longest text. Copies that are kept go by it, for they are exported.
    """
    is_place = isinstance(tokenizer, str | os.PathLike)
    loaded = load_tokenizer(tokenizer) if is_place else tokenizer
    told = [tokenizer_hash(loaded), loaded.model_input_names, loaded.model_max_length]
    return hashlib.blake2b(json.dumps(told).encode(), digest_size=16).hexdigest()


def have_the_same_words(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Whether ids mean the same tokens to two tokenizers, directories or hub ids."""
    first, second = load_tokenizer(one), load_tokenizer(other)
    return (
        tokenizer_hash(first) == tokenizer_hash(second)
        or first.get_vocab() == second.get_vocab()  # written down by another version
    )


def load_backend(directory: str | os.PathLike[str]) -> Any:
    """Returns the `tokenizers.Tokenizer` of a saved directory: encodes without truncation or
    padding.
    """
    import tokenizers

    backend = tokenizers.Tokenizer.from_file(str(Path(directory) / "tokenizer.json"))
    backend.no_truncation()
    backend.no_padding()
    return backend


def encode(backend: Any, texts: list[str]) -> list[list[int]]:
    """Returns the ids of every text, without special tokens."""
    return [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]
