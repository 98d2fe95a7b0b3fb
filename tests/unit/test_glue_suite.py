"""A suite does each run once, reads back what is finished, and refuses what is another run's."""

import importlib.util
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from absl import flags

from condenser_jax import command, environment, glue_plan, glue_suite
from condenser_jax.errors import Preempted, RunFailed, UserError
from condenser_jax.glue.report import Cell, Results, as_text, groups
from condenser_jax.glue.submission import write_submission
from condenser_jax.glue_plan import configure_suite, protocol_of
from condenser_jax.glue_suite import read_results, run_suite, write_results
from condenser_jax.training.workdir import Workdir, write_json
from configs import glue_suite as file

PAIRS = [
    {"sentence1": "it rains", "sentence2": "it is wet", "label": 0},
    {"sentence1": "it rains", "sentence2": "it is dry", "label": 1},
]


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "glue"
    for task in ("rte", "wnli"):
        for split in ("train", "validation"):
            path = root / task / f"{split}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS * 20))
    return root


@pytest.fixture
def suite(folder):
    """(overrides) -> a suite of two tasks, two rates and two seeds."""

    def make(run=None, **changes):
        values = file.get_config("smoke").to_dict()
        values |= {"tasks": "rte, wnli", "seeds": 2, "epochs": 2, "learning_rates": (1e-3, 1e-2)}
        values["run"]["data"]["source"] = str(folder)
        for section, keys in (run or {}).items():
            values["run"][section] |= keys
        return configure_suite(values | changes)

    return make


@pytest.fixture
def trained(monkeypatch):
    """What was trained, in place of training: the score is the seed, plus a tenth of the epoch. Of
    a start "dropout-0.3" that is the checkpoint's dropout; else it is 0.1.
    """
    places = []

    def train(config, place, began):
        places.append(f"{place.parent.name}/{place.name}")
        workdir = Workdir(place)
        workdir.checkpoints.mkdir(parents=True)
        write_json(workdir.config, glue_suite.dataclasses.asdict(config))
        names = ("hidden_dropout", "attention_dropout")
        given = {name: getattr(config.model, name) for name in names}
        own = float(config.model.init.removeprefix("dropout-") or 0.1)
        rates = {name: own if rate is None else rate for name, rate in given.items()}
        write_json(workdir.facts, {"backbone": rates})
        epoch, rate = config.training.eval_every, config.optimizer.learning_rate
        lines = [{"step": 0, "heldout/score": 9.0, "heldout/accuracy": 9.0}]
        for number in (1, 2):
            score = config.seed + number / 10 + rate
            figures = {"heldout/score": score, "heldout/accuracy": score}
            lines.append({"step": number * epoch, **figures})
            lines.append({"step": number * epoch, "train/loss": 1.0})
        workdir.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))

    monkeypatch.setattr(glue_suite.runs, "train", train)
    return places


def test_every_task_rate_and_seed_is_a_run_done_once(suite, trained, tmp_path, caplog):
    caplog.set_level("INFO")
    results = run_suite(suite(), tmp_path / "runs", "mine")
    assert len(trained) == 8 and trained[0] == "rte/lr0.001-seed0"
    assert [cell.learning_rate for cell in results.tasks["rte"]] == [1e-3, 1e-3, 1e-2, 1e-2]
    scores = [epoch["score"] for epoch in results.tasks["rte"][1].epochs]
    assert scores == pytest.approx([1.101, 1.201])
    assert not list((tmp_path / "runs").rglob("checkpoints"))
    assert "no RTE.tsv for the test server: " in caplog.text
    again = run_suite(suite(), tmp_path / "runs", "mine")
    assert len(trained) == 8 and again == results


def test_weights_go_to_the_devices_once_not_with_every_batch_of_a_test_split(monkeypatch, tmp_path):
    given = []

    class Predicts:
        def __init__(self, logits, mesh): ...

        def place(self, batches):
            return batches

        def __call__(self, params, frozen, placed, total):
            given.extend(jax.tree.leaves(params))
            return np.zeros((total, 2), np.float32)

    objective = SimpleNamespace(predict={"logits": None})
    run = SimpleNamespace(params={"classifier": np.ones(2)}, objective=objective, config=None)
    monkeypatch.setattr(glue_suite, "read_run", lambda place: run)
    monkeypatch.setattr(glue_suite, "Predictor", Predicts)
    material = SimpleNamespace(rows=lambda examples, file: [])
    monkeypatch.setattr(glue_suite, "GLUE", SimpleNamespace(open=lambda config: material))
    glue_suite._predict(tmp_path, {"RTE": ["a text"]}, glue_suite.find_task("rte"))
    assert [leaf.sharding.device_set for leaf in given] == [set(jax.devices())]
    assert (tmp_path / "submission" / "RTE.tsv").is_file()


