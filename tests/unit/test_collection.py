"""Collections of every layout are read the same way, once; what is broken is named by line."""

import gzip
import json
import logging
import pickle

import numpy as np
import pytest

from condenser_jax.data.cutting import is_heldout
from condenser_jax.data.documents import Document
from condenser_jax.dense import open_texts
from condenser_jax.errors import UserError
from condenser_jax.retrieval import folders, stored
from condenser_jax.retrieval.collection import CollectionOptions
from condenser_jax.retrieval.docstring_pairs import choose_pairs, split_of
from condenser_jax.retrieval.folders import read_texts
from condenser_jax.retrieval.kinds import open_collection
from condenser_jax.retrieval.own_passages import depth_for, without_own
from condenser_jax.retrieval.sound import need_file
from condenser_jax.retrieval.texts import Text, Texts

PASSAGES = [
    {"_id": "d1", "title": "Sorting", "text": "Sort an array."},
    {"_id": "d2", "title": "", "text": "Join two arrays."},
    {"_id": "d3", "text": "Zürich and Genève"},
]
QUERIES = [{"_id": "q2", "text": "how to join"}, {"_id": "q1", "text": "how to sort"}]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CONDENSER_JAX_CACHE", str(tmp_path / "cache"))


def write_lines(path, records):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (line if isinstance(line, str) else json.dumps(line) for line in records)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def beir(folder, qrels=("q1\td1\t2", "q1\td2\t0", "q2\td2\t1")):
    write_lines(folder / "corpus.jsonl", PASSAGES)
    write_lines(folder / "queries.jsonl", QUERIES)
    write_lines(folder / "qrels" / "test.tsv", ["query-id\tcorpus-id\tscore", *qrels])
    return folder


def pack(path):
    with gzip.open(f"{path}.gz", "wb") as file:
        file.write(path.read_bytes())
    path.unlink()


def test_a_beir_folder_is_a_collection(tmp_path):
    found = open_collection(f"beir:{beir(tmp_path / 'my')}", "test")
    assert list(found.corpus) == [
        Text("d1", "Sort an array.", "Sorting"),
        Text("d2", "Join two arrays."),
        Text("d3", "Zürich and Genève"),
    ]
    assert [query.id for query in found.queries] == ["q2", "q1"]  # in the order of their file
    assert found.qrels == {"q1": {"d1": 2, "d2": 0}, "q2": {"d2": 1}}
    assert found.answers == {}


def test_a_packed_beir_folder_is_the_same_collection(tmp_path):
    folder = beir(tmp_path / "my")
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"):
        pack(folder / name)
    found = open_collection(f"beir:{folder}", "test")
    plain = open_collection(f"beir:{beir(tmp_path / 'plain')}", "test")
    assert list(found.corpus) == list(plain.corpus)
    assert list(found.queries) == list(plain.queries)
    assert found.qrels == plain.qrels


def test_queries_without_a_relevant_passage_are_left_out(tmp_path):
    folder = beir(tmp_path / "my", ["q1\td1\t1", "q2\td2\t0"])
    assert open_collection(f"beir:{folder}", "test").queries.ids == ["q1"]


def test_queries_that_are_passages_too_do_not_find_themselves_unless_judged_relevant(tmp_path):
    folder = beir(tmp_path / "my", ["d1\td2\t1", "d1\td1\t0", "d2\td2\t1", "q1\td3\t1"])
    write_lines(folder / "queries.jsonl", [*QUERIES, *PASSAGES[:2]])
    found = open_collection(f"beir:{folder}", "test")
    assert len(found.queries) == 3 and found.own == {"d1"}
    run = {name: {"d1": 3.0, "d2": 2.0, "d3": 1.0} for name in ("d1", "d2", "q1")}
    counted = without_own(run, found.own, depth_for(found.own, 2) - 1)
    assert dict(counted) == {
        "d1": {"d2": 2.0, "d3": 1.0},
        "d2": {"d1": 3.0, "d2": 2.0},
        "q1": {"d1": 3.0, "d2": 2.0},
    }
    plain = open_collection(f"beir:{beir(tmp_path / 'plain')}", "test")
    assert not plain.own and depth_for(plain.own, 2) == 2
    assert without_own(run, plain.own, 2) is run


