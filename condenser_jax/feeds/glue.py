"""The feed of classifiers: sentences and pairs of a GLUE task with their labels."""

import dataclasses
import functools
import hashlib
import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
from jax.sharding import Mesh

from condenser_jax.config import RunConfig
from condenser_jax.data.hashing import hash_u64
from condenser_jax.data.labelled_batches import EncodedTexts, LabelledBatches, all_rows
from condenser_jax.data.rows import NumpyBatch
from condenser_jax.errors import UserError
from condenser_jax.evaluation.classification import Part, classification_evaluator
from condenser_jax.feeds.base import Evaluate, Figures
from condenser_jax.feeds.corpus import tokenizer_of
from condenser_jax.feeds.pairs import encode_pairs
from condenser_jax.feeds.tokens import OfTokens, Tokens, hash_texts
from condenser_jax.glue.metrics import constant_figures
from condenser_jax.glue.records import Examples, read_split
from condenser_jax.glue.tasks import Task, find_task
from condenser_jax.hf.card import EncoderCard
from condenser_jax.objectives.base import Goal, Objective

SHORTEST = 8  # tokens: four specials of a pair, and a word or two
LIMITED = 71  # what a hash is drawn for
log = logging.getLogger("condenser_jax")


@dataclasses.dataclass(frozen=True)
class GlueData:
    """Where the records of a task come from; the task is named by the objective."""

    source: str = "hf:"  # hf:, tfds:, a folder with <task>/<split>.jsonl, or docstrings:
    train_split: str = ""  # "": train
    dev_split: str = ""  # "": as the task has it, of MNLI both
    train_limit: int = 0  # train on so many, the same for every seed; 0: all
    max_length: int | None = None  # tokens of a row; None: what the task needs, at most 128
    tokenizer: str = ""  # directory or hub id; "": that of model.init, else trained on the texts
    vocab_size: int = 8192  # of a tokenizer trained here
    bad_share: float = 0.01  # share of broken records above which they are fatal


@dataclasses.dataclass(frozen=True)
class GlueEvaluation:
    """The whole dev set is measured."""

    batch_size: int = 128  # rows at a time; changes no figure


def row_length(config: RunConfig) -> int:
    """Tokens of a row."""
    given = config.data.max_length
    return find_task(config.objective.task).longest if given is None else given


@dataclasses.dataclass(frozen=True)
class GlueMaterial(OfTokens):
    """A task's texts, encoded as token ids."""

    config: RunConfig
    task: Task
    train: Examples
    dev: dict[str, Examples]  # by split

    @functools.cached_property
    def hashes(self) -> dict[str, str]:
        """Of the texts and labels of every split."""
        return hashes_of(self.train, self.dev)

    @property
    def cards(self) -> list[dict[str, Any]]:
        """The data in one line."""
        dev = ", ".join(f"{len(part):,} of {split}" for split, part in self.dev.items())
        spec = f"{self.task.name} ({self.config.data.source})"
        return [{"spec": spec, "summary": f"{len(self.train):,} texts to train on; {dev}"}]

    def batches(self) -> LabelledBatches:
        """Texts in a random order, with their labels."""
        config = self.config
        assert self.train.labels is not None
        return LabelledBatches(
            self.encoded(self.train, "train"),
            self.train.labels,
            config.training.batch_size,
            row_length(config),
            self.vocabulary.pad_id,
            config.seed,
        )

    def evaluation(self, objective: Objective, goal: Goal, mesh: Mesh) -> Evaluate:
        """The task's figures on the whole dev set."""
        parts = []
        for split, examples in self.dev.items():
            assert self.train.labels is not None and examples.labels is not None
            suffix = split.removeprefix("validation") if len(self.dev) > 1 else ""
            constant = constant_figures(self.task, self.train.labels, examples.labels)
            parts.append(Part(suffix, self.rows(examples, split), examples.labels, constant))

        @functools.cache  # made when first asked: a dry run places nothing on a device
        def evaluator() -> Evaluate:
            return classification_evaluator(objective.predict["logits"], parts, self.task, mesh)

        return lambda params, frozen: evaluator()(params, frozen)

    def rows(self, examples: Examples, what: str) -> list[NumpyBatch]:
        """All examples as batches for evaluation."""
        size, length = self.config.evaluation.batch_size, row_length(self.config)
        return all_rows(self.encoded(examples, what), size, length, self.vocabulary.pad_id)

    def encoded(self, examples: Examples, what: str) -> EncodedTexts:
        """The token ids of examples."""
        return encode_pairs(self.tokens, examples.texts, row_length(self.config), what)


