"""What the loop tells the outside: files and services of metrics, a profile.

The loop calls every hook at the same four moments; a hook overrides the ones that it needs. On
several hosts only the first makes the hooks that write.
"""

import hashlib
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from condenser_jax.errors import UserError
from condenser_jax.training.system_errors import writing


class Hook:
    """The moments of a run; each does nothing unless overridden. Metrics: {"train/loss": 2.5}."""

    def on_step(self, step: int) -> None:
        """Before step `step` (counted from 0) is dispatched."""

    def on_log(self, step: int, metrics: Mapping[str, float]) -> None:
        """After `step` steps, with the means since the last log."""

    def on_eval(self, step: int, metrics: Mapping[str, float]) -> None:
        """After `step` steps, with what an evaluation found."""

    def on_end(self) -> None:
        """When the loop is left, also by an error."""


class MetricsFile(Hook):
    """metrics.jsonl: one object per line, flushed at once, numbers finite or null."""

    def __init__(self, path: str | Path) -> None:
        self._path = path
        self._file = open(path, "ab")  # bytes, so that `offset` is one

    def on_log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Appends a line of step, time (seconds since 1970) and metrics."""
        finite = {name: _finite(value) for name, value in metrics.items()}
        line = {"step": step, "time": round(time.time(), 3), **finite}
        with writing(self._path):
            self._file.write(json.dumps(line, allow_nan=False).encode() + b"\n")
            self._file.flush()

    on_eval = on_log

    @property
    def offset(self) -> int:
        """Bytes written so far: a checkpoint records it, and a resumed run cuts the file there."""
        return self._file.tell()

    def on_end(self) -> None:
        """Closes the file."""
        with writing(self._path):
            self._file.close()


def _finite(value: float) -> float | None:
    value = float(value)
    return value if math.isfinite(value) else None


class TensorBoard(Hook):
    """Event files for TensorBoard, without TensorFlow. On resume, later points are purged.

    Written and flushed at every log: the library's own writer is a thread that a full disk ends,
    and then its queue would fill and the run wait for ever.
    """

    def __init__(self, directory: str | Path, start_step: int = 0) -> None:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import SessionLog

        self._directory = Path(directory)
        with writing(directory):
            self._directory.mkdir(parents=True, exist_ok=True)
            self._events = EventsWriter(str(self._directory / "events"))
            if start_step:
                self._write(start_step + 1, session_log=SessionLog(status=SessionLog.START))

    def on_log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes one point per figure."""
        from tensorboardX.summary import scalar

        with writing(self._directory):
            for name, value in metrics.items():
                self._write(step, summary=scalar(name, value))
            self._events.flush()

    on_eval = on_log

    def on_end(self) -> None:
        """Closes the file."""
        with writing(self._directory):
            self._events.close()

    def _write(self, step: int, **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._events.write_event(Event(wall_time=time.time(), step=step, **content))


class WeightsAndBiases(Hook):
    """A run on Weights & Biases; a work directory that is resumed continues the same run."""

    def __init__(self, project: str, workdir: str | Path, config: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ImportError as error:
            raise UserError(
                "Weights & Biases was asked for, but wandb is not installed; "
                "pip install 'condenser_jax[wandb]' or leave it off"
            ) from error
        path = Path(workdir).resolve()
        self._run = wandb.init(
            project=project,
            name=path.name,
            id=hashlib.sha256(str(path).encode()).hexdigest()[:16],
            resume="allow",
            dir=str(path),
            config=dict(config),
        )

    def on_log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Sends the metrics of `step`."""
        self._run.log(dict(metrics), step=step)

    on_eval = on_log

    def on_end(self) -> None:
        """Ends the run there; what waits is sent first."""
        self._run.finish()


class Profile(Hook):
    """A profiler trace of the steps first..last (counted from 0), for TensorBoard or Perfetto."""

    def __init__(self, directory: str | Path, first: int, last: int) -> None:
        self._directory, self._first, self._last = str(directory), first, last
        self._runs = False

    def on_step(self, step: int) -> None:
        """Starts the trace before the first step, ends it after the last."""
        if step == self._first:
            jax.profiler.start_trace(self._directory)
            self._runs = True
        elif step > self._last:
            self.on_end()

    def on_end(self) -> None:
        """Writes the trace that is under way, if any."""
        if self._runs:
            # Steps are dispatched ahead of the device: the trace must hold their work too.
            jax.block_until_ready(jax.live_arrays())
            jax.profiler.stop_trace()
            self._runs = False
