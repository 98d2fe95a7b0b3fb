"""Tutor-KD (Kim et al., EMNLP 2022): a tutor writes examples that are easy for the teacher and hard
for the student, and the student learns from the teacher on them.

    X'       = X with samples r of the tutor's policy pi at the masked positions M
    ratio    = min(1, p_T(r | X^M) / p_T(x | X^M)) at M, 1 elsewhere; the student predicts it
    maximise: the tutor by the policy gradient of p_T(x | X') - p_T(r | X') + |ratio_T - ratio_S|
    minimise: the student by ratio, hidden states and attention of the teacher on X'; the tutor by
              KL(p_T(. | X^M) || pi), so that it stays plausible

Both phases read the same passes: of the teacher on X^M and X', of the student on X', of the tutor.
A step in which both are active computes each of them once. The public code inverts the attention
mask and averages over padding; here padding is outside of everything.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from condenser_jax.errors import UserError
from condenser_jax.losses import policy
from condenser_jax.losses.cross_entropy import tied_logits
from condenser_jax.losses.distillation import kl_divergence, ratio_cross_entropy
from condenser_jax.models.bert import gather_positions
from condenser_jax.models.config import BackboneConfig, ComputeConfig
from condenser_jax.models.dropout import Dropout, uniforms
from condenser_jax.models.heads import RatioHead, Tutor
from condenser_jax.objectives.base import Loss, Objective
from condenser_jax.objectives.distillation import (
    HIDDEN,
    SCORES,
    Metrics,
    Pair,
    Replacements,
    Teacher,
    check_heads,
    check_layers,
    count_tokens,
    mean,
    predictions,
    replace_masked,
    shares_of,
    text_mask,
)
from condenser_jax.objectives.tutor_kd_config import MAXIMISE, MINIMISE, TutorKdConfig
from condenser_jax.types import Array, Batch, Counts, Frozen, Params, Scalar, Tree

SAMPLING_SITE = 2048  # of the hash that samples are drawn by; no layer has this number


class Played(NamedTuple):
    """What was put in the place of the masked tokens, and what is known of them by then."""

    ids: Array  # B L, X'
    replaced: Array  # B M, r
    teacher: Array  # B M V, the teacher's logits on X^M
    policy: Array | None  # B M V, the tutor's; None without a tutor


class Judged(NamedTuple):
    """What teacher and student make of X'."""

    teacher: Array  # B M V, logits
    teacher_kept: dict[str, Any]  # hidden states and attention scores
    student: Array  # B L D, last states
    student_kept: dict[str, Any]


class Told(NamedTuple):
    """What the student is told of the words put in."""

    loss: Scalar  # L_logit
    reward: Array  # B M, the student's part of the tutor's reward
    metrics: Metrics


