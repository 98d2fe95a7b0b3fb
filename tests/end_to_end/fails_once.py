"""Stands before a command of training: process 1 raises after step FAIL_AT, the first time."""

import os
import runpy
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from condenser_jax.training.loop import Loop  # noqa: E402

ORDINARY = Loop._after


def after(loop: Loop, done: int) -> None:
    ORDINARY(loop, done)
    marker = Path(os.environ["FAIL_ONCE"])
    if os.environ["CONDENSER_JAX_PROCESS_ID"] == "1" and done == int(os.environ["FAIL_AT"]):
        if not marker.exists():
            marker.touch()
            raise RuntimeError("nobody foresaw this")


Loop._after = after
sys.argv = sys.argv[2:]  # without the name of this file, and of python
runpy.run_path(sys.argv[0], run_name="__main__")
