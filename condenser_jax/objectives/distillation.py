"""What all distillation methods share: a frozen teacher, a student, and the words between them.

The student's encoder is the group `backbone`, for it is what is exported; heads that it needs for
training are groups of their own. The teacher is the frozen group `teacher`: a tree of a backbone
and an MLM head.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from condenser_jax.errors import UserError
from condenser_jax.losses import policy
from condenser_jax.losses.cross_entropy import token_nll
from condenser_jax.losses.distillation import attention_mse, cosine, hidden_mse
from condenser_jax.models.bert import gather_positions
from condenser_jax.models.config import BackboneConfig, ComputeConfig
from condenser_jax.models.dropout import Dropout
from condenser_jax.models.heads import PADDED_LOGIT, Fit
from condenser_jax.objectives.base import Loss, Objective, Phase, Schedule
from condenser_jax.objectives.language_model import LanguageModel
from condenser_jax.types import Array, Batch, Counts, Frozen, Mean, Params, Scalar, Tree

TEACHER = "teacher"
FIT = "fit"  # the group of W_fit
HIDDEN, SCORES = "hidden_states", "attention_scores"
Metrics = dict[str, Mean]


@dataclasses.dataclass(frozen=True)
class DistillationConfig:
    """What every distillation method asks for: a teacher, and where the student starts."""

    teacher: str = ""  # work directory, Hugging Face directory (also an export) or hub id
    least_accuracy: float = 0.2  # of the teacher's MLM on held-out text; under it it is refused
    student_layers: tuple[int, ...] = ()  # of the teacher, from 1, that the student starts from

    def __post_init__(self) -> None:
        if not 0 <= self.least_accuracy <= 1:
            raise UserError(
                f"objective.least_accuracy is {self.least_accuracy}; expected a share, 0 to take "
                "any teacher."
            )

    @property
    def trains_mlm_head(self) -> bool:
        """Whether the student learns to fill masks."""
        return False


@dataclasses.dataclass(frozen=True)
class Teacher:
    """What an objective must know of a teacher besides its weights."""

    config: BackboneConfig
    special_ids: tuple[int, ...] = ()  # of the tokenizer
    absent_ids: tuple[int, ...] = ()  # rows of the word table that are no token of it


class Replacements:
    """What may stand in the place of masked tokens, and how it is drawn."""

    def __init__(self, teacher: Teacher, specials: bool = True) -> None:
        self.padded, self.size = teacher.config.padded_vocab_size, teacher.config.vocab_size
        left_out = [*teacher.absent_ids, *(() if specials else teacher.special_ids)]
        rows = np.arange(self.size, dtype=np.int32)
        self.allowed = np.setdiff1d(rows, np.array(left_out, np.int32))

    def restrict(self, logits: Array) -> Array:
        """Logits [..., V], very low at every token that must not be drawn."""
        if len(self.allowed) == self.size:
            return logits
        is_allowed = np.zeros(self.padded, bool)
        is_allowed[self.allowed] = True
        return jnp.where(is_allowed, logits, PADDED_LOGIT)

    def of_policy(self, logits: Array, numbers: Array) -> Array:
        """Ids int32 [B, M] drawn of logits [B, M, V]; `numbers` [B, M] in [0, 1) decide."""
        return policy.sample(self.restrict(logits), numbers)

    def at_random(self, numbers: Array) -> Array:
        """Ids int32 [B, M], uniform over what is allowed."""
        return policy.uniform_choice(jnp.asarray(self.allowed), numbers)


class Pair:
    """A teacher and a student that read the same tokens, as functions of their parameters."""

    def __init__(self, teacher: BackboneConfig, student: BackboneConfig, compute: ComputeConfig):
        check_vocabulary(teacher, student)
        self.teacher, self.student = (
            LanguageModel(teacher, compute),
            LanguageModel(student, compute),
        )
        self.fit = Fit(student, compute, teacher.hidden_size)

    def init(self, key: Array, loaded: Params) -> dict[str, Tree]:
        """The student, its MLM head and the fit: as loaded, else fresh."""
        keys = jax.random.split(key)
        params = self.student.init(keys[0], loaded)
        states = jnp.zeros((1, self.student.config.hidden_size))
        return params | {FIT: loaded.get(FIT) or self.fit.init(keys[1], states)["params"]}

    def read_teacher(
        self, frozen: Frozen, batch: Batch, ids: Array, *collect: str, queries: Array | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """The teacher on tokens `ids` [B, L]: last states at `queries`, and what is collected."""
        batch = {**batch, "input_ids": ids}
        return self.teacher.encode(frozen[TEACHER], batch, None, queries, collect)

    def read_student(
        self,
        params: Params,
        batch: Batch,
        ids: Array,
        dropout: Dropout | None,
        *collect: str,
        queries: Array | None = None,
    ) -> tuple[Array, dict[str, Any]]:
        """The student on tokens `ids` [B, L]: last states at `queries`, and what is collected."""
        batch = {**batch, "input_ids": ids}
        return self.student.encode(params, batch, dropout, queries, collect)

    def masked_logits(self, frozen: Frozen, batch: Batch) -> tuple[Array, Array]:
        """The teacher on masked text, at the masked tokens: states [B, M, D], logits [B, M, V]."""
        positions = batch["masked_positions"]
        states, _ = self.read_teacher(frozen, batch, batch["input_ids"], queries=positions)
        return states, self.teacher_logits(frozen, states)

    def teacher_logits(self, frozen: Frozen, states: Array) -> Array:
        """Of the teacher's MLM head, given its states [..., D]."""
        return self.teacher.logits(frozen[TEACHER], states)

    def fitted(self, params: Params, states: Array) -> Array:
        """States of the student [..., D] in the width of the teacher's."""
        fitted: Any = self.fit.apply({"params": params[FIT]}, states)
        return fitted

    def cosine_of(self, params: Params, student: Array, teacher: Array, mask: Array) -> Metrics:
        """ "cosine" of last states [B, L, D] over attended positions, where they can be compared:
        through the fit if there is one, else where their widths are equal.
        """
        if FIT in params:
            student = self.fitted(params, student)
        if student.shape != teacher.shape:
            return {}
        return {"cosine": mean(cosine(student, teacher), mask)}

    @property
    def stride(self) -> int:
        """k = N_T / N_S: layer j of the student imitates layer j k of the teacher."""
        return self.teacher.config.num_layers // self.student.config.num_layers

    def hidden_loss(
        self, params: Params, student: tuple, teacher: tuple, batch: Batch, counts: Counts
    ) -> Scalar:
        """Sum over the student's N + 1 hidden states of the mean squared difference to the
        teacher's, through one fit for all.
        """
        pairs = zip(student, teacher[:: self.stride], strict=True)
        mask, attended = text_mask(batch), counts["attended"]
        terms = (hidden_mse(self.fitted(params, s), t, mask, attended) for s, t in pairs)
        return sum(terms, jnp.zeros(()))

    def attention_loss(
        self, student: tuple, teacher: tuple, batch: Batch, counts: Counts
    ) -> Scalar:
        """Sum over the student's layers of the mean squared difference of attention scores."""
        pairs = zip(student, teacher[self.stride - 1 :: self.stride], strict=True)
        mask = text_mask(batch)
        terms = (attention_mse(s, t, mask, counts["pairs"]) for s, t in pairs)
        return sum(terms, jnp.zeros(()))


