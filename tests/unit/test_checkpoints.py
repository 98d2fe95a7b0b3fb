"""Checkpoints are kept as asked, damaged ones set aside, and each failure is one line."""

import errno
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from condenser_jax.errors import UserError
from condenser_jax.training.checkpoints import Checkpoints
from condenser_jax.training.saved import Saved
from tests.states import abstract, assert_equal, make_state


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Checkpoints 1, 2 and 3 of states that differ."""
    directory = tmp_path_factory.mktemp("checkpoints")
    with Checkpoints(directory, keep=3) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, make_state(scale=step), {"step": step}, metric=1.0)
    return directory


@pytest.fixture
def directory(three, tmp_path):
    return Path(shutil.copytree(three, tmp_path / "checkpoints"))


def damage(checkpoint):
    (checkpoint / "record" / "metadata").write_text("")


def test_the_latest_two_and_the_best_are_kept(tmp_path):
    metrics = {1: 3.0, 2: 1.0, 3: 2.0, 4: float("nan"), 5: None}
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step, metric in metrics.items():
            checkpoints.save(step, make_state(), {}, metric)
    assert (Saved(tmp_path).best_step, Saved(tmp_path).latest_step) == (2, 5)
    assert Saved(tmp_path).steps == [2, 4, 5]


def test_the_best_is_still_known_when_the_run_is_started_again(tmp_path):
    for step, metric in {1: 3.0, 2: 1.0, 3: 2.0, 4: 2.5}.items():
        with Checkpoints(tmp_path, keep=1) as checkpoints:
            checkpoints.save(step, make_state(), {}, metric)
    assert Saved(tmp_path).steps == [2, 4]


def test_the_best_may_be_the_highest(tmp_path):
    with Checkpoints(tmp_path, keep=1, lower_is_better=False) as checkpoints:
        for step, metric in {1: 3.0, 2: 1.0, 3: 2.0}.items():
            checkpoints.save(step, make_state(), {}, metric)
        checkpoints.wait()
        assert checkpoints.best_step == 1


def test_a_state_that_is_donated_during_the_save_is_saved_as_it_was(tmp_path):
    update = jax.jit(lambda tree: jax.tree.map(lambda x: x * 2 + 1, tree), donate_argnums=0)
    start = {"backbone": {"query": {"kernel": jnp.arange(1_000_000.0).reshape(1000, 1000)}}}
    state = make_state().replace(params=start)
    expected, target = np.arange(1_000_000.0).reshape(1000, 1000), abstract(start)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {})
        params = state.params
        for _ in range(5):
            params = update(params)
        checkpoints.wait()
        found = checkpoints.restore_params(1, target)
    np.testing.assert_array_equal(found["backbone"]["query"]["kernel"], expected)


def test_saving_a_step_twice_is_our_mistake(directory):
    with Checkpoints(directory) as checkpoints:
        with pytest.raises(AssertionError, match="step 3 was not saved: step 3 is there already"):
            checkpoints.save(3, make_state(), {})


def test_a_run_without_checkpoints_starts_anew(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.restore_latest(abstract(make_state())) is None


@pytest.mark.parametrize("damaged, expected", [([], 3), ([3], 2), ([3, 2], 1), ([2], 3)])
def test_the_latest_sound_checkpoint_is_restored(directory, caplog, damaged, expected):
    for step in damaged:
        damage(directory / str(step))
    skipped = [step for step in damaged if step > expected]
    with Checkpoints(directory) as checkpoints:
        step, state, record = checkpoints.restore_latest(abstract(make_state()))
        assert (step, record) == (expected, {"step": expected})
        assert_equal(state, make_state(scale=expected))
        assert checkpoints.latest_step == expected
        names = {path.name for path in directory.glob("*.corrupt")}
        assert names == {f"{step}.corrupt" for step in skipped}


def test_a_damaged_checkpoint_is_told_of_in_one_line(directory, monkeypatch):
    said = []
    monkeypatch.setattr("logging.Logger.warning", lambda _, text, *args: said.append(text % args))
    damage(directory / "3")
    with Checkpoints(directory) as checkpoints:
        checkpoints.restore_latest(abstract(make_state()))
    (line,) = said
    assert line == (
        f"checkpoint {directory}/3 is damaged (record: Expecting value: line 1 column 1 (char 0)): "
        "it is kept as 3.corrupt, and the run goes on from the one before, step 2"
    )


def test_the_step_of_a_damaged_checkpoint_can_be_saved_again_and_again(directory):
    for expected in (["3.corrupt"], ["3.corrupt", "3.corrupt-2"]):
        damage(directory / "3")
        with Checkpoints(directory) as checkpoints:
            checkpoints.restore_latest(abstract(make_state()))
            checkpoints.save(3, make_state(scale=30), {"step": 3})
        assert sorted(path.name for path in directory.glob("3.*")) == expected
        assert Saved(directory).latest_step == 3


def test_when_all_are_damaged_nothing_is_changed(directory):
    for step in (1, 2, 3):
        damage(directory / str(step))
    before = sorted(directory.rglob("*"))
    with Checkpoints(directory) as checkpoints:
        text = r"no checkpoint in .* can be read: step 3: .*; step 2: .*; step 1: .*; restore one"
        with pytest.raises(UserError, match=text):
            checkpoints.restore_latest(abstract(make_state()))
    assert sorted(directory.rglob("*")) == before


def test_a_checkpoint_of_another_structure_is_no_reason_to_fall_back(directory):
    with Checkpoints(directory) as checkpoints:
        with pytest.raises(UserError, match="checkpoint .*/3 does not fit this configuration"):
            checkpoints.restore_latest(jax.eval_shape(lambda: make_state(width=4)))
    assert Saved(directory).steps == [1, 2, 3]


@pytest.mark.parametrize("asynchronous", [True, False])
@pytest.mark.parametrize(
    "number, words",
    [
        (errno.ENOSPC, r"^disk full while saving in .*; the last good checkpoint is step 1; free"),
        (errno.EROFS, r"^read-only file system while saving in .* is step 1; see that it can be"),
    ],
)
def test_a_disk_that_cannot_be_written_is_said_and_leaves_the_last_good_checkpoint(
    tmp_path, monkeypatch, asynchronous, number, words
):
    with Checkpoints(tmp_path, asynchronous=asynchronous) as checkpoints:
        checkpoints.save(1, make_state(), {})
        checkpoints.wait()

        def fail(*_, **__):
            raise OSError(number, os.strerror(number))

        # The last act of writing a checkpoint, in the background when asynchronous.
        monkeypatch.setattr(
            "orbax.checkpoint._src.path.atomicity.AtomicRenameTemporaryPath.finalize", fail
        )
        with pytest.raises(UserError, match=words):
            checkpoints.save(2, make_state(), {})
            checkpoints.wait()
        monkeypatch.undo()
        assert checkpoints.latest_step == 1
        assert not list(tmp_path.glob("*tmp*"))
        checkpoints.save(2, make_state(), {})
        checkpoints.wait()
        assert checkpoints.latest_step == 2


@pytest.mark.slow
def test_a_save_that_is_killed_leaves_the_one_before(tmp_path):
    script = """
        import os, signal, sys, threading
        import jax.numpy as jnp
        from tests.states import make_state
        from condenser_jax.training.checkpoints import Checkpoints
        checkpoints = Checkpoints(sys.argv[1])
        checkpoints.save(1, make_state(), {"step": 1})
        checkpoints.wait()
        big = {"backbone": {"kernel": jnp.ones((8000, 4000))}}
        checkpoints.save(2, make_state().replace(params=big), {"step": 2})
        os.kill(os.getpid(), signal.SIGKILL)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, cwd=Path(__file__).parents[2])
    assert done.returncode == -9
    assert list(tmp_path.glob("2*tmp*"))
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step == 1
        _, state, record = checkpoints.restore_latest(abstract(make_state()))
    assert_equal(state, make_state())
    assert json.dumps(record) == '{"step": 1}'
    assert not list(tmp_path.glob("*tmp*"))
