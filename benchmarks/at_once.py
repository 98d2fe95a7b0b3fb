"""Parts of an experiment, several at once: each in a process of its own, begun when what it reads
is done. A part that fails stops the experiment; those that run are ended, and go on, or begin anew,
another time.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Container, Sequence
from pathlib import Path
from types import FrameType

from condenser_jax.errors import (
    EXIT_PREEMPTED,
    EXIT_USER_ERROR,
    Preempted,
    RunFailed,
    UserError,
)
from condenser_jax.pipeline.steps import Pipeline, Step
from condenser_jax.training.progress import duration

SECONDS = 0.3  # between looks
LOGS = "logs"
LAST = 400  # characters of a line that are shown
ERRORS = {EXIT_USER_ERROR: UserError, EXIT_PREEMPTED: Preempted}  # by the exit status of a part


def do_at_once(
    pipeline: Pipeline,
    steps: Sequence[Step],
    jobs: int,
    command: list[str],
    quick: Container[str] = (),
) -> None:
    """Does steps, and what they read, at most `jobs` at once, those that stand first before others.

    Args:
      command: that does one of them, given --part=NAME besides.
      quick: names of those that are done here, for they take no time.

    Raises what a part that fails raised, with the last line that it printed, and Preempted when
    asked to stop.
    """
    waiting = {step.name: step for step in _with_what_they_read(steps)}
    began, done = time.monotonic(), set[str]()
    running: dict[str, subprocess.Popen] = {}
    folder = pipeline.root / LOGS
    folder.mkdir(parents=True, exist_ok=True)
    former = signal.signal(signal.SIGTERM, _leave)
    try:
        while waiting or running:
            for name, step in list(waiting.items()):
                is_ready = all(before.name in done for before in step.after)
                if is_ready and name in quick:
                    pipeline.result(step)
                if pipeline.is_done(step):
                    done.add(name)
                    del waiting[name]
                elif is_ready and len(running) < jobs:
                    running[name] = _begin(folder / f"{name}.log", [*command, f"--part={name}"])
                    del waiting[name]
                    _tell(began, f"{name} begins")
            for name, process in list(running.items()):
                if process.poll() is not None:
                    del running[name]
                    if process.returncode:
                        error = ERRORS.get(process.returncode, RunFailed)
                        raise error(_failed(name, folder / f"{name}.log"))
                    done.add(name)
                    _tell(began, f"{name} done; {len(waiting) + len(running)} left")
            time.sleep(SECONDS)
    finally:
        for process in running.values():
            process.terminate()  # a run saves its state
        for process in running.values():
            process.wait()
        signal.signal(signal.SIGTERM, former)


def _leave(number: int, frame: FrameType | None) -> None:
    raise Preempted("stopped as asked; start the same command again to go on")


def _with_what_they_read(steps: Sequence[Step]) -> list[Step]:
    found: dict[str, Step] = {}
    for step in steps:
        for before in _with_what_they_read(step.after):
            found.setdefault(before.name, before)
        found.setdefault(step.name, step)
    return list(found.values())


def _begin(log: Path, command: list[str]) -> subprocess.Popen:
    memory = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # of a GPU: parts share it
    environment = {**memory, **os.environ, "JAX_TRACEBACK_FILTERING": "off"}
    with open(log, "w", encoding="utf-8") as file:
        return subprocess.Popen(
            [sys.executable, *command], stdout=file, stderr=subprocess.STDOUT, env=environment
        )


def _failed(name: str, log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").split("\n")]
    last = next(filter(None, reversed(lines)), "no message")
    return f"{name} failed: {last.removeprefix('error: ')[:LAST]} (all that it said: {log})"


def _tell(began: float, what: str) -> None:
    with contextlib.suppress(BrokenPipeError):
        print(f"[{duration(time.monotonic() - began)}] {what}", flush=True)
