"""Pairs and triplets of sentences, from training to evaluation. Slow: real processes."""

import json

import pytest

from tests.end_to_end.launching import launch

pytestmark = pytest.mark.slow


def test_a_triplet_run_is_evaluated_as_it_was_measured(cache, tmp_path):
    run = tmp_path / "run"
    how = ["--config=configs/sections.py:smoke", f"--workdir={run}"]
    done = launch("train", *how, cache=cache)
    assert "accuracy on triplets: " in done.stdout, done.stderr
    measured = json.loads((run / "result.json").read_text())["last"]["heldout/accuracy"]
    how = ["--task=sections", "--data=docstrings:jax", "--split=dev", f"--output={tmp_path / 'a'}"]
    done = launch("evaluate", *how, f"--model={run}", cache=cache)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "a.json").read_text())["systems"]["run"]["accuracy"]
    assert found == pytest.approx(measured, abs=0.05)  # at most one triplet of some 30 on the edge


def test_few_labels_are_runs_done_once_in_one_table(cache, tmp_path):
    how = ["--config=configs/sts.py:smoke", f"--workdir={tmp_path / 'runs'}", "--limits=30"]
    how += ["--seeds=2", "--epochs=1", "--test=docstrings:jax"]
    done = launch("low_data", *how, cache=cache)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split()[:4] == ["system", "runs", "spearman", "sd"] and "test" in lines[0]
    assert lines[1].startswith("30 rows     2")
    again = launch("low_data", *how, cache=cache)
    assert again.stdout == done.stdout and "done before" in again.stderr
