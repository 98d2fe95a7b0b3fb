"""Students that differ in numbers alone train as one program, and none of them is another student
for it.
"""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from condenser_jax.errors import RunFailed, UserError
from condenser_jax.finished import read_run
from condenser_jax.glue_plan import configure_suite
from condenser_jax.glue_suite import run_suite
from condenser_jax.methods import METHODS
from condenser_jax.models.config import BackboneConfig, ComputeConfig
from condenser_jax.run import train
from condenser_jax.training.loop import Loop
from configs import glue_suite
from tests.distillation import (
    STUDENT,
    TEACHER,
    documents,
    dropout_of,
    frozen_teacher,
    saved,
    small_batch,
    small_run,
)
from tests.helpers import (
    assert_close,
    benchmark_module,
    compile_quickly,
    random_params,
    worst_difference,
)
from tests.unit.test_distillation_experiment import args

arms = benchmark_module("distillation_arms")
family_module = benchmark_module("distillation_family")
WIDE = ComputeConfig(dtype="float64")
LARGE = BackboneConfig(vocab_size=8192, hidden_size=192, num_layers=2, num_heads=4)
MEMBERS = {
    "ratios": [
        "joint",
        "no-teacher-reward",
        "no-student-reward",
        "kl-alone",
        "reward-baseline",
        "tutor-from-teacher",
        "teacher-samples",
        "uniform-samples",
        "no-attention-loss",
    ],
    "distributions": ["no-samples", "no-modified-logit"],
    "predictions": ["kd", "distilbert"],
}


def families(**values):
    asked = args(**values)
    rows = {
        name: arms.student_config(asked, arm, 0, LARGE)
        for name, arm in arms.chosen_arms(asked).items()
    }
    leads = {
        name: arms.student_config(asked, arms.ARMS[family.lead], 0, LARGE)
        for name, family in family_module.FAMILIES.items()
    }
    return family_module.families_of(rows, leads)


def test_rows_that_differ_in_told_numbers_are_families():
    assert families() == MEMBERS


@pytest.mark.parametrize(
    ("row", "family"),
    [
        ({"logit_weight": 5}, "ratios"),
        ({"learning_rate": 1e-4}, "ratios"),
        ({"name": "kd", "mlm_weight": 1}, "predictions"),
        ({"kl_weight": 0}, None),
        ({"hidden_weight": 0}, None),
        ({"schedule": "separate"}, None),
        ({"name": "kd", "temperature": 4}, None),
        ({"sample_specials": False}, None),
    ],
)
def test_a_row_of_ones_own_joins_the_family_that_it_is_like(row, family):
    found = families(row=[f"x={json.dumps(row)}"])
    assert [name for name, members in found.items() if "x" in members] == [family] * bool(family)


def test_a_row_without_another_of_its_family_trains_by_itself():
    assert families(methods="separate,kd,joint,tinybert") == {}


def options_of(row):
    arm = arms.ARMS[row]
    return METHODS[arm.method].options(**arm.options)


def objective_of(row):
    return METHODS[arms.ARMS[row].method].build(STUDENT, WIDE, options_of(row), TEACHER)


def gradient_of(objective, params):
    """The function from parameters (and numbers) to the gradient of all that a step trains,
    compiled.
    """
    frozen, batch = frozen_teacher(dtype="float64"), small_batch()
    counts = objective.counts(batch)
    trained = [name for name in objective.groups_of(objective.schedule.cycle[0]) if name in params]

    def total(trained, params):
        losses = objective.losses({**params, **trained}, frozen, batch, counts, dropout_of())
        return sum(loss.value for loss in losses.values())

    def gradient(params):
        return jax.grad(total)({name: params[name] for name in trained}, params)

    return compile_quickly(gradient, params)


class AsFamily:
    """A family in float64."""

    def __init__(self, kind):
        self.family = family_module.FAMILIES[kind]
        lead = objective_of(self.family.lead)
        self.params = random_params(lead, "float64")
        options = options_of(self.family.lead)
        objective = self.family.objective(lead, STUDENT, WIDE, options, TEACHER)
        self._gradient = gradient_of(objective, self._told(self.family.lead))

    def alone(self, row):
        """The gradient that a row has by itself."""
        return gradient_of(objective_of(row), self.params)(self.params)

    def by_numbers_of(self, row):
        """The gradient that the family has by the numbers of a row."""
        return self._gradient(self._told(row))

    def _told(self, row):
        numbers = jax.tree.map(jnp.float64, self.family.numbers_of(options_of(row)))
        return {**self.params, family_module.NUMBERS: numbers}


@functools.cache
def as_family(kind):
    return AsFamily(kind)