@dataclasses.dataclass(frozen=True)
class GlueFeed:
    """Sentences and pairs with labels."""

    data: type = GlueData
    evaluation: type = GlueEvaluation

    def check(self, config: RunConfig) -> None:
        """Raises UserError for rows too short for a pair, or a negative limit."""
        if row_length(config) < SHORTEST:
            raise UserError(
                f"data.max_length is {config.data.max_length}, which leaves no room between the "
                f"special tokens of a pair; use {SHORTEST} or more."
            )
        if config.data.train_limit < 0:
            raise UserError(
                f"data.train_limit is {config.data.train_limit}; expected 0 (all texts) or more."
            )

    def longest(self, config: RunConfig) -> int:
        """Every row is as long."""
        return row_length(config)

    def tokens_per_step(self, config: RunConfig) -> int:
        """Rows times their length."""
        return config.training.batch_size * row_length(config)

    def open(self, config: RunConfig) -> GlueMaterial:
        """Reads the splits that are trained and measured on, and encodes them."""
        data, task = config.data, find_task(config.objective.task)
        train, dev = read_splits(config)
        where = tokenizer_of(config)
        texts = [text for side in train.texts for text in side]
        tokens = (
            Tokens.load(where)
            if where
            else Tokens.train(texts, data.vocab_size, row_length(config))
        )
        material = GlueMaterial(config, task, train, dev, tokens=tokens)
        log.info("data: %s", " ".join(material.cards[0].values()))
        return material

    def card(self, config: RunConfig, tokenizer_hash: str) -> EncoderCard:
        """The CLS, which is what the classifier reads."""
        return EncoderCard(
            query_max_length=row_length(config),
            passage_max_length=row_length(config),
            tokenizer_hash=tokenizer_hash,
            has_trained_mlm_head=False,
            is_fine_tuned=True,
        )

    def describe(self, config: RunConfig) -> Iterator[str]:
        """What is predicted."""
        task = find_task(config.objective.task)
        what = f"one of {', '.join(task.labels)}" if task.labels else "a score, by squared error"
        yield f"task {task.name}: {' and '.join(task.fields)} -> {what}"

    def closing(self, before: Figures, after: Figures) -> Iterator[str]:
        """The score, which is the mean of the task's figures; and what it is worth."""
        figure, constant = "heldout/score", "heldout/constant_score"
        yield f"score on the dev set: {before[figure]:.3f} before, {after[figure]:.3f} after"
        if constant in after:
            yield f"one answer for all texts has {after[constant]:.3f}"


def read_splits(config: RunConfig) -> tuple[Examples, dict[str, Examples]]:
    """What a run trains on, and what it is measured on, by split."""
    data, task = config.data, find_task(config.objective.task)

    def read(split: str) -> Examples:
        return read_split(data.source, task, split, data.bad_share)

    train = _limited(read(data.train_split or "train"), data.train_limit)
    splits = (data.dev_split,) if data.dev_split else task.dev
    return train, {split: read(split) for split in splits}


def hashes_of(train: Examples, dev: dict[str, Examples]) -> dict[str, str]:
    """{"train" or split: hash of its texts and labels}."""
    return {name: hash_examples(part) for name, part in {"train": train, **dev}.items()}


def _limited(examples: Examples, limit: int) -> Examples:
    """`limit` of the examples (0: all), drawn by hash alone, so that fewer are a part of more."""
    if not limit:
        return examples
    if limit > len(examples):
        raise UserError(
            f"data.train_limit is {limit}, but there are {len(examples)} texts to train on; use "
            "fewer, or 0 for all."
        )
    order = np.argsort(hash_u64(LIMITED, np.arange(len(examples))), kind="stable")
    return examples.only(np.sort(order[:limit]))


def hash_examples(examples: Examples) -> str:
    """Of texts, and of labels that are not hidden."""
    labels = [] if examples.labels is None else [str(examples.labels.tolist())]
    parts = [*(hash_texts(side) for side in examples.texts), *labels]
    return hashlib.blake2b(" ".join(parts).encode(), digest_size=16).hexdigest()


GLUE = GlueFeed()
