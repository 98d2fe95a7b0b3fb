"""A step is done once for all that its result depends on, and goes on where a kill left it."""

import dataclasses
import re
import types

import pytest

from condenser_jax.errors import UserError
from condenser_jax.pipeline import recipe
from condenser_jax.pipeline.config import configure_pipeline
from condenser_jax.pipeline.recipe import collection_hash, steps_of
from condenser_jax.pipeline.steps import Pipeline, Result, Step
from condenser_jax.retrieval.collection import CollectionOptions
from configs.pipeline import get_config


class Counted:
    """Steps whose runs are counted: `double` reads `number`."""

    def __init__(self, number=3, factor=2):
        self.ran = []

        def start(directory, earlier):
            self.ran.append("number")
            return {"value": number}

        def multiply(directory, earlier):
            self.ran.append("double")
            return {"value": factor * earlier["number"].facts["value"]}

        self.number = Step("number", start, {"number": number})
        self.double = Step("double", multiply, {"factor": factor}, (self.number,))


def test_a_step_that_is_done_is_read_back(tmp_path):
    first, second = Counted(), Counted()
    assert Pipeline(tmp_path).result(first.double).facts == {"value": 6}
    assert Pipeline(tmp_path).result(second.double).facts == {"value": 6}
    assert first.ran == ["number", "double"] and second.ran == []


def test_a_changed_setting_concerns_its_step_and_what_reads_it(tmp_path):
    Pipeline(tmp_path).result(Counted().double)
    factor, number = Counted(factor=5), Counted(number=4)
    assert Pipeline(tmp_path).result(factor.double).facts == {"value": 15}
    assert factor.ran == ["double"]
    assert Pipeline(tmp_path).result(number.double).facts == {"value": 8}
    assert number.ran == ["number", "double"]


def test_a_step_is_not_done_by_two_processes_at_once(tmp_path):
    def run(directory, earlier):
        Pipeline(tmp_path).result(step)  # as another process would
        return {}

    step = Step("long", run, {})
    with pytest.raises(UserError, match=r"long-\w+ is in use by another process; wait for its end"):
        Pipeline(tmp_path).result(step)


def test_a_step_that_another_process_has_just_done_is_not_done_again(tmp_path, monkeypatch):
    first, second = Counted(), Counted()
    Pipeline(tmp_path).result(first.number)
    looks, is_done = iter([False]), Pipeline.is_done
    monkeypatch.setattr(  # the first look comes too early
        Pipeline, "is_done", lambda pipeline, step: next(looks, is_done(pipeline, step))
    )
    assert Pipeline(tmp_path).result(second.number).facts == {"value": 3}
    assert second.ran == []


def test_a_step_that_was_stopped_finds_its_directory_again(tmp_path):
    def run(directory, earlier):
        half = directory / "half"
        if not half.exists():
            half.touch()
            raise KeyboardInterrupt
        return {"went_on": True}

    step = Step("long", run, {})
    with pytest.raises(KeyboardInterrupt):
        Pipeline(tmp_path).result(step)
    result = Pipeline(tmp_path).result(step)
    assert result.facts == {"went_on": True}
    assert result.seconds >= float((result.directory / "seconds").read_text()) - 0.1