def test_a_file_of_texts_below_the_home_directory_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_lines(tmp_path / "mine.jsonl", PASSAGES)
    assert open_texts("~/mine.jsonl").ids == ["d1", "d2", "d3"]


def test_answers_beside_a_beir_folder_are_read_for_its_queries(tmp_path):
    folder = beir(tmp_path / "my", ["q1\td1\t1"])
    answers = [{"_id": "q1", "answers": ["one", " "]}, {"_id": "q2", "answers": ["two"]}]
    write_lines(folder / "answers.jsonl", answers)
    assert open_collection(f"beir:{folder}", "test").answers == {"q1": ["one"]}


def test_ms_marco_is_read_with_its_quotes(tmp_path):
    folder = tmp_path / "marco"
    write_lines(folder / "collection.tsv", ['0\t"Manhattan" was a project', "1\tsecond"])
    write_lines(folder / "queries.dev.small.tsv", ["7\twhat was manhattan"])
    write_lines(folder / "qrels.dev.small.tsv", ["7\t0\t0\t1"])
    found = open_collection(f"msmarco:{folder}", "dev.small")
    assert list(found.corpus) == [Text("0", '"Manhattan" was a project'), Text("1", "second")]
    assert list(found.queries) == [Text("7", "what was manhattan")]
    assert found.qrels == {"7": {"0": 1}}
    with pytest.raises(UserError, match=r"has no split 'test' \(qrels.test.tsv\); it has: dev.sma"):
        open_collection(f"msmarco:{folder}", "test")


def test_dpr_has_passages_in_quotes_and_answers_instead_of_judgements(tmp_path):
    folder = tmp_path / "dpr"
    rows = ["id\ttext\ttitle", '1\t"Called ""Aaron"" here"\tAaron', "2\tplain\tOther"]
    write_lines(folder / "psgs_w100.tsv", rows)
    write_lines(folder / "nq-test.qa.csv", ["who is it\t['Aaron', \"O'Neill\"]"])
    found = open_collection(f"dpr:{folder}", "nq-test")
    assert list(found.corpus)[0] == Text("1", 'Called "Aaron" here', "Aaron")
    assert list(found.queries) == [Text("1", "who is it")]
    assert found.answers == {"1": ["Aaron", "O'Neill"]} and found.qrels == {}


def test_titles_are_joined_with_a_blank():
    assert Text("d", "text", "Title").joined == "Title text"
    assert Text("d", "text").joined == "text"


def test_texts_are_a_sequence():
    texts = Texts.of(Text(f"d{i}", f"text {i}") for i in range(5))
    assert len(texts) == 5 and texts[3] == texts[-2] == Text("d3", "text 3")
    assert texts[1:3].ids == ["d1", "d2"] and texts[::2].ids == ["d0", "d2", "d4"]
    assert len(texts[4:1]) == 0 and list(Texts.of([])) == []
    with pytest.raises(IndexError, match="text 5 of 5"):
        texts[5]


def test_ids_are_looked_up_across_the_chunks_of_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "BATCH_ROWS", 2)
    write_lines(tmp_path / "corpus.tsv", [f"d{i}\ttext {i}" for i in range(5)])
    texts = read_texts(tmp_path / "corpus.tsv", 0.0)
    assert texts.positions(["d4", "d0", "none", "d4"]).tolist() == [4, 0, -1, 4]
    assert texts.positions([]).tolist() == []
    assert texts.only(["d4", "none", "d1"]).ids == ["d1", "d4"]
    assert [texts[i].id for i in range(5)] == texts.ids


def test_texts_are_mapped_not_sent_to_another_process(tmp_path):
    write_lines(tmp_path / "corpus.tsv", [f"d{i}\t{'long ' * 100}" for i in range(100)])
    texts = read_texts(tmp_path / "corpus.tsv", 0.0)
    assert list(pickle.loads(pickle.dumps(texts))) == list(texts)
    assert len(pickle.dumps(texts)) < 1000


def test_a_file_is_read_once_until_it_changes(tmp_path, monkeypatch):
    path = tmp_path / "corpus.tsv"
    write_lines(path, ["d1\tone"])
    read_texts(path, 0.0)
    with monkeypatch.context() as patched:
        patched.setattr(folders, "sound_records", lambda *_: pytest.fail("read again"))
        assert read_texts(path, 0.0).ids == ["d1"]
    write_lines(path, ["d1\tone", "d2\ttwo"])
    assert read_texts(path, 0.0).ids == ["d1", "d2"]


