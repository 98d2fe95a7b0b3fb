"""Curves of runs as small multiples: one panel per metric, one colour per run, in every panel."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from condenser_jax.errors import UserError

# Okabe and Ito's colours, which people with any colour vision can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#444444")
LINES = ("-", "--", ":")  # told apart by these when the colours are used up
NOT_METRICS = ("step", "time")
PANEL = (4.4, 2.7)  # inches
FEW_POINTS = 12  # with so few, each is marked
LARGE = 1e4  # from here on, numbers are written with a unit: 24.8k
LABEL_DISTANCE = 0.085  # of the panel's height, between the last values of two lines
GREY = "#555555"

Curve = tuple[list[int], list[float]]  # steps and values


class Line(NamedTuple):
    """A curve in a panel; its last value and its name stand at the right, unless that is None."""

    curve: Curve
    look: dict[str, Any]  # colour, style and width
    name: str | None = ""


PICTURES = (".png", ".pdf", ".svg")


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
    Raises UserError for a wrong expression, or one that matches nothing, and for no picture's name.
    """
    if Path(output).suffix.lower() not in PICTURES:
        raise UserError(f"--output={output} is no picture; name it *{' or *'.join(PICTURES)}")
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
    end = last_step(curve for curves in runs.values() for curve in curves.values())
    for panel, name in zip(axes.flat, names, strict=False):
        panel.set_xlim(0, end)  # the same in every panel, so that they compare
        found = [curves.get(name, ([], [])) for curves in runs.values()]
        draw_panel(panel, name, [Line(curve, _look(index)) for index, curve in enumerate(found)])
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


def last_step(curves: Iterable[Curve]) -> float:
    """Where the steps of all curves end, and a little more."""
    return 1.02 * max((step for steps, _ in curves for step in steps), default=1) or 1


def draw_panel(panel: Any, title: str, lines: Sequence[Line], scale: str = "linear") -> None:
    """Lines over steps, each with its last value at the right."""
    from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator

    frame(panel, title, "step")
    for line in lines:
        marker = {"marker": "o", "markersize": 4} if len(line.curve[0]) <= FEW_POINTS else {}
        panel.plot(*line.curve, **marker | line.look)
    panel.set_yscale(scale)
    _write_last_values(panel, lines)
    if scale == "linear":
        panel.ticklabel_format(axis="y", useOffset=False)  # whole values, not what is added to one
    else:
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.yaxis.set_major_formatter("{x:g}")
        panel.minorticks_off()
    panel.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    panel.xaxis.set_major_formatter(EngFormatter(sep=""))
    if max((abs(value) for line in lines for value in line.curve[1]), default=0) >= LARGE:
        panel.yaxis.set_major_formatter(EngFormatter(sep=""))


def frame(panel: Any, title: str, axis: str) -> None:
    """Title, name of the x axis, spines, grid and ticks as every picture of ours has them."""
    panel.set_title(title, loc="left", fontsize=10, fontweight="bold", color="#222222")
    panel.set_xlabel(axis, fontsize=8.5, color=GREY)
    panel.spines[["top", "right"]].set_visible(False)
    panel.spines[["left", "bottom"]].set_color("#999999")
    panel.grid(axis="y", color="#E4E4E4", linewidth=0.8)
    panel.set_axisbelow(True)
    panel.tick_params(colors=GREY, labelsize=8.5)


def _write_last_values(panel: Any, lines: Sequence[Line]) -> None:
    """The last value of every line at the right, in its colour, as near to its height as there is
    room.
    """
    labelled = [line for line in lines if line.name is not None and line.curve[1]]
    labelled = [line for line in labelled if math.isfinite(line.curve[1][-1])]
    labelled.sort(key=lambda line: line.curve[1][-1])
    panel.get_ylim()  # settles the limits, on which the transformation depends
    to_panel = panel.transScale + panel.transLimits
    wanted = [to_panel.transform((0, line.curve[1][-1]))[1] for line in labelled]
    for line, height in zip(labelled, _apart(wanted), strict=True):
        panel.text(
            1.015,
            height,
            f"{_short(line.curve[1][-1])} {line.name}",
            transform=panel.transAxes,
            color=line.look["color"],
            fontsize=9,
            va="center",
        )


def _apart(heights: Sequence[float]) -> list[float]:
    """Ascending heights, moved up until none hides another, then down from the panel's top."""
    moved: list[float] = []
    for height in heights:
        moved.append(max(height, moved[-1] + LABEL_DISTANCE) if moved else height)
    ceiling = 1.0
    for place in reversed(range(len(moved))):
        moved[place] = min(moved[place], ceiling)
        ceiling = moved[place] - LABEL_DISTANCE
    return moved


def _short(value: float) -> str:
    """Three digits, with a unit from LARGE on."""
    from matplotlib.ticker import EngFormatter

    if abs(value) >= LARGE:
        return EngFormatter(places=1, sep="")(value)
    return f"{value:#.3g}".rstrip(".").replace("-", "\N{MINUS SIGN}")