class TutorKd:
    """Teacher, student and tutor, as functions of `params` and `frozen`."""

    def __init__(
        self,
        student: BackboneConfig,
        compute: ComputeConfig,
        options: TutorKdConfig,
        teacher: Teacher,
    ) -> None:
        if options.hidden_weight or options.attention_weight:
            check_layers(teacher.config, student)
        if options.attention_weight:
            check_heads(teacher.config, student, "do without: objective.attention_weight=0")
        self.options, self.pair = options, Pair(teacher.config, student, compute)
        self.tutor, self.ratio_head = Tutor(teacher.config, compute), RatioHead(student, compute)
        self.replacements = Replacements(teacher, options.sample_specials)

    def init(self, key: Array, loaded: Params) -> dict[str, Tree]:
        """All groups: as loaded, else fresh."""
        keys = jax.random.split(key, 3)
        params = self.pair.init(keys[0], loaded)
        students = jnp.zeros((1, self.pair.student.config.hidden_size))
        teachers = jnp.zeros((1, self.pair.teacher.config.hidden_size))
        fresh = {
            "ratio_head": lambda: self.ratio_head.init(keys[1], students)["params"],
            "tutor": lambda: self.tutor.init(keys[2], teachers)["params"],
        }
        rest = {
            group: loaded.get(group) or make()
            for group, make in fresh.items()
            if group in self.options.groups
        }
        found = params | rest
        return {group: found[group] for group in self.options.groups}

    def losses(
        self,
        params: Params,
        frozen: Frozen,
        batch: Batch,
        counts: Counts,
        dropout: Dropout | None,
    ) -> dict[str, Loss]:
        """One loss per phase, of shared passes."""
        numbers = None
        if dropout is not None:
            numbers = uniforms(dropout, SAMPLING_SITE, batch["masked_positions"])
        played = self.play(params, frozen, batch, numbers)
        judged = self.judge(params, frozen, batch, played.ids, dropout)
        told = self.tell(params, batch, counts, played, judged)
        minimise = self.minimise(params, batch, counts, played, judged, told)
        if not self.options.samples:
            return {MINIMISE: minimise}
        maximise = self.maximise(batch, counts, played, judged, told)
        if not self.options.maximises:  # rewards are logged nevertheless
            return {MINIMISE: minimise._replace(metrics=maximise.metrics | minimise.metrics)}
        return {MAXIMISE: maximise, MINIMISE: minimise}

    def play(self, params: Params, frozen: Frozen, batch: Batch, numbers: Array | None) -> Played:
        """X': `numbers` [B, M] in [0, 1) decide what is drawn. Without sampling it is X^M."""
        (states, teacher), pi = self.pair.masked_logits(frozen, batch), None
        if self.options.has_tutor:
            terms: Any = self.tutor.apply({"params": params["tutor"]}, states)
            pi = self.replacements.restrict(tied_logits(*terms))
        if not self.options.samples:
            return Played(batch["input_ids"], batch["masked_ids"], teacher, pi)
        assert numbers is not None, "sampling asks for numbers"
        if self.options.sampling == "uniform":
            replaced = self.replacements.at_random(numbers)
        else:
            logits = jax.lax.stop_gradient(teacher if pi is None else pi)
            replaced = self.replacements.of_policy(logits, numbers)
        return Played(replace_masked(batch, replaced), replaced, teacher, pi)

    def judge(
        self, params: Params, frozen: Frozen, batch: Batch, ids: Array, dropout: Dropout | None
    ) -> Judged:
        """Teacher and student read X' = `ids`, each once."""
        states, kept = self.pair.read_teacher(frozen, batch, ids, HIDDEN, SCORES)
        at_slots = gather_positions(states, batch["masked_positions"])
        logits = self.pair.teacher_logits(frozen, at_slots)
        return Judged(
            logits, kept, *self.pair.read_student(params, batch, ids, dropout, HIDDEN, SCORES)
        )

    def minimise(
        self,
        params: Params,
        batch: Batch,
        counts: Counts,
        played: Played,
        judged: Judged,
        told: Told,
    ) -> Loss:
        """The student's loss, with the tutor's KL."""
        options, pair, weights = self.options, self.pair, batch["masked_weights"]
        terms, metrics = {"logit": (options.weight_of_logit, told.loss)}, {**told.metrics}
        if options.hidden_weight:
            states = judged.student_kept[HIDDEN], judged.teacher_kept[HIDDEN]
            hidden = pair.hidden_loss(params, *states, batch, counts)
            terms["hidden"] = (options.hidden_weight, hidden)
        if options.attention_weight:
            scores = judged.student_kept[SCORES], judged.teacher_kept[SCORES]
            terms["attention"] = (
                options.attention_weight,
                pair.attention_loss(*scores, batch, counts),
            )
        if played.policy is not None:
            divergence = kl_divergence(self.replacements.restrict(played.teacher), played.policy)
            metrics["kl"] = mean(divergence, weights)
            if options.kl_weight:
                kl = (divergence * weights).sum() / counts["masked"]
                terms["kl"] = (options.kl_weight, kl)
        value = sum((weight * term for weight, term in terms.values()), jnp.zeros(()))
        shares = {f"{name}_loss": term for name, (_, term) in terms.items() if name != "kl"}
        shares["loss"] = value
        return Loss(value, metrics | shares_of(shares, weights, counts))

    def tell(
        self, params: Params, batch: Batch, counts: Counts, played: Played, judged: Judged
    ) -> Told:
        """The ratios; without the modified logit, the KL of teacher and student on X' over the
        vocabulary, clipped to 1 as a reward.
        """
        weights, slots = batch["masked_weights"], batch["masked_positions"]
        if not self.options.has_ratio:
            logits = self.pair.student.logits(params, gather_positions(judged.student, slots))
            divergence = kl_divergence(judged.teacher, logits)
            loss = (divergence * weights).sum() / counts["masked"]
            return Told(loss, jnp.clip(divergence, 0.0, 1.0), {})
        ratio = self.teacher_ratio(played, batch)
        logits, at_slots = self.ratio_logits(params, judged.student, slots)
        loss = ratio_cross_entropy(
            logits, at_slots, ratio, text_mask(batch), weights, counts["attended"]
        )
        ones = (ratio >= 1.0).astype(ratio.dtype)
        metrics = {"ratio": mean(ratio, weights), "ratio_ones": mean(ones, weights)}
        return Told(loss, jnp.abs(ratio - jax.nn.sigmoid(at_slots)), metrics)

    def teacher_ratio(self, played: Played, batch: Batch) -> Array:
        """ratio_T [B, M] of what stands in the place of the masked tokens."""
        return jnp.exp(policy.log_ratio(played.teacher, played.replaced, batch["masked_ids"]))

    def ratio_logits(self, params: Params, states: Array, slots: Array) -> tuple[Array, Array]:
        """Logits of ratio_S at every position [B, L], and at the masked slots [B, M]."""
        logits: Any = self.ratio_head.apply({"params": params["ratio_head"]}, states)
        return logits, gather_positions(logits[..., None], slots)[..., 0]

    def draw(self, params: Params, frozen: Frozen, batch: Batch) -> dict[str, Array]:
        """What teacher, chance and, if there is one, the tutor put in: ids [B, M] by the numbers of
        the batch [B, M].
        """
        numbers = batch["numbers"]
        found = predictions(self.pair, self.replacements)["draw"](params, frozen, batch)
        if self.options.has_tutor:
            found["tutor"] = self.play(params, frozen, batch, numbers).replaced
        return found

    def agreement(
        self, params: Params, frozen: Frozen, batch: Batch, counts: Counts
    ) -> dict[str, Any]:
        """How student and teacher, without dropout, judge given replacements [B, M]: {"means":
        losses, rewards, cosine} and, if the student knows them, {"ratios": teacher's, student's}.
        Losses are divided by `counts`, so that those of all batches add up; a student that was
        trained on masked text has none here (`own`).
        """
        replaced, weights = batch["replaced_ids"], batch["masked_weights"]
        _, teacher = self.pair.masked_logits(frozen, batch)
        played = Played(replace_masked(batch, replaced), replaced, teacher, None)
        judged = self.judge(params, frozen, batch, played.ids, None)
        told = self.tell(params, batch, counts, played, judged)
        means = self.maximise(batch, counts, played, judged, told).metrics
        if self.options.samples:
            minimise = self.minimise(params, batch, counts, played, judged, told)
            means = minimise.metrics | means
        theirs = judged.teacher_kept[HIDDEN][-1]
        means |= self.pair.cosine_of(params, judged.student, theirs, text_mask(batch))
        found: dict[str, Any] = {"means": means}
        if self.options.has_ratio:
            slots = batch["masked_positions"]
            logits = self.ratio_logits(params, judged.student, slots)[1]
            ours, ratio = jax.nn.sigmoid(logits), self.teacher_ratio(played, batch)
            found["means"]["ratio_error"] = mean(jnp.abs(ratio - ours), weights)
            found["means"]["ratio_error_of_one"] = mean(1.0 - ratio, weights)
            found["ratios"] = ratio, ours
        return found

    def own(self, params: Params, frozen: Frozen, batch: Batch, counts: Counts) -> Metrics:
        """The losses on masked text, of a student that was trained on it."""
        played = self.play(params, frozen, batch, None)
        judged = self.judge(params, frozen, batch, played.ids, None)
        told = self.tell(params, batch, counts, played, judged)
        return self.minimise(params, batch, counts, played, judged, told).metrics

    def maximise(
        self, batch: Batch, counts: Counts, played: Played, judged: Judged, told: Told
    ) -> Loss:
        """The tutor's loss: its samples, weighted by their rewards. Only the policy gets a
        gradient.
        """
        options, weights, original = self.options, batch["masked_weights"], batch["masked_ids"]
        teacher_reward = policy.teacher_reward(judged.teacher, played.replaced, original)
        student_reward = jax.lax.stop_gradient(told.reward)
        reward = options.teacher_reward * teacher_reward + options.student_reward * student_reward
        copies = (played.replaced == original).astype(reward.dtype)
        metrics = {
            "teacher_reward": mean(teacher_reward, weights),
            "student_reward": mean(student_reward, weights),
            "reward": mean(reward, weights),
            "copies": mean(copies, weights),
        }
        if played.policy is None:
            return Loss(jnp.zeros(()), metrics)
        entropy = policy.entropy(jax.lax.stop_gradient(played.policy))
        metrics["entropy"] = mean(entropy, weights)
        if options.baseline:
            reward = reward - options.baseline * ((reward * weights).sum() / counts["masked"])
        masked = counts["masked"]
        loss = policy.policy_loss(played.policy, played.replaced, reward, weights, masked)
        metrics |= shares_of({"loss": loss}, weights, counts)
        return Loss(options.policy_weight * loss, metrics)


