"""An exported directory gives one vector to our encoder, sentence-transformers and ONNX Runtime.

Reference: torch and ONNX Runtime on CPU, float32; tolerance 1e-4. Negative control: other weights,
or another pooling in a file that only the other one reads, must differ.
"""

import dataclasses
import re
import shutil

import numpy as np
import pytest

from condenser_jax import Encoder
from condenser_jax.errors import RunFailed
from condenser_jax.exporting import differences_of
from condenser_jax.hf.card import CARD_FILE, read_card, write_card
from condenser_jax.hf.load import QUERY_ENCODER
from condenser_jax.hf.onnx_file import ONNX_FILE, run_onnx, write_onnx
from tests.encoders import export_tiny

pytest.importorskip("torch", reason="compares with torch, which is not installed")
KINDS = {
    "bert": {"pooling": "cls", "query_prefix": "one "},
    "roberta": {"pooling": "mean", "normalize": True},
    "electra": {"pooling": "mean"},
}


@pytest.fixture(scope="module", params=list(KINDS))
def encoder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return Encoder.load(export_tiny(folder, request.param, **KINDS[request.param]))


def test_sentence_transformers_finds_the_vectors_of_an_export(encoder):
    found = differences_of(encoder, encoder.source.directory)
    assert found["sentence-transformers"] < 1e-4 and len(found) == 2


def test_files_of_sentence_transformers_that_name_another_pooling_are_noticed(tmp_path):
    encoder = Encoder.load(export_tiny(tmp_path, pooling="cls"))
    pooling = encoder.source.directory / "1_Pooling" / "config.json"
    swapped = pooling.read_text().replace("true", "TRUE").replace("false", "true", 1)
    pooling.write_text(swapped.replace("TRUE", "false"))
    with pytest.raises(RunFailed, match="loaded by sentence-transformers its vectors differ by"):
        differences_of(encoder, encoder.source.directory)


def scores_of(directory, library, monkeypatch):
    """What the model card's code for a library finds of its query and its passage."""
    blocks = re.findall(r"```python\n(.*?)```", (directory / "README.md").read_text(), re.DOTALL)
    (code,) = (block for block in blocks if library in block)
    monkeypatch.chdir(directory)
    found = {}
    exec(code.replace("this directory", str(directory)), found)
    return np.asarray(found["scores"])


BOTH = {"query_prefix": "one ", "passage_prefix": "two ", "query_max_length": 4}


@pytest.mark.parametrize("queries_seed", [None, 1], ids=["one encoder", "two encoders"])
def test_the_code_on_the_model_card_finds_the_vectors(tmp_path, monkeypatch, queries_seed):
    directory = export_tiny(tmp_path, queries_seed=queries_seed, pooling="mean", **BOTH)
    encoder = Encoder.load(directory)
    queries = encoder.encode(["a query"], "query")
    expected = queries @ encoder.encode(["a passage"]).T
    for library in ("condenser_jax", "sentence_transformers"):
        found = scores_of(directory, library, monkeypatch)
        np.testing.assert_allclose(found, expected, rtol=1e-4)
    plain = encoder.encode(["a query"]) @ encoder.encode(["a passage"]).T
    assert np.abs(plain - expected).max() > 1e-3 * np.abs(expected).max()


@pytest.mark.slow
def test_two_encoders_have_two_graphs_and_the_model_card_runs_them(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    directory = export_tiny(tmp_path, queries_seed=1, with_onnx=True, pooling="mean", **BOTH)
    encoder = Encoder.load(directory)
    assert differences_of(encoder, directory)["ONNX Runtime"] < 1e-4
    assert (directory / "query_encoder" / ONNX_FILE).is_file()
    assert "`query_encoder/encoder.onnx`" in (directory / "README.md").read_text()
    expected = encoder.encode(["a query"], "query") @ encoder.encode(["a passage"]).T
    found = scores_of(directory, "onnxruntime", monkeypatch)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.slow
def test_onnx_runtime_finds_the_vectors_of_an_export(encoder):
    pytest.importorskip("onnxruntime")
    directory = encoder.source.directory
    write_onnx(directory)
    found = differences_of(encoder, directory)
    assert found["ONNX Runtime"] < 1e-4 and len(found) == 3
    for shape in ((1, 2), (1, 36), (7, 5)):  # free, also of a batch of one
        ids = np.full(shape, 6)
        assert run_onnx(directory / ONNX_FILE, ids, np.ones(shape)).shape == (shape[0], 32)
    card = read_card(directory / CARD_FILE)
    write_card(dataclasses.replace(card, normalize=not card.normalize), directory / CARD_FILE)
    other = Encoder.load(directory)
    (directory / "modules.json").unlink()  # sentence-transformers would take the mean
    with pytest.raises(RunFailed, match="loaded by (ONNX Runtime|sentence-transformers)"):
        differences_of(other, directory)


@pytest.mark.slow
def test_two_encoders_have_a_graph_each(tmp_path):
    pytest.importorskip("onnxruntime")
    directory = export_tiny(tmp_path, queries_seed=1, with_onnx=True, query_prefix="one ")
    both = Encoder.load(directory)
    found = differences_of(both, directory)
    assert set(found) == {"condenser_jax", "sentence-transformers", "ONNX Runtime"}
    assert max(found.values()) < 1e-4
    shutil.copyfile(directory / ONNX_FILE, directory / QUERY_ENCODER / ONNX_FILE)
    with pytest.raises(RunFailed, match="loaded by ONNX Runtime its vectors differ by"):
        differences_of(both, directory)