def test_the_server_gets_the_run_of_the_chosen_rate_that_is_best_at_the_last_step(tmp_path):
    cells = {}
    for name, rate, scores in (
        ("best epoch", 1e-2, (0.95, 0.5)),
        ("last step", 1e-2, (0.3, 0.6)),
        ("other rate", 1e-3, (0.2, 0.9)),
        ("its other seed", 1e-3, (0.2, 0.1)),
    ):
        cells[tmp_path / name] = Cell(rate, 0, [{"score": score} for score in scores])
        write_submission(tmp_path / name / "submission", "RTE", name)
    glue_suite._hand_in(tmp_path, cells)
    assert (tmp_path / "submission" / "RTE.tsv").read_text() == "last step"


def test_a_run_lasts_its_epochs_and_is_measured_and_saved_after_each(suite):
    config = glue_suite.cell_config(suite(epochs=3), "rte", 1e-2, seed=5, rows=70)
    training = config.training  # of 32 texts in a step
    assert (training.steps, training.eval_every, training.save_every) == (9, 3, 3)
    assert (config.objective.task, config.optimizer.learning_rate, config.seed) == ("rte", 1e-2, 5)


def test_more_seeds_are_added_to_those_that_are_done(suite, trained, tmp_path):
    run_suite(suite(tasks="rte"), tmp_path / "runs", "mine")
    run_suite(suite(tasks="rte", seeds=3), tmp_path / "runs", "mine")
    assert trained[4:] == ["rte/lr0.001-seed2", "rte/lr0.01-seed2"]


def test_a_kill_after_a_task_leaves_the_table_of_what_is_done(suite, trained, tmp_path):
    root = tmp_path / "runs"

    def write_and_die(results):
        write_results(root, results, [])
        raise Preempted(1)

    with pytest.raises(Preempted):
        run_suite(suite(), root, "mine", write_and_die)
    assert list(read_results(root).tasks) == ["rte"] and len(trained) == 4
    assert "| rte | accuracy |" in (root / "results.md").read_text()
    seen = []
    whole = run_suite(suite(), root, "mine", lambda results: seen.append(list(results.tasks)))
    assert seen == [["rte"], ["rte", "wnli"]] and whole.data.keys() == whole.tasks.keys()


def test_what_is_wrong_with_a_later_task_is_told_before_the_first_is_trained(
    suite, trained, tmp_path, folder
):
    (folder / "wnli" / "validation.jsonl").unlink()
    with pytest.raises(UserError, match="wnli has no validation.jsonl"):
        run_suite(suite(), tmp_path / "runs", "mine")
    assert not trained


def test_a_run_that_fails_is_told_after_all_others_and_its_task_has_no_line(
    suite, trained, tmp_path, monkeypatch
):
    train = glue_suite.runs.train

    def diverge(config, place, began):
        if (config.objective.task, config.optimizer.learning_rate) == ("rte", 1e-2):
            raise RunFailed("not finite")
        train(config, place, began)

    monkeypatch.setattr(glue_suite.runs, "train", diverge)
    seen = []
    failed = "^failed: rte, learning rate 0.01, seed 0; rte, learning rate 0.01, seed 1 .* Leave"
    for _ in range(2):
        with pytest.raises(RunFailed, match=failed):
            run_suite(suite(), tmp_path / "runs", "mine", lambda found: seen.append([*found.tasks]))
    assert seen == [["wnli"]] * 2 and len(trained) == 6
    results = run_suite(suite(learning_rates=(1e-3,)), tmp_path / "runs", "mine")
    assert list(results.tasks) == ["rte", "wnli"] and len(trained) == 6