QUICK = ("joint", "teacher-samples")  # the others are slow tests


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        pytest.param(kind, name, marks=[] if name in QUICK else pytest.mark.slow)
        for kind, names in MEMBERS.items()
        for name in names
    ],
)
def test_a_family_computes_what_each_of_its_rows_computes(kind, name):
    with jax.enable_x64(True):
        ours, theirs = as_family(kind).alone(name), as_family(kind).by_numbers_of(name)
        for group in ours:
            assert_close(theirs[group], ours[group], 1e-9)


@pytest.mark.parametrize(
    ("kind", "name", "other"),
    [
        ("ratios", "joint", "teacher-samples"),
        pytest.param("distributions", "no-samples", "no-modified-logit", marks=pytest.mark.slow),
        pytest.param("predictions", "kd", "distilbert", marks=pytest.mark.slow),
    ],
)
def test_by_the_numbers_of_another_row_it_computes_another_student(kind, name, other):
    with jax.enable_x64(True):
        ours, theirs = (as_family(kind).by_numbers_of(row)["backbone"] for row in (name, other))
        assert worst_difference(theirs, ours)[0] > 1e-3


@pytest.mark.parametrize("glue", ["", "data/glue"])
def test_long_parts_are_begun_first_and_rows_of_a_family_wait_for_it(glue, monkeypatch):
    plans = benchmark_module("distillation_plan")
    steps = benchmark_module("distillation_steps")
    monkeypatch.setattr(steps, "_hashes", lambda suite: {})
    monkeypatch.setattr(steps, "identity", lambda config: ["docstrings"])
    asked = args(side_by_side=True, methods="separate,joint,kl-alone,kd,distilbert,minilm")
    asked.glue, asked.glue_teacher, asked.glue_seeds = glue, True, 1
    asked.glue_rates, asked.split, asked.pooling = (1e-3,), [], "cls"
    given = steps.Given(LARGE, False)
    plan = plans.plan_of(asked, arms.chosen_arms(asked), given, 0)
    order = [step.name.removesuffix("-seed-0") for step in plan.longest_first()]
    assert order[:5] == ["teacher", "family-ratios", "family-predictions", "separate", "joint"]
    assert len(order) == len(set(order))
    tasks = [name for name in order if name.startswith("glue")]
    assert tasks == ["glue-cola", "glue-rte", "glue-mrpc", "glue-sst2"] * bool(glue)
    assert {step.name for step in plan.taken} == {
        f"{name}-seed-0" for name in ("joint", "kl-alone", "kd", "distilbert")
    }
    assert len(plans.plan_of(asked, arms.chosen_arms(asked), given, 1).fine_tuned) == 0


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    """A tiny teacher's work directory, and the configuration of a tiny student of it."""
    root = documents(tmp_path_factory.mktemp("family"), ["red", "green", "blue", "cyan"])
    teacher = saved(small_run(root, "mlm"), root / "teacher")

    def student(**options):
        told = {"teacher": str(teacher), "least_accuracy": 0.0, "schedule": "joint", **options}
        return small_run(
            root,
            "tutor_kd",
            objective={"name": "tutor_kd", **told},
            model={"hidden_size": 16, "num_layers": 1, "num_heads": 2, "intermediate_size": 32},
            compute={"scan_layers": False},
        )

    return root, student


def at_rate(config, rate):
    optimizer = dataclasses.replace(config.optimizer, learning_rate=rate)
    return dataclasses.replace(config, optimizer=optimizer)


@pytest.mark.slow
def test_side_by_side_a_row_becomes_what_it_becomes_alone(taught, tmp_path):
    root, student = taught
    rows = {
        "joint": student(),
        "tutor-from-teacher": student(tutor_init="teacher"),
        "teacher-samples": at_rate(student(sampling="teacher"), 3e-3),
    }
    together = benchmark_module("distillation_together")
    lead = rows["joint"]
    facts = together.train_family(family_module.FAMILIES["ratios"], rows, lead, tmp_path)
    for name, config in rows.items():
        alone, history = train(config, tmp_path / "alone" / name, 0.0)
        for when in ("first", "last"):
            expected = {key: history[when][key] for key in facts[name][when]}
            assert facts[name][when] == pytest.approx(expected, rel=1e-4, abs=1e-5)
            assert len(expected) == 4
        again, after = train(config, tmp_path / "rows" / name, 0.0)  # goes on: it is at the end
        assert after["last"] == facts[name]["last"]
        ours, theirs = read_run(again.root), read_run(alone.root)
        assert ours.step == theirs.step == 4
        assert_close(ours.params, theirs.params, 1e-3)
    assert facts["joint"]["last"] != facts["teacher-samples"]["last"]


