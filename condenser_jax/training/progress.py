"""What a run prints: a line of progress, and what its evaluations found."""

import math
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Callable, Mapping
from typing import TextIO

from condenser_jax.training.hooks import Hook

CLEAR_LINE = "\r\x1b[K"
LINE_WIDTH = 100


class Progress(Hook):
    """One line that updates in place on a terminal, and is a plain line now and then in a log.

    Args:
      total_steps: where the run ends.
      start_step: where it starts or resumes.
      every: least seconds between two lines in a log.
    """

    def __init__(
        self,
        total_steps: int,
        start_step: int = 0,
        *,
        every: float = 10.0,
        stream: TextIO | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._total, self._every, self._now = total_steps, every, now
        self._stream = sys.stderr if stream is None else stream
        self._in_place = self._stream.isatty()
        self._first: tuple[int, float] | None = None  # the first log, after compilation
        self._last_line = -math.inf

    def on_log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Shows steps, time left, pace and metrics, in a log at most once in `every` seconds."""
        now = self._now()
        self._first = self._first or (step, now)
        if self._in_place:
            # A line that wraps could not be written over.
            line = self._line(step, now, metrics)[: shutil.get_terminal_size().columns - 1]
            print(f"{CLEAR_LINE}{line}", end="", file=self._stream, flush=True)
        elif now - self._last_line >= self._every or step >= self._total:
            self._last_line = now
            print(self._line(step, now, metrics), file=self._stream, flush=True)

    def on_eval(self, step: int, metrics: Mapping[str, float]) -> None:
        """Prints what an evaluation found, on lines of its own."""
        clear = CLEAR_LINE if self._in_place else ""
        lines = [f"{clear}evaluation at step {step}"]
        for group, figures in _by_group(metrics).items():
            values = [value.replace(" ", "\0") for value in _values(figures)]  # stays together
            text = f"  {group}: {', '.join(values)}"
            lines += textwrap.wrap(
                text, LINE_WIDTH, subsequent_indent="    ", break_on_hyphens=False
            )
        print("\n".join(lines).replace("\0", " "), file=self._stream, flush=True)

    def on_end(self) -> None:
        """Leaves the line that was updated in place."""
        if self._in_place and self._first:
            print(file=self._stream, flush=True)

    def _line(self, step: int, now: float, metrics: Mapping[str, float]) -> str:
        rest = dict(metrics)
        rest.pop("steps_per_second", None)
        tokens, mfu = rest.pop("tokens_per_second", None), rest.pop("mfu", None)
        parts = [f"step {step}/{self._total} ({step / max(1, self._total):.0%})"]
        parts.append(f"{self._time_left(step, now)} left")
        if tokens is not None:
            parts.append(f"{human(tokens)} tokens/s")
        if mfu is not None:
            parts.append(f"MFU {mfu:.1%}")
        return "  ".join(parts + _values(rest))

    def _time_left(self, step: int, now: float) -> str:
        """From the pace since the first log, evaluations included."""
        assert self._first is not None
        first_step, first_time = self._first
        if step >= self._total:
            return "0:00"
        if step == first_step:
            return "?"
        return duration((now - first_time) / (step - first_step) * (self._total - step))


def _by_group(metrics: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """{"heldout": {"loss": 2.5}} of {"heldout/loss": 2.5}."""
    groups: dict[str, dict[str, float]] = {}
    for name, value in metrics.items():
        group, _, rest = name.rpartition("/")
        groups.setdefault(group, {})[rest] = value
    return groups


def _values(metrics: Mapping[str, float]) -> list[str]:
    """["loss 2.5", ...], losses first, without the part of the name that all share ("train/");
    a figure of every layer is one: "entropy_layer_1..3 2.5 2.4 2.1".
    """
    prefixes = {name.rpartition("/")[0] for name in metrics}
    shared = len(prefixes.pop()) + 1 if len(prefixes) == 1 and "" not in prefixes else 0
    alike: dict[str, list[str]] = {}
    for name in sorted(metrics, key=lambda name: "loss" not in name):
        alike.setdefault(re.sub(r"(?<=_layer_)\d+$", "", name), []).append(name)
    texts = []
    for stem, names in alike.items():
        name = f"{stem}1..{len(names)}" if len(names) > 1 else names[0]
        texts.append(" ".join([name[shared:], *(f"{metrics[name]:.4g}" for name in names)]))
    return texts


def human(number: float) -> str:
    """Returns a number with at most four digits and a unit: 812, 12.3k, 4.57M."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


def duration(seconds: float) -> str:
    """Returns seconds as 0:42, 3:07, 2:03:09 or 1d 04:20."""
    whole = max(0, round(seconds))
    days, hours = divmod(whole // 3600, 24)
    minutes = whole // 60 % 60
    if days:
        return f"{days}d {hours:02}:{minutes:02}"
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