@pytest.fixture
def script(monkeypatch):
    """launch/glue.py, whose flags are values: absl's are declared once in a process."""
    monkeypatch.setattr(command, "config_flag", lambda place: SimpleNamespace(value=None))
    for kind in ("DEFINE_string", "DEFINE_multi_string"):
        monkeypatch.setattr(flags, kind, lambda name, value, text: SimpleNamespace(value=value))
    monkeypatch.setattr(environment, "enable_compilation_cache", lambda: None)
    place = Path(glue_suite.__file__).parents[1] / "launch" / "glue.py"
    spec = importlib.util.spec_from_file_location("launched_glue", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_command_writes_its_tables_after_every_task(
    suite, trained, tmp_path, monkeypatch, script
):
    train = glue_suite.runs.train

    def die_in_the_second_task(config, place, began):
        if config.objective.task == "wnli":
            raise Preempted(1)
        train(config, place, began)

    root = tmp_path / "runs"
    monkeypatch.setattr(glue_suite.runs, "train", die_in_the_second_task)
    monkeypatch.setattr(glue_plan, "configure_suite", lambda values: suite())
    script.CONFIG.value, script.WORKDIR.value = file.get_config("smoke"), str(root)
    with pytest.raises(Preempted):
        script.main()
    assert list(read_results(root).tasks) == ["rte"]
    assert "random start: last step" in (root / "results.txt").read_text()
    assert "| rte | accuracy |" in (root / "results.md").read_text()


def test_checkpoints_stay_where_they_are_wanted(suite, trained, tmp_path):
    run_suite(suite(tasks="rte", keep=True), tmp_path / "runs", "mine")
    assert len(list((tmp_path / "runs").rglob("checkpoints"))) == 4


def test_that_finished_runs_have_no_checkpoints_to_keep_is_said(suite, trained, tmp_path, caplog):
    said = "rte, learning rate 0.001, seed 1: finished before without keep=True, so its checkpoints"
    for keep, is_said in ((False, False), (False, False), (True, True)):
        run_suite(suite(tasks="rte", keep=keep), tmp_path / "runs", "mine")
        assert (said in caplog.text) == is_said
    caplog.clear()
    for _ in range(2):
        run_suite(suite(tasks="rte", keep=True), tmp_path / "kept", "mine")
    assert not caplog.records


def test_a_finished_run_of_another_configuration_or_of_other_data_is_refused(
    suite, trained, tmp_path, folder
):
    run_suite(suite(tasks="rte"), tmp_path / "runs", "mine")
    other = suite(tasks="rte", run={"optimizer": {"layer_decay": 0.9}})
    with pytest.raises(UserError, match="another configuration: optimizer.layer_decay 1.0 -> 0.9"):
        run_suite(other, tmp_path / "runs", "mine")
    text = json.dumps(PAIRS[0] | {"sentence1": "it snows"}) + "\n"
    (folder / "rte" / "validation.jsonl").write_text(text)
    with pytest.raises(UserError, match="the data of rte have changed since .* was finished"):
        run_suite(suite(tasks="rte"), tmp_path / "runs", "mine")


@pytest.fixture
def predicted(monkeypatch):
    """Predictions without a model: as many lines as there are texts."""

    def predict(place, tests, task):
        for name, examples in tests.items():
            write_submission(place / "submission", name, "\n" * len(examples))

    monkeypatch.setattr(glue_suite, "_predict", predict)


def test_a_test_split_that_comes_after_a_run_is_told_and_one_that_changes_refused(
    suite, trained, predicted, tmp_path, folder, caplog
):
    def run():
        run_suite(suite(tasks="rte"), tmp_path / "runs", "mine")

    changed = "the test splits of rte have changed since .* finished; restore what was there or"
    test, text = folder / "rte" / "test.jsonl", json.dumps(PAIRS[0]) + "\n"
    run()
    assert "no predictions on them" not in caplog.text
    test.write_text(text)
    run()
    assert "before there were texts for RTE.tsv, and has no predictions on them" in caplog.text
    shutil.rmtree(tmp_path / "runs")
    run()
    test.write_text(text * 2)
    with pytest.raises(UserError, match=changed):
        run()
    test.unlink()  # what was predicted stands
    run()
    assert (tmp_path / "runs" / "submission" / "RTE.tsv").read_text() == "\n"


def test_finished_runs_of_before_test_splits_were_hashed_are_read(
    suite, trained, predicted, tmp_path, folder, caplog
):
    (folder / "rte" / "test.jsonl").write_text(json.dumps(PAIRS[0]) + "\n")
    once = run_suite(suite(tasks="rte"), tmp_path, "mine")
    for cell in tmp_path.rglob("cell.json"):
        content = json.loads(cell.read_text())
        assert content.pop("tests").keys() == {"RTE"}
        cell.write_text(json.dumps(content))
    assert run_suite(suite(tasks="rte"), tmp_path, "mine") == once and len(trained) == 4
    (tmp_path / "rte" / "lr0.001-seed0" / "submission" / "RTE.tsv").unlink()
    assert run_suite(suite(tasks="rte"), tmp_path, "mine") == once
    assert "lr0.001-seed0: finished before there were texts for RTE.tsv" in caplog.text


def test_a_finished_run_that_started_from_other_weights_is_refused(
    suite, trained, tmp_path, monkeypatch
):
    run_suite(suite(tasks="rte"), tmp_path / "runs", "mine")
    monkeypatch.setattr(glue_suite, "weights_identity", lambda init: "another hash")
    with pytest.raises(UserError, match="the weights to start from of rte have changed since"):
        run_suite(suite(tasks="rte"), tmp_path / "runs", "mine")


def test_results_are_written_and_read_beside_others(suite, trained, tmp_path):
    roots = [tmp_path / name for name in ("one", "two")]
    for root in roots:
        write_results(root, run_suite(suite(tasks="rte"), root, root.name), [])
    found = read_results(roots[0])
    assert isinstance(found, Results) and found.system == "one"
    other = read_results(roots[1])
    write_results(roots[1], other, [found])
    table = as_text([other, found])
    assert table.count("task  figure") == 1 and "one: last step" in table
    assert (roots[1] / "results.md").read_text().count("| task | figure |") == 1
    assert (roots[1] / "results.txt").read_text() == table + "\n"
    with pytest.raises(UserError, match="cannot be read as the results of launch/glue.py"):
        read_results(tmp_path)


def test_the_protocol_is_all_but_the_system(suite):
    protocol = protocol_of(suite())
    same = protocol_of(suite(run={"model": {"init": "other", "hidden_size": 64}}, tasks="rte"))
    assert same == protocol
    for section, key, value in (
        ("optimizer", "warmup", 0.2),
        ("training", "batch_size", 64),
        ("training", "patience", 1),
        ("model", "hidden_dropout", 0.5),
        ("model", "attention_dropout", 0.5),
        ("objective", "head_dropout", 0.5),
    ):
        other = protocol_of(suite(run={section: {key: value}}))
        assert {k for k in other if other[k] != protocol[k]} == {f"{section}.{key}"}
    assert protocol_of(suite(run={"data": {"train_limit": 8}})) != protocol
    assert protocol_of(suite(epochs=3)) != protocol


def test_checkpoints_of_another_dropout_have_a_table_of_their_own(suite, trained, tmp_path):
    def found(rate, **given):
        model = {"init": f"dropout-{rate}", "hidden_dropout": None, "attention_dropout": None}
        asked = suite(tasks="rte", run={"model": model | given})
        return run_suite(asked, tmp_path / f"{rate}{given}", f"of {rate}")

    results = [found("0.1"), found("0.0"), found("0.3", hidden_dropout=0.1, attention_dropout=0.1)]
    together = [[one.system for one in group] for group in groups(results)]
    assert together == [["of 0.1", "of 0.3"], ["of 0.0"]]
    assert "model.hidden_dropout: 0.0" in as_text(results)


def test_of_old_results_the_checkpoint_s_dropout_is_not_known(suite, trained, tmp_path):
    new = run_suite(suite(tasks="rte"), tmp_path / "runs", "new")
    old = new._replace(protocol={**new.protocol, "model.hidden_dropout": None})
    places = [tmp_path / name for name in ("one", "two")]
    for place in places:
        place.mkdir()
        write_results(place, old, [])
    table = as_text([new, *map(read_results, places)])
    assert table.count("task  figure") == 3
    assert f"model.hidden_dropout: not told by {places[0] / 'results.json'}" in table


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"tasks": "rte,coal"}, "unknown GLUE task 'coal'; did you mean 'cola'"),
        ({"seeds": 0}, "seeds is 0; expected at least 1."),
        ({"learning_rates": ()}, "learning_rates is empty; expected one rate, or several"),
        (
            {"learning_rates": (1e-3, -1e-3)},
            "an item of learning_rates is -0.001; expected above 0",
        ),
        ({"learning_rates": (0.0,)}, "an item of learning_rates is 0.0; expected above"),
        ({"learning_rates": (float("nan"),)}, "an item of learning_rates is nan; expected"),
        ({"learning_rates": (float("inf"),)}, "an item of learning_rates is inf; expected"),
        ({"learning_rates": ("a",)}, "an item of learning_rates is 'a'; expected"),
        ({"learning_rates": (1e-3, 1e-3)}, r"is \(0.001, 0.001\); expected rates that differ"),
        ({"learning_rates": (1e-3, 1.0000001e-3)}, "differ in their first six digits, which name"),
        ({"sedes": 1}, "unknown configuration key 'sedes'; did you mean 'seeds'"),
        ({"run": {"objective": {"name": "mlm"}}}, "run.objective.name is 'mlm'; tasks need a"),
        (
            {"run": {"optimizer": {"learning_rate": 1e-3}}},
            r"run.optimizer.learning_rate is 0.001, but a suite sets it .*; give learning_rates\.",
        ),
        ({"run": {"training": {"steps": 9}}}, "run.training.steps is 9, .*; give epochs\\."),
        ({"run": {"training": {"eval_every": 9}}}, "run.training.eval_every is 9, .*; give epochs"),
        ({"run": {"training": {"save_every": 9}}}, "run.training.save_every is 9, .*; give epochs"),
        ({"run": {"training": {"keep": 3}}}, "run.training.keep is 3, but .*; give keep=True"),
        ({"run": {"objective": {"task": "cola"}}}, "run.objective.task is 'cola', .*; give tasks"),
    ],
)
def test_what_cannot_be_is_refused(changes, text):
    with pytest.raises(UserError, match=text):
        configure_suite(file.get_config().to_dict() | changes)


def test_all_are_the_nine():
    assert len(configure_suite(file.get_config().to_dict()).grid.names) == 9