def tutor_from(teacher: Tree) -> Tree:
    """The tutor that is the teacher's MLM head: its decoder is a copy of the word table."""
    head, table = teacher["mlm_head"], teacher["backbone"]["embeddings"]["word"]
    wide = jax.tree.map(lambda x: np.asarray(x, np.float32), {**head, "decoder": table})
    if wide["transform"]["kernel"].shape[0] != wide["transform"]["kernel"].shape[1]:
        raise UserError(
            "objective.tutor_init is 'teacher', but the teacher's embeddings are factorised, and a "
            "tutor has no such head; use objective.tutor_init='random'."
        )
    return wide


def build(
    backbone: BackboneConfig, compute: ComputeConfig, options: TutorKdConfig, teacher: Teacher
) -> Objective:
    """The objective `tutor_kd` of a student `backbone`: phases `maximise` and `minimise`."""
    return objective_of(TutorKd(backbone, compute, options, teacher))


def objective_of(model: TutorKd) -> Objective:
    """A model as the loop knows it."""
    options = model.options
    head = "ratio_head" if options.has_ratio else "mlm_head"
    return Objective(
        init=model.init,
        counts=count_tokens,
        losses=model.losses,
        phases=options.phases,
        schedule=options.turns,
        exports=("backbone", head),
        predict=predictions(model.pair, model.replacements)
        | {"draw": model.draw, "agreement": model.agreement}
        | ({} if options.samples else {"own": model.own}),
        accumulates=options.reward_baseline == "none",
        apart=("tutor",),
    )