BROKEN_LINES = [
    ("{", "is not JSON: Expecting property name"),
    ("[1]", "is a list, not an object with fields"),
    ('{"text": "x"}', "has no field '_id'; its fields are: text"),
    ('{"_id": " ", "text": "x"}', "has an empty id"),
    ('{"_id": "d", "text": 5}', "field 'text' is a int, not a text"),
    ('{"_id": "d", "text": "\\ud800"}', "field 'text' holds half a character"),
    ('{"_id": "d", "text": " ", "title": ""}', r"has an empty text \(id 'd'\)"),
    ('{"_id": "d1", "text": "again"}', "repeats the id 'd1'"),
]


@pytest.mark.parametrize("line, reason", BROKEN_LINES)
def test_a_broken_passage_is_named_by_file_and_line(tmp_path, line, reason):
    write_lines(tmp_path / "corpus.jsonl", [*PASSAGES, line])
    first = f"the first: corpus.jsonl:4 {reason}"
    with pytest.raises(UserError, match=f"1 of 4 records are broken, above bad_share 0.1; {first}"):
        read_texts(tmp_path / "corpus.jsonl", 0.1)
    assert read_texts(tmp_path / "corpus.jsonl", 0.25).ids == ["d1", "d2", "d3"]


def test_what_was_left_out_is_told_every_time_and_judged_by_the_share_of_the_day(tmp_path, caplog):
    path = tmp_path / "corpus.tsv"
    write_lines(path, ["d1\tone", "d2 two"])
    for _ in range(2):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "condenser_jax"):
            read_texts(path, 0.5)
        assert (
            "1 of 2 records are broken and left out: corpus.tsv:2 has no tab between id and text"
            in caplog.text
        )
    with pytest.raises(UserError, match="above bad_share 0.1"):
        read_texts(path, 0.1)


def test_dpr_rows_have_three_fields(tmp_path):
    write_lines(tmp_path / "psgs.tsv", ["id\ttext\ttitle", "1\tone"])
    with pytest.raises(UserError, match="psgs.tsv:2 has 2 fields, not id, text, title"):
        read_texts(tmp_path / "psgs.tsv", 0.0)


def test_a_passage_in_quotes_may_be_long_and_a_broken_one_is_named(tmp_path):
    long = "word " * 40_000
    write_lines(tmp_path / "psgs.tsv", ["id\ttext\ttitle", f"1\t{long}\tone", "2\ta\rb\ttwo"])
    read = read_texts(tmp_path / "psgs.tsv", 0.5)
    assert [text.text for text in read] == [long]
    with pytest.raises(UserError, match="psgs.tsv:3 is no line of a table: new-line character"):
        read_texts(tmp_path / "psgs.tsv", 0.0)


def test_a_file_without_a_record_is_refused(tmp_path):
    write_lines(tmp_path / "corpus.tsv", ["", " "])
    with pytest.raises(UserError, match="corpus.tsv holds no record; check the path"):
        read_texts(tmp_path / "corpus.tsv", 0.0)
    with pytest.raises(UserError, match="none.tsv is not a file; check the path"):
        read_texts(tmp_path / "none.tsv", 0.0)


@pytest.mark.parametrize(
    "line, reason",
    [
        ("q9\td1\t1", "judges query 'q9', which does not exist"),
        ("q1\td9\t1", "judges document 'd9', which does not exist"),
        ("q1\td1\t1", r"repeats the judgement of \('q1', 'd1'\)"),
        ("q1\td3\tyes", "grade 'yes' is not a number"),
        ("q1\td3\t0.5", "grade '0.5' is not a whole number"),
        ("q1\td3", r"has 2 fields, not query, \(0,\) document, grade"),
    ],
)
def test_a_broken_judgement_is_named_by_file_and_line(tmp_path, line, reason):
    folder = beir(tmp_path / "my", ["q1\td1\t1", line])
    with pytest.raises(UserError, match=f"1 of 2 records .* the first: test.tsv:3 {reason}"):
        open_collection(f"beir:{folder}", "test")
    few = CollectionOptions(bad_share=0.5)
    assert open_collection(f"beir:{folder}", "test", few).qrels == {"q1": {"d1": 1}}


