"""benchmarks/distillation.py compares students of one size at equal updates, and says what it
found without a rounding too much.
"""

import argparse
import dataclasses
import itertools
import json
import sys
import types

import numpy as np
import pytest

from condenser_jax import environment
from condenser_jax.errors import UserError
from condenser_jax.glue.report import Cell, Results
from condenser_jax.models.config import BackboneConfig
from condenser_jax.pipeline.steps import Step
from tests.helpers import benchmark_module

REFERENCES = ("teacher", "random start")
TEACHER = BackboneConfig(vocab_size=8192, hidden_size=192, num_layers=2, num_heads=4)


@pytest.fixture(scope="module")
def arms():
    return benchmark_module("distillation_arms")


@pytest.fixture(scope="module")
def report():
    return benchmark_module("distillation_report")


@pytest.fixture(scope="module")
def probes():
    return benchmark_module("distillation_probes")


def args(**values):
    """The flags that configurations are made of."""
    usual = {"methods": "", "row": [], "size": "small", "smoke": False, "source": "docstrings:"}
    usual |= {"length": 64, "least_accuracy": 0.1, "teacher": "", "teacher_steps": 0}
    usual |= {"steps": 0, "batch": 0, "spans": 0, "learning_rate": 0.0, "side_by_side": False}
    usual |= {"width": 0}
    return types.SimpleNamespace(**usual | values)


def test_experiments_of_another_size_teacher_text_choice_or_length_have_sections_of_their_own(
    report,
):
    choices = {
        "size": ("small", "large"),
        "teacher": ("", "bert"),
        "source": ("docstrings:", "text:my/x.txt"),
        "methods": ("", "kd"),
        "steps": (0, 8000),
    }
    asked = [
        args(**dict(zip(choices, one, strict=True))) for one in itertools.product(*choices.values())
    ]
    names, titles = zip(*map(report.section_of, asked), strict=True)
    assert len(set(names)) == len(set(titles)) == 32
    assert report.section_of(args(source="docstrings:jax")) == report.section_of(args())


def test_students_differ_in_their_objective_and_nothing_else(arms):
    configs = {
        name: arms.student_config(args(), arm, 1, TEACHER) for name, arm in arms.ARMS.items()
    }
    joint = configs["joint"]
    for name, config in configs.items():
        if name != "separate":
            assert dataclasses.replace(config, objective=joint.objective) == joint, name
    objectives = [repr(config.objective) for config in configs.values()]
    assert len(set(objectives)) == len(objectives)


@pytest.mark.parametrize(("asked", "width"), [(0, 96), (48, 48)])
def test_students_are_half_as_wide_as_their_teacher_unless_asked(arms, asked, width):
    model = arms.student_config(args(width=asked), arms.ARMS["kd"], 0, TEACHER).model
    assert (model.hidden_size, model.intermediate_size) == (width, 4 * width)


def test_where_phases_take_turns_the_student_has_as_many_updates(arms):
    steps = {
        name: arms.student_config(args(), arms.ARMS[name], 0, TEACHER).training.steps
        for name in ("separate", "joint", "kl-alone", "kd")
    }
    assert steps == {"separate": 4000, "joint": 2000, "kl-alone": 2000, "kd": 2000}


@pytest.mark.parametrize(("tutor", "student", "steps"), [(3, 1, 8000), (1, 3, 2667), (3, 2, 5000)])
def test_whatever_the_turns_the_student_has_as_many_updates(arms, tutor, student, steps):
    row = f'x={{"schedule": "separate", "maximise_steps": {tutor}, "minimise_steps": {student}}}'
    arm = arms.chosen_arms(args(methods="kd", row=[row]))["x"]
    config = arms.student_config(args(), arm, 0, TEACHER)
    assert config.training.steps == steps
    cycle = ["tutor"] * tutor + ["student"] * student
    assert sum(cycle[step % len(cycle)] == "student" for step in range(steps)) == 2000


def test_turns_without_the_student_are_refused(arms):
    row = 'x={"schedule": "separate", "minimise_steps": 0}'
    arm = arms.chosen_arms(args(methods="kd", row=[row]))["x"]
    with pytest.raises(UserError, match="objective.minimise_steps is 0; expected at least 1"):
        arms.student_config(args(), arm, 0, TEACHER)