def build_baseline(
    pair: Pair, groups: tuple[str, ...], loss: Callable[..., Loss], teacher: Teacher
) -> Objective:
    """The objective of a method that has one phase: `loss` is (params, frozen, batch, counts,
    dropout) -> Loss, and trains `groups`.
    """

    def init(key: Array, loaded: Params) -> dict[str, Tree]:
        found = pair.init(key, loaded)
        return {group: found[group] for group in groups}

    def losses(params, frozen, batch, counts, dropout):
        return {"train": loss(params, frozen, batch, counts, dropout)}

    def own(params, frozen, batch, counts):
        """The losses on the method's own texts, without dropout."""
        return loss(params, frozen, batch, counts, None).metrics

    def agreement(params, frozen, batch, counts):
        """The cosine on texts with replacements."""
        del counts
        ids, mask = replace_masked(batch, batch["replaced_ids"]), text_mask(batch)
        theirs, _ = pair.read_teacher(frozen, batch, ids)
        ours, _ = pair.read_student(params, batch, ids, None)
        return {"means": pair.cosine_of(params, ours, theirs, mask)}

    return Objective(
        init=init,
        counts=count_tokens,
        losses=losses,
        phases=(Phase("train", groups),),
        schedule=Schedule((("train",),)),
        exports=tuple(group for group in groups if group != FIT),
        predict=predictions(pair, Replacements(teacher)) | {"agreement": agreement, "own": own},
    )


