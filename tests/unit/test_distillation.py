"""KD, DistilBERT, TinyBERT, MiniLM and MiniLMv2 against transcriptions of their definitions, row by
row without padding. Float64, values and gradients within 1e-9.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from condenser_jax.errors import UserError
from condenser_jax.losses import distillation
from condenser_jax.models.bert import Backbone
from condenser_jax.models.config import ComputeConfig
from condenser_jax.models.heads import Fit, MlmHead
from condenser_jax.objectives import kd, minilm, tinybert, tutor_kd
from condenser_jax.objectives.tutor_kd_config import TutorKdConfig
from tests.distillation import STUDENT, TEACHER, dropout_of, frozen_teacher, small_batch
from tests.helpers import assert_close, compile_quickly, random_params, worst_difference

WIDE = ComputeConfig(dtype="float64")
METHODS = {  # name: (options, build)
    "kd": (kd.KdConfig(temperature=3.0, kd_weight=0.5), kd.build),
    "distilbert": (kd.DistilBertConfig(cosine_weight=3.0), kd.build),
    "tinybert": (tinybert.TinyBertConfig(hidden_weight=2.0, attention_weight=3.0), tinybert.build),
    "minilm": (minilm.MiniLmConfig(), minilm.build),
    "minilmv2": (minilm.MiniLmV2Config(relation_heads=4, teacher_layer=1), minilm.build_v2),
}
ANOTHER = {  # name: a method that needs no parameters besides
    "kd": "minilm",
    "distilbert": "kd",
    "tinybert": "minilm",
    "minilm": "minilmv2",
    "minilmv2": "minilm",
}


class Row:
    """One text without its padding, as teacher and student read it; L positions, M masked."""

    def __init__(self, params, frozen, batch, number, masked):
        length = int(batch["attention_mask"][number].sum())
        used = batch["masked_weights"][number] > 0
        self.at = batch["masked_positions"][number][used]
        self.labels = batch["masked_ids"][number][used]
        ids = batch["input_ids"][number : number + 1, :length].copy()
        if not masked:
            ids[0, self.at] = self.labels
        self.length, self.params = length, params
        self.theirs = self._read(TEACHER.config, frozen["teacher"], ids)
        self.ours = self._read(STUDENT, params, ids)

    def _read(self, config, params, ids):
        kinds = ("hidden_states", "attention_scores", "queries", "keys", "values")
        last, kept = Backbone(config, WIDE).apply(
            {"params": params["backbone"]}, ids, np.ones_like(ids), collect=kinds
        )
        found = {name: [x[0] for x in kept[name]] for name in kinds} | {"last": last[0]}
        if "mlm_head" in params:
            states, bias = MlmHead(config, WIDE).apply({"params": params["mlm_head"]}, last[0])
            table = params["backbone"]["embeddings"]["word"]["embedding"]
            found["logits"] = ((states @ table.T + bias)[self.at])[:, : config.vocab_size]
        return found

    def fitted(self, states):
        return Fit(STUDENT, WIDE, 12).apply({"params": self.params["fit"]}, states)

    def kl(self, temperature):
        p, q = (jax.nn.softmax(x["logits"] / temperature) for x in (self.theirs, self.ours))
        return temperature**2 * (p * jnp.log(p / q)).sum()

    def relation(self, name, layer, heads):
        """KL of softmax(x x^T / sqrt(width)) of teacher and student, summed over L x heads."""
        wanted, given = (
            jax.nn.softmax(jnp.einsum("lhk,mhk->hlm", x, x) / np.sqrt(x.shape[-1]))
            for x in (
                part[name][at].reshape(self.length, heads, -1)
                for part, at in ((self.theirs, layer), (self.ours, 0))
            )
        )
        return (wanted * jnp.log(wanted / given)).sum()


def definition(name, params, frozen, batch):
    """The loss of the method: sums over rows, divided by what is counted over all of them."""
    rows = [
        Row(params, frozen, batch, number, masked=name in ("kd", "distilbert"))
        for number in range(len(batch["input_ids"]))
    ]
    masked = sum(len(row.at) for row in rows)
    attended = sum(row.length for row in rows)
    if name == "kd":
        return 0.5 * sum(row.kl(3.0) for row in rows) / masked
    if name == "distilbert":
        kl = sum(row.kl(2.0) for row in rows) / masked
        mlm, cosine = 0.0, 0.0
        for row in rows:
            log_q = jax.nn.log_softmax(row.ours["logits"])
            mlm -= log_q[np.arange(len(row.at)), row.labels].sum() / masked
            a, b = row.fitted(row.ours["last"]), row.theirs["last"]
            norms = jnp.linalg.norm(a, axis=-1) * jnp.linalg.norm(b, axis=-1)
            cosine += (1 - (a * b).sum(-1) / norms).sum() / attended
        return 5 * kl + 2 * mlm + 3 * cosine
    if name == "tinybert":
        total = 0.0
        pairs = sum(row.length**2 for row in rows)
        for row in rows:
            for ours, theirs in zip((0, 1), (0, 2), strict=True):
                error = row.fitted(row.ours["hidden_states"][ours])
                error = error - row.theirs["hidden_states"][theirs]
                total += 2 * (error**2).mean(-1).sum() / attended
            error = row.ours["attention_scores"][0] - row.theirs["attention_scores"][1]
            total += 3 * (error**2).mean(0).sum() / pairs
        return total
    if name == "minilm":
        total = 0.0
        for row in rows:
            p, q = (jax.nn.softmax(x["attention_scores"][-1]) for x in (row.theirs, row.ours))
            total += (p * jnp.log(p / q)).sum() + row.relation("values", 1, 2)
        return total / (2 * attended)
    parts = ("queries", "keys", "values")
    return sum(row.relation(part, 0, 4) for row in rows for part in parts) / (4 * attended)


@functools.cache
def found(name):
    """The objective; (value, gradient) of ours, of the definition and of that of ANOTHER; our value
    with dropout.
    """
    options, build = METHODS[name]
    with jax.enable_x64(True):
        objective = build(STUDENT, WIDE, options, TEACHER)
        batch = {name: values[:2] for name, values in small_batch().items()}  # row 1 is padded
        params = random_params(objective, "float64")
        frozen = frozen_teacher(dtype="float64")

        def ours(params, frozen):
            counts = objective.counts(batch)
            return objective.losses(params, frozen, batch, counts, dropout_of(2))["train"].value

        def theirs(params, frozen):
            return definition(name, params, frozen, batch)

        def others(params, frozen):
            return definition(ANOTHER[name], params, frozen, batch)

        def dropped(params, frozen):
            student = dataclasses.replace(STUDENT, hidden_dropout=0.5)
            losses, counts = build(student, WIDE, options, TEACHER).losses, objective.counts(batch)
            return losses(params, frozen, batch, counts, dropout_of(2))["train"].value

        gradients = [*(jax.value_and_grad(loss) for loss in (ours, theirs, others)), dropped]
        run = compile_quickly(lambda *args: [g(*args) for g in gradients], params, frozen)
        return objective, jax.device_get(run(params, frozen))


@pytest.mark.parametrize("name", METHODS)
def test_a_baseline_and_its_gradient_are_those_of_the_definition(name):
    objective, ((value, gradient), (expected, wanted), *_) = found(name)
    assert abs(value - expected) <= 1e-9 * abs(expected)
    assert_close(gradient, wanted, 1e-9)
    for group in objective.groups_of(("train",)):
        assert max(float(np.abs(x).max()) for x in jax.tree.leaves(gradient[group])) > 0


def test_the_weights_of_distilbert_are_those_of_its_public_code():
    options = kd.DistilBertConfig()
    assert (options.kd_weight, options.mlm_weight, options.cosine_weight) == (5, 2, 1)
    assert options.temperature == 2


@pytest.mark.parametrize("name", METHODS)
def test_a_baseline_exports_its_student_and_no_fit(name):
    predicts = ("mlm_head",) if name in ("kd", "distilbert") else ()
    assert found(name)[0].exports == ("backbone", *predicts)


@pytest.mark.parametrize("name", METHODS)
def test_the_student_of_a_baseline_drops_out(name):
    (value, _), *_, dropped = found(name)[1]
    assert abs(dropped - value) > 1e-3 * abs(value)


@pytest.mark.parametrize("name", METHODS)
def test_another_definition_is_another_gradient(name):
    (_, gradient), _, (_, others), _ = found(name)[1]
    assert worst_difference(gradient["backbone"], others["backbone"], floor=1.0)[0] > 0.1


def test_a_student_of_the_teachers_width_needs_no_fit_for_the_cosine():
    twin = dataclasses.replace(STUDENT, hidden_size=12)
    objective = kd.build(twin, ComputeConfig(), kd.DistilBertConfig(), TEACHER)
    assert objective.groups_of(("train",)) == ("backbone", "mlm_head")


def test_a_divergence_has_the_gradient_of_automatic_differentiation():
    rng = np.random.default_rng(0)
    target, logits = rng.standard_normal((2, 3, 7))
    with jax.enable_x64(True):

        def plain(logits):
            p, q = jax.nn.softmax(target / 2), jax.nn.softmax(logits / 2)
            return 4 * (p * jnp.log(p / q)).sum()

        value, gradient = jax.value_and_grad(
            lambda x: distillation.kl_divergence(target, x, 2.0).sum()
        )(logits)
        expected, wanted = jax.value_and_grad(plain)(logits)
        np.testing.assert_allclose(value, expected, rtol=1e-12)
        np.testing.assert_allclose(gradient, wanted, atol=1e-12)


THREE = dataclasses.replace(STUDENT, num_layers=2)
TEACHER_OF_THREE = dataclasses.replace(
    TEACHER, config=dataclasses.replace(TEACHER.config, num_layers=3)
)


@pytest.mark.parametrize(
    ("build", "options", "changes", "message"),
    [
        (
            tutor_kd.build,
            TutorKdConfig(),
            {"num_layers": 2},
            r"2, does not divide the 3 .* 1, 3 \(",
        ),
        (tinybert.build, tinybert.TinyBertConfig(), {"num_layers": 2}, r"layers, 2, does"),
        (
            tutor_kd.build,
            TutorKdConfig(),
            {"num_heads": 4},
            r"has 4 attention heads, the teacher 2: .*num_heads=2 .*or do .*attention_weight=0\.",
        ),
        (minilm.build, minilm.MiniLmConfig(), {"num_heads": 4}, r"teacher 2: .* or use minilmv2"),
        (
            minilm.build_v2,
            minilm.MiniLmV2Config(),
            {},
            r"relation_heads 48 does not divide the widths 16 .* 12 .* use one of 1, 2, 4\.",
        ),
        (minilm.build, minilm.MiniLmConfig(teacher_layer=4), {}, r"teacher_layer is 4; .* 1 to 3"),
        (
            kd.build,
            kd.KdConfig(),
            {"vocab_size": 91},
            r"vocabulary of 91 is not the teacher's of 90",
        ),
    ],
)
def test_a_student_that_its_teacher_cannot_teach_is_refused(build, options, changes, message):
    student = dataclasses.replace(STUDENT, **changes)
    with pytest.raises(UserError, match=message):
        build(student, ComputeConfig(), options, TEACHER_OF_THREE)


def test_where_no_layer_follows_another_any_number_of_them_will_do():
    student = dataclasses.replace(STUDENT, num_layers=2)
    options = TutorKdConfig(hidden_weight=0, attention_weight=0)
    tutor_kd.build(student, ComputeConfig(), options, TEACHER_OF_THREE)


@pytest.mark.parametrize(
    ("config", "options", "message"),
    [
        (TutorKdConfig, {"schedule": "jont"}, "unknown objective.schedule 'jont'; did you mean"),
        (TutorKdConfig, {"sampling": "student"}, "unknown objective.sampling 'student'"),
        (TutorKdConfig, {"reward_baseline": "mean"}, "unknown objective.reward_baseline 'mean'"),
        (TutorKdConfig, {"tutor_init": "rand"}, "unknown objective.tutor_init 'rand'; did you"),
        (TutorKdConfig, {"kl_weight": -1.0}, r"objective.kl_weight is -1.0; expected 0 \(off\)"),
        (TutorKdConfig, {"logit_weight": 0.0}, r"weight is 0: nothing would .*\(usually 25\)\."),
        (
            TutorKdConfig,
            {"logit_weight": 0.0, "modified_logit": False},
            r"logit_weight is 0: nothing would teach the student's head; .*\(usually 1\)\.",
        ),
        (TutorKdConfig, {"maximise_steps": 0}, "objective.maximise_steps is 0; expected at least"),
        (
            TutorKdConfig,
            {"minimise_steps": 2, "schedule": "joint"},
            "minimise_steps is 2, but objective.schedule='joint' runs both phases",
        ),
        (
            TutorKdConfig,
            {"teacher_reward": False, "student_reward": False},
            "teacher_reward and objective.student_reward are off: .*policy_weight=0",
        ),
        (
            TutorKdConfig,
            {"policy_weight": 0.0, "kl_weight": 0.0},
            "policy_weight and objective.kl_weight are 0: the tutor would learn nothing; use",
        ),
        (
            TutorKdConfig,
            {"sampling": "uniform", "tutor_init": "teacher"},
            "tutor_init is 'teacher', but there is no tutor with objective.sampling='uniform'; l",
        ),
        (
            TutorKdConfig,
            {"sampling": "uniform", "kl_weight": 7.0},
            "kl_weight is 7.0, but there is no tutor with .*'uniform'; leave it at 1.0",
        ),
        (
            TutorKdConfig,
            {"sampling": "none", "policy_weight": 0.0},
            "policy_weight is 0.0, but there is no tutor with .*'none'; leave it at 1.0",
        ),
        (
            TutorKdConfig,
            {"policy_weight": 0.0, "reward_baseline": "batch_mean"},
            "reward_baseline is 'batch_mean', but with .*policy_weight=0 no reward .*at 'none'",
        ),
        (
            TutorKdConfig,
            {"policy_weight": 0.0, "teacher_reward": False},
            "teacher_reward is False, but with .*policy_weight=0 no reward .*at True",
        ),
        (
            TutorKdConfig,
            {"sampling": "teacher", "maximise_steps": 4},
            "maximise_steps is 4, but the student's is the only phase where .*; leave it at 1",
        ),
        (
            TutorKdConfig,
            {"policy_weight": 0.0, "minimise_steps": 2},
            "minimise_steps is 2, but the student's is the only phase where .*; leave it at 1",
        ),
        (TutorKdConfig, {"least_accuracy": 2.0}, "objective.least_accuracy is 2.0; expected a sh"),
        (kd.KdConfig, {"temperature": 0.0}, "objective.temperature is 0.0; expected above 0"),
        (kd.KdConfig, {"kd_weight": -1.0}, "objective.kd_weight is -1.0; expected 0 .off. or more"),
        (kd.KdConfig, {"kd_weight": 0.0}, "kd_weight and objective.mlm_weight are 0"),
        (tinybert.TinyBertConfig, {"hidden_weight": 0.0}, "objective.hidden_weight is 0.0; expec"),
        (tinybert.TinyBertConfig, {"attention_weight": -1.0}, "attention_weight is -1.0; expected"),
    ],
)
def test_choices_that_do_not_go_together_are_refused(config, options, message):
    with pytest.raises(UserError, match=message):
        config(**options)


@pytest.mark.parametrize(
    ("options", "cycle"),
    [
        ({}, (("maximise",), ("minimise",))),
        ({"schedule": "joint"}, (("maximise", "minimise"),)),
        ({"maximise_steps": 2, "minimise_steps": 3}, (("maximise",),) * 2 + (("minimise",),) * 3),
        ({"sampling": "teacher"}, (("minimise",),)),
        ({"sampling": "none"}, (("minimise",),)),
        ({"policy_weight": 0.0}, (("minimise",),)),
    ],
)
def test_phases_take_turns_as_configured(options, cycle):
    assert TutorKdConfig(**options).turns.cycle == cycle
