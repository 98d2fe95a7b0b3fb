"""What a run reads: its prepared sources, their tokenizer and the batches."""

import dataclasses
import hashlib
import json
import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from condenser_jax.config import RunConfig
from condenser_jax.data.batches import Batches, PairBatches, SpanBatches
from condenser_jax.data.documents import SourceOptions
from condenser_jax.data.masking import WORDS
from condenser_jax.data.mixture import parse_mixture
from condenser_jax.data.parallel import usable_cores
from condenser_jax.data.prepare import PrepareConfig, prepare_mixture
from condenser_jax.data.store import Prepared, open_prepared, verify
from condenser_jax.data.tokenization import load_tokenizer
from condenser_jax.data.unmaskable import TOLERATED_SHARE, unmaskable_share
from condenser_jax.data.vocabulary import Vocabulary
from condenser_jax.environment import cache_directory
from condenser_jax.errors import UserError
from condenser_jax.hf.load import find_directory, tokenizer_path
from condenser_jax.training.workdir import Workdir, is_workdir

log = logging.getLogger("condenser_jax")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What is trained on, and how it is cut and masked."""

    source: str = "docstrings:"  # "kind:where", or a mixture "0.8 kind:where + 0.2 kind:where"
    directory: str = ""  # where prepared data is kept; "": the cache directory
    tokenizer: str = (
        ""  # directory or hub id; "": that of model.init, else one trained on the source
    )
    vocab_size: int = 8192  # of a tokenizer trained here
    recipe: str = "sentences"  # sentences, sentence_groups, paragraphs or fixed (docs/data.md)
    max_length: int = 128  # tokens of a row, [CLS] and [SEP] included
    short_probability: float = (
        0.1  # share of blocks with a random shorter length (recipe sentences)
    )
    sentences_per_span: int = 3  # recipe sentence_groups
    min_tokens: int = 6  # shorter spans are dropped
    heldout_share: float = 0.02  # of the groups (packages' modules, documents) held out
    mask_rate: float = 0.15  # of a row's tokens
    text_layout: str = (
        "lines"  # text: one document per line, or "paragraphs" separated by blank lines
    )
    text_field: str = "text"  # jsonl, parquet, hf, tfds: the field that holds the text
    split: str = "train"  # hf, tfds: which split is read
    bad_share: float = 0.01  # share of broken records above which they are fatal
    workers: int | None = None  # processes that prepare; None: one per core


class Corpus(NamedTuple):
    """Prepared sources with their weights, and the tokenizer that they share."""

    sources: tuple[tuple[Prepared, float], ...]
    tokenizer: Any
    vocabulary: Vocabulary

    @property
    def tokenizer_directory(self) -> Path:
        """The tokenizer as transformers saves it."""
        return self.sources[0][0].tokenizer_directory

    @property
    def unigram(self) -> np.ndarray:
        """int64 [V] counts of the training tokens, of several sources in the shares of their
        weights, as rows are drawn.
        """
        counts = [prepared.unigram for prepared, _ in self.sources]
        whole = sum(weight for _, weight in self.sources)
        total = sum(one.sum() for one in counts)
        shares = [
            weight / whole * (one / max(one.sum(), 1))
            for one, (_, weight) in zip(counts, self.sources, strict=True)
        ]
        return np.rint(total * np.sum(shares, axis=0)).astype(np.int64)

    @property
    def hashes(self) -> dict[str, str]:
        """What must not change while a run lasts: a hash per source, over its files' hashes."""
        found = {}
        for prepared, _ in self.sources:
            files = json.dumps(prepared.card["files"], sort_keys=True)
            found[prepared.directory.name] = hashlib.blake2b(
                files.encode(), digest_size=16
            ).hexdigest()
        return found


def check_spans(config: RunConfig) -> None:
    """Raises UserError for a method that does not learn from prepared spans."""
    if not isinstance(config.data, DataConfig):
        raise UserError(
            f"{config.objective.name} does not learn from spans, so there is nothing to prepare; "
            "start launch/train.py, which reads its data by itself"
        )


def tokenizer_of(config: RunConfig) -> str:
    """The tokenizer that a run names, else its initial checkpoint's; "" trains one."""
    init = config.model.init
    return config.data.tokenizer or (tokenizer_at(init) if init else "")


def tokenizer_at(where: str) -> str:
    """The tokenizer of a work directory, a Hugging Face directory or hub id; "" if it has none."""
    if is_workdir(where):
        return str(Workdir(Path(where)).tokenizer)
    return str(tokenizer_path(find_directory(where)) or "")