@pytest.fixture(scope="module", autouse=True)
def without_data():
    """No data are read for the key of a step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("condenser_jax.pipeline.recipe.identity", lambda *known: [])
        patch.setattr("condenser_jax.pipeline.recipe.collection_hash", lambda *where: "")
        yield


def keys(**changes):
    """{step: key} of the smoke pipeline with some settings changed, as "run.section.key"."""
    values = get_config("smoke").to_dict()
    for path, value in changes.items():
        *sections, name = path.split("__")
        place = values
        for section in sections:
            place = place[section]
        place[name] = value
    return {name: step.key for name, step in steps_of(configure_pipeline(values)).items()}


def test_only_what_depends_on_a_setting_is_done_anew():
    before = keys()
    second = keys(second__optimizer__learning_rate=0.5)
    assert {n for n in before if before[n] != second[n]} == {"second", "evaluation"}
    mining = keys(mining__negatives=3)
    assert {n for n in before if before[n] != mining[n]} == {
        "mined-negatives",
        "second",
        "evaluation",
    }
    assert keys(condenser__seed=1).keys() == before.keys()
    assert not set(keys(condenser__seed=1).values()) & (
        set(before.values()) - {before["bm25-negatives"]}
    )


def test_the_form_of_the_computation_changes_no_key():
    assert keys(first__compute__dtype="bfloat16", first__training__log_every=7) == keys()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"colection": "x"}, "unknown configuration key 'colection'; did you mean 'collection'"),
        ({"mining": {"dept": 3}}, "unknown key in 'mining' 'dept'; did you mean 'depth'"),
        (
            {"first": {"objective": {"name": "mlm"}}},
            "first.objective.name is 'mlm'; this run of the pipeline is a retriever.",
        ),
        (
            {"first": {"objective": {"name": "retriever"}, "data": {"split_seed": 1}}},
            "first.data.split_seed is 1 and second.data.split_seed is 0, but all steps read one",
        ),
    ],
)
def test_a_wrong_configuration_is_refused(change, text):
    with pytest.raises(UserError, match=text):
        configure_pipeline(get_config("smoke").to_dict() | change)


def test_the_queries_that_are_asked_at_the_end_are_not_trained_on():
    values = get_config("smoke").to_dict()
    values["second"]["data"]["train_split"] = values["split"]
    with pytest.raises(UserError, match="second.data.train_split is 'test', whose queries are ask"):
        configure_pipeline(values)


@pytest.mark.parametrize(
    ("run", "section", "key", "given"),
    [
        ("cocondenser", "model", "init", "condenser.model.init, for all else starts from that run"),
        ("first", "model", "init", "condenser.model.init, for all else"),
        ("first", "data", "train", "collection, for whose training queries negatives are mined"),
        ("second", "data", "collection", "collection."),
    ],
)
def test_what_the_steps_set_themselves_is_refused_with_what_to_give_instead(
    run, section, key, given
):
    values = get_config("smoke").to_dict()
    assert values[run][section][key] is None
    values[run][section][key] = "mine"
    told = f"{run}.{section}.{key} is 'mine', but the pipeline sets it for each of its runs; give "
    with pytest.raises(UserError, match=re.escape(told + given)):
        configure_pipeline(values)


def test_negatives_are_mined_for_the_queries_that_each_retriever_learns(tmp_path, monkeypatch):
    values, read = get_config("smoke").to_dict(), []
    values["first"]["data"]["train_split"] = "few"
    monkeypatch.setattr(
        recipe, "mine_file", lambda output, where, split, *_, **__: read.append(split)
    )
    monkeypatch.setattr(recipe.Encoder, "load", lambda *_, **__: None)
    steps = steps_of(configure_pipeline(values))
    done = Result(tmp_path, {"model": "x"}, 0.0)
    for name in ("bm25-negatives", "mined-negatives"):
        steps[name].run(tmp_path, {"first": done})
    assert read == ["few", "train"]


def test_a_missing_part_is_named():
    values = get_config("smoke").to_dict()
    del values["split"]
    with pytest.raises(UserError, match="split is missing from the configuration of the pipeline"):
        configure_pipeline(values)


def test_a_collection_is_known_by_its_ids_too(tmp_path):
    """Those that were wrong and are mended lead to other judgements."""
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("q1\t0\td1\t1\n")
    (tmp_path / "queries.jsonl").write_text('{"_id": "q1", "text": "a question"}\n')
    hashes = set()
    for names in (("d1", "d2"), ("d2", "d1"), ("d1", "d2")):
        lines = [f'{{"_id": "{name}", "text": "passage {n}"}}' for n, name in enumerate(names)]
        (tmp_path / "corpus.jsonl").write_text("\n".join(lines))
        collection_hash.cache_clear()
        hashes.add(collection_hash(f"beir:{tmp_path}", "test", CollectionOptions()))
    assert len(hashes) == 2


def test_all_steps_read_the_collection_as_the_retrievers_do(tmp_path, monkeypatch):
    values = get_config("smoke").to_dict()
    wanted = {"bad_share": 0.5, "heldout_share": 0.2, "split_seed": 3}
    for name in ("first", "second"):
        values[name]["data"].update(wanted)
    hashed, read = [], []
    monkeypatch.setattr(recipe, "collection_hash", lambda *asked: hashed.append(asked) or "")
    monkeypatch.setattr(recipe, "mine_file", lambda *_, reading, **__: read.append(reading))
    monkeypatch.setattr(recipe, "write_files", lambda report, prefix: None)
    report = types.SimpleNamespace(table="", figures={})
    monkeypatch.setattr(
        recipe, "report_retrieval", lambda options: read.append(options.reading) or report
    )
    (tmp_path / "retrieval.md").touch()
    steps = steps_of(configure_pipeline(values))
    steps["bm25-negatives"].run(tmp_path, {})
    done = Result(tmp_path, {"model": "x"}, 0.0)
    steps["evaluation"].run(tmp_path, dict.fromkeys(("second", "first", "cocondenser"), done))
    expected = CollectionOptions(**wanted)
    assert read == [expected, expected]
    assert [(split, reading) for _, split, reading in hashed] == [
        ("train", expected),
        ("train", expected),
        ("test", expected),
    ]


def test_both_retrievers_search_the_pipelines_collection():
    values = get_config("smoke").to_dict() | {"collection": "beir:mine"}
    config = configure_pipeline(values)
    assert config.first.data.collection == config.second.data.collection == "beir:mine"
    assert dataclasses.replace(config.first, data=None) == dataclasses.replace(
        config.second, data=None
    )
