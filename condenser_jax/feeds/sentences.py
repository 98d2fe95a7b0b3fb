"""The feeds of sentence similarity: scored pairs, and triplets of sentences."""

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from condenser_jax.config import RunConfig
from condenser_jax.data.fixed_batches import text_batches
from condenser_jax.data.text_rows import TextRowBatches, TextRows
from condenser_jax.errors import UserError
from condenser_jax.evaluation.base import spread
from condenser_jax.evaluation.text_rows import (
    section_figures,
    similarity_figures,
    text_rows_evaluator,
)
from condenser_jax.feeds.base import Evaluate, Figures
from condenser_jax.feeds.corpus import tokenizer_of
from condenser_jax.feeds.tokens import OfTokens, Tokens, hash_texts
from condenser_jax.hf.card import EncoderCard
from condenser_jax.objectives.base import Goal, Objective
from condenser_jax.retrieval.collection import CollectionOptions
from condenser_jax.retrieval.selection import some_of
from condenser_jax.retrieval.sentence_sources import is_file, open_pairs, open_triplets
from condenser_jax.retrieval.sentences import MAX_SCORE

log = logging.getLogger("condenser_jax")
SPECIALS = 2  # [CLS] and [SEP]


@dataclasses.dataclass(frozen=True)
class SentenceData:
    """What is trained on, and what is measured during training."""

    train: str = "docstrings:"  # a folder with SPLIT.tsv, .csv or .jsonl, or such a file
    train_split: str = "train"  # of a folder
    dev: str = ""  # measured during training, a folder or a file; "": the folder of `train`
    split: str = "dev"  # of a folder
    train_limit: int = 0  # train on so many of the rows, drawn by the seed; 0: all
    max_length: int = 128  # tokens of a sentence, [CLS] and [SEP] included; it loses its end
    tokenizer: str = ""  # directory or hub id; "": that of model.init, else one trained here
    vocab_size: int = 8192  # of a tokenizer trained here
    heldout_share: float = 0.1  # docstrings: modules of `test`; `dev` takes as many
    split_seed: int = 0  # docstrings: of the split
    bad_share: float = 0.01  # share of broken lines above which they are fatal


@dataclasses.dataclass(frozen=True)
class SentenceEvaluation:
    """How much is measured."""

    rows: int = 2000  # pairs or triplets, spread evenly over those that there are
    batch_size: int = 128  # sentences at a time; changes no figure


class Rows(NamedTuple):
    """Texts that belong together, row by row, and what is known of each row."""

    texts: Sequence[Sequence[str]]
    values: Mapping[str, np.ndarray]  # name -> float32 [n]

    def of(self, numbers: np.ndarray) -> "Rows":
        """Some of the rows, in their order."""
        values = {name: column[numbers] for name, column in self.values.items()}
        return Rows([self.texts[number] for number in numbers], values)

    @property
    def distinct(self) -> dict[str, int]:
        """{text: its number} in the order of the first occurrence."""
        flat = (text for row in self.texts for text in row)
        return {text: number for number, text in enumerate(dict.fromkeys(flat))}

    @property
    def hash(self) -> str:
        """Of everything."""
        values = [str(column.tolist()) for column in self.values.values()]
        return hash_texts([*(text for row in self.texts for text in row), *values])


def read_pairs(where: str, split: str, options: CollectionOptions) -> Rows:
    """Scored pairs; `similarity` is their score between 0 and 1."""
    pairs = open_pairs(where, split, options)
    if max(pair.score for pair in pairs) <= 1:
        log.warning(
            "THE HIGHEST SCORE OF %s IS %g, and scores are from 0 to %g: to train on scores from 0 "
            "to 1 would teach that nothing is alike; multiply them by %g.",
            where,
            max(pair.score for pair in pairs),
            MAX_SCORE,
            MAX_SCORE,
        )
    similarity = np.array([pair.score / MAX_SCORE for pair in pairs], np.float32)
    return Rows([pair[:2] for pair in pairs], {"similarity": similarity})


def read_triplets(where: str, split: str, options: CollectionOptions) -> Rows:
    """Triplets: anchor, positive, negative."""
    return Rows(open_triplets(where, split, options), {})


