"""The picture of benchmarks/claims.py: a panel each for labels, batches and wrong labels, a line
for each way of pre-training.
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from claims_report import ALL, METRIC, NO_LABELS, Cell, Figures, Setting, titles_of, words

from condenser_jax.plotting import COLOURS, Line, draw_panel

USUAL = Cell("").setting
Points = tuple[list[int], list[float], list[float]]  # places on the axis, means, deviations


class Panel(NamedTuple):
    """What changes along the x axis."""

    title: str
    axis: str
    ticks: dict[str, Setting]


def panels(settings: Iterable[Setting]) -> list[Panel]:
    """Those with anything to compare; in each, all but one quantity is as usual."""
    settings = sorted(set(settings), key=lambda setting: (setting[0] or math.inf, *setting[1:]))
    labels = [setting for setting in settings if setting[1:] == USUAL[1:]]
    batches = [setting for setting in settings if setting == (USUAL[0], setting[1], USUAL[2])]
    wrong = [setting for setting in settings if setting[:2] == USUAL[:2]]
    found = [
        Panel("Few labels", "labels", {_number(s[0]): s for s in labels}),
        Panel("Small batches, all labels", "batch", {str(s[1]): s for s in batches}),
        Panel("Wrong labels, of all", "replaced", {f"{s[2]:.0%}": s for s in wrong}),
    ]
    return [panel for panel in found if len(panel.ticks) > 1]


def _number(labels: int) -> str:
    return {NO_LABELS: "none", ALL: "all"}.get(labels, f"{labels:,}")


def draw(found: Iterable[Cell], figures: Figures, output: Path) -> None:
    """Means over seeds as a PNG, with a whisker of one standard deviation to each side; BM25 is a
    line where it lies among them, else a number.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    shown = panels(cell.setting for cell in found)
    picture = Figure(figsize=(max(3.4 * len(shown), 5.0), 3.6), layout="constrained")
    looks = {
        arm: {"color": COLOURS[place], "linewidth": 1.5} for place, arm in enumerate(figures.means)
    }
    row = picture.subplots(1, len(shown), squeeze=False, sharey=True)[0]
    curves = [_curves(panel, figures.means) for panel in shown]
    for axes, of_panel in zip(row, curves, strict=True):  # all, before the ends of lines are
        for arm, (x, y, deviations) in of_panel.items():  # named: panels share their heights
            axes.errorbar(x, y, deviations, fmt="none", ecolor=looks[arm]["color"], elinewidth=1)
    for axes, panel, of_panel in zip(row, shown, curves, strict=True):
        _draw_lines(axes, panel, of_panel, looks)
    titles = titles_of(figures)
    handles = [Line2D([], [], **look, label=titles.get(arm, arm)) for arm, look in looks.items()]
    low, high = row[0].get_ylim()
    bm25: dict[str, Any] = {"color": "0.5", "linewidth": 1, "linestyle": "--"}
    if low <= figures.bm25 <= high:
        for axes in row:
            axes.axhline(figures.bm25, **bm25)
    else:
        bm25["linestyle"] = ""
    handles.append(Line2D([], [], **bm25, label=f"BM25: {figures.bm25:.3f}"))
    picture.suptitle(f"{METRIC} of {figures.queries:,} test queries", x=0.01, ha="left")
    columns = min(len(handles), 2 * len(shown))  # the legend is no wider than the panels
    look: dict[str, Any] = {"frameon": False, "fontsize": 9, "ncols": columns}
    picture.legend(handles=handles, loc="outside lower left", **look)
    picture.savefig(output, dpi=130, format="png")


def _draw_lines(
    axes: Any, panel: Panel, curves: Mapping[str, Points], looks: Mapping[str, Any]
) -> None:
    draw_panel(axes, panel.title, [Line((x, y), looks[arm]) for arm, (x, y, _) in curves.items()])
    axes.set_xticks(range(len(panel.ticks)), list(panel.ticks))
    axes.set_xlabel(panel.axis)


def _curves(panel: Panel, means: Mapping[str, Mapping[str, Any]]) -> dict[str, Points]:
    """Those of the arms that have more than one figure in a panel."""
    found = {arm: _points(of_arm, panel.ticks.values()) for arm, of_arm in means.items()}
    return {arm: points for arm, points in found.items() if len(points[0]) > 1}


def _points(found: Mapping[str, Any], settings: Iterable[Setting]) -> Points:
    """Where an arm has a figure."""
    there = [(x, *found[words(s)]) for x, s in enumerate(settings) if words(s) in found]
    return [x for x, *_ in there], [y for _, y, _ in there], [sd or 0.0 for *_, sd in there]
