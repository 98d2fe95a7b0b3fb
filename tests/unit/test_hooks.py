"""Metrics reach their files and services, and a profile covers the steps asked for."""

import json
import math
import sys
import types

import jax
import jax.numpy as jnp
import pytest

from condenser_jax.errors import UserError
from condenser_jax.training import hooks


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