def test_teacher_and_students_hold_the_same_texts_out(arms):
    for seed in (0, 1):
        teacher = arms.teacher_config(args(), seed)
        student = arms.student_config(args(), arms.ARMS["joint"], seed, TEACHER)
        assert (teacher.seed, teacher.data) == (student.seed, student.data)


def test_relation_heads_divide_the_widths_of_both(arms):
    assert arms.relation_heads(96, 192) == 48
    assert arms.relation_heads(16, 32) == 16


def test_methods_and_rows_can_be_chosen(arms):
    chosen = args(methods="kd,joint", row=['weaker ratios={"logit_weight": 5}', 'a={"name": "kd"}'])
    found = arms.chosen_arms(chosen)
    assert list(found) == ["joint", "kd", "weaker-ratios", "a"]
    config = arms.student_config(args(), found["weaker-ratios"], 0, TEACHER)
    assert (config.objective.logit_weight, config.objective.schedule) == (5.0, "joint")
    assert found["a"].method == "kd"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"methods": "kd,tinibert"}, "unknown method 'tinibert'; did you mean 'tinybert'"),
        ({"row": ["weaker ratios"]}, "--row=weaker ratios is no row; expected a title and, as"),
        ({"row": ["a={5}"]}, "--row=a={5} is no row"),
        ({"row": ['a={"learning_rate": "high"}']}, "is 'high'; expected above 0, a number"),
        ({"row": ['a={"learning_rate": true}']}, "is True; expected above 0, a number"),
        ({"row": ['a={"teacher": "x"}']}, "names a teacher; all rows have that of --teacher"),
        ({"row": ["teacher head={}"]}, "cannot be called 'teacher head'; expected a title"),
        ({"row": ["a={}", "a={}"]}, "--row=a={} cannot be called 'a'; expected a title without"),
        ({"row": ["random start={}"]}, "cannot be called 'random start'; expected a title"),
        ({"row": ["joint={}"], "methods": "kd"}, "cannot be called 'joint'; expected a title"),
        ({"row": ["rewards={}"]}, "cannot be called 'rewards'; expected a title"),
        ({"row": ["probe joint={}"]}, "cannot be called 'probe joint'; expected a title"),
        ({"row": ["a/b={}"]}, "cannot be called 'a/b'; expected a title without a slash"),
        ({"row": [" ={}"]}, "cannot be called ' '; expected a title"),
        ({"row": ['a={"name": "smoke"}']}, "unknown method 'smoke'; "),
    ],
)
def test_rows_that_are_none_are_refused(arms, values, message):
    with pytest.raises(UserError, match=message.replace("{", r"\{")):
        arms.chosen_arms(args(**values))


def test_a_row_can_have_a_learning_rate_of_its_own(arms):
    row = 'slower={"name": "kd", "learning_rate": 1e-4}'
    for name, rate in (("slower", 1e-4), ("kd", 5e-3)):
        arm = arms.chosen_arms(args(methods="kd", row=[row]))[name]
        config = arms.student_config(args(learning_rate=5e-3), arm, 0, TEACHER)
        assert config.optimizer.learning_rate == rate and config.objective.name == "kd"


def test_a_key_that_nobody_knows_is_refused(arms):
    row = arms.chosen_arms(args(methods="kd", row=['a={"logit_wait": 5}']))["a"]
    with pytest.raises(UserError, match="unknown key of `objective` 'logit_wait'; did you mean"):
        arms.student_config(args(), row, 0, TEACHER)


@pytest.mark.parametrize(
    ("values", "kind"),
    [({"logit_weight": "a"}, "float"), ({"teacher_reward": 1}, "bool"), ({"sampling": 3}, "str")],
)
def test_a_value_of_another_kind_is_refused(arms, values, kind):
    ((key, value),) = values.items()
    row = arms.chosen_arms(args(methods="kd", row=[f"a={json.dumps(values)}"]))["a"]
    with pytest.raises(UserError, match=f"{key} of a --row is {value!r}; expected {kind}"):
        arms.student_config(args(), row, 0, TEACHER)