@pytest.mark.slow
def test_a_family_that_was_stopped_goes_on_and_becomes_the_same(taught, tmp_path, monkeypatch):
    _, student = taught
    rows = {"joint": student(), "kl-alone": student(policy_weight=0.0)}
    rows = {
        name: dataclasses.replace(row, training=dataclasses.replace(row.training, save_every=2))
        for name, row in rows.items()
    }
    together = benchmark_module("distillation_together")
    ratios, steps = family_module.FAMILIES["ratios"], []

    class Counted(Loop):
        def _step(self, step, batch):
            steps.append(step)
            super()._step(step, batch)

    monkeypatch.setattr(benchmark_module("side_by_side"), "Loop", Counted)
    whole = together.train_family(ratios, rows, rows["joint"], tmp_path / "whole")
    assert not (tmp_path / "whole" / "checkpoints").exists()

    record = together.record_run

    def stop(config, *of_a_row):
        if config is rows["kl-alone"]:
            raise KeyboardInterrupt
        record(config, *of_a_row)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(together, "record_run", stop)
        together.train_family(ratios, rows, rows["joint"], tmp_path / "parts")
    again = together.train_family(ratios, rows, rows["joint"], tmp_path / "parts")
    assert steps == [0, 1, 2, 3, 0, 1, 2, 3, 2, 3]
    assert again == whole


@pytest.mark.slow
def test_a_member_that_fails_is_named(taught, tmp_path):
    _, student = taught
    rows = {"joint": student(), "wild": at_rate(student(policy_weight=0.0), 1e30)}
    together = benchmark_module("distillation_together")
    with pytest.raises(RunFailed, match="^wild, beside others: the loss or a gradient was not"):
        together.train_family(
            family_module.FAMILIES["ratios"], rows, rows["joint"], tmp_path / "wild"
        )


def test_a_teacher_that_is_too_weak_is_refused_before_a_step(taught, tmp_path, monkeypatch):
    _, student = taught
    rows = {name: student(least_accuracy=0.9) for name in ("one", "two")}
    together = benchmark_module("distillation_together")
    monkeypatch.setattr(together, "train_side_by_side", None)
    with pytest.raises(UserError, match="set --config.objective.least_accuracy=0 to take"):
        together.train_family(family_module.FAMILIES["ratios"], rows, rows["one"], tmp_path / "x")


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    root = tmp_path / "glue" / "rte"
    root.mkdir(parents=True)
    for split, texts in (("train", 48), ("validation", 16)):
        words = rng.choice(["red", "green", "blue", "cyan"], (texts, 6))
        lines = [
            {"sentence1": " ".join(row[:3]), "sentence2": " ".join(row[3:]), "label": int(n)}
            for row, n in zip(words, words[:, 0] == words[:, 3], strict=True)
        ]
        (root / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root.parent


@pytest.mark.slow
def test_fine_tuned_side_by_side_every_score_is_that_of_a_run_by_itself(
    folder, tmp_path, monkeypatch
):
    values = glue_suite.get_config("smoke").to_dict()
    values |= {"tasks": "rte", "seeds": 3, "epochs": 1, "learning_rates": (1e-4, 3e-2)}
    values["run"]["data"] |= {"source": str(folder), "max_length": 16}
    values["run"]["compute"] |= {"scan_layers": False}
    suite = configure_suite(values)
    start = tmp_path / "start"
    one = dataclasses.replace(suite.grid, seeds=1, learning_rates=(1e-4,), keep=True)
    run_suite(suite._replace(grid=one), start, "x")
    trained = dataclasses.replace(
        suite.run.model, init=str(start / "rte" / "lr0.0001-seed0"), hidden_dropout=0.1
    )
    suites = {
        "scratch": suite,
        "trained": suite._replace(run=dataclasses.replace(suite.run, model=trained)),
    }
    together = benchmark_module("glue_together")
    monkeypatch.setattr(together, "AT_ONCE", {})
    found = together.fine_tune_together("rte", suites, tmp_path / "place")
    for name, one in suites.items():
        cells = run_suite(one, tmp_path / name, name).tasks["rte"]
        (rate,) = {cell.learning_rate for cell in found[name]}
        alone = [cell for cell in cells if cell.learning_rate == rate]
        assert [cell.seed for cell in found[name]] == [cell.seed for cell in alone] == [0, 1, 2]
        for mine, theirs in zip(found[name], alone, strict=True):
            assert mine.last == pytest.approx(dict(theirs.last), rel=1e-4)
    monkeypatch.setattr(together, "train_side_by_side", None)
    again = together.fine_tune_together("rte", suites, tmp_path / "place")
    assert again == found, "programs that are done are not run again"
