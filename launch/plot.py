"""Draws the curves of one or several runs into one PNG.

    python launch/plot.py --workdir=runs/a --workdir=runs/b --output=curves.png --metrics=loss

One panel per metric of metrics.jsonl, one colour per run; the last values stand at the right.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from absl import flags  # noqa: E402

from condenser_jax import command  # noqa: E402

WORKDIR = flags.DEFINE_multi_string("workdir", [], "work directory of a run; repeat for several")
OUTPUT = flags.DEFINE_string("output", "curves.png", "the PNG to write")
METRICS = flags.DEFINE_string("metrics", "", "regular expression of names to draw; empty: all")


def main() -> None:
    """Reads the runs, draws them, and says where."""
    from condenser_jax import plotting
    from condenser_jax.errors import UserError

    if not WORKDIR.value:
        raise UserError("--workdir is missing; name the work directory of a run, or several")
    names = [Path(workdir).resolve().name for workdir in WORKDIR.value]
    labels = names if len(set(names)) == len(names) else WORKDIR.value
    runs = dict(zip(labels, map(plotting.read_curves, WORKDIR.value), strict=True))
    panels = plotting.draw_curves(runs, OUTPUT.value, METRICS.value)
    print(f"{OUTPUT.value}: {panels} metrics of {', '.join(runs)}")


if __name__ == "__main__":
    command.run(main)
