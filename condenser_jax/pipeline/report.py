"""What a pipeline found, for people: report.md, report.png, and the encoder in one place."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from condenser_jax.pipeline.steps import Result
from condenser_jax.plotting import COLOURS, GREY, Line, draw_panel, last_step, read_curves
from condenser_jax.tasks.systems import BM25
from condenser_jax.training.progress import duration

ENCODER, REPORT, PICTURE = "encoder", "report.md", "report.png"
FIGURE = "MRR@10"
HELDOUT = "heldout/mrr@10"


def conclude(results: Mapping[str, Result], root: Path) -> str:
    """Writes report, picture and encoder below `root`; returns the closing words."""
    second = results["second"]
    _replace_folder(second.directory / second.facts["model"], root / ENCODER)
    _draw(results, root / PICTURE)
    half = root / f"{REPORT}.half"
    half.write_text(_markdown(results), encoding="utf-8")
    half.replace(root / REPORT)
    return "\n".join(
        [
            results["evaluation"].facts["table"],
            "",
            f"finished; all steps took {duration(sum(r.seconds for r in results.values()))}",
            f"report: {root / REPORT}, {root / PICTURE}; encoder: {root / ENCODER}",
        ]
    )


def _replace_folder(source: Path, target: Path) -> None:
    half = target.with_name(f"{target.name}.half")
    shutil.rmtree(half, ignore_errors=True)
    shutil.copytree(source, half)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(half, target)


def _markdown(results: Mapping[str, Result]) -> str:
    lines = ["# From text to a searching encoder", "", results["evaluation"].facts["markdown"]]
    lines += [f"![held-out and test figures]({PICTURE})", "", "## Runs", ""]
    lines += ["| run | figure | before | after |", "|---|---|---|---|"]
    for name, result in results.items():
        if "figures" in result.facts:
            lines += [f"| {name} | {row} |" for row in _before_and_after(result.facts["figures"])]
    lines += ["", "## Negatives", ""]
    for name, result in results.items():
        if "said" in result.facts:
            lines += [f"{name}:", "", *(f"- {line}" for line in result.facts["said"].splitlines())]
            lines += [""]
    lines += ["## Time", "", "| step | took |", "|---|---|"]
    lines += [f"| {name} | {duration(result.seconds)} |" for name, result in results.items()]
    return "\n".join(lines) + "\n"


def _before_and_after(history: Mapping[str, Any]) -> list[str]:
    """A row for each held-out figure, but for those of parts and layers."""
    return [
        f"{name} | {history['first'][name]:.3f} | {value:.3f}"
        for name, value in history["last"].items()
        if name.startswith("heldout/") and "cls_entropy" not in name
    ]


def _draw(results: Mapping[str, Result], output: Path) -> None:
    """Both retrievers while they were trained, and all systems on the test queries."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.5, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    curves = {name: read_curves(results[name].directory / "run") for name in ("first", "second")}
    lines = [
        Line(found[HELDOUT], {"color": COLOURS[place], "linewidth": 1.5}, name)
        for place, (name, found) in enumerate(curves.items())
    ]
    dashed = {"color": "#888888", "linestyle": "--", "linewidth": 1.2}
    lines.insert(0, Line(curves["first"]["heldout/bm25_mrr@10"], dashed, BM25))
    left.set_xlim(0, last_step(line.curve for line in lines))
    draw_panel(left, f"{FIGURE} while training, among a sample", lines)
    systems = results["evaluation"].facts["systems"]
    values = [found[FIGURE] for found in systems.values()]
    right.barh(list(systems), values, color=[COLOURS[0] if n != BM25 else GREY for n in systems])
    right.bar_label(right.containers[0], fmt="%.3f", padding=3, fontsize=9)
    right.invert_yaxis()
    right.set_xlim(0, 1.15 * max(values))
    right.set_title(f"{FIGURE} of the test queries", fontsize=10, loc="left")
    right.spines[["top", "right"]].set_visible(False)
    half = output.with_name(f"{output.name}.half")
    figure.savefig(half, dpi=130, format="png")
    half.replace(output)
