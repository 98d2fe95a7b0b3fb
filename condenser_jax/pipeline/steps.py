"""Steps that are done once: each is known by a hash of all that its result depends on.

A step's key covers its settings and the keys of the steps that it reads, so a setting that changes
makes that step and all that follow anew, and nothing else. A step that was killed finds its
directory again and goes on there; one that is done leaves `done.json` and is never run again.
"""

import functools
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from condenser_jax.training.progress import duration
from condenser_jax.training.workdir import locked, write_json

log = logging.getLogger("condenser_jax")
DONE = "done.json"
KEY_BYTES = 4

Facts = dict[str, Any]  # JSON


@dataclass(frozen=True)
class Step:
    """A part of a pipeline.

    Args:
      name: of its directory, and in the log.
      run: (directory, results of `after` by name) -> facts, as JSON. The directory is its own, and
        holds what an earlier attempt left there.
      settings: as JSON, all that the result depends on besides the steps it reads.
      after: the steps that it reads.
    """

    name: str
    run: Callable[[Path, Mapping[str, "Result"]], Facts]
    settings: Mapping[str, Any]
    after: tuple["Step", ...] = ()

    @functools.cached_property
    def key(self) -> str:
        """A hash of its settings and of the keys of all that it reads."""
        content = [self.name, self.settings, [step.key for step in self.after]]
        text = json.dumps(content, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=KEY_BYTES).hexdigest()


@dataclass(frozen=True)
class Result:
    """What a step left: its directory, and its facts."""

    directory: Path
    facts: Facts
    seconds: float  # that it took, all attempts together


@dataclass
class Pipeline:
    """Runs steps below one directory, each once."""

    root: Path
    _found: dict[str, Result] = field(default_factory=dict)

    def result(self, step: Step) -> Result:
        """The result of a step, after those that it reads; from disk if it is done."""
        if step.key not in self._found:
            earlier = {before.name: self.result(before) for before in step.after}
            self._found[step.key] = self._do(step, earlier)
        return self._found[step.key]

    @property
    def results(self) -> list[Result]:
        """Of all steps that were asked for, and of those that they read."""
        return list(self._found.values())

    def is_done(self, step: Step) -> bool:
        """Whether its result is on disk."""
        return (self.directory(step) / DONE).is_file()

    def directory(self, step: Step) -> Path:
        """Where a step works."""
        return self.root / f"{step.name}-{step.key}"

    def _do(self, step: Step, earlier: Mapping[str, Result]) -> Result:
        directory = self.directory(step)
        done = directory / DONE
        if self.is_done(step):
            log.info("%s: done before, in %s", step.name, directory)
        else:
            log.info("%s: in %s", step.name, directory)
            directory.mkdir(parents=True, exist_ok=True)
            with locked(directory / ".lock", f"{directory}"):
                if not self.is_done(step):  # by another process, since it was looked at
                    self._run(step, directory, earlier)
        content = json.loads(done.read_text(encoding="utf-8"))
        return Result(directory, content["facts"], content["seconds"])

    def _run(self, step: Step, directory: Path, earlier: Mapping[str, Result]) -> None:
        with _stopwatch(directory / "seconds") as seconds:
            facts = step.run(directory, earlier)
        found = {"facts": facts, "seconds": seconds(), "settings": step.settings}
        write_json(directory / DONE, found)
        log.info("%s: done in %s", step.name, duration(seconds()))


class _stopwatch:
    """Adds up what several attempts took: `with _stopwatch(file) as seconds: ...; seconds()`."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.before = float(file.read_text()) if file.is_file() else 0.0

    def __enter__(self) -> Callable[[], float]:
        self.began = time.monotonic()
        return self._total

    def _total(self) -> float:
        return self.before + time.monotonic() - self.began

    def __exit__(self, *error: object) -> None:
        half = self.file.with_name("seconds.half")
        half.write_text(f"{self._total():.1f}")
        os.replace(half, self.file)