@pytest.mark.parametrize(
    ("teacher", "row", "message"),
    [
        ({"num_layers": 3}, "joint", "2, does not divide the 3 of the teacher; use one of 1, 3"),
        (
            {"hidden_size": 36, "num_heads": 4},
            "kd",
            "18 is not divisible by model.num_heads 4",
        ),
    ],
)
def test_a_student_that_its_teacher_cannot_teach_is_refused_before_anything_is_trained(
    arms, teacher, row, message
):
    steps = benchmark_module("distillation_steps")
    for known, is_refused in ((TEACHER, False), (dataclasses.replace(TEACHER, **teacher), True)):
        config = arms.student_config(args(), arms.ARMS[row], 0, known)
        if is_refused:
            with pytest.raises(UserError, match=message):
                steps.check_student(config, steps.Given(known, True))
        else:
            steps.check_student(config, steps.Given(known, True))


@pytest.fixture
def experiment(monkeypatch, tmp_path):
    """(plan, values of flags) -> an experiment of one seed."""
    monkeypatch.setenv(environment.MARKER, "")  # else this process would begin again
    monkeypatch.setattr(sys, "path", [*sys.path])
    module = benchmark_module("distillation")

    def of(plan, **values):
        monkeypatch.setattr(module, "plan_of", lambda *asked: plan)
        asked = args(workdir=tmp_path, seeds=1, part="", **values)
        return module.Experiment(asked, {}, None)

    return of


def test_a_teacher_that_is_too_weak_is_told_with_the_flag_of_this_script(experiment):
    def run(directory, earlier):
        raise UserError("train it longer, or set --config.objective.least_accuracy=0 to take it.")

    weak = Step("kd-seed-0", run, {"config": {"training": {"steps": 1}}})
    plan = benchmark_module("distillation_plan").Plan("kd", {"kd": weak}, {}, None, {})
    with pytest.raises(UserError, match="train it longer, or set --least_accuracy=0 to take it"):
        experiment(plan).run_part("kd-seed-0")


@pytest.mark.parametrize("side_by_side", [False, True])
def test_scores_are_by_row_and_task_whatever_a_part_is(experiment, side_by_side):
    def part(name, facts):
        return Step(f"glue-{name}", lambda *_: facts, {})

    by_row = {row: {"cola": f"cola of {row}", "rte": f"rte of {row}"} for row in ("kd", "joint")}
    by_task = {task: {row: by_row[row][task] for row in by_row} for task in ("cola", "rte")}
    parts = {name: part(name, by) for name, by in (by_task if side_by_side else by_row).items()}
    figures = {"first": {"heldout/teacher_accuracy": 0.3}, "last": {}}
    trained = {"kd": Step("kd", lambda *_: figures, {})}
    probed = {name: Step(f"probe-{name}", lambda *_: {}, {}) for name in ("kd", *REFERENCES)}
    plan = benchmark_module("distillation_plan").Plan("kd", trained, probed, None, parts)
    whole = experiment(plan, side_by_side=side_by_side)
    whole.run_seed(0)
    assert whole.glue == by_row


@pytest.mark.parametrize("split", ["mrpc", "mrpc=train", "qqp=a:b"])
def test_a_choice_of_files_that_is_none_is_refused(split):
    steps = benchmark_module("distillation_steps")
    steps.check_splits(["mrpc=train_full:test"])
    with pytest.raises(UserError, match=f"--split={split} is no choice of files; expected TASK="):
        steps.check_splits([split])


def test_a_probe_finds_what_states_tell_and_nothing_in_noise(probes):
    rng = np.random.default_rng(0)
    ratios, asked = rng.random(600), np.arange(600) % 2 == 1
    states = rng.standard_normal((600, 5))
    assert 0.4 < probes._probe_auc(states, ratios, asked) < 0.6
    states[:, 3] += 8 * (ratios >= 0.5)
    assert probes._probe_auc(states, ratios, asked) > 0.99
    assert np.isnan(probes._probe_auc(states, np.ones(600), asked))


def test_tasks_that_are_not_to_be_had_are_said_before_anything_is_trained(tmp_path):
    steps = benchmark_module("distillation_steps")
    given = args(glue=str(tmp_path), glue_seeds=1, glue_rates=(2e-4,), split=[])
    with pytest.raises(UserError, match="cola"):
        steps.check_tasks(given)
    steps.check_tasks(args(glue="", split=[]))


