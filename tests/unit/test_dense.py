"""A corpus is encoded, resumed and searched; vectors of another encoder are refused."""

import shutil

import numpy as np
import pytest

from condenser_jax import Encoder
from condenser_jax.dense import encode_corpus, open_texts, search_corpus
from condenser_jax.errors import UserError
from condenser_jax.retrieval.collection import CollectionOptions
from condenser_jax.retrieval.texts import Text, Texts
from condenser_jax.retrieval.trec import read_run, write_run
from condenser_jax.search.faiss_index import INDEXES
from tests.encoders import TEXTS, export_tiny

CORPUS = Texts.of(
    Text(f"p{i}", text or "one", "a title" if i % 3 else "") for i, text in enumerate(TEXTS)
)
QUERIES = Texts.of(Text(f"q{i}", text) for i, text in enumerate(TEXTS[1:6]))
SHARD = 16  # rows; 4 shards


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    return Encoder.load(export_tiny(folder, pooling="mean", query_prefix="the text "))


@pytest.fixture(scope="module")
def vectors(encoder, tmp_path_factory):
    output = tmp_path_factory.mktemp("vectors") / "new"
    return encode_corpus(encoder, CORPUS, output, source="mine", shard_rows=SHARD)


@pytest.fixture
def watched(encoder, monkeypatch):
    """The encoder, which notes how many texts it is given."""
    counts = []
    encode = encoder.encode

    def note(texts, *rest):
        counts.append(len(texts))
        return encode(texts, *rest)

    monkeypatch.setattr(encoder, "encode", note)
    return counts


def test_every_passage_has_the_vector_of_its_title_and_text(encoder, vectors):
    expected = encoder.encode([text.joined for text in CORPUS])
    assert len(vectors) == len(CORPUS) and len(vectors.shards) == 4
    assert np.abs(vectors[0 : len(vectors)] - expected).max() < 1e-5
    assert vectors.ids(range(len(CORPUS))) == CORPUS.ids
    assert vectors.card.encoder["weights_hash"] == encoder.weights_hash


def test_only_what_is_missing_or_damaged_is_made_again(encoder, tmp_path, watched):
    made = encode_corpus(encoder, CORPUS, tmp_path / "v", shard_rows=SHARD)
    whole = np.array(made[0 : len(made)])
    assert watched == [16, 16, 16, 12]
    (tmp_path / "v" / "00003.json").unlink()  # as a kill leaves it: written, not yet noted
    (tmp_path / "v" / "00003.partial").write_bytes(b"half")
    data = bytearray((tmp_path / "v" / "00001.bin").read_bytes())
    data[100] ^= 1
    (tmp_path / "v" / "00001.bin").write_bytes(data)
    again = encode_corpus(encoder, CORPUS, tmp_path / "v", shard_rows=SHARD)
    assert watched[4:] == [16, 12]
    np.testing.assert_array_equal(again[0 : len(again)], whole)
    encode_corpus(encoder, CORPUS, tmp_path / "v", shard_rows=SHARD)
    assert len(watched) == 6


def test_other_texts_do_not_go_on_where_these_ended(encoder, vectors):
    changed = Texts.of(Text(t.id, t.text + " one", t.title) for t in CORPUS)
    with pytest.raises(UserError, match=r"holds other vectors: texts_hash \w{8}, not \w{8}; name"):
        encode_corpus(encoder, changed, vectors.directory, source="mine", shard_rows=SHARD)


@pytest.mark.parametrize("index", ["", *INDEXES])
def test_queries_find_their_best_passages(encoder, vectors, index, tmp_path):
    run = search_corpus(encoder, vectors, QUERIES, 7, index=index)
    scores = encoder.encode([q.joined for q in QUERIES], "query") @ vectors[0 : len(vectors)].T
    for query, expected in zip(QUERIES.ids, scores, strict=True):
        assert list(run[query].values()) == sorted(run[query].values(), reverse=True)
        np.testing.assert_allclose(
            list(run[query].values()), -np.sort(-expected)[:7], rtol=1e-5, atol=1e-5
        )
        for name, score in run[query].items():
            assert score == pytest.approx(expected[int(name[1:])], abs=1e-4)
    write_run(tmp_path / "run.trec", run, "mine")
    assert read_run(tmp_path / "run.trec") == {query: dict(run[query]) for query in QUERIES.ids}


def test_an_index_is_built_once_and_anew_beside_other_vectors(encoder, vectors, tmp_path):
    def built(found):
        """When the index was written with which a query finds one passage."""
        assert len(search_corpus(encoder, found, QUERIES, 1, index="flat")["q0"]) == 1
        return (found.directory / "faiss-flat.index").stat().st_mtime_ns

    assert built(vectors) == built(vectors)
    before = built(vectors)
    (vectors.directory / "faiss-flat.json").write_text('{"content": "half of a no')
    assert built(vectors) != before  # a damaged note is none
    few = encode_corpus(encoder, CORPUS[:5], tmp_path / "v", shard_rows=SHARD)
    for name in ("faiss-flat.index", "faiss-flat.json"):
        shutil.copy2(vectors.directory / name, few.directory / name)
    assert built(few) != built(vectors)


