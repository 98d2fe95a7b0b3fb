"""The health of a run in one sentence for people, from the figures of its evaluations so far."""

import math
from collections.abc import Mapping

from condenser_jax.objectives.base import Goal
from condenser_jax.plotting import Curve

Curves = Mapping[str, Curve]  # {figure: (steps, values)}

PATIENCE = 5  # evaluations without improvement that are worth a word
RISES = 3  # rises in a row that are worth a word
COLLAPSED = 2.0  # an effective rank below this, or
LOST = 0.1  # below this share of the first one, is a collapse
NAMES = {
    "heldout/head_loss": "head MLM loss",
    "heldout/late_loss": "late MLM loss",
    "heldout/span_retrieval_mrr": "span retrieval (MRR)",
    "heldout/loss": "the held-out loss",
}


def sentence(curves: Curves, goal: Goal) -> str | None:
    """What deserves attention most, or None.

    Args:
      curves: of all evaluations so far, those before a resume included.
      goal: the figure that the method trains; others may stand still.
    """
    return _collapse(curves) or _rising(curves) or _standstill(curves, goal)


def _collapse(curves: Curves) -> str | None:
    _, ranks = curves.get("heldout/effective_rank", ([], []))
    if not ranks or not ranks[-1] < max(COLLAPSED, LOST * ranks[0]):
        return None
    before = f", {ranks[0]:.1f} at the first evaluation" if len(ranks) > 1 else ""
    return f"vectors collapse: effective rank {ranks[-1]:.1f}{before}"


def _rising(curves: Curves) -> str | None:
    for figure in ("heldout/head_loss", "heldout/late_loss"):
        steps, values = curves.get(figure, ([], []))
        last = values[-RISES - 1 :]
        if len(last) > RISES and all(a < b for a, b in zip(last, last[1:], strict=False)):
            return (
                f"{NAMES[figure]} is rising: {last[0]:.3f} {_after(steps[-RISES - 1])}, "
                f"{last[-1]:.3f} {_after(steps[-1])}"
            )
    return None


def _standstill(curves: Curves, goal: Goal) -> str | None:
    steps, values = curves.get(goal.figure, ([], []))
    finite = [place for place, value in enumerate(values) if math.isfinite(value)]
    if not finite:
        return None
    best = finite[0]
    for place in finite:
        if goal.is_better(values[place], values[best]):
            best = place
    since = len(values) - 1 - best
    if since < PATIENCE:
        return None
    return (
        f"{NAMES.get(goal.figure, goal.figure)} has not improved for {since} evaluations "
        f"(best {values[best]:.3f} {_after(steps[best])})"
    )


def _after(step: int) -> str:
    return f"after step {step}" if step else "before training"