def test_the_most_frequent_class_is_that_of_the_texts_that_are_trained_on(tmp_path, monkeypatch):
    """Of two files of one's own: three of four pairs to measure are of the class of most others."""
    steps = benchmark_module("distillation_steps")
    (tmp_path / "mrpc").mkdir()
    for split, labels in (("mine", [1, 0, 1]), ("test", [1, 0, 1, 1]), ("train", [0])):
        lines = [{"sentence1": "a b", "sentence2": "b a", "label": label} for label in labels]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / "mrpc" / f"{split}.jsonl").write_text(text)
    monkeypatch.setattr(steps, "TASKS", {"mrpc": steps.Texts(0, 104)})
    asked = args(glue=str(tmp_path), glue_seeds=1, glue_rates=(1e-3,), split=["mrpc=mine:test"])
    f1 = 2 * 3 / (4 + 3)
    assert steps.constant_scores(asked) == {"mrpc": pytest.approx((f1 + 3 / 4) / 2)}


def test_the_first_seed_is_fine_tuned_at_all_rates_and_the_others_at_the_best(
    monkeypatch, tmp_path
):
    steps = benchmark_module("distillation_steps")
    grids = []

    def run_suite(suite, root, system):
        (task,) = suite.grid.names
        grids.append((task, suite.grid.seeds, suite.grid.learning_rates))
        cells = [
            Cell(rate, seed, [{"score": 0.5 + rate - seed / 1e6}])
            for rate in suite.grid.learning_rates
            for seed in range(suite.grid.seeds)
        ]
        return Results(system, {}, {}, {task: cells})

    monkeypatch.setattr(steps, "run_suite", run_suite)
    monkeypatch.setattr(steps, "TASKS", {"rte": steps.Texts(0, 128)})
    monkeypatch.setattr(steps, "_hashes", lambda suite: {})
    monkeypatch.setattr(steps.Students, "_begun", lambda students, run, *of_row: run)
    asked = args(glue="data/glue", glue_seeds=3, glue_rates=(1e-3, 3e-3, 2e-3), split=[])
    students = steps.Students(asked, steps.Given(TEACHER, False), 0, {})
    arm = steps.Arm("", "", options={"schedule": "joint"})
    found = students.fine_tuned("kd", arm, None).run(tmp_path, {})
    assert grids == [("rte", 1, (1e-3, 3e-3, 2e-3)), ("rte", 3, (3e-3,))]
    assert found["rte"]["rate"] == 3e-3
    assert len(found["rte"]["scores"]) == 3


OPTIONS = {"seeds": "2", "pooling": "cls", "glue_rates": "(0.0002, 0.001)", "teacher": ""}
SPLIT = {"split": "['mrpc=train_full:test']"}


@pytest.fixture
def page(arms, report):
    """The lines of a section on three rows, two seeds."""
    rows = {
        "kd": [{"packages": 0.5}, {"packages": 0.7}],
        "joint": [{"packages": 0.4, "heldout_teacher/auc": 0.8}, {"packages": 0.6}],
        "teacher": [{"packages": 0.9}, {"packages": 0.9}],
    }
    rows["joint"][1]["heldout_teacher/auc"] = 0.9
    rewards = {
        name: [dict.fromkeys(report.REWARDS, value)] * 2
        for name, value in (("uniform", 0.1), ("the tutor", 0.2))
    }
    found = {"median": 0.5, "sd": 0.1, "scores": [0.4, 0.6], "rate": 1e-3}
    tasks = dict.fromkeys(report.TASKS, found)
    constant = dict(zip(report.TASKS, (0.0, 0.5, 0.75, 0.55), strict=True))
    figures = report.figures_of(OPTIONS | SPLIT, [0.3, 0.5], rows, rewards, {"kd": tasks}, constant)
    return list(report.section_lines(figures, arms.ARMS, "Students of a size."))


def test_the_section_has_references_first_and_a_dash_where_nothing_was_measured(page):
    rows = [line for line in page if line.startswith("| ")]
    names = [line.split("|")[1].strip() for line in rows[1:7]]
    assert names == ["*references*", "teacher", "*Tutor-KD*", "joint", "*other methods*", "KD"]
    assert rows[4] == "| joint | 0.850 ± 0.071 | - | - | - | - | 0.500 ± 0.141 |"
    assert rows[6] == "| KD | - | - | - | - | - | 0.600 ± 0.141 |"


def test_differences_are_taken_seed_by_seed(page):
    assert "| KD | - | - | +0.100 ± 0.000 |" in page


