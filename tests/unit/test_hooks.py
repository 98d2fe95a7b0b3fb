"""Metrics reach their files, progress reads well on a terminal and in a log."""

import io
import json
import math
import re
import sys
import types

import jax
import jax.numpy as jnp
import pytest

from condenser_jax.errors import UserError
from condenser_jax.training import hooks


class Terminal(io.StringIO):
    def isatty(self):
        return True


class FakeTime:
    seconds = 0.0

    def __call__(self):
        return self.seconds


def test_a_line_of_metrics_is_on_disk_at_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = hooks.MetricsFile(path)
    writer.on_log(5, {"train/loss": 2.5})
    line = json.loads(path.read_text())
    assert (line["step"], line["train/loss"]) == (5, 2.5)
    assert writer.offset == path.stat().st_size
    writer.on_end()


def test_a_number_that_is_not_finite_is_null(tmp_path):
    writer = hooks.MetricsFile(tmp_path / "metrics.jsonl")
    writer.on_eval(1, {"a": math.nan, "b": math.inf, "c": jnp.float32(0.5)})
    writer.on_end()
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    assert (line["a"], line["b"], line["c"]) == (None, None, 0.5)


def test_metrics_are_appended_when_a_run_goes_on(tmp_path):
    for step in (1, 2):
        writer = hooks.MetricsFile(tmp_path / "metrics.jsonl")
        writer.on_log(step, {})
        offset = writer.offset
        writer.on_end()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2]
    assert offset == (tmp_path / "metrics.jsonl").stat().st_size


def test_tensorboard_events_hold_the_values_and_a_purge_on_resume(tmp_path):
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    writer = hooks.TensorBoard(tmp_path, start_step=4)
    writer.on_log(5, {"train/loss": 2.5})
    writer.on_end()
    (file,) = tmp_path.iterdir()
    events, data = [], file.read_bytes()
    while data:  # each record: 8 bytes of length, 4 of checksum, the event, 4 of checksum
        length = int.from_bytes(data[:8], "little")
        events.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    (purge,) = [event for event in events if event.session_log.status == SessionLog.START]
    assert purge.step == 5
    (value,) = [value for event in events for value in event.summary.value]
    assert (value.tag, value.simple_value) == ("train/loss", 2.5)


def test_weights_and_biases_continues_the_run_of_its_work_directory(tmp_path, monkeypatch):
    calls = []
    run = types.SimpleNamespace(
        log=lambda metrics, step: calls.append((metrics, step)), finish=lambda: calls.append("end")
    )

    def init(**arguments):
        calls.append(arguments)
        return run

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    for _ in range(2):
        hook = hooks.WeightsAndBiases("retrieval", tmp_path / "run-a", {"seed": 1})
    hook.on_log(3, {"loss": 1.0})
    hook.on_end()
    assert calls[0] == calls[1]
    assert calls[0]["name"] == "run-a"
    assert calls[2:] == [({"loss": 1.0}, 3), "end"]


def test_a_missing_wandb_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r"pip install 'condenser_jax\[wandb\]' or leave it off"):
        hooks.WeightsAndBiases("p", tmp_path, {})


def test_a_terminal_sees_one_line_that_updates():
    stream, now = Terminal(), FakeTime()
    progress = hooks.Progress(100, stream=stream, now=now)
    for step in (10, 20):
        now.seconds += 5
        progress.on_log(step, {"train/loss": 2.34567, "tokens_per_second": 12345.0})
    progress.on_end()
    lines = stream.getvalue().split(hooks.CLEAR_LINE)
    assert lines[2] == "step 20/100 (20%)  0:40 left  12.3k tokens/s  loss 2.346\n"
    assert "? left" in lines[1]


def test_a_log_sees_a_plain_line_now_and_then_and_the_last_one():
    stream, now = io.StringIO(), FakeTime()
    progress = hooks.Progress(100, every=10, stream=stream, now=now)
    for step in range(1, 101):
        now.seconds += 1
        progress.on_log(step, {"mfu": 0.5, "steps_per_second": 1.0})
    lines = stream.getvalue().splitlines()
    steps = [int(re.match(r"step (\d+)", line)[1]) for line in lines]
    assert steps == [*range(1, 101, 10), 100]
    assert lines[-1] == "step 100/100 (100%)  0:00 left  MFU 50.0%"
    assert "\x1b" not in stream.getvalue()


def test_a_line_never_wraps(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    stream = Terminal()
    hooks.Progress(100, stream=stream).on_log(1, {"a_long_name": 1.0})
    assert len(stream.getvalue()) - len(hooks.CLEAR_LINE) == 19


def test_an_evaluation_has_lines_of_its_own():
    stream = io.StringIO()
    metrics = {f"heldout/accuracy_of_the_head_{i}": 0.5 for i in range(4)}
    hooks.Progress(100, stream=stream).on_eval(50, {**metrics, "heldout/loss": 1.25})
    title, first, second = stream.getvalue().splitlines()
    assert title == "evaluation at step 50"
    assert first.startswith("  heldout: loss 1.25, accuracy_of_the_head_0 0.5, ")
    assert second == "    accuracy_of_the_head_2 0.5, accuracy_of_the_head_3 0.5"


def test_an_evaluation_is_printed_by_groups_and_its_layers_in_one():
    stream = io.StringIO()
    layers = {f"heldout/entropy_layer_{i}": 1 / i for i in (1, 2, 4)}
    other = {"heldout_new/loss": 2.5, "heldout/pool_of_500": 0.25, "heldout/pool_of_9": 0.5}
    hooks.Progress(100, stream=stream).on_eval(50, {**layers, **other})
    assert stream.getvalue().splitlines()[1:] == [
        "  heldout: entropy_layer_1..3 1 0.5 0.25, pool_of_500 0.25, pool_of_9 0.5",
        "  heldout_new: loss 2.5",
    ]


def test_names_of_different_phases_are_told_apart():
    stream = io.StringIO()
    hooks.Progress(2, stream=stream).on_log(1, {"maximise/reward": 0.5, "minimise/loss": 2.0})
    assert stream.getvalue().strip().endswith("minimise/loss 2  maximise/reward 0.5")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(42, "0:42"), (187, "3:07"), (7389, "2:03:09"), (102000, "1d 04:20"), (-1, "0:00")],
)
def test_durations_read_as_clocks(seconds, text):
    assert hooks.duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (812, "812"), (12345, "12.3k"), (4.567e6, "4.57M")]
)
def test_large_numbers_have_units(number, text):
    assert hooks.human(number) == text


def test_a_profile_covers_the_steps_asked_for(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda path: calls.append("start"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: calls.append("stop"))
    profile = hooks.Profile(tmp_path, first=3, last=4)
    for step in range(7):
        profile.on_step(step)
        calls.append(step)
    profile.on_end()
    assert calls == [0, 1, 2, "start", 3, 4, "stop", 5, 6]


@pytest.mark.slow
def test_a_profile_leaves_a_trace(tmp_path):
    profile = hooks.Profile(tmp_path, first=0, last=10)
    profile.on_step(0)
    (jnp.ones(8) + 1).block_until_ready()
    profile.on_end()
    assert list(tmp_path.rglob("*.xplane.pb"))
