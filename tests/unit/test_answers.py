"""Answers are read from DPR's files and found in passages as DPR finds them."""

import pytest

from condenser_jax.errors import UserError
from condenser_jax.retrieval.answers import has_answer, top_k_accuracy
from condenser_jax.retrieval.metrics import means
from condenser_jax.retrieval.questions import read_answers, read_questions
from condenser_jax.retrieval.texts import Text, Texts


@pytest.mark.parametrize(
    "passage, answer, is_found",
    [
        ("The Denver Broncos won.", "denver  broncos", True),
        ("The Denver, Broncos won.", "denver broncos", False),
        ("Broncos of Denver", "Denver Broncos", False),
        ("She is 42nd", "42", False),
        ("Caf\u00e9 M\u00fcller", "cafe\u0301 mu\u0308ller", True),
        ("Cafe Muller", "Caf\u00e9 M\u00fcller", False),
        ("It cost $5.", "$ 5", True),
        ("anything", "  ", False),
        ("東京に住む", "東京", False),  # one run of letters is one token
    ],
)
def test_an_answer_is_found_where_its_tokens_stand_in_a_row(passage, answer, is_found):
    assert has_answer(passage, [answer]) is is_found


def test_one_answer_of_several_is_enough():
    assert has_answer("a b c", ["x", "c"]) and not has_answer("a b c", ["x", "y"])


def test_accuracy_counts_queries_with_an_answer_among_the_best_k():
    corpus = Texts.of([Text("d1", "no"), Text("d2", "the answer"), Text("d3", "no", "answer")])
    run = {"q1": {"d1": 3.0, "d2": 2.0}, "q2": {"d3": 1.0}}
    answers = {"q1": ["answer"], "q2": ["answer"], "q3": ["answer"]}
    found = top_k_accuracy(run, answers, corpus, (1, 2))
    assert found["Accuracy@1"] == {"q1": 0, "q2": 0, "q3": 0}
    assert found["Accuracy@2"] == {"q1": 1, "q2": 0, "q3": 0}
    assert means(found)["Accuracy@2"] == pytest.approx(1 / 3)
    with pytest.raises(UserError, match="the run names passage 'd9', which the corpus does not"):
        top_k_accuracy({"q1": {"d9": 1.0}}, answers, corpus)


@pytest.mark.parametrize(
    "name, text",
    [
        ("a.qa.csv", "who\t['A', 'B']\nwhat\t[\"it's\"]\n"),  # DPR's own: tabs, named .csv
        ("a.tsv", 'who\t"[\'A\', \'B\']"\nwhat\t"[""it\'s""]"\n'),
        ("a.csv", 'who,"[\'A\', \'B\']"\nwhat,"[""it\'s""]"\n'),
        (
            "a.jsonl",
            '{"question": "who", "answers": ["A", "B"]}\n'
            '{"question": "what", "answer": ["it\'s"]}\n',
        ),
    ],
)
def test_questions_are_read_from_every_layout(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    questions, answers = read_questions(tmp_path / name, 0.0)
    assert list(questions) == [Text("1", "who"), Text("2", "what")]
    assert answers == {"1": ["A", "B"], "2": ["it's"]}


@pytest.mark.parametrize(
    "line, reason",
    [
        ("only a question", "has 1 fields, not question and answers"),
        ("who\tA", "answers 'A' are not a list of strings"),
        ("who\t[1]", r"answers '\[1\]' are not a list of strings"),
        ("who\t['']", "has no answer"),
        (" \t['A']", "has an empty question"),
    ],
)
def test_a_broken_question_is_named_and_the_others_keep_their_numbers(tmp_path, line, reason):
    (tmp_path / "a.tsv").write_text(f"first\t['A']\n{line}\nthird\t['C']\n")
    with pytest.raises(UserError, match=f"1 of 3 records are broken.* a.tsv:2 {reason}"):
        read_questions(tmp_path / "a.tsv", 0.1)
    assert read_questions(tmp_path / "a.tsv", 0.5)[0].ids == ["1", "3"]


def test_a_file_without_questions_is_refused(tmp_path):
    (tmp_path / "a.tsv").write_text("\n")
    with pytest.raises(UserError, match="a.tsv holds no question"):
        read_questions(tmp_path / "a.tsv", 0.0)


def test_two_answers_of_one_query_are_broken(tmp_path):
    (tmp_path / "answers.jsonl").write_text('{"_id": "q", "answers": ["A"]}\n' * 2)
    with pytest.raises(UserError, match="answers.jsonl:2 repeats the id 'q'"):
        read_answers(tmp_path / "answers.jsonl", 0.0)
