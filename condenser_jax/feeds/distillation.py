"""The feed of distillation: masked spans of a corpus, read by the tokenizer of the teacher."""

import dataclasses
import functools
import logging
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jax.sharding import Mesh

from condenser_jax.config import RunConfig
from condenser_jax.data.batches import Batches
from condenser_jax.data.fixed_batches import fixed_batches
from condenser_jax.data.hashing import uniform
from condenser_jax.data.masking import TOKENS
from condenser_jax.data.rows import NumpyBatch
from condenser_jax.data.tokenization import have_the_same_words
from condenser_jax.errors import UserError
from condenser_jax.evaluation.agreement import Agreement
from condenser_jax.evaluation.base import spread
from condenser_jax.feeds.base import Evaluate, Figures
from condenser_jax.feeds.corpus import DataConfig, prepare_corpus, tokenizer_at, train_batches
from condenser_jax.feeds.spans import SpanMaterial, check_mask_rate
from condenser_jax.hf.card import EncoderCard
from condenser_jax.objectives.base import Goal, Objective
from condenser_jax.types import Frozen, Params

log = logging.getLogger("condenser_jax")
NUMBERS = 17  # what a hash is drawn for
WHOLE = "all"  # rows that are encoded at a time


@dataclasses.dataclass(frozen=True)
class DistillationEvaluation:
    """What is measured on held-out spans."""

    spans: int = 512  # on which student and teacher are compared
    examples: int = 3  # of them shown in words at each evaluation
    batch_size: int = 128  # rows at a time; changes no figure


