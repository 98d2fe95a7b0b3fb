"""The feed of retrievers: queries with their positive passages and hard negatives."""

import dataclasses
import functools
import json
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from condenser_jax.config import RunConfig
from condenser_jax.data.fixed_batches import text_batches
from condenser_jax.data.ranking_batches import RankingBatches, TrainingSet
from condenser_jax.data.rows import NumpyBatch
from condenser_jax.errors import UserError
from condenser_jax.evaluation.passage_retrieval import draw_sample, passage_retrieval_evaluator
from condenser_jax.feeds.base import Evaluate, Figures
from condenser_jax.feeds.corpus import tokenizer_of
from condenser_jax.feeds.same_split import warn_of_another_split
from condenser_jax.feeds.tokens import OfTokens, Tokens, hash_texts
from condenser_jax.hf.card import EncoderCard
from condenser_jax.objectives.base import Goal, Objective
from condenser_jax.objectives.retriever import GLOBAL, NO_DISTILLATION
from condenser_jax.retrieval.collection import Collection, CollectionOptions
from condenser_jax.retrieval.kinds import open_collection
from condenser_jax.retrieval.selection import limited, with_wrong_positives
from condenser_jax.retrieval.texts import Texts
from condenser_jax.retrieval.training_texts import TEVATRON, TrainingTexts, open_training

log = logging.getLogger("condenser_jax")
SPECIALS = 2  # [CLS] and [SEP]


@dataclasses.dataclass(frozen=True)
class RankingData:
    """What a retriever is trained on, and on which collection it is measured."""

    train: str = (
        "docstrings:"  # tevatron:FILE, or a collection with judgements (docs/collections.md)
    )
    train_split: str = "train"  # of a collection
    collection: str = ""  # what is searched in evaluations; "": that of `train`
    split: str = "dev"  # whose queries are asked in evaluations
    group: int = 1  # passages of each query: its positive, and group - 1 hard negatives
    train_limit: int = 0  # train on so many of the queries, drawn by the seed; 0: all
    wrong_positives: float = 0.0  # share of positives replaced at random, to study robustness
    query_length: int = 32  # tokens, specials included
    passage_length: int = 128
    query_prefix: str = ""  # put in front of every query
    passage_prefix: str = ""
    tokenizer: str = ""  # directory or hub id; "": that of model.init, else one trained on passages
    vocab_size: int = 8192  # of a tokenizer trained here
    heldout_share: float = 0.1  # docstrings: modules of `test`; `dev` takes as many
    split_seed: int = (
        0  # docstrings: of the split; that of pre-training, which then never saw `test`
    )
    bad_share: float = 0.01  # share of broken records above which they are fatal


@dataclasses.dataclass(frozen=True)
class RankingEvaluation:
    """How large the sample is that is searched during training."""

    queries: int = 500  # asked
    passages: int = 5000  # searched: all relevant ones, filled up with others
    batch_size: int = 128  # rows at a time; changes no figure