def test_an_encoder_of_other_weights_pooling_or_prefix_is_refused(vectors, tmp_path):
    other = Encoder.load(export_tiny(tmp_path, seed=1, pooling="cls", normalize=True))
    with pytest.raises(UserError) as found:
        search_corpus(other, vectors, QUERIES, 3)
    text = str(found.value)
    assert "was not encoded with" in text and "pooling 'mean', not 'cls'" in text
    assert "normalize False, not True" in text and "query_prefix 'the text ', not ''" in text
    assert "weights_hash" in text and "tokenizer_hash" not in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query_max_length": 12}, "it has query_max_length 20, not 12; encode the corp"),
        ({"passage_max_length": 30}, "it has passage_max_length 36, not 30; encode the"),
    ],
)
def test_an_encoder_of_other_lengths_is_refused(vectors, tmp_path, changes, message):
    how = {"pooling": "mean", "query_prefix": "the text "}
    with pytest.raises(UserError, match=message):
        search_corpus(Encoder.load(export_tiny(tmp_path, **how, **changes)), vectors, QUERIES, 3)


def test_an_encoder_of_another_tokenizer_is_refused(encoder, vectors, tmp_path, monkeypatch):
    described = encoder.described() | {"tokenizer_hash": "c" * 32}
    monkeypatch.setattr(encoder, "described", lambda: described)
    with pytest.raises(UserError, match=r"it has tokenizer_hash \w{8}, not cccccccc; encode the c"):
        search_corpus(encoder, vectors, QUERIES, 3)


def test_texts_are_those_of_a_file_or_of_a_collection(tmp_path, monkeypatch):
    monkeypatch.setenv("CONDENSER_JAX_CACHE", str(tmp_path / "cache"))
    (tmp_path / "corpus.jsonl").write_text('{"_id": "1", "text": "one"}\n')
    (tmp_path / "queries.jsonl").write_text('{"_id": "a", "text": "which"}\n')
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\na\t1\t1\n")
    assert open_texts(f"beir:{tmp_path}").ids == ["1"]
    assert open_texts(f"beir:{tmp_path}", split="absent").ids == ["1"]  # passages are of no split
    assert open_texts(f"beir:{tmp_path}", "query").ids == ["a"]
    with pytest.raises(UserError, match="has no split 'absent'"):
        open_texts(f"beir:{tmp_path}", "query", split="absent")
    assert open_texts(str(tmp_path / "queries.jsonl"), "query").ids == ["a"]
    with pytest.raises(UserError, match="names no kind; write KIND:WHERE"):
        open_texts(str(tmp_path / "corpus.json"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float64"}, "unknown dtype of vectors 'float64'"),
        ({"shard_rows": 0}, "shard_rows 0 leaves no vector in a shard; use 1 or more"),
    ],
)
def test_impossible_vectors_are_refused(encoder, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        encode_corpus(encoder, CORPUS, tmp_path / "v", **options)
    assert not (tmp_path / "v").exists()


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        (
            {"recall": 0.9, "index": "flat"},
            "approximate 0.9 is a wish to the search of the vec",
        ),
        (
            {"recall": 1.0},
            r"approximate 1 is no share of .*; expected from 0 to below 1, e.g. 0.95",
        ),
        ({"recall": -0.1}, r"approximate -0.1 is no share .* or leave it out \(0\) to find all of"),
        ({"index": "hsnw"}, "unknown index 'hsnw'; did you mean 'hnsw'"),
    ],
)
def test_impossible_wishes_are_refused_before_a_query_is_encoded(
    encoder, vectors, watched, wishes, message
):
    with pytest.raises(UserError, match=message):
        search_corpus(encoder, vectors, QUERIES, 3, **wishes)
    assert not watched


@pytest.mark.parametrize("index", ["", "flat"])
def test_no_passage_cannot_be_asked_for(encoder, vectors, index):
    with pytest.raises(UserError, match="k 0 asks for no passage; use 1 or more"):
        search_corpus(encoder, vectors, QUERIES, 0, index=index)


def test_broken_texts_are_fatal_above_the_share_that_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("CONDENSER_JAX_CACHE", str(tmp_path / "cache"))
    lines = ['{"_id": "1", "text": "one"}', '{"_id": "2", "text": ""}', '{"_id": "1", "text": "x"}']
    (tmp_path / "corpus.jsonl").write_text("\n".join(lines))
    with pytest.raises(UserError, match=r"2 of 3 records are broken.* corpus.jsonl:2 has an empty"):
        open_texts(str(tmp_path / "corpus.jsonl"))
    few = CollectionOptions(bad_share=0.7)
    assert open_texts(str(tmp_path / "corpus.jsonl"), options=few).ids == ["1"]


def test_faiss_is_an_extra(encoder, vectors, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(UserError, match=r'faiss, which is not installed; pip install "condenser_j'):
        search_corpus(encoder, vectors, QUERIES, 3, index="flat")
