"""Runs the commands of launch/ as a user does, in processes of their own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 240
VOLATILE = ("time", "steps_per_second", "tokens_per_second")


def command(script: str, *args: str) -> list[str]:
    """The command line of launch/<script>.py."""
    return [sys.executable, str(ROOT / "launch" / f"{script}.py"), *args]


def local_cluster(processes: int, devices: int = 1, retries: int = 0) -> list[str]:
    """What stands before a command that a group of processes runs together."""
    sizes = ["-n", str(processes), "--devices", str(devices)]
    return command("local_cluster", *sizes, f"--retries={retries}", "--backoff=0.1", "--")


def environment(cache: Path, devices: int = 1) -> dict[str, str]:
    """An environment with its own cache and virtual devices, and nothing of pytest's."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    flags = f"--xla_force_host_platform_device_count={devices}"
    return kept | {
        "CONDENSER_JAX_CACHE": str(cache),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": flags,
        "HF_HUB_OFFLINE": "1",
    }


def launch(
    script: str, *args: str, cache: Path, devices: int = 1, launcher: Sequence[str] = ()
) -> subprocess.CompletedProcess:
    """Runs a command to its end, or a group (`local_cluster`) of it; its output is text."""
    return subprocess.run(
        [*launcher, *command(script, *args)],
        env=environment(cache, devices),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        cwd=ROOT,
    )


def smoke(workdir: Path, *overrides: str, method: str = "condenser") -> list[str]:
    """Flags of the smoke run in `workdir`."""
    return [f"--config=configs/{method}.py:smoke", f"--workdir={workdir}", *overrides]


class Started:
    """A command, by default a training run, or a group (`local_cluster`), going on in the
    background.
    """

    running: ClassVar[list["Started"]] = []  # to be killed where a test fails half-way

    def __init__(
        self,
        args: list[str],
        cache: Path,
        devices: int = 1,
        launcher: Sequence[str] = (),
        script: str = "train",
    ) -> None:
        self.process = subprocess.Popen(
            [*launcher, *command(script, *args)],
            env=environment(cache, devices),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            start_new_session=True,
        )
        self.running.append(self)

    def wait_for_step(self, workdir: Path, step: int) -> None:
        """Waits until metrics.jsonl tells of `step` or the process ends."""
        self.wait_until(lambda: any(line["step"] >= step for line in metrics(workdir)))

    def wait_until(self, is_time: Callable[[], bool]) -> None:
        """Waits until it is time or the process ends."""
        limit = time.time() + TIMEOUT
        while time.time() < limit and self.process.poll() is None and not is_time():
            time.sleep(0.02)

    def send(self, number: signal.Signals) -> tuple[int, str]:
        """Sends a signal to the run; returns (exit status, what it wrote to stderr)."""
        if self.process.poll() is None:
            os.kill(self.process.pid, number)
        return self.end()

    def end(self, timeout: float = TIMEOUT) -> tuple[int, str]:
        """Waits for the end; returns (exit status, what was written to stderr)."""
        _, errors = self.process.communicate(timeout=timeout)
        self.running.remove(self)
        return self.process.returncode, errors

    @property
    def members(self) -> list[int]:
        """The processes of a group, by their number."""
        parent = self.process.pid
        return [int(p) for p in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def metrics(workdir: Path) -> list[dict]:
    """The complete lines of metrics.jsonl."""
    path = workdir / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def learned(workdir: Path) -> list[dict]:
    """The lines of metrics.jsonl without what depends on the clock."""
    return [{k: v for k, v in line.items() if k not in VOLATILE} for line in metrics(workdir)]
