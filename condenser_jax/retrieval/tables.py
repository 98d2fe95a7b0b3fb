"""Results of several systems side by side: as text or Markdown.

Rows are systems and columns are metrics, both in the order in which they come; a metric that a
system lacks is a dash.
"""

from collections.abc import Mapping

Results = Mapping[str, Mapping[str, float]]  # system -> metric -> value


def as_text(results: Results) -> str:
    """Returns columns of figures under their names, for a terminal."""
    rows = _cells(results)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for name, *values in rows:
        cells = [v.rjust(width) for v, width in zip(values, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *cells]).rstrip())
    return "\n".join(lines)


def as_markdown(results: Results) -> str:
    """Returns a Markdown table."""
    header, *rows = ([cell.replace("|", "\\|") for cell in row] for row in _cells(results))
    rule = ["---", *("---:" for _ in header[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in [header, rule, *rows])


def _cells(results: Results) -> list[list[str]]:
    metrics = list(dict.fromkeys(metric for values in results.values() for metric in values))
    rows = [
        [system, *(_number(values.get(metric)) for metric in metrics)]
        for system, values in results.items()
    ]
    return [["system", *metrics], *rows]


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4f}"
