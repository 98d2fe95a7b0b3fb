"""The contract of objectives: no loss moves what its phase does not train; parts add up."""

import jax
import numpy as np
import optax
import pytest

from condenser_jax.errors import UserError
from condenser_jax.methods import METHODS
from condenser_jax.models.config import ComputeConfig
from condenser_jax.models.dropout import Dropout
from condenser_jax.objectives import condenser, mlm
from condenser_jax.objectives.base import (
    Objective,
    Phase,
    Schedule,
    check_accumulation,
    check_steps,
    updates_of,
)
from condenser_jax.objectives.classifier import ClassifierConfig
from condenser_jax.objectives.cocondenser import CoCondenserConfig
from condenser_jax.objectives.condenser import CondenserConfig
from condenser_jax.objectives.kd import DistilBertConfig, KdConfig
from condenser_jax.objectives.minilm import MiniLmConfig, MiniLmV2Config
from condenser_jax.objectives.retriever import RetrieverConfig
from condenser_jax.objectives.sections import SectionsConfig
from condenser_jax.objectives.similarity import SimilarityConfig
from condenser_jax.objectives.tinybert import TinyBertConfig
from condenser_jax.objectives.tutor_kd_config import TutorKdConfig
from condenser_jax.training.state import create_state
from condenser_jax.training.step import dials_of, make_step
from tests.distillation import build_any
from tests.helpers import (
    assert_close,
    compile_quickly,
    masked_batch,
    random_params,
    tiny_backbone,
    worst_difference,
)
from tests.text_batches import batch_of

BACKBONE = tiny_backbone(num_layers=2)
OPTIONS = {  # one row per method, with every phase that it can have
    "mlm": mlm.MlmConfig(),
    "condenser": CondenserConfig(head_layers=1, head_warmup_steps=3),
    "cocondenser": CoCondenserConfig(head_layers=1, head_warmup_steps=3),
    "retriever": RetrieverConfig(tied=False),
    "classifier": ClassifierConfig(task="rte"),
    "similarity": SimilarityConfig(),
    "sections": SectionsConfig(pooling="mean"),
    "tutor_kd": TutorKdConfig(),
    "kd": KdConfig(mlm_weight=1.0),
    "distilbert": DistilBertConfig(),
    "tinybert": TinyBertConfig(),
    "minilm": MiniLmConfig(),
    "minilmv2": MiniLmV2Config(relation_heads=4),
}
LEAKS = {**OPTIONS, "mlm on a frozen backbone": mlm.MlmConfig(frozen_backbone=True)}


def _one_layer() -> Objective:
    """The smallest objective that has dropout and a weighted sum."""
    compute = ComputeConfig(dtype="float64")
    return mlm.build(tiny_backbone(num_layers=1), compute, mlm.MlmConfig())


def _largest_gradients(objective: Objective, frozen, batch) -> dict[str, dict[str, float]]:
    """{phase: {group: largest absolute gradient of the phase's loss by that group}}."""
    dropout = Dropout(np.array([1, 2], np.uint32), np.arange(4, dtype=np.int32))

    def largest(params, frozen, batch):
        def loss(params, phase):
            losses = objective.losses(params, frozen, batch, objective.counts(batch), dropout)
            return losses[phase.name].value

        return {
            phase.name: {
                group: optax.tree.norm(tree, ord=np.inf)
                for group, tree in jax.grad(loss)(params, phase).items()
            }
            for phase in objective.phases
        }

    inputs = random_params(objective), frozen, batch
    return jax.device_get(compile_quickly(largest, *inputs)(*inputs))


def test_every_method_is_tested_here():
    assert OPTIONS.keys() == METHODS.keys()


# That gradients of trained groups are not zero is the negative control: it is the same reading.
@pytest.mark.parametrize("options", LEAKS.values(), ids=LEAKS)
def test_no_loss_leaks_into_groups_that_its_phase_does_not_train(options):
    objective, frozen = build_any(options.name, BACKBONE, ComputeConfig(), options)
    batch = batch_of(options.name, BACKBONE)
    for name, gradients in _largest_gradients(objective, frozen, batch).items():
        for group, largest in gradients.items():
            if group in objective.phase(name).trains:
                assert largest > 0, f"{name} does not reach {group}"
            else:
                assert largest == 0, f"{name} leaks into {group}"


