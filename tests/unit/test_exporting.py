"""An export is loaded again and held against its run before it takes its name."""

import json
import sys
from types import SimpleNamespace

import pytest

from condenser_jax import Encoder, exporting
from condenser_jax.errors import RunFailed, UserError
from condenser_jax.exporting import differences_of, export_run, sample_texts
from condenser_jax.hf.card import CARD_FILE
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


def test_an_encoder_of_queries_beside_that_of_passages_is_no_single_directory(
    monkeypatch, tmp_path
):
    run = SimpleNamespace(
        params={"backbone": {}, "query_backbone": {}}, workdir=SimpleNamespace(root="runs/untied")
    )
    monkeypatch.setattr(exporting, "read_run", lambda path, step: run)
    with pytest.raises(UserError, match="runs/untied has an encoder of its own for queries, and a"):
        export_run("runs/untied", tmp_path / "out", "last")
    assert not (tmp_path / "out").exists()


def test_a_graph_without_its_packages_is_refused_before_anything_is_read(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(UserError, match=r"ONNX needs onnx\w*, which is .*condenser_jax\[onnx"):
        export_run("runs/none", tmp_path / "out", "last", with_onnx=True)


def test_the_card_of_an_export_says_whether_it_was_fine_tuned(tmp_path):
    directory = export_tiny(tmp_path, is_fine_tuned=True)
    assert json.loads((directory / CARD_FILE).read_text())["is_fine_tuned"] is True
    assert "is_fine_tuned" not in Encoder.load(directory).described()
