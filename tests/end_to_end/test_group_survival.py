"""Groups of processes that are killed, fail or are told to stop, and start again. Slow: real
processes.
"""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from condenser_jax.supervisor import free_port
from tests.end_to_end.launching import (
    TIMEOUT,
    Started,
    command,
    launch,
    local_cluster,
    metrics,
    smoke,
)
from tests.end_to_end.test_cluster import assert_same_losses, losses

pytestmark = pytest.mark.slow
STEPS = 120
LENGTH = [f"--config.training.steps={STEPS}", "--config.training.log_every=1"]
OFTEN = [*LENGTH, "--config.training.save_every=10", "--config.training.eval_every=60"]


def run_of(workdir: Path) -> list[str]:
    return smoke(workdir, *OFTEN)


@pytest.fixture(scope="module")
def undisturbed(cache, tmp_path_factory):
    """The work directory of a group of two that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("groups") / "undisturbed"
    done = launch("train", *run_of(workdir), cache=cache, launcher=local_cluster(2))
    assert done.returncode == 0, done.stderr
    return workdir


def kill(run: Started, number: int, rng: random.Random) -> None:
    """SIGKILL of one member, after a moment that hits steps, logs, evaluations and saves alike."""
    member = run.members[number]
    time.sleep(rng.random() * 0.2)
    os.kill(member, signal.SIGKILL)


def test_a_group_that_loses_members_or_fails_goes_on_to_the_same_end(
    undisturbed, cache, tmp_path, monkeypatch
):
    rng, workdir = random.Random(0), tmp_path / "killed"
    monkeypatch.setenv("FAIL_ONCE", str(tmp_path / "failed"))
    monkeypatch.setenv("FAIL_AT", "90")
    failing = Path(__file__).with_name("fails_once.py")
    launcher = [*local_cluster(2, retries=3), command("train")[0], str(failing)]
    run = Started(run_of(workdir), cache, launcher=launcher)
    for step, number in ((20, 1), (50, 0)):  # process 0 is the coordinator
        run.wait_for_step(workdir, step)
        kill(run, number, rng)
    status, errors = run.end()
    assert status == 0, errors
    for number, how in ((1, "was killed by SIGKILL"), (0, "was killed by SIGKILL")):
        assert f"process {number} was the first to fail: it {how}" in errors
    failure = errors.split("process 1 was the first to fail: it ended with status 1")[1]
    assert "RuntimeError: nobody foresaw this" in failure.split("starting the group again")[0]
    assert_same_losses(losses(workdir), losses(undisturbed), 1e-6)


def test_a_group_killed_in_mid_save_ends_the_same_with_another_number_of_processes(
    undisturbed, cache, tmp_path
):
    workdir = tmp_path / "killed"
    run = Started(run_of(workdir), cache, launcher=local_cluster(2))
    run.wait_for_step(workdir, 30)
    members, limit = run.members, time.monotonic() + TIMEOUT
    while not list(workdir.glob("checkpoints/*.orbax-checkpoint-tmp")):
        assert run.process.poll() is None and time.monotonic() < limit, "no save was seen"
        time.sleep(0.001)
    run.process.kill()  # its members die with it
    run.end()
    while any(Path(f"/proc/{member}").exists() for member in members):
        assert time.monotonic() < limit, "a process is left behind"
        time.sleep(0.01)
    done = launch("train", *run_of(workdir), cache=cache, devices=2)
    assert done.returncode == 0 and "resumed" in done.stderr, done.stderr
    assert_same_losses(losses(workdir), losses(undisturbed), 1e-5)


def test_signals_leave_one_checkpoint_that_all_resume_from(undisturbed, cache, tmp_path):
    workdir = tmp_path / "stopped"

    def stopped(step: int, *signals: tuple[str, signal.Signals]) -> tuple[int, str]:
        run = Started(run_of(workdir), cache, launcher=local_cluster(2))
        run.wait_for_step(workdir, step)
        pids = {"launcher": run.process.pid, "one": run.members[1]}
        for whom, number in signals:
            os.kill(pids[whom], number)
            time.sleep(0.1)  # two signals at once would be one
        return run.end()

    one, all_of_them = ("one", signal.SIGTERM), ("launcher", signal.SIGTERM)
    assert stopped(10, one)[0] == 75
    status, errors = stopped(40, all_of_them)
    assert status == 75 and errors.count("the run is saved and can be resumed") == 1, errors
    assert metrics(workdir)[-1]["step"] == newest_checkpoint(workdir)
    status, errors = stopped(60, one, one)  # at once, without a save
    assert status == 1 and "process 1 was the first to fail: it was killed by SIGTERM" in errors
    status, errors = stopped(70, ("launcher", signal.SIGINT))
    assert status == 130 and "Traceback" not in errors, errors
    done = launch("train", *run_of(workdir), cache=cache)
    assert done.returncode == 0 and "resumed" in done.stderr, done.stderr
    found, expected = trained_losses(workdir), trained_losses(undisturbed)
    assert_same_losses([found], [expected], 1e-5)


def trained_losses(workdir: Path) -> dict[int, float]:
    """{step: loss}. Evaluations may be more: one that a stop left out is made up for."""
    return {line["step"]: line["train/loss"] for line in losses(workdir) if "train/loss" in line}


def test_without_a_launcher_the_others_end_when_a_heartbeat_is_missing(cache, tmp_path):
    workdir = tmp_path / "run"
    place = [f"--coordinator=127.0.0.1:{free_port()}", "--num_processes=2"]
    first, second = (
        Started([*run_of(workdir), *place, f"--process_id={i}", "--heartbeat_seconds=5"], cache)
        for i in range(2)
    )
    first.wait_for_step(workdir, 10)
    assert second.send(signal.SIGKILL)[0] == -signal.SIGKILL
    status, _ = first.end(timeout=45)  # the default would let it wait for 60
    assert status in (1, -signal.SIGABRT)


def newest_checkpoint(workdir: Path) -> int:
    return max(
        int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()
    )