@dataclasses.dataclass(frozen=True)
class RankingMaterial(OfTokens):
    """Queries and passages of a run, encoded as token ids."""

    config: RunConfig
    texts: TrainingTexts
    collection: Collection

    @functools.cached_property
    def hashes(self) -> dict[str, str]:
        """Of the training texts and of which belong together, and of what evaluations ask."""
        judged = json.dumps({query: dict(found) for query, found in self.collection.qrels.items()})
        asked = hash_texts([*Joined(self.collection.queries), judged])
        return texts_hashes(self.texts) | {"evaluation": asked}

    @property
    def cards(self) -> list[dict[str, Any]]:
        """The training data in one line."""
        texts = self.texts
        summary = (
            f"{len(texts.queries):,} queries, {len(texts.positives.numbers):,} positives, "
            f"{len(texts.negatives.numbers):,} hard negatives, {len(texts.passages):,} passages"
        )
        return [{"spec": self.config.data.train, "summary": summary}]

    def batches(self) -> RankingBatches:
        """Queries with their groups of passages."""
        data, training = self.config.data, self.config.training
        stores = (
            self._store("query", self.texts.queries),
            self._store("passage", self.texts.passages),
        )
        return RankingBatches(
            TrainingSet(*stores, self.texts.positives, self.texts.negatives),
            self.vocabulary,
            training.batch_size,
            data.group,
            data.query_length,
            data.passage_length,
            self.config.seed,
        )

    def evaluation(self, objective: Objective, goal: Goal, mesh: Mesh) -> Evaluate:
        """A search among a sample of the collection."""
        wanted, seed = self.config.evaluation, self.config.seed
        sample = draw_sample(self.collection, wanted.queries, wanted.passages, seed)
        log.info(
            "evaluation: %s queries of %s (%s) are searched among %s passages",
            f"{len(sample.queries):,}",
            self.collection.spec,
            self.collection.split,
            f"{len(sample.passages):,}",
        )

        @functools.cache  # made when first asked: a dry run places nothing on a device
        def evaluator() -> Evaluate:
            return passage_retrieval_evaluator(
                objective.predict,
                sample,
                self._rows("query", sample.queries),
                self._rows("passage", sample.passages),
                mesh,
            )

        return lambda params, frozen: evaluator()(params, frozen)

    def _store(self, kind: str, texts: Texts) -> Any:
        data = self.config.data
        room = getattr(data, f"{kind}_length") - SPECIALS
        return self.tokens.store(Joined(texts), getattr(data, f"{kind}_prefix"), room)

    def _rows(self, kind: str, texts: Texts) -> list[NumpyBatch]:
        length = getattr(self.config.data, f"{kind}_length")
        store = self._store(kind, texts)
        return text_batches(store, self.vocabulary, self.config.evaluation.batch_size, length)


@dataclasses.dataclass(frozen=True)
class RankingFeed:
    """Queries with their passages."""

    data: type = RankingData
    evaluation: type = RankingEvaluation

    def check(self, config: RunConfig) -> None:
        """Raises UserError for lengths without room, groups without a negative to learn from, and
        blocks of negatives that do not divide the batch.
        """
        data, options = config.data, config.objective
        if data.train.startswith(f"{TEVATRON}:") and not data.collection:
            raise UserError(
                "data.collection is empty; a training file names no collection to search in "
                "evaluations: set it, for example to 'beir:FOLDER' or 'msmarco:FOLDER'."
            )
        for name in ("query_length", "passage_length"):
            if getattr(data, name) <= SPECIALS:
                raise UserError(
                    f"data.{name} is {getattr(data, name)}, which leaves no room between [CLS] and "
                    f"[SEP]; use {SPECIALS + 1} or more."
                )
        if data.group < 1:
            raise UserError(f"data.group is {data.group}; expected 1 (no hard negatives) or more.")
        if options.distillation != NO_DISTILLATION and data.group < 2:
            raise UserError(
                f"objective.distillation {options.distillation!r} compares the passages of a "
                f"query, and data.group is {data.group}; use 2 or more."
            )
        if options.distillation != NO_DISTILLATION and data.wrong_positives:
            raise UserError(
                f"data.wrong_positives is {data.wrong_positives}, and passages put in at random "
                "have no score to distil; set one of it and objective.distillation."
            )
        together = options.negatives
        if together != GLOBAL and config.training.batch_size % int(together):
            raise UserError(
                f"objective.negatives {together} does not divide training.batch_size "
                f"{config.training.batch_size}; use a divisor of it, or 'global'."
            )
        for name in ("queries", "passages"):
            if getattr(config.evaluation, name) < 1:
                raise UserError(
                    f"evaluation.{name} is {getattr(config.evaluation, name)}; expected at least 1."
                )

    def longest(self, config: RunConfig) -> int:
        """The longer of queries and passages."""
        return max(config.data.query_length, config.data.passage_length)

    def tokens_per_step(self, config: RunConfig) -> int:
        """Of the queries and their passages."""
        data = config.data
        per_query = data.query_length + data.group * data.passage_length
        return config.training.batch_size * per_query

    def open(self, config: RunConfig) -> RankingMaterial:
        """Opens the training data and the collection that is searched, and encodes them."""
        data = config.data
        options = CollectionOptions.of(data)
        texts = open_training(data.train, data.train_split, options)
        texts = with_wrong_positives(texts, data.wrong_positives, config.seed)
        texts = limited(texts, data.train_limit, config.seed)
        if config.objective.distillation != NO_DISTILLATION:
            _check_scores(config, texts)
        collection = _open_searched(config, options)
        warn_of_another_split(config.model.init, data.collection or data.train, options)
        material = RankingMaterial(config, texts, collection, tokens=_tokens(config, texts))
        log.info("data: %s %s", data.train, material.cards[0]["summary"])
        return material

    def card(self, config: RunConfig, tokenizer_hash: str) -> EncoderCard:
        """Pooling and normalisation of the objective; lengths and prefixes of the data."""
        data = config.data
        return EncoderCard(
            pooling=config.objective.pooling,
            normalize=config.objective.normalise,
            query_prefix=data.query_prefix,
            passage_prefix=data.passage_prefix,
            query_max_length=data.query_length,
            passage_max_length=data.passage_length,
            tokenizer_hash=tokenizer_hash,
            has_trained_mlm_head=False,
            is_fine_tuned=True,
        )

    def describe(self, config: RunConfig) -> Iterator[str]:
        """How many negatives each query has."""
        together = config.objective.negatives
        queries = config.training.batch_size if together == GLOBAL else int(together)
        where = "the whole batch" if together == GLOBAL else f"blocks of {queries} queries"
        negatives = queries * config.data.group - 1
        yield (
            f"contrast: {negatives:,} negatives of each query, {config.data.group - 1} of them "
            f"hard, from {where}; fewer where its positives come again"
        )

    def closing(self, before: Figures, after: Figures) -> Iterator[str]:
        """The search beside BM25's."""
        figure = "heldout/mrr@10"
        yield (
            f"MRR@10 among the sample: {before[figure]:.3f} before, {after[figure]:.3f} after; "
            f"BM25 {after['heldout/bm25_mrr@10']:.3f}"
        )


