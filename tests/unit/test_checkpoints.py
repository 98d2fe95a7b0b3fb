"""Checkpoints come back as they were, the best one stays, and each failure is one line."""

import errno
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from condenser_jax.errors import UserError
from condenser_jax.training import sharding
from condenser_jax.training.checkpoints import Checkpoints, is_disk_full


@flax.struct.dataclass
class State:
    step: jax.Array
    params: dict
    opt_state: dict
    finite: jax.Array


def make_state(width=8, scale=1.0):
    attention = {"query": {"kernel": scale * jnp.arange(width * 8.0).reshape(width, 8)}}
    params = {"backbone": attention, "mlm_head": {"bias": scale * jnp.ones(16)}}
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
    moments = {group: optimizer.init(tree) for group, tree in params.items()}
    return State(jnp.int32(3), params, moments, jnp.bool_(True))


def abstract(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def assert_equal(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    jax.tree.map(np.testing.assert_array_equal, left, right)


@pytest.fixture
def saved(tmp_path):
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(7, make_state(), {"step": 7, "seed": 1})
        checkpoints.wait()
        yield checkpoints


def test_a_state_comes_back_exactly_with_its_record(saved):
    state, record = saved.restore(7, abstract(make_state()))
    assert_equal(state, make_state())
    assert record == {"step": 7, "seed": 1}
    assert saved.read_record(7) == record


def test_a_state_comes_back_on_another_mesh(saved):
    mesh = sharding.make_mesh(fsdp=2, tensor=2)
    places = sharding.parameter_shardings(make_state(), mesh)
    target = jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
        make_state(),
        places,
    )
    state, _ = saved.restore(7, target)
    assert_equal(state, make_state())
    assert jax.tree.map(lambda x: x.sharding, state) == places


def test_one_group_can_be_read_alone(saved):
    wanted = {"mlm_head": abstract(make_state()).params["mlm_head"]}
    assert_equal(saved.restore_params(7, wanted), {"mlm_head": make_state().params["mlm_head"]})


def test_parameters_are_read_without_the_optimizer(saved):
    for file in (saved.directory / "7" / "rest").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    params = abstract(make_state()).params
    assert_equal(saved.restore_params(7, params), make_state().params)


def test_the_latest_two_and_the_best_are_kept(tmp_path):
    metrics = {1: 3.0, 2: 1.0, 3: 2.0, 4: float("nan"), 5: None}
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        for step, metric in metrics.items():
            checkpoints.save(step, make_state(), {}, metric)
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert (checkpoints.best_step, checkpoints.latest_step) == (2, 5)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.isdigit()) == list("245")


def test_the_best_may_be_the_highest(tmp_path):
    with Checkpoints(tmp_path, keep=1, lower_is_better=False) as checkpoints:
        for step, metric in {1: 3.0, 2: 1.0, 3: 2.0}.items():
            checkpoints.save(step, make_state(), {}, metric)
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


def test_saving_a_step_twice_is_our_mistake(saved):
    with pytest.raises(AssertionError, match="step 7 was not saved: step 7 is there already"):
        saved.save(7, make_state(), {})


def test_a_missing_checkpoint_names_those_that_exist(saved):
    with pytest.raises(UserError, match=r"no checkpoint found at .*/9; steps there: 7$"):
        saved.restore(9, abstract(make_state()))


def test_a_missing_directory_is_named_and_not_made(tmp_path):
    with pytest.raises(UserError, match=r"no checkpoint found in .*/nowhere: there is no such dir"):
        Checkpoints(tmp_path / "nowhere", read_only=True)
    assert not (tmp_path / "nowhere").exists()


def test_a_foreign_checkpoint_is_refused(saved):
    (saved.directory / "9" / "default").mkdir(parents=True)
    with pytest.raises(UserError, match="9 is not a checkpoint of condenser_jax: it must hold the"):
        saved.read_record(9)


def test_a_damaged_checkpoint_is_named(saved):
    for file in (saved.directory / "7" / "record").iterdir():
        file.write_text("{broken")
    with pytest.raises(UserError, match=r"checkpoint .*/7 cannot be read .*; remove it to go on"):
        saved.read_record(7)


@pytest.mark.parametrize("part", ["whole", "params"])
def test_another_shape_names_the_parameter(saved, part):
    text = r"backbone/query/kernel is of shape \[8, 8\] there and of shape \[4, 8\] here"
    other = jax.eval_shape(lambda: make_state(width=4))
    with pytest.raises(UserError, match=text):
        saved.restore(7, other) if part == "whole" else saved.restore_params(7, other.params)


def test_a_group_that_is_left_over_is_named(saved):
    state = abstract(make_state())
    state.params.pop("mlm_head")
    text = r"mlm_head/bias is of shape \[16\] there and absent here"
    with pytest.raises(UserError, match=text):
        saved.restore(7, state)


def test_another_optimizer_is_named(saved):
    state = make_state()
    state = state.replace(opt_state={k: optax.sgd(0.1).init(v) for k, v in state.params.items()})
    with pytest.raises(UserError, match=r"opt_state/backbone/.* there and absent here"):
        saved.restore(7, abstract(state))


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_full_disk_is_said_and_leaves_the_last_good_checkpoint(
    tmp_path, monkeypatch, asynchronous
):
    with Checkpoints(tmp_path, asynchronous=asynchronous) as checkpoints:
        checkpoints.save(1, make_state(), {})
        checkpoints.wait()

        def fail(*_, **__):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        # The last act of writing a checkpoint, in the background when asynchronous.
        monkeypatch.setattr(
            "orbax.checkpoint._src.path.atomicity.AtomicRenameTemporaryPath.finalize", fail
        )
        with pytest.raises(
            UserError, match=r"disk full .*; the last good checkpoint is step 1; free"
        ):
            checkpoints.save(2, make_state(), {})
            checkpoints.wait()
        monkeypatch.undo()
        assert checkpoints.latest_step == 1
        assert not list(tmp_path.glob("*tmp*"))
        checkpoints.save(2, make_state(), {})
        checkpoints.wait()
        assert checkpoints.latest_step == 2


def test_the_words_of_tensorstore_for_a_full_disk_are_known():
    text = "RESOURCE_EXHAUSTED: Failed writing: No space left on device [os_error_code='28']"
    assert is_disk_full(ValueError(text))
    assert not is_disk_full(ValueError("RESOURCE_EXHAUSTED: out of memory"))


@pytest.mark.slow
def test_a_save_that_is_killed_leaves_the_one_before(tmp_path):
    script = """
        import os, signal, sys, threading
        import jax.numpy as jnp
        from tests.unit.test_checkpoints import make_state
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
        state, record = checkpoints.restore(1, abstract(make_state()))
    assert_equal(state, make_state())
    assert json.dumps(record) == '{"step": 1}'
    assert not list(tmp_path.glob("*tmp*"))
