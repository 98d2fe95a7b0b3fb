"""A group of processes ends together, is started again where it failed, and leaves nothing behind.

The members are small scripts; tests/end_to_end/test_group_survival.py does it with real runs.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from condenser_jax import supervisor
from condenser_jax.errors import Preempted, RunFailed, UserError
from condenser_jax.supervisor import Group, supervise

ROOT = Path(__file__).parents[2]
PROLOGUE = """
import os, pathlib, signal, sys, time
number = int(os.environ["CONDENSER_JAX_PROCESS_ID"])
place = pathlib.Path(sys.argv[1])
def first_time(name):
    try:
        (place / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
def wait_for(name):
    while not (place / name).exists():
        time.sleep(0.01)
"""


def group(script: str, place: Path, processes: int = 2) -> Group:
    command = (sys.executable, "-S", "-c", PROLOGUE + script, str(place))
    return Group(command, processes, devices=3)


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(supervisor, "GRACE", 0.5)


def test_lines_carry_the_number_of_their_process(tmp_path, capfd):
    supervise(group("print(f'I am {number}')", tmp_path), 0, 0.0)
    assert sorted(capfd.readouterr().out.splitlines()) == ["[0] I am 0", "[1] I am 1"]


def test_members_are_told_one_coordinator_and_their_devices(tmp_path, capfd):
    names = "['CONDENSER_JAX_COORDINATOR', 'CONDENSER_JAX_NUM_PROCESSES', 'XLA_FLAGS']"
    supervise(group(f"print(*[os.environ[name] for name in {names}])", tmp_path), 0, 0.0)
    first, second = (line.split(" ", 1)[1] for line in capfd.readouterr().out.splitlines())
    assert first == second
    assert first.startswith("127.0.0.1:") and " 2 " in first
    assert first.endswith("--xla_force_host_platform_device_count=3")


def test_a_failure_ends_the_group_and_is_shown_again_as_the_first(tmp_path, capfd, caplog):
    script = """
if number == 1:
    wait_for("waiting")
    raise RuntimeError("nobody foresaw this")
(place / "waiting").touch()
time.sleep(600)
"""
    with pytest.raises(RunFailed, match="the group failed, 1 in a row; see above for why"):
        supervise(group(script, tmp_path), 0, 0.0)
    assert "[1] RuntimeError: nobody foresaw this" in capfd.readouterr().err
    text = "process 1 was the first to fail: it ended with status 1; its last lines:\nTraceback"
    assert text in caplog.text and "RuntimeError: nobody foresaw this" in caplog.text


def test_a_group_that_failed_is_started_again_until_it_is_done(tmp_path, caplog):
    script = """
if first_time(f"{number} killed once") and number == 0:
    os.kill(os.getpid(), signal.SIGKILL)
if number == 0 and first_time("failed once"):
    sys.exit(1)
"""
    supervise(group(script, tmp_path), 3, 0.01)
    assert "process 0 was the first to fail: it was killed by SIGKILL" in caplog.text
    assert "starting the group again in 0.01 s (1 of 3)" in caplog.text
    assert "starting the group again in 0.02 s (2 of 3)" in caplog.text


def test_retries_are_bounded_and_count_anew_after_a_steady_group(tmp_path, monkeypatch):
    script = "open(place / 'starts', 'a').write('x'); sys.exit(1)"
    with pytest.raises(RunFailed, match="failed, 3 in a row"):
        supervise(group(script, tmp_path, processes=1), 2, 0.0)
    assert len((tmp_path / "starts").read_text()) == 3
    monkeypatch.setattr(supervisor, "STEADY", 0.0)
    steady = "first_time('a') and sys.exit(1); first_time('b') and sys.exit(1)"
    supervise(group(steady, tmp_path, processes=1), 1, 0.0)
    with pytest.raises(RunFailed):  # not steady: the same two failures are one too many
        monkeypatch.setattr(supervisor, "STEADY", 600.0)
        supervise(group(steady.replace("'a'", "'c'").replace("'b'", "'d'"), tmp_path, 1), 1, 0.0)


@pytest.mark.parametrize(
    ("status", "error"), [(2, UserError), (75, Preempted), (130, KeyboardInterrupt)]
)
def test_what_a_retry_cannot_mend_is_not_retried(status, error, tmp_path):
    script = f"first_time(f'{{number}} started') or sys.exit(9)\nif number: sys.exit({status})"
    with pytest.raises(error):
        supervise(group(script, tmp_path), 3, 0.0)


def test_a_command_that_is_not_there_is_named():
    with pytest.raises(UserError, match="command 'pyton' is not found; name a program behind --"):
        supervise(Group(("pyton", "launch/train.py"), 2), 3, 0.0)


SUPERVISED = """
import sys
from condenser_jax import command, supervisor
supervisor.GRACE = 0.5
behind = command.split_off_command()
command.run(lambda: supervisor.supervise(supervisor.Group(tuple(behind), 2), 3, 0.01))
"""


class Launcher:
    """A supervisor in a process of its own, with two members that have started."""

    def __init__(self, script: str, place: Path) -> None:
        started = '(place / f"pid{number}").write_text(str(os.getpid()))\n'
        member = group(script.replace("STARTED", started), place).command
        self.process = subprocess.Popen(
            [sys.executable, "-c", SUPERVISED, "--", *member],
            env=os.environ | {"PYTHONPATH": str(ROOT), "CONDENSER_JAX_TUNED": "1"},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        self.members = [self._member(place / f"pid{number}") for number in range(2)]

    def _member(self, path: Path) -> int:
        limit = time.monotonic() + 30
        while time.monotonic() < limit:
            if path.exists() and path.read_text():
                return int(path.read_text())
            time.sleep(0.01)
        raise AssertionError("no member started")

    def end(self) -> tuple[int, str]:
        """(exit status, what was said on stderr); no member may be left then."""
        _, errors = self.process.communicate(timeout=30)
        limit = time.monotonic() + 30
        while any(Path(f"/proc/{pid}").exists() for pid in self.members):
            assert time.monotonic() < limit, "a process is left behind"
            time.sleep(0.01)
        return self.process.returncode, errors


OBEYS = "signal.signal(signal.SIGTERM, lambda *_: os._exit(75))\nSTARTED\ntime.sleep(600)"
DEAF = """
for name in (signal.SIGTERM, signal.SIGINT):
    signal.signal(name, lambda *_: (place / f"heard{number}").touch())
STARTED
while True:
    time.sleep(600)
"""


def test_sigterm_is_passed_on_and_ends_with_75(tmp_path):
    launcher = Launcher(OBEYS, tmp_path)
    launcher.process.terminate()
    status, errors = launcher.end()
    assert (status, errors.count("the group stopped as asked")) == (75, 1)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_second_signal_kills_a_group_that_does_not_listen(number, status, tmp_path):
    launcher = Launcher(DEAF, tmp_path)
    launcher.process.send_signal(number)
    while not ((tmp_path / "heard0").exists() and (tmp_path / "heard1").exists()):
        time.sleep(0.01)
    launcher.process.send_signal(number)
    assert launcher.end()[0] == status


def test_members_die_with_a_killed_supervisor(tmp_path):
    launcher = Launcher("STARTED\ntime.sleep(600)", tmp_path)
    launcher.process.kill()
    assert launcher.end()[0] == -signal.SIGKILL
