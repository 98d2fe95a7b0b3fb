"""Curves of runs as small multiples: one panel per metric, one colour per run, in every panel."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from condenser_jax.errors import UserError

# Okabe and Ito's colours, which people with any colour vision can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444")
LINES = ("-", "--", ":")  # told apart by these when the colours are used up
NOT_METRICS = ("step", "time")
PANEL = (4.4, 2.7)  # inches
FEW_POINTS = 12  # with so few, each is marked
LARGE = 1e4  # from here on, numbers are written with a unit: 24.8k
LABEL_DISTANCE = 0.085  # of the panel's height, between the last values of two runs

Curve = tuple[list[int], list[float]]  # steps and values


def read_curves(workdir: str | Path) -> dict[str, Curve]:
    """Returns {metric: (steps, values)} of metrics.jsonl, values that were not finite as nan.

    A last line that is only half written belongs to a run that goes on, and is left out. Raises
    UserError if the file is missing, holds no metric, or has a broken line (which it names).
    """
    path = Path(workdir) / "metrics.jsonl"
    if not path.is_file():
        raise UserError(f"{workdir} has no metrics.jsonl; name the work directory of a run")
    curves: dict[str, Curve] = {}
    for number, line in enumerate(_whole_lines(path.read_text(encoding="utf-8")), start=1):
        try:
            values = json.loads(line)
            step = int(values["step"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}, line {number} is no line of metrics; remove it") from error
        for name in values.keys() - set(NOT_METRICS):
            steps, points = curves.setdefault(name, ([], []))
            steps.append(step)
            points.append(math.nan if values[name] is None else float(values[name]))
    if not curves:
        raise UserError(f"{path} holds no metrics yet; wait for the run's first log step")
    return curves


def _whole_lines(text: str) -> list[str]:
    return text[: text.rfind("\n") + 1].splitlines()


def draw_curves(runs: Mapping[str, Mapping[str, Curve]], output: str | Path, metrics: str) -> int:
    """Draws the metrics whose names match the regular expression `metrics` into one PNG.

    Args:
      runs: {label: {metric: (steps, values)}}.
      output: the file, whose directory is made.
    Returns:
      How many panels there are.
    Raises UserError for a wrong expression, or one that matches nothing.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    names = _matching(sorted({name for curves in runs.values() for name in curves}), metrics)
    columns = min(len(names), 3 if len(names) != 4 else 2)
    rows = math.ceil(len(names) / columns)
    size = (PANEL[0] * columns, PANEL[1] * rows + 0.5)
    figure, axes = pyplot.subplots(
        rows,
        columns,
        figsize=size,
        squeeze=False,
        layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1),
    )
    steps = [step for curves in runs.values() for points, _ in curves.values() for step in points]
    for panel, name in zip(axes.flat, names, strict=False):
        panel.set_xlim(0, max(*steps, 1) * 1.02)  # the same in every panel, so that they compare
        _draw_panel(panel, name, [curves.get(name, ([], [])) for curves in runs.values()])
    for unused in list(axes.flat)[len(names) :]:
        unused.remove()
    lines = [pyplot.Line2D([], [], **_look(index), label=run) for index, run in enumerate(runs)]
    figure.legend(handles=lines, loc="outside upper left", ncols=min(len(runs), 4), frameon=False)
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=150)
    pyplot.close(figure)
    return len(names)


def _matching(names: Sequence[str], pattern: str) -> list[str]:
    try:
        chosen = [name for name in names if re.search(pattern, name)]
    except re.error as error:
        raise UserError(f"--metrics={pattern!r} is no regular expression: {error}") from error
    if not chosen:
        raise UserError(f"no metric matches --metrics={pattern!r}; known: {', '.join(names)}")
    return chosen


def _look(index: int) -> dict[str, Any]:
    line = LINES[index // len(COLOURS) % len(LINES)]
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": line, "linewidth": 1.5}


def _draw_panel(panel: Any, name: str, curves: Sequence[Curve]) -> None:
    from matplotlib.ticker import EngFormatter, MaxNLocator

    panel.set_title(name, loc="left", fontsize=10, fontweight="bold", color="#222222")
    for index, (steps, values) in enumerate(curves):
        marker = {"marker": "o", "markersize": 4} if len(steps) <= FEW_POINTS else {}
        panel.plot(steps, values, **_look(index), **marker)
    _write_last_values(panel, curves)
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set_color("#999999")
    panel.grid(axis="y", color="#E4E4E4", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.tick_params(colors="#555555", labelsize=8.5)
    panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    panel.xaxis.set_major_formatter(EngFormatter(sep=""))
    panel.set_xlabel("step", fontsize=8.5, color="#555555")
    if max((abs(value) for _, values in curves for value in values), default=0) >= LARGE:
        panel.yaxis.set_major_formatter(EngFormatter(sep=""))


def _write_last_values(panel: Any, curves: Sequence[Curve]) -> None:
    """The last value of every run at the right, in its colour, at its height or just above."""
    last = [(values[-1], index) for index, (_, values) in enumerate(curves) if values]
    low, high = panel.get_ylim()
    above = -math.inf
    for value, index in sorted(last):
        if not math.isfinite(value):
            continue
        above = max((value - low) / (high - low), above + LABEL_DISTANCE)
        panel.text(
            1.015,
            above,
            _short(value),
            transform=panel.transAxes,
            color=COLOURS[index % len(COLOURS)],
            fontsize=9,
            va="center",
        )


def _short(value: float) -> str:
    from matplotlib.ticker import EngFormatter

    return f"{value:.3g}" if abs(value) < LARGE else EngFormatter(places=1, sep="")(value)