def predictions(pair: Pair, replacements: Replacements) -> dict[str, Callable]:
    """What evaluators may ask of any student and its teacher."""

    def draw(params, frozen, batch):
        """{"teacher", "uniform": ids [B, M]} by the numbers of the batch [B, M]."""
        del params
        _, logits = pair.masked_logits(frozen, batch)
        numbers = batch["numbers"]
        return {
            "teacher": replacements.of_policy(logits, numbers),
            "uniform": replacements.at_random(numbers),
        }

    def teacher_masked_lm(params, frozen, batch):
        """Of the teacher's MLM head: negative log likelihood and correctness [B, M]."""
        del params
        _, logits = pair.masked_logits(frozen, batch)
        return token_nll(logits, batch["masked_ids"])

    return {
        "embed": pair.student.embed_text,
        "cls_scores": pair.student.cls_scores,
        "draw": draw,
        "teacher_masked_lm": teacher_masked_lm,
    }


def mean(values: Array, weights: Array) -> Mean:
    """The mean of values [B, M] (or [B, L]) over used slots (or attended positions)."""
    return Mean((values * weights).sum(), weights.sum())


def shares_of(terms: dict[str, Scalar], weights: Array, counts: Counts) -> dict[str, Mean]:
    """Terms that are divided by the counts of the global batch already, as metrics: summed over
    micro-batches, total / count is the term of the whole batch.

    `weights` [B, M] are those of the masked slots of these rows.
    """
    return {name: Mean(term * counts["masked"], weights.sum()) for name, term in terms.items()}


def text_mask(batch: Batch) -> Array:
    """The attention mask [B, L] as weights: a row that attends to a lone CLS, which only fills up a
    batch, has none.
    """
    mask = batch["attention_mask"]
    return mask * (mask.sum(-1, keepdims=True) > 1)


def count_tokens(batch: Batch) -> Counts:
    """Of the global batch: masked tokens, attended positions of texts, and pairs of these in one
    row.
    """
    lengths = text_mask(batch).sum(-1).astype(jnp.float32)
    return {
        "masked": jnp.maximum(batch["masked_weights"].sum(), 1.0),
        "attended": jnp.maximum(lengths.sum(), 1.0),
        "pairs": jnp.maximum((lengths * lengths).sum(), 1.0),
    }


def original_ids(batch: Batch) -> Array:
    """The tokens before masking, int32 [B, L]."""
    return replace_masked(batch, batch["masked_ids"])


def replace_masked(batch: Batch, ids: Array) -> Array:
    """The tokens with `ids` [B, M] at the masked slots.

    An unused slot points at position 0: it writes back what stands there.
    """
    tokens, positions = batch["input_ids"], batch["masked_positions"]
    there = gather_positions(tokens[..., None], positions)[..., 0]
    ids = jnp.where(batch["masked_weights"] > 0, ids, there)
    return jax.vmap(lambda row, at, new: row.at[at].set(new))(tokens, positions, ids)


def check_weights(options: DistillationConfig, *names: str) -> None:
    """Raises UserError for a negative weight of a loss; None stands for the usual one."""
    for name in names:
        weight = getattr(options, name)
        if weight is not None and weight < 0:
            raise UserError(f"objective.{name} is {weight}; expected 0 (off) or more.")


def check_vocabulary(teacher: BackboneConfig, student: BackboneConfig) -> None:
    """Raises UserError unless both read the same ids."""
    if teacher.vocab_size != student.vocab_size:
        raise UserError(
            f"the student's vocabulary of {student.vocab_size} is not the teacher's of "
            f"{teacher.vocab_size}; a student reads what its teacher reads: leave data.tokenizer "
            "empty, and choose a student with the teacher's tokenizer."
        )


def check_layers(teacher: BackboneConfig, student: BackboneConfig) -> None:
    """Raises UserError unless each of the student's layers has one of the teacher's to follow."""
    layers = teacher.num_layers
    if layers % student.num_layers:
        fits = [n for n in range(1, layers + 1) if layers % n == 0]
        raise UserError(
            f"the student's number of layers, {student.num_layers}, does not divide the {layers} "
            f"of the teacher; use one of {', '.join(map(str, fits))} (model.num_layers, or as many "
            "objective.student_layers)."
        )


def check_heads(teacher: BackboneConfig, student: BackboneConfig, remedy: str) -> None:
    """Raises UserError unless attention can be compared head by head."""
    if teacher.num_heads != student.num_heads:
        raise UserError(
            f"the student has {student.num_heads} attention heads, the teacher "
            f"{teacher.num_heads}: they cannot be compared head by head; set --config.model."
            f"num_heads={teacher.num_heads} (of a student that starts from scratch), or {remedy}."
        )