@dataclasses.dataclass(frozen=True)
class DistillationMaterial(SpanMaterial):
    """A prepared corpus whose tokens, not words, are masked."""

    pairs: bool = False

    def batches(self) -> Batches:
        """Spans of which tokens are masked, uniformly."""
        config = self.config
        rows = config.training.batch_size
        return train_batches(self.corpus, config.data, rows, config.seed, False, TOKENS)

    def evaluation(self, objective: Objective, goal: Goal, mesh: Mesh) -> Evaluate:
        """Agreement of student and teacher; examples in words go to the log."""
        del goal
        config = self.config
        batches = self.heldout()
        if not batches:
            raise UserError(
                f"nothing is held out of {config.data.source!r} (data.heldout_share "
                f"{config.data.heldout_share:g}), so nothing can be evaluated; raise it or give "
                "more documents."
            )

        @functools.cache  # made when it is first asked: a dry run places nothing on a device
        def evaluator() -> Evaluate:
            least = config.objective.least_accuracy
            return Agreement(objective.predict, batches, least, mesh, self._show)

        def evaluate(params: Params, frozen: Frozen) -> dict[str, float]:
            return evaluator()(params, frozen)

        return evaluate

    def heldout(self) -> list[NumpyBatch]:
        """Batches of fixed masks, as many spans of each source, with the numbers by which
        replacements are drawn.
        """
        config, found = self.config, []
        data, size = config.data, config.evaluation.batch_size
        for source, (prepared, _) in enumerate(self.corpus.sources):
            spans = prepared.heldout
            chosen = spread(len(spans), -(-config.evaluation.spans // len(self.corpus.sources)))
            if len(spans):
                how = (size, data.max_length, data.mask_rate, config.seed, TOKENS)
                batches = fixed_batches(spans, chosen, self.vocabulary, *how)
                for start, batch in zip(range(0, len(chosen), size), batches, strict=True):
                    rows = np.arange(start, start + size)[:, None]  # of the source's sample
                    slots = np.arange(batch["masked_ids"].shape[1])
                    batch["numbers"] = uniform(NUMBERS, config.seed, source, rows, slots)
                found += batches
        return found

    def _show(self, arrays: Mapping[str, np.ndarray]) -> None:
        for line in examples(arrays, self.tokenizer, self.config.evaluation.examples):
            log.info("%s", line)


def examples(arrays: Mapping[str, np.ndarray], tokenizer: Any, rows: int) -> Iterator[str]:
    """What was put in the place of masked tokens, in words: (original > replacement), and in
    brackets the ratios of teacher and student.

    Args:
      arrays: a batch with "replaced_ids" and, if the student knows them, both ratios.
    """
    for row in range(min(rows, len(arrays["input_ids"]))):
        one = {name: values[row] for name, values in arrays.items()}
        length = int(one["attention_mask"].sum()) - 1  # without [SEP]
        used = np.flatnonzero(one["masked_weights"])
        words, after = [], 1
        for slot in used:
            place = int(one["masked_positions"][slot])
            words += [_words(tokenizer, one["input_ids"][after:place]), _swap(tokenizer, one, slot)]
            after = place + 1
        words.append(_words(tokenizer, one["input_ids"][after:length]))
        yield f"example: {' '.join(filter(None, words))}"


def _swap(tokenizer: Any, one: Mapping[str, np.ndarray], slot: np.integer) -> str:
    names = "masked_ids", "replaced_ids"
    pieces = tokenizer.convert_ids_to_tokens([int(one[name][slot]) for name in names])
    text = " > ".join(pieces)
    if "teacher_ratio" not in one:
        return f"({text})"
    return f"({text} [{one['teacher_ratio'][slot]:.2f} {one['student_ratio'][slot]:.2f}])"


def _words(tokenizer: Any, ids: np.ndarray) -> str:
    tokens = tokenizer.convert_ids_to_tokens(ids.tolist())
    return tokenizer.convert_tokens_to_string(tokens).strip()


@dataclasses.dataclass(frozen=True)
class DistillationFeed:
    """Spans of which tokens are masked, for a student and its teacher."""

    data: type = DataConfig
    evaluation: type = DistillationEvaluation

    def check(self, config: RunConfig) -> None:
        """Raises UserError for an odd mask rate or sample, or for chunks."""
        check_mask_rate(config.data.mask_rate)
        if config.compute.chunk_size != WHOLE:
            raise UserError(
                f"compute.chunk_size is {config.compute.chunk_size!r}, but distillation does not "
                "contrast within the batch; leave it at 'all' and set training.accumulate to save "
                "memory."
            )
        for name, least in (("spans", 1), ("examples", 0)):
            value = getattr(config.evaluation, name)
            if value < least:
                raise UserError(f"evaluation.{name} is {value}; expected at least {least}.")

    def longest(self, config: RunConfig) -> int:
        """Every row is as long."""
        return config.data.max_length

    def tokens_per_step(self, config: RunConfig) -> int:
        """Rows times their length."""
        return config.training.batch_size * config.data.max_length

    def open(self, config: RunConfig) -> DistillationMaterial:
        """Prepares the corpus with the teacher's tokenizer, or finds it prepared."""
        theirs = tokenizer_at(config.objective.teacher)
        ours = config.data.tokenizer or theirs
        if theirs and not have_the_same_words(ours, theirs):
            raise UserError(
                f"data.tokenizer {ours} is not the tokenizer of the teacher "
                f"{config.objective.teacher}: its ids mean other words there; leave "
                "data.tokenizer empty."
            )
        if not ours:
            raise UserError(
                f"objective.teacher {config.objective.teacher} has no tokenizer beside it; give "
                "the one that it was trained with as data.tokenizer."
            )
        return DistillationMaterial(config, prepare_corpus(config.data, config.seed, ours, TOKENS))

    def card(self, config: RunConfig, tokenizer_hash: str) -> EncoderCard:
        """The last CLS, as it is."""
        return EncoderCard(
            query_max_length=config.data.max_length,
            passage_max_length=config.data.max_length,
            tokenizer_hash=tokenizer_hash,
            has_trained_mlm_head=config.objective.trains_mlm_head,
        )

    def describe(self, config: RunConfig) -> Iterator[str]:
        """Nothing that other lines do not say."""
        del config
        yield from ()

    def closing(self, before: Figures, after: Figures) -> Iterator[str]:
        """How far the student came; and whether the tutor is worth its rewards."""
        for figure, name in (
            ("heldout_teacher/auc", "AUC of the student's ratios by the teacher's"),
            ("heldout_teacher/cosine", "cosine of the last hidden states"),
            ("heldout/reward_margin", "reward of the tutor over samples of the teacher's MLM"),
        ):
            if figure in after:
                yield f"{name}: {before[figure]:.3f} before, {after[figure]:.3f} after"


DISTILLATION = DistillationFeed()
