"""A run that starts from the work directory of another: its weights, its tokenizer, its sizes."""

import dataclasses
import json
import logging
import os
import shutil

import jax
import numpy as np
import pytest

from condenser_jax.build import build
from condenser_jax.data.tokenization import tokenizer_hash
from condenser_jax.errors import UserError
from condenser_jax.exporting import export_run
from condenser_jax.feeds.spans import PAIRS
from condenser_jax.methods import configure
from condenser_jax.run import _write_companions
from condenser_jax.training.checkpoints import Checkpoints
from condenser_jax.training.workdir import open_workdir
from condenser_jax.warm_start import resumed_start, weights_identity

WORDS = "a condenser reads spans of documents and tells which of them belong together".split()


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """(method, overrides of sections) -> a small run on 200 documents, every tenth of one span."""
    rng = np.random.default_rng(0)
    root = tmp_path_factory.mktemp("warm")
    documents = [
        "\n".join(" ".join(rng.choice(WORDS, 9)) + f" {i}." for _ in range(1 + 2 * (i % 10 > 0)))
        for i in range(200)
    ]
    (root / "documents.txt").write_text("\n\n".join(documents))

    def make(method, **sections):
        values = {
            "data": {
                "source": f"text:{root}/documents.txt",
                "directory": str(root / "prepared"),
                "text_layout": "paragraphs",
                "vocab_size": 110,
                "max_length": 14,
                "heldout_share": 0.2,
                "workers": 1,
            },
            "model": {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "intermediate_size": 32},
            "objective": {"name": method},
            "training": {"steps": 4, "batch_size": 8},
            "evaluation": {"spans": 16, "documents": 8, "batch_size": 8},
        }
        for name, changes in sections.items():
            values.setdefault(name, {}).update(changes)
        return configure(values)

    return make


def start_run(config, path, saves):
    """A work directory as a run leaves it, with untrained weights; `saves` maps steps to offsets
    that are added to all of them.
    """
    built = build(config)
    workdir = open_workdir(path, dataclasses.asdict(config), built.material.hashes)
    _write_companions(workdir, built)
    initial = built.run.initial_state()
    with Checkpoints(workdir.checkpoints, keep=9) as checkpoints:
        for step, offset in saves.items():
            params = jax.tree.map(lambda x, offset=offset: x + offset, initial.params)
            state = dataclasses.replace(initial, params=params)
            checkpoints.save(step, state, {"step": step})
    return jax.tree.map(np.asarray, initial.params)


@pytest.fixture(scope="module")
def condenser(config, tmp_path_factory):
    """The work directory of a Condenser, and what its last checkpoint holds."""
    path = tmp_path_factory.mktemp("runs") / "condenser"
    weights = start_run(config("condenser"), path, {2: 0.25, 4: 0.5})
    return path, jax.tree.map(lambda x: x + np.float32(0.5), weights)


@pytest.fixture
def warnings(caplog, monkeypatch):
    """What our own code warns of, as one text."""
    monkeypatch.setattr(logging.getLogger("condenser_jax"), "propagate", True)
    with caplog.at_level(logging.WARNING, logger="condenser_jax"):
        yield lambda: "".join(r.message for r in caplog.records if r.name == "condenser_jax")


@pytest.fixture(scope="module")
def warm(config, condenser):
    """A coCondenser that starts there, configured as another size of encoder and seed."""
    sections = {"model": {"init": str(condenser[0]), "hidden_size": 48}, "training": {"steps": 9}}
    return build(config("cocondenser", **sections))


def test_a_cocondenser_starts_with_every_group_of_the_last_checkpoint(warm, condenser):
    params = warm.run.initial_state().params
    assert params.keys() == {"backbone", "mlm_head", "condenser_head"}
    expected = {group: condenser[1][group] for group in params}
    jax.tree.map(np.testing.assert_array_equal, params, expected)


def test_the_encoder_s_sizes_are_those_of_the_work_directory(warm):
    assert warm.backbone.hidden_size == 16


def test_the_tokenizer_is_that_of_the_work_directory(warm, condenser, warnings, config):
    used = warm.material.tokenizer_directory
    assert tokenizer_hash(used) == tokenizer_hash(condenser[0] / "tokenizer")
    build(config("cocondenser", model={"init": str(condenser[0])}, data={"vocab_size": 100}))
    assert "THE TOKENIZER IS NOT THAT OF THE CHECKPOINT" not in warnings()


def test_every_group_says_where_it_came_from(warm, condenser):
    for group in ("backbone", "mlm_head", "condenser_head"):
        assert f"weights: {group}: from {condenser[0]} after step 4" in warm.notes


