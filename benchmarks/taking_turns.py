"""Contenders of a benchmark, each in a process of its own, that take turns: in each round each runs
a few steps, after one that is not timed, so that other work on the machine slows all of them.
"""

import contextlib
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from time import perf_counter, process_time
from typing import Any


class Worker:
    """A contender in a process of its own: the benchmark's script with --worker."""

    def __init__(self, script: str, name: str, job: Any) -> None:
        self.name, self.log = name, tempfile.TemporaryFile("w+")
        command = [sys.executable, script, "--worker", name, json.dumps(asdict(job))]
        environment = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=self.log, text=True, env=environment
        )
        self.results: list[dict] = []

    def begin(self, steps: int) -> None:
        """Asks for a round, and does not wait for it."""
        with contextlib.suppress(BrokenPipeError):  # `end` says why
            print(steps, file=self.process.stdin, flush=True)

    def end(self) -> bool:
        """Waits for the round; False if the contender has ended instead."""
        try:
            self.results.append(json.loads(self.process.stdout.readline()))
        except (BrokenPipeError, json.JSONDecodeError):
            self.log.seek(0)
            lines = [line.strip() for line in self.log if line.strip()] or ["no message"]
            print(f"{self.name} skipped: {lines[-1][:160]}", flush=True)
            return False
        return True

    def run(self, steps: int) -> bool:
        """One round; False if the contender has ended instead."""
        self.begin(steps)
        return self.end()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def work(
    contenders: Mapping[str, tuple[str, str, dict]], job_type: type, name: str, job: str
) -> None:
    """A worker's life: build, then as many steps as every line of stdin says.

    A contender is (file, function, arguments); the function makes what has `run(steps) -> loss`,
    `versions`, `device` and perhaps `peak_memory()`.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print is no answer
    file, function, arguments = contenders[name]
    make = getattr(importlib.import_module(file), function)
    contender = make(job_type(**json.loads(job)), **arguments)
    for line in sys.stdin:
        contender.run(1)  # after a pause memory has to be fetched back; training has no pauses
        begin, cpu_begin = perf_counter(), process_time()
        loss = contender.run(int(line))
        answer = {
            "seconds": (perf_counter() - begin) / int(line),
            "cpu_seconds": (process_time() - cpu_begin) / int(line),
            "loss": loss,
            "peak_memory": getattr(contender, "peak_memory", lambda: None)(),
            "versions": contender.versions,
            "device": contender.device,
        }
        print(json.dumps(answer), file=answers, flush=True)


def measure(
    script: str, names: list[str], job: Any, rounds: int, steps: int
) -> dict[str, list[dict]]:
    """{contender: answers of the rounds}, without those of the two steps that compile."""
    found, workers = [Worker(script, name, job) for name in names], []
    for worker in found:
        worker.begin(2)  # all compile at once
    for worker in found:
        if worker.end():
            print(f"{worker.name} is ready", flush=True)
            worker.results.clear()
            workers.append(worker)
    for _ in range(rounds):
        workers = [worker for worker in workers if worker.run(steps)]
    for worker in workers:
        worker.close()
    return {worker.name: worker.results for worker in workers}


def median(rounds: list[dict], key: str) -> float:
    """The median over rounds of what contenders answered."""
    return statistics.median(answer[key] for answer in rounds)