@dataclasses.dataclass(frozen=True)
class SentenceMaterial(OfTokens):
    """The rows of a run and its tokenizer."""

    config: RunConfig
    train: Rows
    dev: Rows
    figures: Callable[..., dict[str, float]]  # (vectors [n, T, D], **values) -> figures

    @property
    def hashes(self) -> dict[str, str]:
        """Of what is trained on and of what is measured."""
        return {"train": self.train.hash, "dev": self.dev.hash}

    @property
    def cards(self) -> list[dict[str, Any]]:
        """The training data in one line."""
        return [{"spec": self.config.data.train, "summary": f"{len(self.train.texts):,} rows"}]

    def batches(self) -> TextRowBatches:
        """Rows of sentences."""
        rows, size = self._encoded(self.train), self.config.training.batch_size
        length, seed = self.config.data.max_length, self.config.seed
        return TextRowBatches(rows, self.vocabulary, size, length, seed)

    def evaluation(self, objective: Objective, goal: Goal, mesh: Mesh) -> Evaluate:
        """Figures of the held-out rows."""

        @functools.cache  # made when first asked: a dry run places nothing on a device
        def evaluator() -> Evaluate:
            rows, size = self._encoded(self.dev), self.config.evaluation.batch_size
            batches = text_batches(rows.texts, self.vocabulary, size, self.config.data.max_length)
            figures = functools.partial(self.figures, **rows.values)
            return text_rows_evaluator(
                objective.predict["embed"], batches, rows.numbers, figures, mesh
            )

        return lambda params, frozen: evaluator()(params, frozen)

    def _encoded(self, rows: Rows) -> TextRows:
        numbers = rows.distinct
        store = self.tokens.store(list(numbers), "", self.config.data.max_length - SPECIALS)
        table = np.array([[numbers[text] for text in row] for row in rows.texts], np.int32)
        return TextRows(store, table, rows.values)


@dataclasses.dataclass(frozen=True)
class SentenceFeed:
    """Rows of `columns` sentences."""

    columns: int
    read: Callable[[str, str, CollectionOptions], Rows]
    figures: Callable[..., dict[str, float]]
    shown: tuple[str, str]  # the figure of the closing words, and what people call it
    has_cosines: bool  # cosines are trained: vectors are scaled to length 1 when they are used
    data: type = SentenceData
    evaluation: type = SentenceEvaluation

    def check(self, config: RunConfig) -> None:
        """Raises UserError for a length without room, and a file that has no other split."""
        data = config.data
        if data.max_length <= SPECIALS:
            raise UserError(
                f"data.max_length is {data.max_length}, which leaves no room between [CLS] and "
                f"[SEP]; use {SPECIALS + 1} or more."
            )
        if config.evaluation.rows < 2:
            raise UserError(
                f"evaluation.rows is {config.evaluation.rows}; expected at least 2, among which "
                "there is an order."
            )
        if not data.dev and is_file(data.train):
            raise UserError(
                f"data.dev is empty, and data.train is one file, {data.train}: nothing is held "
                "out; set data.dev to another file, or data.train to a folder of both."
            )

    def longest(self, config: RunConfig) -> int:
        """Every text is as long."""
        return config.data.max_length

    def tokens_per_step(self, config: RunConfig) -> int:
        """Rows, times their sentences, times their length."""
        return config.training.batch_size * self.columns * config.data.max_length

    def open(self, config: RunConfig) -> SentenceMaterial:
        """Reads the rows, and encodes them when they are asked for."""
        data = config.data
        options = CollectionOptions.of(data)
        every = self.read(data.train, data.train_split, options)
        train = every.of(some_of(len(every.texts), data.train_limit, config.seed, "rows"))
        dev = self.read(data.dev or data.train, data.split, options)
        dev = dev.of(spread(len(dev.texts), config.evaluation.rows))
        log.info(
            "data: %s %s rows of %s sentences to train on, %s held out",
            data.train,
            f"{len(train.texts):,}",
            self.columns,
            f"{len(dev.texts):,}",
        )
        return SentenceMaterial(config, train, dev, self.figures, tokens=_tokens(config, every))

    def card(self, config: RunConfig, tokenizer_hash: str) -> EncoderCard:
        """Pooling of the objective, length of the data."""
        return EncoderCard(
            pooling=config.objective.pooling,
            normalize=self.has_cosines,
            query_max_length=config.data.max_length,
            passage_max_length=config.data.max_length,
            tokenizer_hash=tokenizer_hash,
            has_trained_mlm_head=False,
            is_fine_tuned=True,
        )

    def describe(self, config: RunConfig) -> Iterator[str]:
        """Nothing more."""
        yield from ()

    def closing(self, before: Figures, after: Figures) -> Iterator[str]:
        """The figure by which such models are compared."""
        figure, name = self.shown
        yield f"{name}: {before[figure]:.3f} before, {after[figure]:.3f} after"


def _tokens(config: RunConfig, rows: Rows) -> Tokens:
    """The run's tokenizer; one that is trained here is the same whatever the limit."""
    where = tokenizer_of(config)
    if where:
        return Tokens.load(where)
    return Tokens.train(list(rows.distinct), config.data.vocab_size, config.data.max_length)


SCORED_PAIRS = SentenceFeed(
    2, read_pairs, similarity_figures, ("heldout/spearman", "Spearman of cosines"), True
)
TRIPLETS = SentenceFeed(
    3, read_triplets, section_figures, ("heldout/accuracy", "accuracy on triplets"), False
)
