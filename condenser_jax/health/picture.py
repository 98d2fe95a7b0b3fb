"""The health of a run in one picture: a panel per family of figures, over the steps."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from condenser_jax.health.sentence import Curves
from condenser_jax.plotting import COLOURS, GREY, Line, draw_panel, last_step


class Family(NamedTuple):
    """Figures that share a panel."""

    title: str
    note: str
    lines: Mapping[str, str]  # name at the line: figure
    reference: tuple[str, str] | None = None  # the same, dashed


FAMILIES = (
    Family(
        "Masked LM loss",
        "nats; the unigram is to be beaten",
        {"head": "heldout/head_loss", "late": "heldout/late_loss"},
        ("unigram", "heldout/unigram"),
    ),
    Family(
        "Masked LM accuracy",
        "share of masked tokens that are right",
        {"head": "heldout/head_accuracy", "late": "heldout/late_accuracy"},
    ),
    Family(
        "Span retrieval",
        "share of spans whose partner is nearest",
        {
            "@1": "heldout/span_retrieval@1",
            "@1 of 500": "heldout/span_retrieval@1_among_500",
            "MRR": "heldout/span_retrieval_mrr",
        },
    ),
    Family(
        "Contrastive loss",
        "nats; low where partners stand out",
        {"": "heldout/contrastive_loss"},
    ),
    Family(
        "Alignment",
        "squared distance of partners; 0: equal",
        {"": "heldout/alignment"},
    ),
    Family(
        "Uniformity",
        "0: all vectors alike; \N{MINUS SIGN}4: spread evenly",
        {"": "heldout/uniformity"},
    ),
    Family(
        "Effective rank",
        "directions that the vectors use",
        {"": "heldout/effective_rank"},
    ),
    Family(
        "Distillation loss",
        "of the student, on held-out text",
        {"": "heldout/loss"},
    ),
    Family(
        "Agreement on ratios",
        "AUC by whose words were put in",
        {
            "teacher's": "heldout_teacher/auc",
            "uniform": "heldout_uniform/auc",
            "tutor's": "heldout_tutor/auc",
        },
    ),
    Family(
        "Cosine of hidden states",
        "student and teacher; the same texts",
        {
            "teacher's": "heldout_teacher/cosine",
            "uniform": "heldout_uniform/cosine",
            "tutor's": "heldout_tutor/cosine",
        },
    ),
    Family(
        "Reward of what was put in",
        "the tutor's is to be above the teacher's",
        {
            "teacher's": "heldout_teacher/reward",
            "uniform": "heldout_uniform/reward",
            "tutor's": "heldout_tutor/reward",
        },
    ),
    Family(
        "Passage retrieval",
        "among a sample of the collection",
        {
            "MRR@10": "heldout/mrr@10",
            "nDCG@10": "heldout/ndcg@10",
        },
        ("BM25, MRR@10", "heldout/bm25_mrr@10"),
    ),
)
LAYER = "heldout/cls_entropy_layer_"
LABELS = 6  # of lines in a panel; more do not fit beside each other
COLUMNS = 4
PANEL = (3.9, 2.75)  # inches
WARNING = COLOURS[1]


def draw_health(curves: Curves, output: Path, title: str, said: str | None = None) -> int:
    """Draws one panel per family that has figures, into a PNG that readers never see half.

    Args:
      curves: of all evaluations so far, those before a resume included.
      said: what `sentence` said.
    Returns:
      How many panels there are.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    families = [*FAMILIES, _layers(curves)]
    families += _others(families, curves)
    panels = [(family, _lines(family, curves)) for family in families]
    panels = [(family, lines) for family, lines in panels if lines]
    columns = min(len(panels), COLUMNS)
    rows = math.ceil(len(panels) / columns)
    size = (PANEL[0] * columns, PANEL[1] * rows + 0.6)
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
    end = last_step(line.curve for _, lines in panels for line in lines)
    for place, (family, lines) in enumerate(panels, start=1):
        panel = figure.add_subplot(rows, columns, place)
        panel.set_xlim(0, end)
        draw_panel(panel, f"{family.title}\n", lines)
        panel.text(0, 1.04, family.note, fontsize=8.5, color=GREY, transform=panel.transAxes)
    _write_headline(figure, title, said)
    half = output.with_name(f"{output.name}.half")
    figure.savefig(half, dpi=130, format="png")
    half.replace(output)
    return len(panels)


def _layers(curves: Curves) -> Family:
    layers = sorted(int(name.removeprefix(LAYER)) for name in curves if name.startswith(LAYER))
    return Family(
        "CLS attention entropy",
        "nats; low where it chooses what to read",
        {f"layer {layer}": f"{LAYER}{layer}" for layer in layers},
        ("uniform", "heldout/cls_entropy_uniform"),
    )


def _others(families: Sequence[Family], curves: Curves) -> Iterator[Family]:
    """A panel for each figure of an evaluation that no family draws."""
    drawn = {figure for family in families for figure in family.lines.values()}
    drawn |= {family.reference[1] for family in families if family.reference}
    for figure in curves:
        if figure.startswith("heldout/") and figure not in drawn:
            name = figure.removeprefix("heldout/").replace("_", " ")
            yield Family(name[:1].upper() + name[1:], "held out", {"": figure})


def _lines(family: Family, curves: Curves) -> list[Line]:
    """The family's figures that there are; the reference first, so that it lies below."""
    total = len(family.lines)
    labelled = {round(i * (total - 1) / (LABELS - 1)) for i in range(LABELS)}
    found = [
        Line(curves[figure], _look(place, total), name if place in labelled else None)
        for place, (name, figure) in enumerate(family.lines.items())
        if figure in curves
    ]
    if found and family.reference and family.reference[1] in curves:
        dashed = {"color": "#888888", "linestyle": "--", "linewidth": 1.2, "marker": ""}
        found.insert(0, Line(curves[family.reference[1]], dashed, family.reference[0]))
    return found


def _look(place: int, total: int) -> dict[str, Any]:
    """One of a few colours; of many lines, a colour on the way from dark to light."""
    from matplotlib import colormaps

    is_few = total <= 3
    colour = COLOURS[place] if is_few else colormaps["viridis"](0.88 * place / (total - 1))
    return {"color": colour, "linewidth": 1.5}


def _write_headline(figure: Any, title: str, said: str | None) -> None:
    """The run at the top left; below it, in a colour that is seen, what was said."""
    style: Any = {"x": 0.008, "ha": "left", "fontsize": 12}
    figure.suptitle(title + ("\n" if said else ""), fontweight="bold", color="#222222", **style)
    if said:
        line = 1.45 * style["fontsize"] / 72 / figure.get_figheight()
        figure.text(y=0.98 - line, s=said, va="top", color=WARNING, **style)
