"""Tutor-KD against a transcription of its definition: dense, over all positions, one term after the
other. Float64, values and gradients within 1e-9.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from condenser_jax.errors import UserError
from condenser_jax.losses import policy
from condenser_jax.models.bert import Backbone
from condenser_jax.models.config import ComputeConfig
from condenser_jax.models.heads import Fit, MlmHead, RatioHead, Tutor
from condenser_jax.objectives import tutor_kd
from condenser_jax.objectives.distillation import Teacher
from condenser_jax.objectives.tutor_kd_config import TutorKdConfig
from condenser_jax.training.state import create_state
from condenser_jax.training.step import dials_of, make_step
from tests.distillation import STUDENT, TEACHER, dropout_of, frozen_teacher, small_batch
from tests.helpers import (
    SPECIALS,
    assert_close,
    compile_quickly,
    random_params,
    worst_difference,
)

WIDE = ComputeConfig(dtype="float64")
TOLERANCE = 1e-9
OPTIONS = {
    "published": TutorKdConfig(schedule="joint"),
    "teacher's reward": TutorKdConfig(
        reward_baseline="batch_mean",
        sample_specials=False,
        student_reward=False,
        hidden_weight=0,
        policy_weight=3,
        kl_weight=0.25,
    ),
    "student's reward": TutorKdConfig(
        modified_logit=False, teacher_reward=False, attention_weight=0, kl_weight=0
    ),
    "teacher": TutorKdConfig(
        sampling="teacher", logit_weight=5, hidden_weight=2, attention_weight=0.25
    ),
    "uniform": TutorKdConfig(sampling="uniform", hidden_weight=0, attention_weight=0),
    "none": TutorKdConfig(sampling="none"),
}
KINDS = ("hidden_states", "attention_scores")


def as_published(frozen, params, batch, replaced, options, mask, sign=1.0, swapped=False):
    """Both losses as METHODS' transcription has them, from the texts X^M and X'.

    mask: attention mask that all passes and means read. sign: of the rewards. swapped: the teacher
    is asked about X' where it should be about X^M, and the other way round.
    """
    masked, lengths = batch["input_ids"], batch["attention_mask"].sum()
    rows = np.arange(len(masked))[:, None]
    at, used = batch["masked_positions"], batch["masked_weights"] > 0
    original = masked.at[rows, at].set(jnp.where(used, batch["masked_ids"], masked[rows, at]))
    text = masked
    if options.samples:
        text = original.at[rows, at].set(jnp.where(used, replaced, masked[rows, at]))
    in_m = jnp.zeros(masked.shape, bool).at[rows, at].max(used)
    per_m, per_attended = in_m / in_m.sum(), mask / lengths
    vocabulary = STUDENT.vocab_size

    teacher = frozen["teacher"]

    def read(ids):
        backbone = Backbone(TEACHER.config, WIDE)
        last, kept = backbone.apply({"params": teacher["backbone"]}, ids, mask, collect=KINDS)
        head = MlmHead(TEACHER.config, WIDE).apply({"params": teacher["mlm_head"]}, last)
        table = teacher["backbone"]["embeddings"]["word"]["embedding"]
        logits = (head[0] @ table.T + head[1])[..., :vocabulary]
        return last, kept, jax.nn.softmax(logits)

    (last_m, _, p_masked), (_, kept_t, p_text) = read(masked), read(text)
    p_first, p_second = (
        jnp.where(swapped, *pair) for pair in ((p_text, p_masked), (p_masked, p_text))
    )

    def of(p, ids):
        return jnp.take_along_axis(p, ids[..., None], -1)[..., 0]

    last_s, kept_s = Backbone(STUDENT, WIDE).apply(
        {"params": params["backbone"]}, text, mask, collect=KINDS
    )
    hidden = jnp.zeros(mask.shape)
    if options.hidden_weight:
        hidden = sum(
            ((Fit(STUDENT, WIDE, 12).apply({"params": params["fit"]}, s) - t) ** 2).mean(-1)
            for s, t in zip(kept_s["hidden_states"], kept_t["hidden_states"][::2], strict=True)
        )
    both = mask[:, None, :, None] * mask[:, None, None, :]
    squares = (kept_s["attention_scores"][0] - kept_t["attention_scores"][1]) ** 2
    pairs = (batch["attention_mask"].sum(1) ** 2).sum()
    attention = (squares * both).sum() / (pairs * STUDENT.num_heads)
    if options.has_ratio:
        z = RatioHead(STUDENT, WIDE).apply({"params": params["ratio_head"]}, last_s)
        ratio_s = 1 / (1 + jnp.exp(-z))
        quotient = of(p_first, text) / of(p_first, original)
        ratio_t = jnp.where(in_m, jnp.minimum(1, quotient), 1.0)
        entropy = -(ratio_t * jnp.log(ratio_s) + (1 - ratio_t) * jnp.log(1 - ratio_s))
        logit, student_reward = (entropy * per_attended).sum(), jnp.abs(ratio_t - ratio_s)
    else:
        head = MlmHead(STUDENT, WIDE).apply({"params": params["mlm_head"]}, last_s)
        table = params["backbone"]["embeddings"]["word"]["embedding"]
        p_s = jax.nn.softmax((head[0] @ table.T + head[1])[..., :vocabulary])
        divergence = (p_second * jnp.log(p_second / p_s)).sum(-1)
        logit, student_reward = (divergence * per_m).sum(), jnp.clip(divergence, 0, 1)
    usual = 25 if options.has_ratio else 1
    minimise = (usual if options.logit_weight is None else options.logit_weight) * logit
    minimise += options.hidden_weight * (hidden * per_attended).sum()
    minimise += options.attention_weight * attention
    if not options.has_tutor:
        return {"minimise": minimise}
    states, decoder, bias = Tutor(TEACHER.config, WIDE).apply({"params": params["tutor"]}, last_m)
    allowed = np.arange(vocabulary) >= (0 if options.sample_specials else 5)
    pi = jax.nn.softmax(jnp.where(allowed, (states @ decoder.T + bias)[..., :vocabulary], -1e9))
    wanted = jnp.where(allowed, p_masked, 0) / (p_masked * allowed).sum(-1, keepdims=True)
    kl = jnp.where(allowed, wanted * (jnp.log(wanted + 1e-300) - jnp.log(pi + 1e-300)), 0).sum(-1)
    minimise += options.kl_weight * (kl * per_m).sum()
    reward = jnp.zeros(mask.shape)
    if options.teacher_reward:
        reward += of(p_second, original) - of(p_second, text)
    if options.student_reward:
        reward += student_reward
    reward = sign * jax.lax.stop_gradient(reward)
    if options.reward_baseline == "batch_mean":
        reward = reward - (reward * per_m).sum()
    log_pi = jnp.log(jnp.where(in_m, of(pi, text), 1.0))
    maximise = -options.policy_weight * (log_pi * reward * per_m).sum()
    return {"maximise": maximise, "minimise": minimise}


def values_and_gradients(losses):
    """losses: params -> {phase: value}; returns params -> ({phase: value}, {phase: gradient})."""

    def function(params, *rest):
        values, pull_back = jax.vjp(lambda params: losses(params, *rest), params)
        zeros = {phase: jnp.zeros_like(value) for phase, value in values.items()}
        ones = {phase: zeros | {phase: jnp.ones_like(zeros[phase])} for phase in zeros}
        return values, {phase: pull_back(one)[0] for phase, one in ones.items()}

    return function


class Case:
    """Ours and the transcription, for one set of options."""

    def __init__(self, name: str) -> None:
        self.options = OPTIONS[name]
        self.model = tutor_kd.TutorKd(STUDENT, WIDE, self.options, TEACHER)
        self.objective = tutor_kd.build(STUDENT, WIDE, self.options, TEACHER)
        self.params = random_params(self.objective, "float64")
        self.frozen = frozen_teacher(dtype="float64")
        self.batch = jax.tree.map(jnp.asarray, small_batch())
        counts = self.objective.counts(self.batch)

        def losses(params, frozen):
            return self.objective.losses(params, frozen, self.batch, counts, dropout_of())

        def ours(params, frozen):
            return {phase: loss.value for phase, loss in losses(params, frozen).items()}

        site, slots = tutor_kd.SAMPLING_SITE, self.batch["masked_positions"]
        self.numbers = tutor_kd.uniforms(dropout_of(), site, slots)

        def both(params, frozen):
            played = self.model.play(params, frozen, self.batch, self.numbers)
            copy = params
            if self.options.has_tutor:
                copy = params | {"tutor": tutor_kd.tutor_from(self.frozen["teacher"])}
            copied = self.model.play(copy, frozen, self.batch, self.numbers)
            judged = self.model.judge(params, frozen, self.batch, played.ids, dropout_of())
            metrics = [loss.metrics for loss in losses(params, frozen).values()]
            logged = {name: mean for one in metrics for name, mean in one.items()}
            return *values_and_gradients(ours)(params, frozen), played, copied, judged, logged

        def theirs(params, frozen, replaced, *how):
            return as_published(frozen, params, self.batch, replaced, self.options, *how)

        run = compile_quickly(both, self.params, self.frozen)
        self.values, self.gradients, self.played, self.copied, self.judged, self.logged = run(
            self.params, self.frozen
        )
        self._right = self.played.replaced, self.batch["attention_mask"].astype(float), 1.0, False
        args = (self.params, self.frozen, *self._right)
        self._theirs = compile_quickly(values_and_gradients(theirs), *args)

    def published(self, **changes):
        """(values, gradients) of the transcription; changes: mask, sign, swapped."""
        names = ("replaced", "mask", "sign", "swapped")
        inputs = dict(zip(names, self._right, strict=True)) | changes
        return self._theirs(self.params, self.frozen, *inputs.values())


@functools.cache
def case(name: str) -> Case:
    with jax.enable_x64(True):
        return Case(name)


@pytest.mark.parametrize("name", OPTIONS)
def test_both_losses_and_their_gradients_are_those_of_the_definition(name):
    with jax.enable_x64(True):
        found = case(name)
        values, gradients = found.published()
        assert set(values) == {phase.name for phase in found.objective.phases}
        for phase in values:
            assert abs(found.values[phase] - values[phase]) <= TOLERANCE * abs(values[phase])
            for group, expected in gradients[phase].items():
                if group in found.objective.phase(phase).trains:
                    assert_close(found.gradients[phase][group], expected, TOLERANCE)


def test_the_weights_are_the_published_ones_unless_given():
    options = TutorKdConfig()
    assert (options.policy_weight, options.kl_weight, options.weight_of_logit) == (1, 1, 25)
    assert options.hidden_weight == options.attention_weight == 0.5
    assert TutorKdConfig(modified_logit=False).weight_of_logit == 1  # our choice


def test_what_is_logged_is_what_it_says():
    with jax.enable_x64(True):
        found = case("published")
        played, judged, original = found.played, found.judged, found.batch["masked_ids"]
        logits = played.teacher, played.policy, judged.teacher
        p_masked, pi, p_text = (jax.nn.softmax(x[..., : STUDENT.vocab_size]) for x in logits)
        slots = found.batch["masked_positions"]
        z = found.model.ratio_logits(found.params, judged.student, slots)[1]

        def of(p, ids):
            return jnp.take_along_axis(p, ids[..., None], -1)[..., 0]

        ratio = jnp.minimum(1, of(p_masked, played.replaced) / of(p_masked, original))
        of_teacher = of(p_text, original) - of(p_text, played.replaced)
        of_student = abs(ratio - 1 / (1 + jnp.exp(-z)))
        expected = {
            "ratio": ratio,
            "ratio_ones": ratio == 1,
            "copies": played.replaced == original,
            "teacher_reward": of_teacher,
            "student_reward": of_student,
            "reward": of_teacher + of_student,
            "entropy": -(pi * jnp.log(pi)).sum(-1),
            "kl": (p_masked * jnp.log(p_masked / pi)).sum(-1),
        }
        weights = found.batch["masked_weights"]
        for name, values in expected.items():
            total, count = found.logged[name]
            wanted = (values * weights).sum() / weights.sum()
            np.testing.assert_allclose(total / count, wanted, rtol=1e-9, err_msg=name)


@pytest.mark.parametrize(
    ("wrong", "spoiled"),
    [
        ("mask", [("maximise", "tutor"), ("minimise", "tutor"), ("minimise", "backbone")]),
        ("sign", [("maximise", "tutor")]),
        ("swapped", [("maximise", "tutor"), ("minimise", "backbone")]),
    ],
)
def test_an_inverted_mask_a_swapped_sign_or_swapped_passes_are_noticed(wrong, spoiled):
    with jax.enable_x64(True):
        found = case("published")
        inverted = 1.0 - found.batch["attention_mask"]
        changed = {"mask": inverted, "sign": -1.0, "swapped": True}[wrong]
        _, gradients = found.published(**{wrong: changed})
        for phase, group in spoiled:
            ours, theirs = found.gradients[phase][group], gradients[phase][group]
            assert worst_difference(ours, theirs)[0] > 1e-3, f"{phase}, {group}"


@pytest.mark.parametrize("name", OPTIONS)
def test_no_phase_leaks_into_groups_that_it_does_not_train(name):
    found = case(name)
    for phase in found.objective.phases:
        for group, gradient in found.gradients[phase.name].items():
            largest = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(gradient))
            assert (largest > 0) == (group in phase.trains), f"{phase.name}, {group}: {largest}"


@pytest.mark.parametrize("name", [name for name, options in OPTIONS.items() if options.samples])
def test_what_is_put_in_is_drawn_of_whom_the_options_name(name):
    with jax.enable_x64(True):
        found = case(name)
        options, played = found.options, found.played
        allowed = np.arange(0 if options.sample_specials else SPECIALS, STUDENT.vocab_size)
        logits = {"tutor": played.policy, "teacher": played.teacher}.get(options.sampling)
        if logits is None:
            expected = policy.uniform_choice(jnp.asarray(allowed), found.numbers)
        else:
            is_allowed = np.isin(np.arange(logits.shape[-1]), allowed)
            expected = policy.sample(jnp.where(is_allowed, logits, -1e9), found.numbers)
        np.testing.assert_array_equal(played.replaced, expected)


@pytest.mark.parametrize("sampling", ["tutor", "teacher", "uniform"])
def test_special_tokens_are_put_in_only_where_they_may_be(sampling):
    half = STUDENT.vocab_size // 2
    teacher = Teacher(TEACHER.config, tuple(range(half)))
    numbers = np.random.default_rng(0).random(small_batch()["masked_ids"].shape, np.float32)
    choices = [TutorKdConfig(sampling=sampling, sample_specials=x) for x in (True, False)]
    models = [tutor_kd.TutorKd(STUDENT, ComputeConfig(), options, teacher) for options in choices]
    params = random_params(tutor_kd.build(STUDENT, ComputeConfig(), choices[0], teacher))
    inputs = params, frozen_teacher(), small_batch(), numbers

    def lowest(*inputs):
        return [model.play(*inputs).replaced.min() for model in models]

    among_all, among_words = compile_quickly(lowest, *inputs)(*inputs)
    assert among_all < half <= among_words


@pytest.mark.parametrize("sampling", ["tutor", "teacher", "uniform"])
def test_rows_of_the_word_table_that_are_no_token_are_never_put_in(sampling):
    """Tables are rounded up: 30,528 rows for 30,522 tokens."""
    half = STUDENT.vocab_size // 2
    teacher = Teacher(TEACHER.config, absent_ids=tuple(range(half, STUDENT.vocab_size)))
    numbers = np.random.default_rng(0).random(small_batch()["masked_ids"].shape, np.float32)
    models = [
        tutor_kd.TutorKd(STUDENT, ComputeConfig(), TutorKdConfig(sampling=sampling), known)
        for known in (TEACHER, teacher)
    ]
    objective = tutor_kd.build(STUDENT, ComputeConfig(), models[0].options, TEACHER)
    inputs = random_params(objective), frozen_teacher(), small_batch(), numbers

    def highest(*inputs):
        return [model.play(*inputs).replaced.max() for model in models]

    among_rows, among_tokens = compile_quickly(highest, *inputs)(*inputs)
    assert among_tokens < half <= among_rows


def test_dropout_is_the_students_alone():
    """Of the same words, which teacher and tutor read without it."""
    options, batch, frozen = TutorKdConfig(hidden_weight=0), small_batch(), frozen_teacher()

    def losses(params, rate):
        student = dataclasses.replace(STUDENT, hidden_dropout=rate)
        objective = tutor_kd.build(student, ComputeConfig(), options, TEACHER)
        return objective.losses(params, frozen, batch, objective.counts(batch), dropout_of())

    params = random_params(tutor_kd.build(STUDENT, ComputeConfig(), options, TEACHER))
    run = compile_quickly(lambda params: [losses(params, rate) for rate in (0.0, 0.5)], params)
    without, dropped = jax.device_get(run(params))
    for phase in ("maximise", "minimise"):
        assert abs(without[phase].value - dropped[phase].value) > 1e-3
    for name in ("teacher_reward", "entropy", "copies"):
        same = [found["maximise"].metrics[name].total for found in (without, dropped)]
        np.testing.assert_allclose(*same, rtol=1e-5, err_msg=name)


def test_the_cls_is_never_overwritten_by_an_unused_slot():
    found = case("published")
    assert (found.batch["masked_weights"] == 0).any()
    np.testing.assert_array_equal(found.played.ids[:, 0], 2)
    changed = np.asarray(found.played.ids != found.batch["input_ids"]).nonzero()
    in_m = {
        (row, int(place))
        for row, places in enumerate(np.asarray(found.batch["masked_positions"]))
        for place, weight in zip(places, found.batch["masked_weights"][row], strict=True)
        if weight
    }
    assert set(zip(*map(np.ndarray.tolist, changed), strict=True)) <= in_m


@functools.cache
def stepped(active: tuple[str, ...], name: str = "published", decay: float = 0.0):
    """Parameters before and after a step of gradient descent of rate 1. A weight decay moves all
    that an optimizer takes for trained, also where the gradient is 0.
    """
    with jax.enable_x64(True):
        found = case(name)
        descent = optax.chain(optax.add_decayed_weights(decay), optax.sgd(1.0))
        optimizers = dict.fromkeys(found.params, descent)
        step = make_step(found.objective, optimizers, active)
        state = create_state(found.objective, optimizers, jax.random.key(0), found.params)
        state = state.replace(params=found.params)
        inputs = (state, found.frozen, dict(found.batch), dials_of(0))
        return found.params, compile_quickly(step, *inputs)(*inputs)[0].params


def kept_by(step) -> set[str]:
    """The groups that a step, (before, after), leaves bit-identical."""
    before, after = step
    pairs = {group: map(jax.tree.leaves, (before[group], after[group])) for group in before}
    return {g for g, pair in pairs.items() if all(map(np.array_equal, *pair))}


def test_the_joint_step_takes_the_sum_of_both_gradients():
    changes = []
    for active in (("maximise", "minimise"), ("maximise",), ("minimise",)):
        before, after = stepped(active)
        changes.append(
            jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), before, dict(after))
        )
    joint, maximise, minimise = changes
    assert_close(joint, jax.tree.map(np.add, maximise, minimise), TOLERANCE)
    assert worst_difference(joint["tutor"], minimise["tutor"])[0] > 1e-3


def test_maximise_leaves_the_student_bit_identical():
    assert kept_by(stepped(("maximise",), decay=0.1)) == {"backbone", "fit", "ratio_head"}


def test_minimise_leaves_the_tutor_bit_identical_if_it_has_no_kl():
    assert case("student's reward").options.kl_weight == 0
    assert kept_by(stepped(("minimise",), "student's reward", decay=0.1)) == {"tutor"}
    assert not kept_by(stepped(("minimise",)))


def test_a_tutor_has_no_head_like_that_of_a_factorised_teacher():
    narrow = dataclasses.replace(TEACHER.config, model_type="electra", embedding_size=8)
    teacher = frozen_teacher(Teacher(narrow))["teacher"]
    message = r"tutor_init is 'teacher', but the teacher's embeddings are factorised.*='random'\."
    with pytest.raises(UserError, match=message):
        tutor_kd.tutor_from(teacher)


def test_student_and_tutor_are_players_of_their_own():
    players = case("published").objective.players(("maximise", "minimise"))
    assert players == (("backbone", "fit", "ratio_head"), ("tutor",))
    by_kl_alone = TutorKdConfig(policy_weight=0.0)
    objective = tutor_kd.build(STUDENT, ComputeConfig(), by_kl_alone, TEACHER)
    assert objective.players(("minimise",)) == players


def test_a_tutor_that_starts_from_the_teachers_head_is_its_policy():
    found = case("published")
    size = STUDENT.vocab_size
    teacher, ours, copy = (
        x[..., :size] for x in (found.played.teacher, found.played.policy, found.copied.policy)
    )
    assert_close(copy, teacher, 1e-6)  # the weights that a tutor starts from are float32
    assert worst_difference(ours, teacher)[0] > 1e-2


@pytest.mark.parametrize("options", [{"policy_weight": 0.0}, {"sampling": "uniform"}])
def test_rewards_are_logged_beside_the_students_loss_where_nobody_maximises(options):
    objective = tutor_kd.build(STUDENT, ComputeConfig(), TutorKdConfig(**options), TEACHER)
    batch, params = small_batch(), random_params(objective)
    inputs = params, frozen_teacher(), batch, objective.counts(batch), dropout_of()
    losses = compile_quickly(objective.losses, *inputs)(*inputs)
    assert losses.keys() == {"minimise"}
    loss, metrics = losses["minimise"]
    assert {"reward", "teacher_reward", "student_reward", "copies", "ratio"} <= set(metrics)
    np.testing.assert_allclose(metrics["loss"].total / metrics["loss"].count, loss, rtol=1e-5)
