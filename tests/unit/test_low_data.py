"""Few labels, several seeds: every run is done once, and figures are means with deviations."""

import dataclasses
import json

import pytest

from condenser_jax.errors import UserError
from condenser_jax.methods import configure
from condenser_jax.pipeline import low_data
from condenser_jax.pipeline.low_data import Plan, read_limits, run_plan
from condenser_jax.retrieval.collection import CollectionOptions
from condenser_jax.training.workdir import Workdir


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A run on 12 pairs, of which 4 are measured."""
    monkeypatch.setenv("CONDENSER_JAX_CACHE", str(tmp_path / "cache"))
    lines = [f"{i % 5}\tnumber {i} is one\tthis is {i + 1}\n" for i in range(12)]
    for split, some in (("train", lines), ("dev", lines[:4])):
        (tmp_path / f"{split}.tsv").write_text("score\tsentence1\tsentence2\n" + "".join(some))
    return configure(
        {
            "objective": {"name": "similarity"},
            "data": {"train": str(tmp_path), "vocab_size": 80, "max_length": 16},
            "training": {"steps": 9, "batch_size": 4},
        }
    )


@pytest.fixture
def trained(monkeypatch):
    """What `train` was asked for; it finds a figure of limit, steps and seed."""
    asked = []

    def train(config, path, began):
        asked.append((config.data.train_limit, config.seed, config.training.steps))
        return Workdir(path), {"last": {"heldout/spearman": 0.1 * config.seed}}

    monkeypatch.setattr(low_data, "train", train)
    return asked


def test_every_size_and_seed_is_one_run_done_once(config, trained, tmp_path):
    plan = Plan(limits=(5, 0), seeds=2, epochs=2)
    found = run_plan(config, plan, tmp_path / "runs")
    # 2 epochs of 5 and of 12 rows, in batches of 4.
    assert trained == [(n, seed, s) for n, s in ((5, 4), (0, 6)) for seed in range(2)]
    assert list(found) == ["5 rows", "all rows"]
    expected = {"runs": 2, "spearman": 0.05, "sd spearman": 0.005**0.5}
    assert found["5 rows"] == pytest.approx(expected)
    assert run_plan(config, plan, tmp_path / "runs") == found and len(trained) == 4
    run_plan(config, plan._replace(limits=(5, 7), epochs=0), tmp_path / "runs")
    assert trained[4:6] == [(5, seed, 9) for seed in range(2)]  # `training.steps`
    with open(tmp_path / "train.tsv", "a") as file:
        file.write("1\tone more\tpair\n")
    run_plan(config, plan._replace(seeds=1), tmp_path / "runs")
    assert trained[8:] == [(5, 0, 4), (0, 0, 8)]  # other data: other runs


def test_how_often_is_evaluated_is_of_another_run_only_where_it_decides_its_end(
    config, trained, tmp_path
):
    plan = Plan(limits=(5,), seeds=1, epochs=0)
    for patience, runs in ((0, 1), (2, 3)):
        for every in (5, 10):
            training = dataclasses.replace(config.training, patience=patience, eval_every=every)
            run_plan(dataclasses.replace(config, training=training), plan, tmp_path / "runs")
        assert len(trained) == runs


@pytest.fixture
def measured(monkeypatch):
    """What the tasks of finished runs were asked."""
    asked = []

    def report(options):
        asked.append(options)
        figures = {"systems": {"run": {"figure": 0.7}}}
        return type("Report", (), {"figures": figures})

    for task in ("sts", "retrieval"):
        row = low_data.TASKS[task]._replace(report=report)
        monkeypatch.setitem(low_data.TASKS, task, row)
    return asked


def test_one_run_has_no_deviation_and_may_be_measured_on_a_test(
    config, trained, measured, tmp_path
):
    where, root = str(tmp_path), tmp_path / "runs"
    plan = Plan(limits=(5,), seeds=1, test=where, test_split="dev")
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, split_seed=3))
    expected = {"5 rows": {"runs": 1, "spearman": 0.0, "test figure": 0.7}}
    assert run_plan(config, plan, root) == expected
    (asked,) = measured
    assert (asked.data, asked.split) == (where, "dev")
    assert asked.reading == CollectionOptions(split_seed=3)  # as what was trained on
    (model,) = asked.models
    assert model.startswith(str(root / "5-0-")) and model.endswith("/run")
    assert run_plan(config, plan, root) == expected and len(measured) == 1


def test_a_test_that_comes_later_or_changes_trains_nothing_again(
    config, trained, measured, tmp_path
):
    plan, root = Plan(limits=(5,), seeds=2), tmp_path / "runs"
    run_plan(config, plan, root)
    other = tmp_path / "other.tsv"
    for sentence in ("one", "another", "another"):
        other.write_text(f"score\tsentence1\tsentence2\n1\t{sentence}\ttest\n")
        run_plan(config, plan._replace(test=str(other)), root)
    assert (len(trained), len(measured)) == (2, 4)


def test_a_test_that_cannot_be_read_is_told_before_anything_is_trained(config, trained, tmp_path):
    for where, reason in (
        ("my/typo", "my/typo is neither a file of sentences nor a folder of them"),
        (str(tmp_path), r".* has no split 'test' \(test.tsv\); it has: "),
    ):
        with pytest.raises(UserError, match=f"--test={where} cannot be measured: {reason}"):
            run_plan(config, Plan((5,), 1, test=where), tmp_path / "runs")
    assert not trained and not (tmp_path / "runs").exists()


def test_a_search_of_a_test_has_a_row_for_bm25(trained, measured, tmp_path, monkeypatch):
    monkeypatch.setenv("CONDENSER_JAX_CACHE", str(tmp_path / "cache"))
    topics = ("apple", "pear", "plum", "quince")
    for name, before in (("corpus", "all about the"), ("queries", "what is a")):
        lines = [{"_id": f"{name[0]}{i}", "text": f"{before} {t}"} for i, t in enumerate(topics)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(o) + "\n" for o in lines))
    (tmp_path / "qrels").mkdir()
    for split, places in (("train", (0, 1)), ("dev", (2,)), ("test", (2, 3))):
        lines = "".join(f"q{i}\t0\tc{i}\t1\n" for i in places)
        (tmp_path / "qrels" / f"{split}.tsv").write_text(lines)
    where = f"beir:{tmp_path}"
    values = {"objective": {"name": "retriever"}, "data": {"train": where, "vocab_size": 80}}
    found = run_plan(configure(values), Plan((0,), 1, test=where), tmp_path / "runs")
    assert list(found) == ["all rows", "BM25"] and found["all rows"]["test figure"] == 0.7
    assert found["BM25"]["test MRR@10"] == found["BM25"]["test Recall@100"] == 1.0
    with pytest.raises(UserError, match="cannot be measured: .* has no split 'tests'"):
        run_plan(configure(values), Plan((0,), 1, test=where, test_split="tests"), tmp_path)


def test_a_plan_that_cannot_be_is_refused(config, tmp_path):
    assert read_limits(["500", "0"]) == [500, 0]
    with pytest.raises(UserError, match="--limits=500,half are no numbers of rows; e.g. 500,1000"):
        read_limits(["500", "half"])
    with pytest.raises(
        UserError, match=r"sizes \[5\] with 0 seeds for 0 epochs: expected one size"
    ):
        run_plan(config, Plan((5,), 0), tmp_path)
    mlm = dataclasses.replace(config, objective=configure({"objective": {"name": "mlm"}}).objective)
    with pytest.raises(UserError, match="'mlm' learns from text without labels; use one of: retri"):
        run_plan(mlm, Plan((5,), 1), tmp_path)
    glue = configure({"objective": {"name": "classifier"}})
    with pytest.raises(UserError, match=r"GLUE .* launch/glue.py; .*--config.run.data.train_limit"):
        run_plan(glue, Plan((5,), 1), tmp_path)
