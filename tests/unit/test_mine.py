"""A corpus is encoded once, searched with the training queries, and a training file written."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from condenser_jax import Encoder
from condenser_jax.errors import UserError
from condenser_jax.mine import mine_file
from condenser_jax.retrieval.collection import CollectionOptions
from condenser_jax.retrieval.mining import MiningOptions
from condenser_jax.retrieval.training_texts import open_training
from tests.encoders import TEXTS, export_tiny

SCRIPT = Path(__file__).parents[2] / "launch" / "mine.py"
FEW = MiningOptions(depth=20, negatives=4)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    return Encoder.load(export_tiny(folder, pooling="mean", is_fine_tuned=True))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A BEIR folder: 58 passages, and the first 6 of them as queries of their own passage."""
    folder = tmp_path_factory.mktemp("beir")
    passages = {f"p{number}": text for number, text in enumerate(TEXTS) if text}
    queries = dict(list(passages.items())[:6])
    for name, texts in (("corpus", passages), ("queries", queries)):
        rows = ({"_id": key, "text": text} for key, text in texts.items())
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "qrels").mkdir()
    judged = "".join(f"{key}\t{key}\t1\n" for key in queries)
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    return f"beir:{folder}"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CONDENSER_JAX_CACHE", str(tmp_path / "cache"))


def negatives(path):
    """{query id: ids of its negatives}"""
    texts = open_training(f"tevatron:{path}")
    ids = texts.passages.ids
    return {
        name: [ids[number] for number in texts.negatives.of(query)]
        for query, name in enumerate(texts.queries.ids)
    }


def test_the_model_s_negatives_are_what_it_ranks_high(encoder, data, tmp_path):
    every = MiningOptions(depth=9, negatives=9)
    said = mine_file(
        tmp_path / "hard.jsonl", data, "train", every, encoder=encoder, vectors=tmp_path / "v"
    )
    texts = open_training(data)
    vectors = encoder.encode([text.joined for text in texts.passages])
    queries = encoder.encode([text.joined for text in texts.queries], "query")
    ids, found = np.array(texts.passages.ids), negatives(tmp_path / "hard.jsonl")
    for query, row in zip(texts.queries.ids, np.argsort(-queries @ vectors.T), strict=True):
        assert query not in found[query] and set(found[query]) <= set(ids[row[:9]])
    each = np.mean([len(found[query]) for query in found])
    assert f"6 queries with {each:.1f} hard negatives each" in said
    assert f"the model's: {each:.1f} each; left out: " in said


def test_both_rankings_are_joined_and_what_the_data_name_stays(encoder, data, tmp_path):
    first, second, both = (tmp_path / f"{name}.jsonl" for name in ("words", "model", "both"))
    how = {"encoder": encoder, "vectors": tmp_path / "v"}
    said = mine_file(first, data, "train", FEW, uses_bm25=True)
    assert "BM25's: " in said and "model" not in said
    mine_file(second, data, "train", FEW, **how)
    mine_file(both, data, "train", FEW, uses_bm25=True, **how)
    by_words, by_model, joined = map(negatives, (first, second, both))
    for query in joined:
        assert set(joined[query]) == {*by_words[query], *by_model[query]}
        assert len(set(joined[query])) == len(joined[query])
    mine_file(tmp_path / "later.jsonl", f"tevatron:{second}", "train", FEW, uses_bm25=True)
    later = negatives(tmp_path / "later.jsonl")
    assert all(set(later[query]) >= set(by_model[query]) for query in later)


def test_vectors_are_made_once_and_those_of_another_encoder_refused(
    encoder, data, tmp_path, monkeypatch
):
    how = {"encoder": encoder, "vectors": tmp_path / "v"}
    mine_file(tmp_path / "one.jsonl", data, "train", FEW, **how)
    counts = []
    encode = encoder.encode

    def note(texts, *rest):
        counts.append(len(texts))
        return encode(texts, *rest)

    monkeypatch.setattr(encoder, "encode", note)
    mine_file(tmp_path / "two.jsonl", data, "train", FEW, **how)
    assert counts == [6]  # the queries
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()
    other = Encoder.load(export_tiny(tmp_path, seed=1, pooling="mean", is_fine_tuned=True))
    with pytest.raises(UserError, match=r"v holds other vectors: weights_hash \w{8}, not \w{8}"):
        mine_file(tmp_path / "x.jsonl", data, "train", FEW, encoder=other, vectors=tmp_path / "v")
    assert not (tmp_path / "x.jsonl").exists()