def test_judgements_without_a_relevant_passage_are_refused(tmp_path):
    folder = beir(tmp_path / "my", ["q1\td1\t0"])
    with pytest.raises(UserError, match="test.tsv names no relevant document"):
        open_collection(f"beir:{folder}", "test")


def test_a_missing_file_or_split_tells_what_there_is(tmp_path):
    folder = beir(tmp_path / "my")
    with pytest.raises(UserError, match=r"has no split 'dev' \(dev.tsv\); it has: test"):
        open_collection(f"beir:{folder}", "dev")
    (folder / "queries.jsonl").unlink()
    with pytest.raises(
        UserError,
        match=r"has no queries.jsonl \(nor .gz, .zst\), but corpus.jsonl, qrels; expected",
    ):
        open_collection(f"beir:{folder}", "test")
    with pytest.raises(UserError, match="none is not a directory; expected a BEIR folder"):
        need_file(tmp_path / "none", "corpus.jsonl", folders.BEIR)


def test_an_unknown_kind_of_collection_names_the_nearest():
    with pytest.raises(UserError, match="unknown kind of collection 'bier'; did you mean 'beir'"):
        open_collection("bier:x")
    with pytest.raises(UserError, match="collection 'x' names no kind; write KIND:WHERE with one"):
        open_collection("x")


def test_options_are_checked():
    with pytest.raises(UserError, match="bad_share 2 is not within 0 and 1"):
        CollectionOptions(bad_share=2)
    with pytest.raises(UserError, match="heldout_share 0.5 of a collection is not within 0 and"):
        CollectionOptions(heldout_share=0.5)


def document(key, summary, body, group="m"):
    return Document(key, group, f"{summary}\n\n{body}", summary)


def test_docstrings_give_pairs_whose_summary_and_body_are_unique():
    documents = [
        document("a", "Sort it.", "All of it."),
        document("b", "Join it.", "Join it.\n\nWith a blank."),
        document("c", "Twice", "one body"),
        document("d", "twice", "another body"),
        document("e", "Unique here", "copied"),
        document("f", "Unique there", "copied"),
    ]
    assert [pair[:4] for pair in choose_pairs(documents)] == [
        ("a", "All of it.", "", "Sort it."),
        ("b", "With a blank.", "", "Join it."),
    ]


def test_the_docstrings_are_split_by_module_and_test_is_what_a_run_holds_out():
    options = CollectionOptions(heldout_share=0.2)
    splits = {f"module{i}": split_of(f"module{i}", options) for i in range(500)}
    assert {g for g in splits if splits[g] == "test"} == {
        g for g in splits if is_heldout(g, 0.2, 0)
    }
    counts = np.unique(list(splits.values()), return_counts=True)[1]
    assert np.allclose(counts / 500, [0.2, 0.2, 0.6], atol=0.05)  # dev, test, train


def test_the_docstrings_are_a_collection_without_leaks():
    options = CollectionOptions(heldout_share=0.3)
    splits = {s: open_collection("docstrings:optax", s, options) for s in ("train", "dev", "test")}
    ids = [set(found.queries.ids) for found in splits.values()]
    corpus = splits["train"].corpus
    assert sum(map(len, ids)) == len(set.union(*ids)) == len(corpus) > 100
    assert all(found.qrels[q] == {q: 1} for found in splits.values() for q in found.queries.ids)
    bodies = {text.id: text.text for text in corpus}
    for query in splits["test"].queries:
        assert query.text not in bodies[query.id].split("\n")
    with pytest.raises(UserError, match="unknown split of docstrings: 'tst'; did you mean 'test'"):
        open_collection("docstrings:optax", "tst")
    with pytest.raises(UserError, match="no module of docstrings:absl-py belongs to test at"):
        open_collection("docstrings:absl-py", "test", CollectionOptions(heldout_share=1e-9))


def test_nothing_is_kept_of_a_reading_that_failed(tmp_path):
    def fill(directory, bad):
        (directory / "half").write_text("half")
        bad.skip("a:1", "is broken")

    with pytest.raises(UserError, match="1 of 1 records are broken"):
        stored.store("a", {"name": "a"}, fill, 0.0)
    assert not any(p.is_dir() for p in (tmp_path / "cache" / "collections").iterdir())
