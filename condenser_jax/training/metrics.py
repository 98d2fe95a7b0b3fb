"""From sums on the device to numbers for people: means, throughput, model FLOPs utilisation.

A step returns `Mean(total, count)` per metric. They are added up on the device, and only a log step
fetches and divides them, so the host never waits for the device in between.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import jax
import jax.numpy as jnp

from condenser_jax.types import Mean

# Peak dense bfloat16 FLOP/s of one jax device (float16 where there is no bfloat16), as on the data
# sheets. The first name among the words of `device_kind` counts, so longer names stand first.
# A TPU v2 or v3 chip is two jax devices.
PEAK_FLOPS: tuple[tuple[str, float], ...] = (
    ("H200 NVL", 835e12),
    ("H200", 989e12),
    ("GH200", 989e12),
    ("H100 PCIe", 756e12),
    ("H100 NVL", 835e12),
    ("H100", 989e12),
    ("A100", 312e12),
    ("V100", 125e12),
    ("L4", 121e12),
    ("T4", 65e12),
    ("TPU v6 lite", 918e12),
    ("TPU v6e", 918e12),
    ("TPU v5 lite", 197e12),
    ("TPU v5e", 197e12),
    ("TPU v5", 459e12),
    ("TPU v5p", 459e12),
    ("TPU v4", 275e12),
    ("TPU v3", 61.5e12),
    ("TPU v2", 22.5e12),
)


@jax.jit
def _add(left: dict[str, Mean], right: dict[str, Mean]) -> dict[str, Mean]:
    return jax.tree.map(jnp.add, left, right)


class Means:
    """Sums of metrics since they were last read; steps of other phases have other names."""

    def __init__(self) -> None:
        self._sums: dict[frozenset[str], dict[str, Mean]] = {}

    def add(self, metrics: Mapping[str, Mean]) -> None:
        """Adds one step's metrics on the device; does not wait for them."""
        names, step = frozenset(metrics), dict(metrics)
        self._sums[names] = _add(self._sums[names], step) if names in self._sums else step

    def read(self, prefix: str = "") -> dict[str, float]:
        """Returns {prefix + name: total / count} of everything added since the last call.

        Waits for the device. A metric that counted nothing (count 0) is nan.
        """
        merged: dict[str, Mean] = {}
        for sums in jax.device_get(list(self._sums.values())):
            for name, mean in sums.items():
                merged[name] = merged[name] + mean if name in merged else mean
        self._sums.clear()
        return {
            prefix + name: float(total) / float(count) if count else float("nan")
            for name, (total, count) in merged.items()
        }


class Clock:
    """Steps and tokens per second of training alone: what runs within `paused` does not count.

    Read it right after `Means.read`, which waits for the device; else it times the dispatch.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._restart()

    def _restart(self) -> None:
        self._start, self._steps, self._tokens = self._now(), 0, 0

    def count(self, tokens: int) -> None:
        """Counts one step of so many tokens."""
        self._steps += 1
        self._tokens += tokens

    @contextmanager
    def paused(self) -> Iterator[None]:
        """For evaluation, compilation and saving; enter it with no step under way on the device."""
        begin = self._now()
        try:
            yield
        finally:
            self._start += self._now() - begin

    def read(self) -> dict[str, float]:
        """Returns {steps_per_second, tokens_per_second} since the last call; {} without a step."""
        seconds, steps, tokens = self._now() - self._start, self._steps, self._tokens
        self._restart()
        if not steps or seconds <= 0:
            return {}
        return {"steps_per_second": steps / seconds, "tokens_per_second": tokens / seconds}


def peak_flops(device_kind: str) -> float | None:
    """Returns the peak dense FLOP/s of one device in 16 bits; None when the kind is not known."""
    for name, peak in PEAK_FLOPS:
        if re.search(rf"\b{name}\b", device_kind, re.IGNORECASE):
            return peak
    return None


def model_flops_utilisation(
    tokens_per_second: float, flops_per_token: float, devices: int, device_kind: str
) -> float | None:
    """Returns needed over peak FLOP/s of all devices, 0..1; None when the peak is not known."""
    peak = peak_flops(device_kind)
    return None if peak is None else tokens_per_second * flops_per_token / (peak * devices)
