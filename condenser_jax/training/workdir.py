"""A work directory belongs to one configuration: it is made, or checked, when a run starts.

A run that is started again goes on only if its configuration and its data are the same; keys that
change nothing of what is learned may differ.
"""

import fcntl
import json
import os
import platform
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from condenser_jax.errors import UserError
from condenser_jax.whole_files import check_folder

# Keys, or whole sections with a trailing dot, that may differ when a run goes on: they change the
# form of the computation, what is reported and how often, but not what is learned.
FREE_KEYS = (
    "compute.",
    "mesh.",
    "data.directory",
    "data.workers",
    "training.log_every",
    "training.eval_every",
    "training.save_every",
    "training.keep",
    "training.threads",
    "training.tensorboard",
    "training.wandb",
    "training.profile",
    "evaluation.batch_size",
)
ABSENT = "absent"
OURS_BEFORE_THE_START = ("data_hashes", "tokenizer", "card", "facts", "lock")


@dataclass(frozen=True)
class Workdir:
    """The places in a work directory (docs/design.md section 7); `~` is whose it is everywhere."""

    root: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", Path(os.path.expanduser(self.root)))

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.root / "config.json"

    @property
    def data_hashes(self) -> Path:
        """{name: hash} of the prepared data and frozen sources."""
        return self.root / "data_hashes.json"

    @property
    def is_started(self) -> bool:
        """Whether there is a configuration and something of it that could be lost: a checkpoint,
        or the figures of a run that was finished and keeps none.
        """
        return self.config.is_file() and (self.has_checkpoint or self.result.is_file())

    @property
    def has_checkpoint(self) -> bool:
        """Whether a step was saved."""
        saved = self.checkpoints.iterdir() if self.checkpoints.is_dir() else ()
        return any(path.name.isdigit() for path in saved)

    @property
    def metrics(self) -> Path:
        """One JSON object per log or evaluation."""
        return self.root / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        """A folder per saved step."""
        return self.root / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        """Event files."""
        return self.root / "tensorboard"

    @property
    def tokenizer(self) -> Path:
        """The run's tokenizer, as transformers saves it."""
        return self.root / "tokenizer"

    @property
    def card(self) -> Path:
        """How texts become vectors (`hf.card.EncoderCard`)."""
        return self.root / "card.json"

    @property
    def lock(self) -> Path:
        """Held by the process that runs here."""
        return self.root / ".lock"

    @property
    def facts(self) -> Path:
        """What an export must know besides: backbone, origin of weights, data cards, versions."""
        return self.root / "facts.json"

    @property
    def result(self) -> Path:
        """Held-out figures before and after, written at the end."""
        return self.root / "result.json"


def open_workdir(
    path: str | Path, config: Mapping[str, Any], data_hashes: Mapping[str, str]
) -> Workdir:
    """Makes a work directory for a run, or checks that the one there is of the same run.

    Args:
      path: the directory; made if missing.
      config: the resolved configuration, nested, of JSON's types (tuples count as lists).
      data_hashes: {name: hash} of what is trained on and of frozen sources.

    A run that has not saved anything yet does not bind its directory. Raises UserError if the
    directory holds something else, or a run with another configuration (the keys are named) or
    other data.
    """
    workdir = Workdir(Path(path))
    config, data_hashes = _as_json(config), _as_json(data_hashes)
    check_workdir(path, config)
    if workdir.is_started:
        _check_hashes(workdir, data_hashes)
    else:
        workdir.root.mkdir(parents=True, exist_ok=True)
        write_json(workdir.data_hashes, data_hashes)
    # Last, because it makes the directory ours; again on resuming, since free keys may differ.
    write_json(workdir.config, config)
    return workdir


def check_workdir(path: str | Path, config: Mapping[str, Any]) -> None:
    """Raises UserError as `open_workdir` does, as far as can be told without the data."""
    workdir = Workdir(Path(path))
    check_folder(workdir.root, f"work directory {workdir.root}", "--workdir")
    if workdir.is_started:
        check_config(workdir, _as_json(config))
    elif not workdir.config.is_file():
        _check_empty(workdir)


def existing_workdir(path: str | Path) -> Workdir:
    """Returns the work directory of a run that was started; raises UserError if it is none."""
    workdir = Workdir(Path(path))
    if not workdir.config.is_file():
        raise UserError(f"{path} is not a work directory: it has no config.json; see --workdir")
    return workdir


