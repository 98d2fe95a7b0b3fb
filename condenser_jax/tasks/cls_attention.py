"""The task `cls_attention`: models beside each other, as a table, as JSON, as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from condenser_jax.data.vocabulary import Vocabulary
from condenser_jax.evaluation.cls_attention import ClsAttention, cls_attention
from condenser_jax.plotting import COLOURS, GREY, LINES, frame
from condenser_jax.tasks.contract import Options, Report
from condenser_jax.tasks.models import Weights, name_models, read_weights
from condenser_jax.tasks.texts import SPECIALS, check_options, read_texts, to_batches
from condenser_jax.training.sharding import make_mesh

ROWS = 32  # texts of a batch, at least
SAME = 1e-6  # uniform references that differ by less are drawn as one
PANELS = (  # figure, title, axis
    ("entropy", "Where the CLS looks", "entropy of its attention (nats)"),
    ("received", "Who looks at the CLS", "attention that it receives"),
)


def report_cls_attention(options: Options) -> Report:
    """Measures every model on its texts. Raises UserError where there are none."""
    named = name_models(options.models)
    models = [read_weights(path, name) for name, path in named.items()]
    return report_weights(models, options)


def report_weights(models: Sequence[Weights], options: Options) -> Report:
    """The same of models that have been read."""
    check_options(models, options)
    mesh = make_mesh()
    rows = -(-ROWS // mesh.size) * mesh.size
    measured, described = {}, {}
    for model in models:
        ids, origin = read_texts(model, options)
        batches = to_batches(ids, Vocabulary.from_tokenizer(model.tokenizer), rows)
        found = cls_attention(model.config, model.params, batches, mesh)
        tokens = sum(map(len, ids)) / len(ids) + SPECIALS
        about = {"path": model.path, "data": origin, "texts": len(ids), "mean_tokens": tokens}
        measured[model.name], described[model.name] = found, about
    figures = {name: described[name] | found._asdict() for name, found in measured.items()}
    return Report(
        table=_table(measured, described),
        figures={"task": "cls_attention", "max_length": options.max_length, "models": figures},
        files={".png": lambda path: draw_cls_attention(measured, path)},
    )


def _table(measured: Mapping[str, ClsAttention], described: Mapping[str, dict]) -> str:
    widths = {name: max(18, len(name)) for name in measured}
    lines = [
        "CLS attention: entropy in nats; received: mean weight that other positions give it",
        "",
        " " * 8 + "".join(f"  {name:>{widths[name]}}" for name in measured),
        f"{'layer':<8}" + "".join(f"  {_pair('entropy', 'received', w)}" for w in widths.values()),
    ]
    for layer in range(max(len(found.entropy) for found in measured.values())):
        cells = [_layer_cell(found, layer, widths[name]) for name, found in measured.items()]
        lines.append(f"{layer + 1:<8}" + "".join(f"  {cell}" for cell in cells))
    uniform = [
        _numbers(found.uniform_entropy, found.uniform_received, widths[name])
        for name, found in measured.items()
    ]
    lines += [f"{'uniform':<8}" + "".join(f"  {cell}" for cell in uniform), ""]
    lines += [
        f"{name}: {about['texts']} texts of {about['mean_tokens']:.1f} tokens on average, "
        f"{about['data']}"
        for name, about in described.items()
    ]
    if len({about["data"] for about in described.values()}) > 1:
        lines.append("The texts differ, and entropy grows with length; --data=SOURCE shares them.")
    return "\n".join(lines)


def _layer_cell(found: ClsAttention, layer: int, width: int) -> str:
    if layer >= len(found.entropy):
        return " " * width
    return _numbers(found.entropy[layer], found.received[layer], width)


def _numbers(entropy: float, received: float, width: int) -> str:
    return _pair(f"{entropy:.3f}", f"{received:.4f}", width)


def _pair(first: str, second: str, width: int) -> str:
    return f"{first:>{width - 9}}{second:>9}"


def draw_cls_attention(measured: Mapping[str, ClsAttention], path: Path) -> None:
    """Two panels, one line per model; dotted is what uniform attention would give."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.ticker import MaxNLocator

    figure, panels = pyplot.subplots(
        1, 2, figsize=(9.2, 3.9), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)
    )
    for panel, (figure_name, title, axis) in zip(panels, PANELS, strict=True):
        frame(panel, title, "layer")
        panel.set_ylabel(axis, fontsize=8.5, color=GREY)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
        _draw_lines(panel, measured, figure_name)
    handles = [pyplot.Line2D([], [], label=name, **_look(i)) for i, name in enumerate(measured)]
    dotted = pyplot.Line2D([], [], color="#777777", linestyle=":", label="uniform attention")
    figure.legend(
        handles=[*handles, dotted], loc="outside upper left", ncols=4, frameon=False, fontsize=9
    )
    figure.savefig(path, dpi=150, format="png")
    pyplot.close(figure)


def _draw_lines(panel: Any, measured: Mapping[str, ClsAttention], figure_name: str) -> None:
    references = [getattr(found, f"uniform_{figure_name}") for found in measured.values()]
    is_shared = max(references) - min(references) < SAME
    for index, found in enumerate(measured.values()):
        values = getattr(found, figure_name)
        panel.plot(range(1, len(values) + 1), values, **_look(index))
        colour = "#777777" if is_shared else COLOURS[index % len(COLOURS)]
        if index == 0 or not is_shared:
            panel.axhline(references[index], color=colour, linestyle=":", linewidth=1.3, zorder=1)
    panel.set_ylim(bottom=0)
    panel.margins(x=0.04)


def _look(index: int) -> dict[str, Any]:
    """Colour and line of a model; layers are few, so each is marked."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": LINES[index // len(COLOURS) % 2],  # dotted is taken
        "linewidth": 1.8,
        "marker": "o",
        "markersize": 5,
        "markeredgecolor": "white",
        "markeredgewidth": 0.8,
    }
