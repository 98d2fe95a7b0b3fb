"""Sentence pairs and triplets are read by the names of their columns."""

import gzip

import pytest

from condenser_jax.errors import UserError
from condenser_jax.retrieval.sentences import ScoredPair, Triplet, read_sts, read_triplets

PAIRS = [ScoredPair('A "red" hat', "a hat, red", 4.5), ScoredPair("one", "two", 0.0)]
LAYOUTS = {
    "a.tsv": "score\tsentence1\tsentence2\tsource\n"
    '4.5\tA "red" hat\ta hat, red\tx\n0\tone\ttwo\ty\n',
    "a.csv": 'sentence1,sentence2,score\n"A ""red"" hat","a hat, red",4.5\none,two,0\n',
    "a.jsonl": '{"score": 4.5, "sentence1": "A \\"red\\" hat", "sentence2": "a hat, red"}\n'
    '{"score": "0", "sentence1": "one", "sentence2": "two"}\n',
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_scored_pairs_are_read_from_every_layout(tmp_path, name):
    (tmp_path / name).write_text(LAYOUTS[name])
    assert read_sts(tmp_path / name, 0.0) == PAIRS
    with gzip.open(tmp_path / f"{name}.gz", "wt") as file:
        file.write(LAYOUTS[name])
    assert read_sts(tmp_path / f"{name}.gz", 0.0) == PAIRS


def test_triplets_are_read(tmp_path):
    (tmp_path / "t.tsv").write_text("anchor\tpositive\tnegative\tarticle\na\tp\tn\tx\n")
    assert read_triplets(tmp_path / "t.tsv", 0.0) == [Triplet("a", "p", "n")]


@pytest.mark.parametrize(
    "line, reason",
    [
        ("5\tone", "has 2 fields, its header 3"),
        ("5\tone\t ", "has an empty sentence2"),
        ("high\tone\ttwo", "score 'high' is not a number"),
        ("5.1\tone\ttwo", "score 5.1 is not within 0 and 5"),
        ("5\ta\rb\ttwo", "is no line of a table: new-line character seen in unquoted field"),
    ],
)
def test_a_broken_pair_is_named(tmp_path, line, reason):
    (tmp_path / "a.tsv").write_text(f"score\tsentence1\tsentence2\n1\ta\tb\n{line}\n")
    with pytest.raises(UserError, match=f"1 of 2 records are broken.* a.tsv:3 {reason}"):
        read_sts(tmp_path / "a.tsv", 0.0)
    assert len(read_sts(tmp_path / "a.tsv", 0.5)) == 1


def test_a_missing_column_tells_what_the_first_line_names(tmp_path):
    (tmp_path / "a.tsv").write_text("4.5\tone\ttwo\n")
    with pytest.raises(
        UserError, match="a.tsv has no column 'score'; its first line names: 4.5, one, two; expect"
    ):
        read_sts(tmp_path / "a.tsv", 0.0)


def test_a_header_alone_is_no_data(tmp_path):
    (tmp_path / "a.tsv").write_text("score\tsentence1\tsentence2\n")
    with pytest.raises(UserError, match="a.tsv holds no record"):
        read_sts(tmp_path / "a.tsv", 0.0)
