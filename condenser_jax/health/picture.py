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
    reference: tuple[str, str] | None = None  # the same, dashed and grey
    beside: Mapping[str, str] = {}  # what a line is compared with, dotted in its colour
    scale: str = "linear"  # or "log", for lines of very different sizes


def _of_each(figure: str) -> dict[str, str]:
    """A figure of the replacements of each kind."""
    names = {"teacher's": "teacher", "uniform": "uniform", "tutor's": "tutor"}
    return {name: f"heldout_{kind}/{figure}" for name, kind in names.items()}


def _of(kind: str, **figures: str) -> dict[str, str]:
    """{name: figure} of the replacements of one kind."""
    return {name.replace("_", " "): f"heldout_{kind}/{one}" for name, one in figures.items()}


_REWARDS = {"teacher": "teacher_reward", "student": "student_reward"}
_SHARES = {"copies": "copies", "mean_ratio": "ratio", "ratios_of_1": "ratio_ones"}
DISTILLATION = (
    Family(
        "Distillation loss",
        "of the student, on held-out text",
        {"": "heldout/loss"},
    ),
    Family(
        "What the loss is made of",
        "each loss before its weight; log scale",
        {
            "ratios": "heldout/logit_loss",
            "hidden": "heldout/hidden_loss",
            "attention": "heldout/attention_loss",
            "KL": "heldout/kd_loss",
            "MLM": "heldout/mlm_loss",
            "cosine": "heldout/cosine_loss",
            "queries": "heldout/queries_loss",
            "keys": "heldout/keys_loss",
            "values": "heldout/values_loss",
        },
        scale="log",
    ),
    Family("Agreement on ratios", "AUC by whose words were put in", _of_each("auc")),
    Family(
        "Error of the student's ratios",
        "mean difference; dotted: of a constant 1",
        _of_each("ratio_error"),
        beside=_of_each("ratio_error_of_one"),
    ),
    Family("Cosine of hidden states", "student and teacher; the same texts", _of_each("cosine")),
    Family(
        "Reward of what was put in",
        "the tutor's is to be above the teacher's",
        _of_each("reward"),
    ),
    Family(
        "Reward margin",
        "of the tutor over the teacher's words; 0: no gain",
        {
            "all": "heldout/reward_margin",
            "teacher": "heldout/teacher_reward_margin",
            "student": "heldout/student_reward_margin",
        },
    ),
    Family(
        "Parts of the reward",
        "of the tutor's words; dotted: the teacher's",
        _of("tutor", **_REWARDS),
        beside=_of("teacher", **_REWARDS),
    ),
    Family(
        "What is put in",
        "by the tutor; dotted: by the teacher",
        _of("tutor", **_SHARES),
        beside=_of("teacher", **_SHARES),
    ),
    Family(
        "The tutor's policy",
        "nats, while training",
        {
            "entropy": "maximise/entropy",
            "entropy, by KL alone": "minimise/entropy",
            "KL to the teacher": "minimise/kl",
        },
    ),
)
_TASKS = {
    "accuracy": "accuracy",
    "matched": "accuracy_matched",
    "mismatched": "accuracy_mismatched",
    "F1": "f1",
    "Matthews": "matthews",
    "Pearson": "pearson",
    "Spearman": "spearman",
    "mean": "score",
}
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
        {
            "head": "heldout/head_accuracy",
            "late": "heldout/late_accuracy",
            "student": "heldout/mlm_accuracy",
        },
        ("teacher", "heldout/teacher_accuracy"),
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
    *DISTILLATION,
    Family(
        "Task figures",
        "dotted: one answer for all texts",
        {name: f"heldout/{figure}" for name, figure in _TASKS.items()},
        beside={name: f"heldout/constant_{figure}" for name, figure in _TASKS.items()},
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
        draw_panel(panel, f"{family.title}\n", lines, family.scale)
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
    drawn |= {figure for family in families for figure in family.beside.values()}
    for figure in curves:
        if figure.startswith("heldout/") and figure not in drawn:
            name = figure.removeprefix("heldout/").replace("_", " ")
            yield Family(name[:1].upper() + name[1:], "held out", {"": figure})


def _lines(family: Family, curves: Curves) -> list[Line]:
    """The family's figures that there are; what they are compared with first, to lie below."""
    beside = {name: figure for name, figure in family.beside.items() if figure in curves}
    there = [name for name, figure in family.lines.items() if figure in curves or name in beside]
    labelled = {round(i * (len(there) - 1) / (LABELS - 1)) for i in range(LABELS)}
    found, below = list[Line](), list[Line]()
    for place, name in enumerate(there):
        look, label = _look(place, len(there)), name if place in labelled else None
        figure = family.lines[name]
        if name in beside:
            dotted = look | {"linestyle": ":", "marker": ""}
            below.append(Line(curves[beside[name]], dotted, None if figure in curves else label))
        if figure in curves:
            found.append(Line(curves[figure], look, label))
    if found and family.reference and family.reference[1] in curves:
        dashed = {"color": "#888888", "linestyle": "--", "linewidth": 1.2, "marker": ""}
        below.append(Line(curves[family.reference[1]], dashed, family.reference[0]))
    return [*below, *found]


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
