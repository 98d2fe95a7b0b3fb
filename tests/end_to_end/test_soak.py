"""Many kills, and many steps. Slow: real processes."""

import random
import re
import signal
import statistics
import sys
import time
from pathlib import Path

import pytest

from tests.end_to_end.ends import assert_same_end
from tests.end_to_end.launching import TIMEOUT, Started, launch, metrics, smoke

pytestmark = pytest.mark.slow

KILLS = 20
SOAK = (
    "--config.training.steps=500",
    "--config.training.save_every=20",
    "--config.training.eval_every=100",
)
LEAKY = Path(__file__).with_name("leaks.py")
MEGABYTE = 1 << 20


def test_a_run_of_500_steps_that_is_killed_20_times_ends_bit_identical(cache, finished, tmp_path):
    straight, killed, rng = tmp_path / "straight", tmp_path / "killed", random.Random(0)
    assert launch("train", *smoke(straight, *SOAK), cache=cache).returncode == 0
    for _ in range(KILLS):
        run = Started(smoke(killed, *SOAK), cache)
        wait_for_its_end(run, killed, rng)
        status, errors = run.send(signal.SIGKILL)
        assert status == -signal.SIGKILL, errors
    assert launch("train", *smoke(killed, *SOAK), cache=cache).returncode == 0
    assert_same_end(straight, killed)
    assert all(path.name.isdigit() for path in (killed / "checkpoints").iterdir())


def wait_for_its_end(run: Started, workdir: Path, rng: random.Random) -> None:
    """A moment in the life of a run: one in four times while it starts, else while it trains."""
    if rng.random() < 0.25:
        time.sleep(4 * rng.random())
        return
    begun = len(metrics(workdir))
    limit = time.time() + TIMEOUT
    while time.time() < limit and run.process.poll() is None:
        # A run that goes on first cuts off the lines that came after its checkpoint.
        lines = len(metrics(workdir))
        begun = min(begun, lines)
        if lines - begun >= 1:
            break
        time.sleep(0.02)
    time.sleep(0.5 * rng.random())


def test_the_memory_of_a_run_does_not_grow_over_2000_steps(cache, finished, tmp_path):
    growth = grows(tmp_path / "run", cache, steps=2000)
    assert growth < 20 * MEGABYTE, f"{growth / MEGABYTE:.0f} MB"


def test_a_leak_would_be_seen(cache, finished, tmp_path):
    growth = grows(tmp_path / "run", cache, steps=500, launcher=(sys.executable, str(LEAKY)))
    assert growth > 100 * MEGABYTE, f"{growth / MEGABYTE:.0f} MB"


def grows(workdir: Path, cache: Path, steps: int, launcher: tuple[str, ...] = ()) -> float:
    """Bytes by which the memory at the end exceeds that after a quarter of the steps.

    Medians over a tenth of the steps: an evaluation or a save takes some for a moment.
    """
    often = [f"--config.training.{name}={steps // 20}" for name in ("eval_every", "save_every")]
    args = smoke(workdir, f"--config.training.steps={steps}", *often)
    run, seen = Started(args, cache, launcher=launcher), []
    while run.process.poll() is None:
        done = max((line["step"] for line in metrics(workdir)), default=0)
        seen.append((done / steps, held(run.process.pid)))
        time.sleep(0.05)
    status, errors = run.end()
    assert status == 0, errors
    early = [size for share, size in seen if 0.25 <= share < 0.35]
    late = [size for share, size in seen if 0.85 <= share < 0.95]
    growth = statistics.median(late) - statistics.median(early)
    print(f"{growth / MEGABYTE:.1f} MB more than {statistics.median(early) / MEGABYTE:.0f} MB")
    return growth


def held(pid: int) -> int:
    """Bytes of memory of its own that a process holds, swapped out or not; 0 once it has ended.

    Pages of files (libraries, the data) come and go as the system likes.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return 1024 * sum(map(int, re.findall(r"^(?:RssAnon|VmSwap):\s+(\d+) kB", status, re.M)))