def is_workdir(path: str | Path) -> bool:
    """Whether a run was started there: a Hugging Face directory has a config.json too."""
    return Workdir(Path(path)).data_hashes.is_file()


def read_config_json(workdir: Workdir) -> dict[str, Any]:
    """Returns the configuration of a run; raises UserError if the file is damaged."""
    return _read_json(workdir.config)


def write_json(path: Path, value: Any) -> None:
    """Writes JSON so that a reader finds the old file or the new one, never half of it."""
    half = path.with_name(path.name + ".half")
    with open(half, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    half.replace(path)


def cut_metrics(path: Path, offset: int) -> None:
    """Cuts metrics.jsonl back to the bytes that it had when the restored checkpoint was saved.

    A file that is shorter, or absent, stays as it is: its lines are lost, not to be invented. If it
    ends within a line, as after a power cut, that line goes.
    """
    if not path.exists():
        return
    if path.stat().st_size > offset:
        os.truncate(path, offset)  # one system call: a kill comes before it or after it
    whole = path.read_bytes().rfind(b"\n") + 1
    if path.stat().st_size > whole:
        os.truncate(path, whole)


@contextmanager
def locked(path: Path, what: str) -> Iterator[TextIO]:
    """Holds a lock file, open, as long as the block lasts, or the process.

    Raises UserError, which calls it `what`, if another process holds it.
    """
    with open(path, "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{what} is in use by another process; wait for its end or name another --workdir"
            ) from error
        yield lock


@contextmanager
def held(workdir: Workdir) -> Iterator[None]:
    """Keeps a second run out of the work directory; raises UserError if there is a first one.

    The lock dies with the process that holds it, however that ends. In its file stands a name that
    is new each time: whoever reads it sees this directory, and not another of the same path.
    """
    check_folder(workdir.root, f"work directory {workdir.root}", "--workdir")
    workdir.root.mkdir(parents=True, exist_ok=True)
    with locked(workdir.lock, f"work directory {workdir.root}") as lock:
        lock.truncate(0)
        lock.write(f"{platform.node()} {os.getpid()} {uuid.uuid4()}\n")
        lock.flush()
        os.fsync(lock.fileno())  # for other hosts
        yield


def _check_empty(workdir: Workdir) -> None:
    """Raises UserError for files that are not left from a start that was cut off."""
    ours = {getattr(workdir, name).name for name in OURS_BEFORE_THE_START}
    ours |= {f"{name}.half" for name in [*ours, workdir.config.name]}
    if workdir.root.exists() and not workdir.root.is_dir():
        raise UserError(f"work directory {workdir.root} is a file; name another --workdir")
    if workdir.root.is_dir():
        foreign = sorted(file.name for file in workdir.root.iterdir() if file.name not in ours)
        if foreign:
            raise UserError(
                f"work directory {workdir.root} holds other files ({foreign[0]}, ...) and no run "
                "of ours; name an empty or a new --workdir"
            )


def check_config(workdir: Workdir, config: Mapping[str, Any]) -> None:
    """Raises UserError, naming the keys, for a configuration under which something else is learned
    than under the one there.
    """
    old, new = dict(_flat(_read_json(workdir.config))), dict(_flat(config))
    differing = [
        f"{key} {old.get(key, ABSENT)} -> {new.get(key, ABSENT)}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key, ABSENT) != new.get(key, ABSENT) and not _is_free(key)
    ]
    if differing:
        raise UserError(
            f"work directory {workdir.root} holds a run of another configuration: "
            f"{', '.join(differing)}; restore these values or name another --workdir"
        )


def _check_hashes(workdir: Workdir, data_hashes: Mapping[str, str]) -> None:
    old = _read_json(workdir.data_hashes)
    differing = [
        f"{name} (hash {old.get(name, ABSENT)} -> {data_hashes.get(name, ABSENT)})"
        for name in sorted(old.keys() | data_hashes.keys())
        if old.get(name) != data_hashes.get(name)
    ]
    if differing:
        raise UserError(
            f"not as when the run in {workdir.root} started: {', '.join(differing)}; restore it or "
            "name another --workdir"
        )


def _is_free(key: str) -> bool:
    return any(key == free or (free.endswith(".") and key.startswith(free)) for free in FREE_KEYS)


def _flat(config: Mapping[str, Any], parents: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of a nested mapping."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{parents}{key}.")
        else:
            yield f"{parents}{key}", value


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}); name another --workdir") from error
