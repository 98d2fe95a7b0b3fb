"""An export is loaded again and held against its run before it takes its name."""

import json
import shutil
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from condenser_jax import Encoder, exporting
from condenser_jax.errors import RunFailed, UserError
from condenser_jax.exporting import differences_of, export_run, sample_texts
from condenser_jax.hf.card import CARD_FILE
from condenser_jax.hf.load import LEFT_OUT, load_checkpoint
from tests.encoders import export_tiny


@pytest.fixture(autouse=True)
def without_torch(monkeypatch):
    """tests/parity/test_exporting.py compares with those who need it."""
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return Encoder.load(export_tiny(tmp_path_factory.mktemp("exported"), query_prefix="one "))


def test_texts_of_the_check_are_empty_short_and_longer_than_the_encoder_reads(encoder):
    tokenizer = encoder.source.tokenizer
    lengths = [len(tokenizer(text)["input_ids"]) for text in sample_texts(tokenizer)]
    assert min(lengths) == 2 and sorted(lengths)[1] < 20
    assert max(lengths) > encoder.card.passage_max_length


def test_an_export_with_the_vectors_of_its_run_passes(encoder):
    found = differences_of(encoder, encoder.source.directory)
    assert list(found) == ["condenser_jax"] and found["condenser_jax"] < 1e-6


@pytest.mark.parametrize("change", [{"seed": 1}, {"pooling": "mean"}, {"query_prefix": ""}])
def test_an_export_with_other_vectors_is_refused(encoder, change, tmp_path):
    other = export_tiny(tmp_path, **{"query_prefix": "one ", **change})
    message = r"not written: loaded by condenser_jax its vectors differ by \d\S+ .* allowed 1e-04"
    with pytest.raises(RunFailed, match=message):
        differences_of(encoder, other)


def test_two_encoders_are_exported_as_one_directory_inside_the_other(encoder, tmp_path):
    both = Encoder.load(export_tiny(tmp_path, queries_seed=1, query_prefix="one "))
    directory = both.source.directory
    assert set(both.source.params) == {"backbone", "query_backbone"}
    assert "query_encoder/" in (directory / "README.md").read_text()
    texts = ["one two three"]
    np.testing.assert_array_equal(both.encode(texts), encoder.encode(texts))
    alone = Encoder.load(directory / "query_encoder")
    np.testing.assert_array_equal(both.encode(texts, "query"), alone.encode(texts, "query"))
    assert np.abs(both.encode(texts, "query") - encoder.encode(texts, "query")).max() > 0.1
    assert differences_of(both, directory)["condenser_jax"] < 1e-6
    notes = load_checkpoint(directory).notes
    assert f"query_backbone: {LEFT_OUT}" in notes and not any("query_encoder" in n for n in notes)


def test_an_export_of_one_encoder_takes_the_place_of_two(tmp_path):
    directory = export_tiny(tmp_path, queries_seed=1)
    shutil.rmtree(tmp_path / "tokenizer")
    assert export_tiny(tmp_path) == directory and not (directory / "query_encoder").exists()


def test_a_graph_without_its_packages_is_refused_before_anything_is_read(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"ONNX needs onnx\w*, which is .*condenser_jax\[onnx"):
        export_run("runs/none", tmp_path / "out", "last", with_onnx=True)


def test_a_classifier_is_exported_without_a_graph(monkeypatch, tmp_path):
    run = SimpleNamespace(params={"classifier": {}}, workdir=SimpleNamespace(root="runs/glue"))
    monkeypatch.setattr(exporting, "check_packages", lambda: None)
    monkeypatch.setattr(exporting, "read_run", lambda path, step: run)
    message = r"runs/glue is a classifier, and --onnx writes encoders; leave it out"
    with pytest.raises(UserError, match=message):
        export_run("runs/glue", tmp_path / "out", "last", with_onnx=True)


def test_the_card_of_an_export_says_whether_it_was_fine_tuned(tmp_path):
    directory = export_tiny(tmp_path, is_fine_tuned=True)
    assert json.loads((directory / CARD_FILE).read_text())["is_fine_tuned"] is True
    assert "is_fine_tuned" not in Encoder.load(directory).described()
