"""The picture of benchmarks/distillation.py: a panel for each AUC and for packages, a dot for each
row that has it, with teacher and random start as lines.
"""

from collections.abc import Mapping
from pathlib import Path

from distillation_arms import RANDOM, TEACHER, Arm
from distillation_report import COLUMNS, GROUPS, Figures, group_of, in_order, title_of

from condenser_jax.plotting import COLOURS, GREY, frame

LINE_STYLES = {TEACHER: "--", RANDOM: ":"}
SHOWN = [column for column in COLUMNS if not column.endswith("cosine")]
ROW, PANEL, TITLES = 0.26, 2.5, 3.0  # inches


def draw(figures: Figures, arms: Mapping[str, Arm], output: Path) -> None:
    """Means over seeds as a PNG, with a whisker of one standard deviation to each side."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    names = [name for name in in_order(figures.rows, arms) if name not in LINE_STYLES]
    size = TITLES + PANEL * len(SHOWN), 1.4 + ROW * len(names)
    picture = Figure(figsize=size, layout="constrained")
    for axes, column in zip(picture.subplots(1, len(SHOWN), sharey=True), SHOWN, strict=True):
        frame(axes, COLUMNS[column], "")
        for name, style in LINE_STYLES.items():
            if column in figures.rows.get(name, {}):
                axes.axvline(figures.rows[name][column][0], color=GREY, linestyle=style)
        for height, name in enumerate(names):
            if column in figures.rows[name]:
                mean, deviation = figures.rows[name][column]
                colour = COLOURS[GROUPS.index(group_of(name, arms))]
                axes.errorbar(mean, height, xerr=deviation or 0.0, fmt="o", color=colour)
        axes.set_yticks(range(len(names)), [title_of(name, arms) for name in names])
        axes.grid(axis="x", color="#E4E4E4", linewidth=0.8)
    axes.invert_yaxis()  # of all: it is shared
    groups = dict.fromkeys(group_of(name, arms) for name in names)
    handles = [
        Line2D([], [], color=COLOURS[GROUPS.index(group)], marker="o", linestyle="", label=group)
        for group in groups
    ]
    handles += [
        Line2D([], [], color=GREY, linestyle=style, label=name)
        for name, style in LINE_STYLES.items()
        if name in figures.rows
    ]
    picture.legend(handles=handles, loc="outside lower left", ncols=len(handles), frameon=False)
    picture.savefig(output, dpi=110, format="png")
