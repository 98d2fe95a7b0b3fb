"""Processes of one machine run as a pod runs them: started together, ended together, started again.

The group has a free port of the loopback for its coordinator, and each process its own number and
virtual devices. The first process that fails ends the others: they would wait for it in vain.
"""

import contextlib
import ctypes
import logging
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import NamedTuple, TextIO

from condenser_jax.environment import GROUP_VARIABLES
from condenser_jax.errors import (
    EXIT_DONE,
    EXIT_INTERRUPTED,
    EXIT_PREEMPTED,
    EXIT_USER_ERROR,
    Preempted,
    RunFailed,
    UserError,
)

log = logging.getLogger(__name__)
GRACE = 10.0  # seconds for the others, once a process has failed: to say why, to finish a save
STEADY = 600.0  # seconds; a group that lived so long made progress: its failure counts as the first
LAST_LINES = 60  # of the process that failed first, shown once more
DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG


@dataclass(frozen=True)
class Group:
    """What is run: `command` in `processes` processes with `devices` virtual CPU devices each."""

    command: tuple[str, ...]
    processes: int
    devices: int | None = None  # None: whatever the machine has


class Ended(NamedTuple):
    """How a group ended: the process that decided it, its status and its last lines."""

    number: int
    status: int  # negative: the signal that killed it
    last_lines: str


@contextmanager
def heard_signals() -> Iterator[list[int]]:
    """The SIGTERM and Ctrl-C that came within the block; the former handlers return."""
    heard: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:
        heard.append(number)

    former = {number: signal.signal(number, hear) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield heard
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def supervise(group: Group, retries: int, backoff: float) -> None:
    """Runs `group` until it is done, and starts it again where it failed.

    Args:
      retries: how often in a row; a group that lived `STEADY` seconds starts a new row.
      backoff: seconds before the first retry; doubled for each further one.

    Raises UserError for a user's mistake, here or in the group, Preempted and KeyboardInterrupt
    where it was told to stop: these are not retried. Raises RunFailed when retries are used up.
    """
    if shutil.which(group.command[0]) is None:
        raise UserError(f"command {group.command[0]!r} is not found; name a program behind --")
    failures = 0
    with heard_signals() as heard:
        while True:
            began = time.monotonic()
            ended = run_group(group, heard)
            if ended.status == EXIT_DONE:
                return
            _raise_if_final(ended, heard)
            failures = 1 if time.monotonic() - began > STEADY else failures + 1
            log.error("%s", _obituary(ended))
            if failures > retries:
                raise RunFailed(f"the group failed, {failures} in a row; see above for why")
            pause = backoff * 2 ** (failures - 1)
            log.warning("starting the group again in %g s (%d of %d)", pause, failures, retries)
            _sleep(pause, heard)
            _raise_if_final(ended, heard)


def run_group(group: Group, heard: list[int]) -> Ended:
    """Starts the processes and waits for the end of all; returns how it ended.

    The first of the signals in `heard`, which grows meanwhile, is passed on; the second kills.
    """
    coordinator = f"127.0.0.1:{free_port()}"
    members = [_Member(group, number, coordinator) for number in range(group.processes)]
    ends: queue.Queue[_Member] = queue.Queue()
    for member in members:
        member.follow(ends)
    alive, first_to_fail, deadline, passed_on = set(members), None, float("inf"), 0
    while alive:
        with contextlib.suppress(queue.Empty):
            member = ends.get(timeout=0.1)
            alive.discard(member)
            if member.status != EXIT_DONE and first_to_fail is None:
                first_to_fail, deadline = member, time.monotonic() + GRACE
        for number in heard[passed_on:]:
            _send(alive, number if passed_on == 0 else signal.SIGKILL)
            passed_on += 1
        if time.monotonic() > deadline:
            _send(alive, signal.SIGKILL)
    ended = {member: member.ended() for member in members}
    return ended[first_to_fail or members[0]]


def _send(members: Iterable["_Member"], number: int) -> None:
    for member in members:
        member.send(number)


class _Member:
    """One process of the group, in its own process group; its lines carry its number."""

    def __init__(self, group: Group, number: int, coordinator: str) -> None:
        self.number, self.status = number, EXIT_DONE
        self._lines, self._threads = deque[str](maxlen=LAST_LINES), list[threading.Thread]()
        # No thread runs yet, so the child may call C before it becomes the command.
        self._process = subprocess.Popen(
            group.command,
            env=_environment(group, number, coordinator),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )

    def follow(self, ends: "queue.Queue[_Member]") -> None:
        """Shows what the process writes, and puts itself into `ends` when it has ended."""

        def wait() -> None:
            self.status = self._process.wait()
            ends.put(self)
            self.send(signal.SIGKILL)  # what it started, and left

        streams = ((self._process.stdout, sys.stdout), (self._process.stderr, sys.stderr))
        self._threads = [threading.Thread(target=self._copy, args=pair) for pair in streams]
        self._threads.append(threading.Thread(target=wait))
        for thread in self._threads:
            thread.start()

    def _copy(self, source: TextIO, target: TextIO) -> None:
        with source:
            for line in source:
                self._lines.append(line)
                print(f"[{self.number}] {line}", end="", file=target, flush=True)

    def send(self, number: int) -> None:
        """Sends a signal: SIGKILL to all that the process started, any other to itself alone."""
        with contextlib.suppress(ProcessLookupError):
            if number == signal.SIGKILL:
                os.killpg(self._process.pid, number)
            else:
                self._process.send_signal(number)

    def ended(self) -> Ended:
        """How this process ended, once all of its lines are shown."""
        for thread in self._threads:
            thread.join()
        return Ended(self.number, self.status, "".join(self._lines))


def _raise_if_final(ended: Ended, heard: list[int]) -> None:
    """Raises what ends the supervisor too, if the group was told to stop or cannot do better."""
    if signal.SIGINT in heard or ended.status == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    if signal.SIGTERM in heard or ended.status == EXIT_PREEMPTED:
        raise Preempted("the group stopped as asked; start the same command again to go on")
    if ended.status == EXIT_USER_ERROR:
        raise UserError(f"process {ended.number} refused; its line above says why")


def _obituary(ended: Ended) -> str:
    how = f"ended with status {ended.status}"
    if ended.status < 0:
        how = f"was killed by {signal.Signals(-ended.status).name}"
    return f"process {ended.number} was the first to fail: it {how}; its last lines:\n" + (
        ended.last_lines.rstrip() or "(none)"
    )


def _sleep(seconds: float, heard: list[int]) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not heard:
        time.sleep(0.05)


def _environment(group: Group, number: int, coordinator: str) -> dict[str, str]:
    """That of this process, with the place of process `number` in the group."""
    place = {
        "coordinator": coordinator,
        "num_processes": str(group.processes),
        "process_id": str(number),
    }
    ours = {GROUP_VARIABLES[name]: value for name, value in place.items()}
    if group.devices is not None:
        flags = f"--xla_force_host_platform_device_count={group.devices}"
        ours["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()
        ours["JAX_PLATFORMS"] = "cpu"
    return {**os.environ, **ours, "PYTHONUNBUFFERED": "1"}


def free_port() -> int:
    """A port of the loopback that nobody listens on at the moment."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def _die_with_parent() -> None:
    """Ends this process with its parent, even one that is killed (Linux)."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(DIE_WITH_PARENT, signal.SIGKILL)