def test_an_encoder_that_was_never_fine_tuned_mines_only_when_forced(data, tmp_path):
    raw = Encoder.load(export_tiny(tmp_path, pooling="mean"))
    how = {"encoder": raw, "vectors": tmp_path / "v"}
    with pytest.raises(UserError, match="was never fine-tuned, so .*--bm25 alone .* same: --force"):
        mine_file(tmp_path / "x.jsonl", data, "train", FEW, **how)
    assert not (tmp_path / "v").exists()
    mine_file(tmp_path / "x.jsonl", data, "train", FEW, forced=True, **how)
    assert len(negatives(tmp_path / "x.jsonl")) == 6


def test_scores_that_are_left_out_are_told(data, tmp_path):
    first, scored = tmp_path / "first.jsonl", tmp_path / "scored.jsonl"
    assert "scores" not in mine_file(first, data, "train", FEW, uses_bm25=True)
    records = [json.loads(line) for line in first.read_text().splitlines()]
    for record in records:
        for passage in record["positive_passages"] + record["negative_passages"]:
            passage["score"] = 1.5
    scored.write_text("".join(json.dumps(record) + "\n" for record in records))
    said = mine_file(tmp_path / "x.jsonl", f"tevatron:{scored}", "train", FEW, uses_bm25=True)
    assert f"the scores of tevatron:{scored} are left out: what is mined has none" in said


def test_queries_without_negatives_are_counted(data, tmp_path):
    one = MiningOptions(depth=1)
    said = mine_file(tmp_path / "x.jsonl", data, "train", one, uses_bm25=True)
    empty = sum(not found for found in negatives(tmp_path / "x.jsonl").values())
    assert empty and f"hard negatives each; {empty} have none" in said


def test_what_lies_too_near_is_counted(data, tmp_path):
    near = MiningOptions(depth=20, share=0.5)
    assert " that score too near to one" in mine_file(
        tmp_path / "x.jsonl", data, "train", near, uses_bm25=True
    )


@pytest.mark.parametrize(
    ("output", "how", "message"),
    [
        ("x.jsonl", {}, "there is nothing to mine with; name --model, or --bm25, or both"),
        (
            "x.trec",
            {"uses_bm25": True},
            r"x.trec names no training file; expected .jsonl or .jsonl.gz$",
        ),
        (
            "x.trec",
            {},
            r"x.trec names no training file; expected .* Also, there is nothing to mine with; name",
        ),
    ],
)
def test_what_cannot_be_mined_is_refused(data, tmp_path, output, how, message):
    with pytest.raises(UserError, match=message):
        mine_file(tmp_path / output, data, "train", FEW, **how)


def test_the_output_is_looked_at_before_a_model_is_read(data):
    asked = [f"--data={data}", "--model=/nowhere", "--output=x.trec"]
    done = subprocess.run([sys.executable, SCRIPT, *asked], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.strip().endswith(
        "--output=x.trec names no training file; expected .jsonl or .jsonl.gz"
    )


def test_judgements_of_what_does_not_exist_are_named_and_fatal_above_a_share(data, tmp_path):
    folder = Path(data.removeprefix("beir:"))
    wrong = folder / "qrels" / "wrong.tsv"
    judged = (folder / "qrels" / "train.tsv").read_text()
    wrong.write_text(f"{judged}p1\tnowhere\t1\n")
    with pytest.raises(UserError, match="1 of 7 records .* wrong.tsv:8 judges document 'nowhere'"):
        mine_file(tmp_path / "x.jsonl", data, "wrong", FEW, uses_bm25=True)
    few = CollectionOptions(bad_share=0.2)
    mine_file(tmp_path / "x.jsonl", data, "wrong", FEW, uses_bm25=True, reading=few)
    assert len(negatives(tmp_path / "x.jsonl")) == 6
