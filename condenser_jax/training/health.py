"""The hook that watches over the health of a run."""

import logging
from collections.abc import Mapping
from pathlib import Path

from condenser_jax.health.picture import draw_health
from condenser_jax.health.sentence import sentence
from condenser_jax.objectives.base import Goal
from condenser_jax.plotting import read_curves
from condenser_jax.training.hooks import Hook
from condenser_jax.training.system_errors import writing

log = logging.getLogger("condenser_jax")


class Health(Hook):
    """health.png, redrawn after every evaluation, and a warning where there is something to say.

    Reads metrics.jsonl, so that a resumed run shows all of its curve: stands after MetricsFile.
    """

    def __init__(self, workdir: str | Path, goal: Goal) -> None:
        self._workdir, self._goal = Path(workdir), goal

    def on_eval(self, step: int, metrics: Mapping[str, float]) -> None:
        """Draws all evaluations so far, and says at most one thing about them."""
        curves = read_curves(self._workdir)
        said = sentence(curves, self._goal)
        if said:
            log.warning("after step %d: %s", step, said)
        title = f"{self._workdir.resolve().name}, after step {step}"
        path = self._workdir / "health.png"
        with writing(path):
            draw_health(curves, path, title, said)