def test_a_work_directory_without_a_condenser_head_is_warned_of_loudly(config, warnings, tmp_path):
    start_run(config("mlm"), tmp_path / "mlm", {4: 0.0})
    built = build(config("cocondenser", model={"init": str(tmp_path / "mlm")}))
    assert "THE CONDENSER HEAD IS RANDOM on a trained backbone" in warnings()
    assert "weights: condenser_head random" in built.notes


@pytest.fixture(scope="module")
def exported(condenser, tmp_path_factory):
    """The export of the Condenser."""
    return export_run(
        condenser[0], tmp_path_factory.mktemp("exports") / "condenser", "last"
    ).directory


@pytest.mark.parametrize(("early_layer", "warned"), [(0, True), (1, False)])
@pytest.mark.parametrize("start", ["a work directory", "an export"])
def test_a_head_that_is_to_read_another_hidden_state_is_warned_of_loudly(
    config, condenser, exported, warnings, start, early_layer, warned
):
    init = str(exported if start == "an export" else condenser[0])
    build(config("cocondenser", model={"init": init}, objective={"early_layer": early_layer}))
    told = "THE CONDENSER HEAD READ HIDDEN STATE 1 in"  # half of two layers
    assert (told in warnings()) == warned


def test_a_run_goes_on_after_what_it_started_from_is_gone(config, condenser, tmp_path):
    origin, path = tmp_path / "origin", tmp_path / "run"
    shutil.copytree(condenser[0], origin)
    tokenizer = origin / "tokenizer" / "tokenizer.json"  # in the words of an older version
    described = json.loads(tokenizer.read_text())
    del described["model"]["type"]
    tokenizer.write_text(json.dumps(described))
    same = config("cocondenser", model={"init": str(origin)})
    began, _ = build(same), start_run(same, path, {2: 0.5})
    shutil.rmtree(origin)
    with pytest.raises(UserError, match="origin' is neither a directory here nor a hub id"):
        build(same)
    resumed = build(same, resumed=resumed_start(path, same))
    assert (resumed.backbone, resumed.notes) == (began.backbone, began.notes)
    assert resumed.material.hashes == began.material.hashes
    with Checkpoints(path / "checkpoints", keep=9) as checkpoints:
        step, state, _ = checkpoints.restore_latest(resumed.run.abstract_state())
    assert step == 2 and state.params.keys() == condenser[1].keys()


def test_a_run_that_has_saved_nothing_yet_begins_again(config, condenser, tmp_path):
    assert resumed_start(tmp_path, config("cocondenser", model={"init": str(condenser[0])})) is None


def test_a_finished_run_that_keeps_no_checkpoint_begins_with_its_weights_again(
    config, condenser, tmp_path
):
    """As the runs of a GLUE suite: else it would go on from random ones."""
    same = config("cocondenser", model={"init": str(condenser[0])})
    start_run(same, tmp_path / "run", {2: 0.5})
    assert resumed_start(tmp_path / "run", same) is not None
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    (tmp_path / "run" / "result.json").write_text("{}")
    assert resumed_start(tmp_path / "run", same) is None


def test_a_work_directory_without_a_checkpoint_is_refused(config, tmp_path):
    start_run(config("condenser"), tmp_path / "young", {})
    with pytest.raises(UserError, match="young has no checkpoint yet; let its run go on until"):
        build(config("cocondenser", model={"init": str(tmp_path / "young")}))


@pytest.mark.parametrize("similarity, unit_length", [("dot", False), ("cosine", True)])
def test_vectors_that_were_contrasted_by_cosine_are_exported_with_unit_length(
    config, similarity, unit_length
):
    changed = config("cocondenser", objective={"similarity": similarity})
    assert PAIRS.card(changed, "").normalize == unit_length


def test_documents_without_two_spans_are_left_out_and_told(config, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("condenser_jax"), "propagate", True)
    with caplog.at_level(logging.INFO, logger="condenser_jax"):
        built = build(config("cocondenser"))
    left_out, documents = built.run.batches.num_left_out, built.run.batches.num_documents
    assert 0 < left_out < documents
    told = f"data: {left_out} of {left_out + documents} documents have fewer than two spans and are"
    assert told in caplog.text


def test_a_corpus_without_documents_of_two_spans_is_refused(config):
    with pytest.raises(UserError, match="none of the .* has two spans; .*smaller data.max_length"):
        build(config("cocondenser", data={"max_length": 128, "short_probability": 0.0}))


def test_weights_to_start_from_are_known_by_their_files(condenser, tmp_path):
    known = weights_identity(str(condenser[0]))
    assert known and all(name.startswith("checkpoints/4/") for name, *_ in known)
    copy = shutil.copytree(condenser[0], tmp_path / "copy")
    for file in copy.rglob("*"):
        os.utime(file)  # as a copy that does not keep times
    assert weights_identity(str(copy)) == known
    shutil.rmtree(copy / "checkpoints" / "4")
    assert weights_identity(str(copy)) != known
    assert weights_identity("") == weights_identity("bert-base-uncased") == []
