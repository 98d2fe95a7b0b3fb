"""Training files and collections become queries, passages and the numbers that join them."""

import json

import numpy as np
import pytest

from condenser_jax.errors import UserError
from condenser_jax.retrieval.collection import Collection, CollectionOptions
from condenser_jax.retrieval.texts import Text, Texts
from condenser_jax.retrieval.training_texts import (
    from_collection,
    open_training,
    write_tevatron,
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CONDENSER_JAX_CACHE", str(tmp_path / "cache"))


def passage(name, **more):
    return {"docid": name, "title": "", "text": f"text of {name}"} | more


def line(name, positives, negatives=()):
    return {
        "query_id": name,
        "query": f"query {name}",
        "positive_passages": list(positives),
        "negative_passages": list(negatives),
    }


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return f"tevatron:{path}"


def members(lists, query):
    return lists.numbers[lists.offsets[query] : lists.offsets[query + 1]].tolist()


def test_passages_of_a_training_file_are_kept_once(tmp_path):
    found = open_training(
        write(
            tmp_path / "train.jsonl",
            [
                line("q1", [passage("a")], [passage("b"), passage("c")]),
                line("q2", [passage("c"), passage("a")]),
            ],
        )
    )
    assert list(found.queries) == [Text("q1", "query q1"), Text("q2", "query q2")]
    assert found.passages.ids == ["a", "b", "c"]
    assert found.passages[0].text == "text of a"
    assert [members(found.positives, q) for q in (0, 1)] == [[0], [2, 0]]
    assert [members(found.negatives, q) for q in (0, 1)] == [[1, 2], []]
    assert found.positives.scores is None and found.positives.offsets.dtype == np.int64


def test_scores_of_a_cross_encoder_are_kept_when_every_passage_has_one(tmp_path):
    scored = [line("q1", [passage("a", score=9)], [passage("b", score=-1.5)])]
    scored.append(line("q2", [passage("b", score=7.25)]))
    found = open_training(write(tmp_path / "all.jsonl", scored))
    assert found.positives.scores.tolist() == [9, 7.25]
    assert found.negatives.scores.tolist() == [-1.5]
    some = open_training(write(tmp_path / "some.jsonl", [*scored, line("q3", [passage("c")])]))
    assert some.positives.scores is None and some.negatives.scores is None


def test_a_collection_trains_on_what_is_relevant():
    corpus = Texts.of(Text(name, name) for name in "abc")
    queries = Texts.of([Text("q2", "two"), Text("q1", "one")])
    qrels = {"q1": {"a": 1, "c": 0}, "q2": {"c": 2, "b": 1}}
    found = from_collection(Collection("mine", "train", corpus, queries, qrels))
    assert [members(found.positives, q) for q in (0, 1)] == [[2, 1], [0]]
    assert [members(found.negatives, q) for q in (0, 1)] == [[], []]


def test_training_needs_judgements():
    queries = Texts.of([Text("q", "query")])
    with pytest.raises(UserError, match="dpr:x has queries without a relevant passage in nq-train"):
        from_collection(Collection("dpr:x", "nq-train", Texts.of([]), queries, {}, {"q": ["A"]}))


BROKEN_LINES = [
    (line("q1", []), "has no positive passage"),
    (line("q1", [passage("a")], [passage("a")]), "names passage 'a' as positive and as negative"),
    (line("q1", [passage("a", text=" ")]), r"has an empty text \(id 'a'\)"),
    (line("q1", [{"text": "x"}]), "has no field 'docid'; its fields are: text"),
    (line("q1", [passage("a", score="high")]), "score 'high' is not a number"),
    (line("q1", ["a"]), "field 'positive_passages' is not a list of passages with docid and text"),
    (line("q0", [passage("a")]), "repeats the query_id 'q0'"),
    (line("q1", [passage("a")]) | {"query": " "}, "has an empty query"),
    (
        line("q1", [passage("x", text="another")]),
        "has another text for docid 'x' than an earlier line",
    ),
    (line("q1", [passage("a")], [passage("x", title="New")]), "has another text for docid 'x'"),
    (line("q1", [passage("a"), passage("a", text="b")]), "has two texts for docid 'a'"),
]


@pytest.mark.parametrize("record, reason", BROKEN_LINES)
def test_a_broken_line_of_training_is_named(tmp_path, record, reason):
    spec = write(tmp_path / "train.jsonl", [line("q0", [passage("x")]), record])
    with pytest.raises(UserError, match=f"1 of 2 records are broken.* train.jsonl:2 {reason}"):
        open_training(spec)
    found = open_training(spec, options=CollectionOptions(bad_share=0.5))
    assert found.queries.ids == ["q0"]


def test_a_text_of_a_broken_line_is_not_what_later_ones_are_held_to(tmp_path):
    broken = line("q1", [passage("b", text="another"), passage("a", text="another")])
    lines = [line("q0", [passage("a")]), broken, line("q2", [passage("b")])]
    spec = write(tmp_path / "train.jsonl", lines)
    found = open_training(spec, options=CollectionOptions(bad_share=0.4))
    assert found.queries.ids == ["q0", "q2"]
    assert [text.text for text in found.passages] == ["text of a", "text of b"]


def test_an_unknown_kind_of_training_data_names_the_nearest():
    with pytest.raises(UserError, match="unknown kind of training data 'tevatorn'; did you mean"):
        open_training("tevatorn:x.jsonl")
    with pytest.raises(UserError, match="'tevatron' names no kind; write KIND:.*, tevatron$"):
        open_training("tevatron")
    with pytest.raises(UserError, match="none.jsonl is not a file"):
        open_training("tevatron:none.jsonl")


@pytest.mark.parametrize("name", ["out/train.jsonl", "train.jsonl.gz"])
def test_what_is_written_is_read_back(tmp_path, name):
    lines = [
        line("q1", [passage("a", title="Ä")], [passage("b"), passage("c")]),
        line("q2", [passage("c"), passage("a", title="Ä")]),
    ]
    texts = open_training(write(tmp_path / "given.jsonl", lines))
    write_tevatron(tmp_path / name, texts)
    again = open_training(f"tevatron:{tmp_path / name}")
    assert list(again.queries) == list(texts.queries)
    assert list(again.passages) == list(texts.passages)
    for ours, theirs in zip(again[2:], texts[2:], strict=True):
        assert [members(ours, q) for q in (0, 1)] == [members(theirs, q) for q in (0, 1)]
    first = (tmp_path / name).read_bytes()
    write_tevatron(tmp_path / name, texts)
    assert (tmp_path / name).read_bytes() == first  # no time in it, nor a name


def test_a_training_file_that_cannot_be_finished_leaves_the_earlier_one(tmp_path):
    texts = open_training(write(tmp_path / "train.jsonl", [line("q1", [passage("a")])]))
    before = (tmp_path / "train.jsonl").read_bytes()
    broken = texts._replace(positives=texts.positives._replace(numbers=np.array([7])))
    with pytest.raises(IndexError):
        write_tevatron(tmp_path / "train.jsonl", broken)
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".jsonl"] == ["train.jsonl"]
    assert not list(tmp_path.glob("*.half")) and (tmp_path / "train.jsonl").read_bytes() == before
