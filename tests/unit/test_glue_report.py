"""Tables of a suite: medians and deviations by hand, protocols apart, files for the server."""

import json

import numpy as np
import pytest

from condenser_jax.glue.report import (
    Cell,
    Results,
    as_markdown,
    as_text,
    chosen_rate,
    groups,
    summary,
)
from condenser_jax.glue.submission import submission, write_submission
from condenser_jax.glue.tasks import TASKS

PROTOCOL = {"epochs": 2, "seeds": 3, "learning_rates": [1e-5, 5e-5], "training.batch_size": 32}


def _cell(rate, seed, *scores):
    return Cell(rate, seed, [{"matthews": s, "loss": 1.0, "score": s} for s in scores])


COLA = [
    _cell(1e-5, 0, 0.1, 0.2),
    _cell(1e-5, 1, 0.1, 0.2),
    _cell(1e-5, 2, 0.9, 0.9),
    _cell(5e-5, 0, 0.50, 0.30),
    _cell(5e-5, 1, 0.40, 0.44),
    _cell(5e-5, 2, 0.30, 0.40),
]


def _results(system="one", protocol=PROTOCOL, data="a", tasks=None):
    tasks = tasks or {"cola": COLA}
    return Results(system, protocol, {task: {"train": data} for task in tasks}, tasks)


def test_the_rate_is_chosen_by_the_median_at_the_last_step():
    assert chosen_rate(COLA) == 5e-5  # though a seed of the other rate is the best of all


def test_last_step_and_best_epoch_stand_side_by_side():
    found = summary(COLA, "matthews")
    assert found["last"]["median"] == 0.40 and found["best"]["median"] == 0.44
    assert found["last"]["sd"] == pytest.approx(np.std([0.30, 0.44, 0.40], ddof=1))
    assert summary(COLA[:1], "matthews")["last"]["sd"] is None
    text = as_text([_results()])
    assert "cola  matthews         -     40.0 +- 7.2  44.0 +- 5.0  5e-05" in text
    assert "learning rate chosen on the dev set among 1e-05, 5e-05, for each task" in text
    assert "their mean score. 2 epochs, learning rate" in text
    short = as_text([_results(protocol=PROTOCOL | {"epochs": 1})])
    assert "their mean score. 1 epoch, learning rate" in short
    assert "median over 3 seeds" in text and "training.batch_size: 32" in text


def test_results_of_different_protocols_or_data_never_share_a_table():
    other = _results("two", PROTOCOL | {"training.batch_size": 16})
    found = groups([_results(), other, _results("three"), _results("four", data="b")])
    assert [[one.system for one in group] for group in found] == [
        ["one", "three"],
        ["two"],
        ["four"],
    ]
    markdown = as_markdown([_results(), other, _results("three")])
    assert markdown.count("| task | figure | constant |") == 2
    assert (
        "| task | figure | constant | one: last step | best epoch | rate | three: last step |"
        in markdown
    )


def test_the_mean_needs_every_task():
    rte = [Cell(5e-5, 0, [{"accuracy": 0.6, "loss": 1.0, "score": 0.6}])]
    both = _results("one", tasks={"cola": COLA, "rte": rte})
    lines = as_text([both, _results("two")]).splitlines()
    assert lines[-1].split() == ["mean", "score", "-", "50.0", "52.0", "-", "-", "-"]
    assert lines[-2].split()[:6] == ["rte", "accuracy", "-", "60.0", "60.0", "5e-05"]


def test_what_one_answer_has_stands_in_a_column_where_results_tell_it():
    rte = {"accuracy": 0.6, "constant_accuracy": 0.527, "loss": 1.0, "score": 0.6}
    told = [Cell(5e-5, 0, [rte | {"constant_score": 0.527}])]
    stsb = {"pearson": 0.6, "constant_pearson": 0.0, "score": 0.6, "constant_score": 0.0}
    tasks = {"rte": told, "stsb": [Cell(5e-5, 0, [stsb])]}
    old = _results("old", tasks={"rte": [Cell(5e-5, 0, [{"accuracy": 0.5, "score": 0.5}])]})
    lines = as_text([old, _results("new", tasks=tasks)]).splitlines()
    assert [line.split()[2] for line in lines[-3:]] == ["52.7", "0.0", "26.4"]


def test_json_holds_every_run_and_comes_back():
    results = _results()
    content = json.loads(json.dumps(results.to_json()))
    assert content["tasks"]["cola"]["summary"]["matthews"]["best"]["median"] == 0.44
    assert content["tasks"]["cola"]["chosen_learning_rate"] == 5e-5
    assert as_text([Results.from_json(content)]) == as_text([results])


LOGITS = np.array([[0.1, 0.9, 0.0], [0.2, 0.1, 0.7]])


@pytest.mark.parametrize(
    ("task", "logits", "expected"),
    [
        ("cola", LOGITS[:, :2], ["1", "0"]),
        ("mnli", LOGITS, ["neutral", "contradiction"]),
        ("rte", LOGITS[:, :2], ["not_entailment", "entailment"]),
        ("stsb", np.array([[5.7], [2.1239]]), ["5.000", "2.124"]),
    ],
)
def test_the_server_gets_ids_names_or_scores(task, logits, expected, tmp_path):
    path = write_submission(tmp_path / "new", "File", submission(TASKS[task], logits))
    lines = path.read_text().splitlines()
    assert lines == ["index\tprediction", *(f"{i}\t{value}" for i, value in enumerate(expected))]
    assert path.name == "File.tsv" and len(list(path.parent.iterdir())) == 1
