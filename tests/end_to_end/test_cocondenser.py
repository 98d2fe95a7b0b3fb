"""coCondenser by its command: from scratch, and from a Condenser's work directory."""

import json

import pytest

from tests.end_to_end.launching import launch

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def warm(finished, cache, tmp_path_factory):
    """A coCondenser that started from the Condenser `finished`: its work directory, its log."""
    workdir = tmp_path_factory.mktemp("runs") / "warm"
    init = f"--config.model.init={finished}"
    config = "--config=configs/cocondenser.py:smoke"
    done = launch("train", config, f"--workdir={workdir}", init, cache=cache)
    assert done.returncode == 0, done.stderr
    return workdir, done.stderr


def test_the_log_says_where_weights_came_from_what_was_left_out_and_how_many_negatives(
    warm, finished
):
    for group in ("backbone", "mlm_head", "condenser_head"):
        assert f"weights: {group}: from {finished} after step 20" in warm[1]
    assert "documents have fewer than two spans and are left out" in warm[1]
    assert "14 negatives of each span" in warm[1]
    assert "RANDOM" not in warm[1]


def test_it_begins_with_the_loss_at_which_the_condenser_ended(warm, finished):
    before = json.loads((warm[0] / "result.json").read_text())["first"]
    after = json.loads((finished / "result.json").read_text())
    assert before["heldout/head_loss"] == pytest.approx(after["last"]["heldout/head_loss"], 1e-4)
    assert abs(before["heldout/head_loss"] - after["first"]["heldout/head_loss"]) > 1e-2


def test_a_cocondenser_can_be_exported(warm, cache, tmp_path):
    done = launch("export", f"--workdir={warm[0]}", f"--output={tmp_path / 'hf'}", cache=cache)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "hf" / "condenser_head.safetensors").is_file()