def test_the_section_ranks_rewards_and_tells_of_tasks(page):
    text = "\n".join(page)
    assert text.index("| the tutor | 0.200 ± 0.000") < text.index("| uniform | 0.100 ± 0.000")
    assert "| KD | 0.500 ± 0.100 | 0.500 ± 0.100 | 0.500 ± 0.100 | 0.500 ± 0.100 | 0.500 |" in text
    assert "median ± standard deviation over 2 seed(s) at the last step, on the dev set (" in text
    assert (
        "MRPC trained on train_full and measured on test). Learning rate 0.0002, 0.001, whichever "
        "is best on those same texts for a row and task with the first seed. "
        "*Most frequent class*: of the training texts, predicted for every text." in text
    )


def test_what_asks_for_no_encoder_stands_first_among_tasks(page):
    first = page.index("| | cola | rte | mrpc | sst2 | mean |") + 2
    assert page[first] == "| most frequent class | 0.000 | 0.500 | 0.750 | 0.550 | 0.450 |"


def test_tasks_of_old_figures_have_no_most_frequent_class(arms, report):
    found = {"median": 0.5, "sd": None, "scores": [0.5], "rate": 1e-3}
    old = {"options": {**OPTIONS, "glue_rates": "(0.001,)"}, "teacher_accuracy": (0.3, None)}
    old |= {"rows": {}, "differences": {}, "rewards": {}}
    figures = report.Figures(**old, glue={"kd": dict.fromkeys(report.TASKS, found)})
    text = "\n".join(report.section_lines(figures, arms.ARMS, ""))
    assert "requent class" not in text and "SST-2 trained on 5000 texts). Learning rate" in text


def test_the_picture_is_drawn_also_where_rows_and_references_lack_a_figure(arms, report, tmp_path):
    rows = {"joint": [{"packages": 0.4}], "teacher": [{}], "kd": [{"ratio probe, teacher": 0.6}]}
    figures = report.figures_of(OPTIONS, [0.3], rows, {}, {})
    benchmark_module("distillation_picture").draw(figures, arms.ARMS, tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_a_figure_that_one_seed_cannot_have_is_a_dash_and_no_failure(arms, report):
    """An AUC of ratios that are all alike is no number, and JSON knows none such."""
    rows = {
        "joint": [{"ratio probe, uniform": np.nan, "packages": 0.4}, {"packages": 0.6}],
        "kd": [{"ratio probe, uniform": 0.7, "packages": 0.5}] * 2,
    }
    figures = report.figures_of(OPTIONS, [0.3, 0.5], rows, {}, {})
    lines = list(report.section_lines(figures, arms.ARMS, ""))
    assert "| joint | - | - | - | - | - | 0.500 ± 0.141 |" in lines
    assert "| KD | - | - | - | - | 0.700 ± 0.000 | 0.500 ± 0.000 |" in lines
    assert "| KD | - | - | +0.000 ± 0.141 |" in lines
    assert "NaN" not in json.dumps(dataclasses.asdict(figures))


@pytest.mark.parametrize(
    ("teacher", "told"), [("", "a split, a teacher and masks"), ("bert", "a split and masks")]
)
def test_seeds_share_a_teacher_that_is_given(arms, report, teacher, told):
    figures = report.figures_of(OPTIONS | {"teacher": teacher}, [0.3], {}, {}, {})
    assert f"each has {told} of its own." in next(report.section_lines(figures, arms.ARMS, ""))


def test_one_seed_has_no_deviation(arms, report):
    assert report.spread([0.5]) == (0.5, None)
    rows = {"kd": [{"packages": 0.5}]}
    figures = report.figures_of(OPTIONS | {"seeds": "1"}, [0.3], rows, {}, {})
    text = "\n".join(report.section_lines(figures, arms.ARMS, ""))
    assert "| KD | - | - | - | - | - | 0.500 |" in text
    assert "One seed. The teacher's MLM names 30.0%" in text and "deviation" not in text


@pytest.mark.parametrize("rates", ["-1e-3", "1e-3,nan", "0", "inf"])
def test_a_rate_of_fine_tuning_that_is_none_is_said_before_anything_is_trained(rates):
    kind = benchmark_module("flag_types")
    with pytest.raises(argparse.ArgumentTypeError, match="is no rate; expected more than 0"):
        kind.listed(kind.rate)(rates)
