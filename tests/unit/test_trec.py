"""TREC's files are read and written without loss, and ranked as trec_eval ranks."""

import gzip

import numpy as np
import pytest
import pytrec_eval

from condenser_jax.errors import UserError
from condenser_jax.retrieval.texts import Text, Texts
from condenser_jax.retrieval.trec import check_run, ranked, read_judged, read_run, write_run

RUN = {"q1": {"d1": 0.1, "d3": 1 / 3, "d2": 1 / 3}, "q2": {"d1": -2.0}}


def test_a_run_is_written_ranked_and_read_back_equal(tmp_path):
    write_run(tmp_path / "run.txt", RUN, "mine")
    lines = (tmp_path / "run.txt").read_text().splitlines()
    assert lines[0] == f"q1 Q0 d3 1 {1 / 3} mine"
    assert [line.split()[2] for line in lines] == ["d3", "d2", "d1", "d1"]
    assert read_run(tmp_path / "run.txt") == RUN


def test_a_run_is_compressed_where_its_name_says_so(tmp_path):
    path = tmp_path / "run.trec.gz"
    write_run(path, RUN, "mine")
    with gzip.open(path, "rt") as file:
        assert file.readline() == f"q1 Q0 d3 1 {1 / 3} mine\n"
    assert read_run(path) == RUN


def test_documents_that_do_not_exist_are_broken_lines_of_a_run(tmp_path):
    write_run(tmp_path / "run", RUN, "mine")
    corpus = Texts.of(Text(name, "a text") for name in ("d1", "d3"))
    with pytest.raises(UserError, match="1 of 4 .* run:2 finds document 'd2', which does not exi"):
        read_run(tmp_path / "run", corpus=corpus)
    found = read_run(tmp_path / "run", 0.5, corpus)
    assert found == {"q1": {"d1": 0.1, "d3": 1 / 3}, "q2": {"d1": -2.0}}


@pytest.mark.parametrize(
    "lines",
    [
        "q1 0 d1 2\nq1 0 d2 0\nq2 0 d1 -1\n",
        "q1\t0\td1\t2\nq1\t0\td2\t0\nq2\t0\td1\t-1\n",
        "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq2\td1\t-1\n",
        "q1\td1\t2\nq1\td2\t0\nq2\td1\t-1\n",  # the first has a grade: it is no header
        "q1\td1\t2.0\nq1\td2\t0.0\nq2\td1\t-1.0\n",  # so it has here
        "q1 d1 2e0\nq1 d2 0\nq2 d1 -1\n",
    ],
)
def test_judgements_are_read_as_trec_and_as_beir_write_them(tmp_path, lines):
    (tmp_path / "qrels").write_text(lines)
    corpus, queries = (Texts.of(Text(f"{k}{i}", "a text") for i in (1, 2)) for k in "dq")
    qrels, judged = read_judged(tmp_path / "qrels", corpus, queries)
    assert qrels == {"q1": {"d1": 2, "d2": 0}} and judged.ids == ["q1"]  # q2 has nothing relevant


def test_equal_scores_are_ranked_by_id_falling_and_scores_are_compared_in_float32():
    assert ranked({"a": 1.0, "c": 1.0, "b": 2.0}) == ["b", "c", "a"]
    assert ranked({"a": 1.0, "c": 1.0 - 1e-9}) == ["c", "a"]
    assert ranked({"a": 1.0, "c": 1.0 - 1e-5}, 1) == ["a"]


def test_trec_eval_ranks_the_same_way():
    generator = np.random.default_rng(0)
    names = ["z", "é", "Z", "10", "9", "aa", "a", "日本"]
    for _ in range(20):
        scores = {
            n: float(generator.integers(0, 3)) + float(generator.choice([0, 1e-9])) for n in names
        }
        for place, name in enumerate(ranked(scores), start=1):
            evaluator = pytrec_eval.RelevanceEvaluator({"q": {name: 1}}, {"recip_rank"})
            assert evaluator.evaluate({"q": scores})["q"]["recip_rank"] == pytest.approx(1 / place)


@pytest.mark.parametrize(
    "line, reason",
    [
        ("q1 Q0 d1 1", "has 4 fields, not query, Q0, document, rank, score, tag"),
        ("q1 Q0 d1 1 high tag", "score 'high' is not a number"),
        ("q1 Q0 d1 1 nan tag", "score 'nan' is not finite"),
        ("q1 Q0 d0 1 0.5 tag", r"repeats the document of a query \('q1', 'd0'\)"),
    ],
)
def test_a_broken_line_of_a_run_is_named(tmp_path, line, reason):
    (tmp_path / "run").write_text(f"q1 Q0 d0 1 0.9 tag\n{line}\n")
    with pytest.raises(UserError, match=f"1 of 2 records are broken.* run:2 {reason}"):
        read_run(tmp_path / "run")
    assert read_run(tmp_path / "run", 0.5) == {"q1": {"d0": 0.9}}


def test_an_id_with_white_space_cannot_be_written(tmp_path):
    with pytest.raises(UserError, match="the id or tag 'd 1' holds white space, .* rename it"):
        write_run(tmp_path / "run", {"q": {"d 1": 1.0}}, "tag")


def test_what_cannot_be_written_can_be_known_before_the_search():
    check_run("run.trec.gz", ["my-model", "q1", "d1"])
    with pytest.raises(UserError, match="the id or tag 'd 1' holds white space"):
        check_run("run.trec", ["my-model", "q1", "d 1"])
    with pytest.raises(UserError, match="run.trec.zst names a file of zstandard, which is read an"):
        check_run("run.trec.zst", [])


def test_a_run_that_cannot_be_written_leaves_the_earlier_one(tmp_path):
    write_run(tmp_path / "run.trec", RUN, "mine")
    with pytest.raises(UserError, match="holds white space"):
        write_run(tmp_path / "run.trec", {"q1": {"d1": 1.0}, "q 2": {"d1": 1.0}}, "mine")
    assert read_run(tmp_path / "run.trec") == RUN
    assert [path.name for path in tmp_path.iterdir()] == ["run.trec"]
