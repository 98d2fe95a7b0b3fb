"""Checkpoints are read back as they were; damage is told from what the reader lacks."""

import shutil
import subprocess
import sys

import jax
import numpy as np
import optax
import pytest

from condenser_jax.errors import UserError
from condenser_jax.training import sharding
from condenser_jax.training.checkpoints import Checkpoints
from condenser_jax.training.saved import Damaged, Saved
from tests.states import abstract, assert_equal, make_state, noise

WIDE = noise(make_state(width=256))  # 8 kB: small arrays are stored elsewhere than large ones


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    directory = tmp_path_factory.mktemp("checkpoints")
    with Checkpoints(directory) as checkpoints:
        checkpoints.save(7, make_state(), {"step": 7, "seed": 1})
        checkpoints.save(8, WIDE, {"step": 8})
    return directory


@pytest.fixture
def saved(written, tmp_path):
    shutil.copytree(written, tmp_path / "checkpoints")
    return Saved(tmp_path / "checkpoints")


def data_files(directory):
    """The files that hold the numbers."""
    return [path for path in directory.rglob("*") if path.is_file() and path.parent.name == "d"]


def flip(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


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


def test_a_missing_checkpoint_names_those_that_exist(saved):
    with pytest.raises(UserError, match=r"no checkpoint found at .*/9; steps there: 7, 8$"):
        saved.restore(9, abstract(make_state()))


def test_a_missing_directory_is_named_and_not_made(tmp_path):
    with pytest.raises(UserError, match=r"no checkpoint found in .*/nowhere: there is no such dir"):
        Saved(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_checkpoint_that_lost_an_item_is_damaged(saved):
    shutil.rmtree(saved.directory / "7" / "rest")
    with pytest.raises(
        Damaged, match=r"checkpoint .*/7 is damaged \(it lacks rest\); name another"
    ):
        saved.restore(7, abstract(make_state()))


@pytest.mark.parametrize("content", ["", "{broken", '{"checksum": 3, "loop": {}}', "\x00" * 40])
def test_a_record_that_is_no_longer_what_was_stored_is_damaged(saved, content):
    (saved.directory / "7" / "record" / "metadata").write_text(content)
    with pytest.raises(Damaged, match=r"checkpoint .*/7 is damaged \(.+\); name another step"):
        saved.read_record(7)


def test_a_checkpoint_of_an_earlier_version_is_not_called_damaged(saved):
    (saved.directory / "7" / "record" / "metadata").write_text('{"step": 7}')
    with pytest.raises(UserError, match=r"/7 is of an earlier version of condenser_jax") as caught:
        saved.restore(7, abstract(make_state()))
    assert not isinstance(caught.value, Damaged)


def test_no_flipped_bit_comes_back_as_a_number(saved):
    """The libraries below us believe what the disk returns: this is our own guard."""
    found, rng = [], np.random.default_rng(0)
    for file in data_files(saved.directory / "8"):
        for place in rng.choice(file.stat().st_size, 4):
            flip(file, place)
            try:
                state, _ = saved.restore(8, abstract(WIDE))
                assert_equal(state, WIDE)  # a byte that nobody reads
            except Damaged as error:
                found.append(error.reason)
            flip(file, place)
    assert "params/backbone/query/kernel does not have its checksum" in found
    assert_equal(saved.restore(8, abstract(WIDE))[0], WIDE)  # sound, as it was


def test_parameters_that_changed_on_disk_are_not_exported(saved):
    for file in data_files(saved.directory / "8" / "params"):
        flip(file, file.stat().st_size // 2)
    with pytest.raises(Damaged):
        saved.restore_params(8, abstract(WIDE).params)


def truncate(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(file):
    file.write_bytes(b"")


def delete(file):
    file.unlink()


@pytest.mark.parametrize("harm", [truncate, empty, delete])
def test_files_that_are_cut_or_gone_are_damage(saved, harm):
    for file in data_files(saved.directory / "8" / "rest"):
        harm(file)
    with pytest.raises(Damaged, match=r"checkpoint .*/8 is damaged \(.+\); name another step"):
        saved.restore(8, abstract(WIDE))


@pytest.mark.parametrize(
    "error, expected",
    [
        (PermissionError(13, "Permission denied"), UserError),
        (OSError(24, "Too many open files"), UserError),
        (MemoryError(), MemoryError),
        (
            jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory"),
            jax.errors.JaxRuntimeError,
        ),
    ],
)
def test_what_the_reader_lacks_is_no_damage(saved, monkeypatch, error, expected):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("orbax.checkpoint.PyTreeCheckpointHandler.restore", fail)
    with pytest.raises(expected) as caught:
        saved.restore(7, abstract(make_state()))
    assert not isinstance(caught.value, Damaged)


@pytest.mark.parametrize("part", ["whole", "params"])
def test_another_shape_names_the_parameter(saved, part):
    text = (
        r"backbone/query/kernel is float32 of shape \[8, 8\] there and float32 of shape \[4, 8\] "
        "here; use the configuration"
    )
    other = jax.eval_shape(lambda: make_state(width=4))
    with pytest.raises(UserError, match=text) as caught:
        saved.restore(7, other) if part == "whole" else saved.restore_params(7, other.params)
    assert not isinstance(caught.value, Damaged)


def test_a_group_that_is_left_over_is_named(saved):
    state = abstract(make_state())
    state.params.pop("mlm_head")
    text = r"mlm_head/bias is float32 of shape \[16\] there and absent here"
    with pytest.raises(UserError, match=text):
        saved.restore(7, state)


def test_another_optimizer_is_named(saved):
    state = make_state()
    state = state.replace(opt_state={k: optax.sgd(0.1).init(v) for k, v in state.params.items()})
    with pytest.raises(UserError, match=r"opt_state/backbone/.* there and absent here"):
        saved.restore(7, abstract(state))


def test_reads_that_a_failure_abandoned_stay_quiet_after_the_run_too():
    script = """
import gc
from condenser_jax.training import saved, signals

class Dropped:
    def __init__(self, error):
        self.error = error

    def __del__(self):
        raise RuntimeError(self.error)

with signals.graceful_stop():
    saved.silence_abandoned()
Dropped("Event loop is closed")
Dropped("something else")
gc.collect()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "Event loop is closed" not in done.stderr and "something else" in done.stderr
