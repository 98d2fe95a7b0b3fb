"""A full disk or a read-only one is one line, whatever was being written; /dev/full is both real
and everywhere.
"""

import errno
import os

import pytest

from condenser_jax.errors import UserError
from condenser_jax.training.hooks import MetricsFile, TensorBoard
from condenser_jax.training.system_errors import FULL, system_error, writing


def test_the_number_of_the_system_is_found_below_other_errors():
    error = RuntimeError("writing failed")
    error.__cause__ = OSError(errno.EROFS, os.strerror(errno.EROFS))
    assert system_error(error) == errno.EROFS
    assert system_error(RuntimeError("writing failed")) is None


def test_the_words_of_tensorstore_for_a_full_disk_are_known():
    text = "RESOURCE_EXHAUSTED: Failed writing: No space left on device [os_error_code='28']"
    assert system_error(ValueError(text)) in FULL
    assert system_error(ValueError("RESOURCE_EXHAUSTED: out of memory")) is None


@pytest.mark.parametrize(
    "number, text",
    [
        (errno.EDQUOT, "^disk full while writing log; free some space and start again$"),
        (errno.EROFS, "^read-only file system while writing log; see that it can be written and"),
        (errno.EIO, "^input/output error while writing log; see that it can be written and start"),
    ],
)
def test_what_the_system_said_is_one_line(number, text):
    with pytest.raises(UserError, match=text), writing("log"):
        raise OSError(number, os.strerror(number))


def test_an_error_of_another_kind_stays_as_it_is():
    with pytest.raises(BrokenPipeError), writing("log"):
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def test_metrics_on_a_full_disk_are_one_line():
    file = MetricsFile("/dev/full")
    with pytest.raises(UserError, match="^disk full while writing /dev/full; free some space"):
        file.on_log(1, {"train/loss": 2.5})
    with pytest.raises(UserError, match="^disk full while writing /dev/full; free some space"):
        file.on_end()


def test_events_for_tensorboard_on_a_full_disk_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "tensorboardX.record_writer.open_file", lambda path: open("/dev/full", "wb")
    )
    events = TensorBoard(tmp_path)
    with pytest.raises(UserError, match=f"^disk full while writing {tmp_path}; free some space"):
        events.on_log(1, {"train/loss": 2.5})
