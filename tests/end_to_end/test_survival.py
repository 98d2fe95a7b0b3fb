"""Runs that are asked to stop or interrupted, and started again. Slow: real processes."""

import signal
import time

import numpy as np
import pytest

from tests.end_to_end.ends import assert_same_end, assert_same_parameters
from tests.end_to_end.launching import Started, launch, learned, metrics, smoke

pytestmark = pytest.mark.slow


def test_another_seed_ends_otherwise(finished, cache, tmp_path):
    workdir = tmp_path / "other"
    assert launch("train", *smoke(workdir, "--config.seed=1"), cache=cache).returncode == 0
    with pytest.raises(AssertionError):
        assert_same_end(finished, workdir)


def test_sigterm_saves_exits_75_and_the_run_goes_on_where_it_was(finished, cache, tmp_path):
    workdir = tmp_path / "stopped"
    run = Started(smoke(workdir), cache)
    run.wait_for_step(workdir, 5)
    status, errors = run.send(signal.SIGTERM)
    assert status == 75, errors
    assert "the run is saved and can be resumed" in errors
    again = launch("train", *smoke(workdir), cache=cache)
    assert again.returncode == 0 and "resumed" in again.stderr
    assert_same_parameters(finished, workdir)


def test_ctrl_c_exits_130_without_a_trace_and_leaves_a_resumable_run(finished, cache, tmp_path):
    workdir = tmp_path / "interrupted"
    run = Started(smoke(workdir), cache)
    run.wait_for_step(workdir, 10)
    status, errors = run.send(signal.SIGINT)
    assert status == 130, errors
    assert "Traceback" not in errors
    assert launch("train", *smoke(workdir), cache=cache).returncode == 0
    assert_same_end(finished, workdir)


def test_a_run_goes_on_with_equal_losses_on_another_number_of_devices(cache, tmp_path):
    steps = ["--config.training.steps=40", "--config.training.log_every=1"]
    straight, moved = tmp_path / "straight", tmp_path / "moved"
    assert launch("train", *smoke(straight, *steps), cache=cache).returncode == 0
    run = Started(smoke(moved, *steps), cache)
    run.wait_for_step(moved, 20)
    run.send(signal.SIGTERM)
    again = launch("train", *smoke(moved, *steps), cache=cache, devices=4)
    assert again.returncode == 0, again.stderr
    assert "data 4 x" in again.stderr

    def losses(workdir):
        return [line["train/loss"] for line in metrics(workdir) if "train/loss" in line][-20:]

    np.testing.assert_allclose(losses(moved), losses(straight), rtol=1e-5)


def test_a_finished_run_says_so_and_changes_nothing(finished, cache):
    before = learned(finished)
    again = launch("train", *smoke(finished), cache=cache)
    assert again.returncode == 0
    assert learned(finished) == before


def test_a_work_directory_of_another_configuration_is_refused(finished, cache):
    refused = launch("train", *smoke(finished, "--config.optimizer.learning_rate=0.5"), cache=cache)
    assert refused.returncode == 2
    assert "optimizer.learning_rate 0.002 -> 0.5" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_sigterm_before_training_exits_75(cache, tmp_path):
    run = Started(smoke(tmp_path / "early"), cache)
    time.sleep(1.0)
    status, errors = run.send(signal.SIGTERM)
    assert status == 75 and "nothing is lost" in errors, errors
