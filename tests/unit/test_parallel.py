"""The parallel map keeps the order, does not run ahead, and survives the death of a worker."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from condenser_jax.data.parallel import ITEMS_PER_WORKER, ordered_map
from condenser_jax.errors import UserError


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order(workers):
    assert list(ordered_map(abs, range(-50, 0), workers)) == list(range(50, 0, -1))


def test_the_input_is_not_read_ahead():
    read = []
    items = (read.append(i) or i for i in range(1000))
    results = ordered_map(abs, items, workers=2)
    for _ in range(5):
        next(results)
    results.close()
    assert len(read) <= 5 + 2 * ITEMS_PER_WORKER


def test_a_worker_that_dies_is_one_clear_line():
    with pytest.raises(UserError, match="one of 2 processes that read text died, .*fewer workers"):
        list(ordered_map(os._exit, [1], workers=2))


def test_an_error_of_a_worker_is_raised_here():
    with pytest.raises(ZeroDivisionError):
        list(ordered_map((1).__truediv__, [1, 0], workers=2))


PARENT = """
import os
from condenser_jax.data.parallel import ordered_map

def report(_):
    return os.getpid()

if __name__ == "__main__":
    print(next(ordered_map(report, range(8), workers=2)), flush=True)
    os.kill(os.getpid(), 9)
"""


@pytest.mark.slow
def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    (tmp_path / "parent.py").write_text(PARENT)
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    # The pipe of its output closes with the last process that holds it: a worker, if one stays.
    command = [sys.executable, str(tmp_path / "parent.py")]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, timeout=60)
    assert done.returncode == -9
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)