def _toy(*phases: Phase, cycle, prelude=()) -> Objective:
    """An objective of which only phases and schedule are looked at."""
    return Objective(
        init=lambda key, loaded: {},
        counts=lambda batch: {},
        losses=lambda *_: {},
        phases=phases,
        schedule=Schedule(cycle, prelude),
        exports=(),
        predict={},
        accumulates=False,
    )


TUTOR = Phase("maximise", ("tutor",))
STUDENT = Phase("minimise", ("student", "tutor"))


def test_the_prelude_runs_once_and_then_the_cycle_for_ever():
    schedule = Schedule((("a",), ("b", "c")), prelude=((("w",), 2), (("x",), 1)))
    active = [schedule.active(step) for step in range(8)]
    warm, cycle = [("w",), ("w",), ("x",)], [("a",), ("b", "c")]
    assert active == [*warm, *cycle, *cycle, cycle[0]]


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 4, 7, 8, 100])
def test_updates_are_those_that_walking_the_schedule_gives(steps):
    cycle = (("maximise",), ("maximise", "minimise"), ("minimise",))
    objective = _toy(TUTOR, STUDENT, cycle=cycle, prelude=((("maximise",), 3),))
    walked = {"tutor": 0, "student": 0}
    for step in range(steps):
        for group in objective.groups_of(objective.schedule.active(step)):
            walked[group] += 1
    assert updates_of(objective, steps) == walked


def test_groups_that_the_same_phases_train_are_one_player():
    objective = _toy(TUTOR, STUDENT, Phase("other", ("student",)), cycle=(("maximise",),))
    assert objective.players(("maximise", "minimise")) == (("student",), ("tutor",))
    assert objective.players(("minimise",)) == (("student", "tutor"),)
    joint = _toy(Phase("train", ("backbone", "mlm_head")), cycle=(("train",),))
    assert joint.players(("train",)) == (("backbone", "mlm_head"),)


def test_a_condenser_is_one_player_also_after_its_head_was_warmed_up():
    """The norm that the papers clip is that of all gradients."""
    warmed = CondenserConfig(head_layers=1, head_warmup_steps=3)
    objective = condenser.build(tiny_backbone(), ComputeConfig(), warmed)
    assert objective.players(objective.schedule.active(5)) == (
        ("backbone", "condenser_head", "mlm_head"),
    )
    assert objective.players(objective.schedule.active(0)) == (("condenser_head",),)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"early_layer": 2}, r"early_layer 2 is out of range for a backbone of 2 layers; use 0"),
        ({"early_layer": -1}, r"early_layer -1 is out of range"),
        ({"head_layers": 0}, r"head_layers is 0; a head has at least 1 layer"),
        ({"head_warmup_steps": -3}, r"head_warmup_steps is -3; expected 0 \(none\) or more"),
        ({"head_init": "lat"}, r"unknown objective.head_init 'lat'; did you mean 'late'\?"),
        (
            {"head_init": "late", "head_layers": 2},
            r"head_init='late' copies 2 late layers, but there are only 1; use fewer head_layers",
        ),
    ],
)
def test_a_head_that_the_backbone_cannot_feed_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        condenser.build(BACKBONE, ComputeConfig(), CondenserConfig(**options))


def test_accumulation_is_refused_where_the_loss_contrasts_within_the_batch():
    contrastive = _toy(TUTOR, cycle=(("maximise",),))
    check_accumulation(contrastive, 1)
    with pytest.raises(
        UserError, match="training.accumulate is 2, but this objective reads its batch as"
    ):
        check_accumulation(contrastive, 2)


def test_a_run_that_ends_before_a_phase_begins_is_refused():
    in_turn = _toy(TUTOR, STUDENT, cycle=(("maximise",), ("maximise",), ("minimise",)))
    check_steps(in_turn, 3)
    with pytest.raises(
        UserError, match="steps is 2, but the phase 'minimise' begins after 2 steps"
    ):
        check_steps(in_turn, 2)


def test_a_phase_begins_in_the_prelude_or_after_it():
    schedule = Schedule((("a", "b"),), ((("a",), 0), (("c",), 5), (("a", "c"), 2)))
    assert [schedule.begins(name) for name in "abc"] == [5, 7, 0]
    assert [name in schedule.active(schedule.begins(name)) for name in "abc"] == [True] * 3


