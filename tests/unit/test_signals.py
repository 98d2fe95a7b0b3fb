"""The first signal is heard, the second one ends the process, and the former handlers return."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from condenser_jax.training.signals import graceful_stop


def test_sigterm_becomes_a_request():
    with graceful_stop() as stop:
        assert not stop.agreed(0)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested and stop.agreed(1)


def test_control_c_interrupts():
    with pytest.raises(KeyboardInterrupt), graceful_stop():
        os.kill(os.getpid(), signal.SIGINT)


def test_control_c_that_falls_into_a_callback_is_not_lost(capsys):
    class Swallows:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGINT)

    with graceful_stop() as stop:
        Swallows()  # Python drops what is raised here, and would report it
        with pytest.raises(KeyboardInterrupt):
            stop.agreed(1)
    assert capsys.readouterr().err == ""


def test_the_former_handlers_return():
    former = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with graceful_stop():
        assert signal.getsignal(signal.SIGTERM) != former[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == former


def test_several_hosts_stop_at_the_step_that_jax_names(monkeypatch):
    from jax.experimental import multihost_utils

    monkeypatch.setattr("jax.distributed.is_initialized", lambda: True)
    monkeypatch.setattr(multihost_utils, "reached_preemption_sync_point", lambda step: step == 8)
    former = signal.getsignal(signal.SIGTERM)
    with graceful_stop() as stop:
        assert signal.getsignal(signal.SIGTERM) == former
        assert [step for step in range(10) if stop.agreed(step)] == [8]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "status"), [("SIGTERM", -signal.SIGTERM), ("SIGINT", 130)])
def test_a_second_signal_leaves_at_once(name, status):
    script = f"""
import os, signal
from condenser_jax.training.signals import graceful_stop
with graceful_stop():
    for _ in range(2):
        try:
            os.kill(os.getpid(), signal.{name})
        except KeyboardInterrupt:
            pass  # as if the first were held up by a save
print("still here")
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert (done.returncode, done.stdout) == (status, "")


@pytest.mark.slow
def test_in_a_group_the_first_sigterm_of_training_is_agreed_on_and_the_second_kills():
    script = """
import os, signal, time, jax
from condenser_jax.supervisor import free_port
from condenser_jax.training.signals import graceful_stop, keep_sigterm_until_training
here = f"127.0.0.1:{free_port()}"
jax.distributed.initialize(here, 1, 0, coordinator_bind_address=here)
keep_sigterm_until_training(lambda *_: print("ours", flush=True))
os.kill(os.getpid(), signal.SIGTERM)
with graceful_stop() as stop:
    assert not stop.agreed(0)
    os.kill(os.getpid(), signal.SIGTERM)
    step = 1
    while not stop.agreed(step):
        time.sleep(0.1)
        step += 1
    print("agreed", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
print("still here")
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=120
    )
    said = [line for line in done.stdout.splitlines() if not line.startswith("[Gloo]")]
    assert (done.returncode, said) == (-signal.SIGTERM, ["ours", "agreed"]), done.stderr