def prepare_corpus(config: DataConfig, seed: int, tokenizer: str, masking: str = WORDS) -> Corpus:
    """Prepares what is not prepared yet, reuses what is, and checks that no file has changed.

    Args:
      tokenizer: directory or hub id; "" trains one on the training part of all sources.
      masking: what will be masked as a whole: one of `masking.MASKINGS`.
    """
    sources = []
    for directory, weight in prepare_mixture(prepare_config(config, seed, tokenizer)):
        prepared = open_prepared(directory)
        verify(prepared)
        log.info("data: %s", summary(prepared.card))
        sources.append((prepared, weight))
    loaded = load_tokenizer(sources[0][0].tokenizer_directory)
    corpus = Corpus(tuple(sources), loaded, Vocabulary.from_tokenizer(loaded))
    _warn_of_unknown_tokens(corpus)
    _warn_of_unmaskable_rows(corpus, config, seed, masking)
    return corpus


def _warn_of_unknown_tokens(corpus: Corpus) -> None:
    for prepared, _ in corpus.sources:
        counts, unknown = prepared.unigram, corpus.vocabulary.unk_id
        share = 0.0 if unknown is None else counts[unknown] / max(counts.sum(), 1)
        if share > TOLERATED_SHARE:
            log.warning(
                "THE TOKENIZER DOES NOT KNOW %.1f %% OF THE TOKENS of %s: nothing is learned of "
                "them; use a tokenizer of this language (data.tokenizer), or train one on it with "
                "a larger data.vocab_size.",
                100 * share,
                prepared.card["spec"],
            )


def _warn_of_unmaskable_rows(corpus: Corpus, config: DataConfig, seed: int, masking: str) -> None:
    how = (corpus.vocabulary, config.max_length, config.mask_rate, seed, masking)
    for prepared, _ in corpus.sources:
        share = unmaskable_share(prepared.train, *how)
        if share > TOLERATED_SHARE:
            log.warning(
                "NOTHING CAN BE MASKED IN %.1f %% OF THE ROWS of %s: no word of theirs fits the "
                "budget (data.mask_rate %g). To a byte-level BPE, text without spaces is one word: "
                "use a WordPiece (a BERT's; without model.init data.tokenizer='' trains one), or "
                "raise data.mask_rate.",
                100 * share,
                prepared.card["spec"],
                config.mask_rate,
            )


def prepare_config(config: DataConfig, seed: int, tokenizer: str) -> PrepareConfig:
    """What `prepare` needs to know of a run's section `data`."""
    return PrepareConfig(
        source=parse_mixture(config.source),
        options=SourceOptions(
            text_layout=config.text_layout,
            text_field=config.text_field,
            bad_share=config.bad_share,
            split=config.split,
        ),
        tokenizer=tokenizer,
        vocab_size=config.vocab_size,
        recipe=config.recipe,
        max_length=config.max_length,
        short_probability=config.short_probability,
        sentences_per_span=config.sentences_per_span,
        min_tokens=config.min_tokens,
        heldout_share=config.heldout_share,
        seed=seed,
        workers=config.workers or usable_cores(),
        directory=config.directory or str(cache_directory() / "prepared"),
    )


def summary(card: dict[str, Any]) -> str:
    """One line on prepared data; broken records, if there are any, are told with the first."""
    splits, bad = card["splits"], card["bad_records"]
    train, heldout = splits["train"], splits["heldout"]
    told = (
        f"{card['spec']} {train['documents']:,} documents, {train['spans']:,} spans, "
        f"{train['tokens']:,} tokens to train on; {heldout['documents']:,} documents held out"
    )
    if not bad["count"]:
        return told
    left_out = f"{bad['count']:,} of {bad['records']:,} records are broken and left out"
    return f"{told}; {left_out}, the first: {bad['first'][0]}"


def train_batches(
    corpus: Corpus,
    config: DataConfig,
    batch_size: int,
    seed: int,
    pairs: bool,
    masking: str = WORDS,
) -> Batches:
    """The masked batches of the training spans.

    Args:
      pairs: two spans of each document; the log says how many documents have no two.
      masking: what is masked as a whole, in batches of spans: one of `masking.MASKINGS`.
    """
    sources = [(prepared.train, weight) for prepared, weight in corpus.sources]
    how = (corpus.vocabulary, batch_size, config.max_length, config.mask_rate, seed)
    if not pairs:
        return SpanBatches(sources, *how, masking)
    batches = PairBatches(sources, *how)
    log.info(
        "data: %s of %s documents have fewer than two spans and are left out",
        f"{batches.num_left_out:,}",
        f"{batches.num_left_out + batches.num_documents:,}",
    )
    return batches