class Joined(Sequence[str]):
    """Texts as the encoder reads them: titles in front."""

    def __init__(self, texts: Texts) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: Any) -> Any:
        return self.texts[index].joined

    def __iter__(self) -> Iterator[str]:
        return (text.joined for text in self.texts)


def _check_scores(config: RunConfig, texts: TrainingTexts) -> None:
    """Raises UserError where a query or a passage has no teacher's score to learn from."""
    asked = config.objective.distillation
    if texts.positives.scores is None:
        raise UserError(
            f"objective.distillation is {asked!r}, but not every passage of {config.data.train} "
            "has a score; add the field 'score' of a cross-encoder."
        )
    without = int((np.diff(texts.negatives.offsets) == 0).sum())
    if without:
        raise UserError(
            f"objective.distillation is {asked!r}, but {without:,} of {len(texts.queries):,} "
            f"queries of {config.data.train} have no hard negative to compare with; leave them out."
        )


def _open_searched(config: RunConfig, options: CollectionOptions) -> Collection:
    """The collection that evaluations search. Raises UserError where nothing is judged."""
    data = config.data
    where = data.collection or data.train
    try:
        collection = open_collection(where, data.split, options)
    except UserError as error:
        raise UserError(
            f"data.split is {data.split!r}, whose queries are asked in evaluations: {error}"
        ) from error
    if not any(any(grades.values()) for grades in collection.qrels.values()):
        raise UserError(
            f"{where} judges no query of its {data.split!r} (data.split), so nothing can be "
            "measured during training; name a collection with qrels in data.collection: answers "
            "alone are for launch/evaluate.py --task=open_qa."
        )
    return collection


def texts_hashes(texts: TrainingTexts) -> dict[str, str]:
    """{part: hash} of what a retriever is trained on."""
    lists = [texts.positives, texts.negatives]
    numbers = [str(part.tolist()) for one in lists for part in one if part is not None]
    return {
        "queries": hash_texts(Joined(texts.queries)),
        "passages": hash_texts(Joined(texts.passages)),
        "judgements": hash_texts(numbers),
    }


def _tokens(config: RunConfig, texts: TrainingTexts) -> Tokens:
    where = tokenizer_of(config)
    if where:
        return Tokens.load(where)
    return Tokens.train(Joined(texts.passages), config.data.vocab_size, config.data.passage_length)


RANKING = RankingFeed()