def test_a_copied_head_is_the_last_late_layers():
    options = CondenserConfig(early_layer=0, head_layers=1, head_init="late")
    objective = condenser.build(BACKBONE, ComputeConfig(), options)
    loaded = random_params(objective)
    head = loaded.pop("condenser_head")
    params = objective.init(jax.random.key(0), loaded)
    last = loaded["backbone"]["layers"]["layer_1"]
    assert worst_difference(params["condenser_head"]["layer_0"], last)[0] == 0
    kept = objective.init(jax.random.key(0), {**loaded, "condenser_head": head})
    assert kept["condenser_head"] is head


def _stepped(objective: Objective, batch, accumulate: int):
    """The parameters after one step of plain gradient descent of rate 1: they show the gradient."""
    groups = objective.phase("train").trains
    optimizers = {group: optax.sgd(1.0) for group in groups}
    step = make_step(objective, optimizers, ("train",), accumulate=accumulate)
    params = random_params(objective, "float64")
    init = {group: params[group] for group in groups}
    state = create_state(objective, optimizers, jax.random.key(0), init)
    given = (state, {}, batch, dials_of(0))
    new, metrics = compile_quickly(step, *given)(*given)
    change = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), params, dict(new.params))
    return change, jax.device_get(metrics)


def test_accumulated_gradients_are_the_gradient_to_1e_9():
    """Rows hold 4, 1, 3 and 3 masked tokens; dropout is on."""
    with jax.enable_x64(True):
        objective, batch = _one_layer(), masked_batch(BACKBONE)
        assert len(set(batch["masked_weights"].sum(1))) > 1
        whole, metrics = _stepped(objective, batch, 1)
        for parts in (2, 4):
            change, summed = _stepped(objective, batch, parts)
            assert_close(change, whole, 1e-9)
            loss = {"train/loss": metrics["train/loss"]}
            assert_close({"train/loss": summed["train/loss"]}, loss, 1e-9)


def test_a_mean_of_micro_batch_means_is_not_the_gradient():
    with jax.enable_x64(True):
        objective, batch = _one_layer(), masked_batch(BACKBONE)
        params, rows = random_params(objective, "float64"), np.arange(4, dtype=np.int32)

        def gradient(params, part, counts, rows):
            def loss(params):
                dropout = Dropout(np.array([1, 2], np.uint32), rows)
                return objective.losses(params, {}, part, counts, dropout)["train"].value

            return jax.grad(loss)(params)

        halves = [
            ({name: values[part] for name, values in batch.items()}, rows[part])
            for part in (slice(0, 2), slice(2, 4))
        ]
        run = compile_quickly(gradient, params, halves[0][0], _count(batch), rows[:2])
        whole = compile_quickly(gradient, params, batch, _count(batch), rows)
        expected = whole(params, batch, _count(batch), rows)
        sums = [run(params, half, _count(batch), part) for half, part in halves]
        means = [run(params, half, _count(half), part) for half, part in halves]
        assert_close(jax.tree.map(np.add, *sums), expected, 1e-9)
        naive = jax.tree.map(lambda a, b: (a + b) / 2, *means)
        assert worst_difference(naive, expected)[0] > 1e-2


def _count(batch) -> dict[str, np.ndarray]:
    return {"masked": batch["masked_weights"].sum()}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_can_be_made_and_differentiated_in_the_form_of_accelerators(method):
    backbone = tiny_backbone(num_layers=4)
    compute = ComputeConfig(dtype="bfloat16", scan_layers=True, remat=True)
    options = OPTIONS[method] if method == "minilmv2" else None
    objective, frozen = build_any(method, backbone, compute, options)
    batch = batch_of(method, backbone)
    dropout = Dropout(np.array([1, 2], np.uint32), np.arange(4, dtype=np.int32))

    def loss(params, frozen):
        losses = objective.losses(params, frozen, batch, objective.counts(batch), dropout)
        return sum(loss.value for loss in losses.values())

    params = jax.eval_shape(lambda key: objective.init(key, {}), jax.random.key(0))
    gradients = jax.eval_shape(jax.grad(loss), params, frozen)
    assert {leaf.dtype for leaf in jax.tree.leaves((params, gradients))} == {np.dtype(np.float32)}
