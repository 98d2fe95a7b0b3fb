"""From sources to prepared directories: cut once, found again, never half-written.

A directory's name is a hash of everything its content depends on: the source's description, the
options, and the tokenizer. A mixture is prepared source by source with one tokenizer, and mixed at
load time.
"""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from condenser_jax.data.building import build
from condenser_jax.data.built_once import built_once
from condenser_jax.data.cutting import is_heldout
from condenser_jax.data.documents import BadRecords, Document, Source, Unreachable
from condenser_jax.data.mixture import parse_mixture
from condenser_jax.data.prepare_config import PrepareConfig
from condenser_jax.data.progress import Progress
from condenser_jax.data.report import report
from condenser_jax.data.sources import open_source
from condenser_jax.data.store import FORMAT, is_prepared
from condenser_jax.data.tokenization import (
    TRAINING_CHARACTERS,
    tokenizer_identity,
    train_wordpiece,
)
from condenser_jax.errors import UserError
from condenser_jax.whole_files import written_whole

__all__ = [
    "PrepareConfig",
    "is_prepared",
    "prepare",
    "prepare_mixture",
    "prepared_directories",
    "prepared_directory",
    "report",
]
log = logging.getLogger("condenser_jax")


def _key(*parts: Any) -> str:
    text = json.dumps(parts, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


class _Plan:
    """The opened sources of a configuration, and where their tokenizer and prepared data belong."""

    def __init__(self, config: PrepareConfig) -> None:
        self.config, self.root = config, Path(config.directory)
        source = config.source
        mixture = parse_mixture(source) if isinstance(source, str) else source
        self.specs, self.weights = zip(*mixture, strict=True)
        self.sources, self.described = zip(*map(self._open, self.specs), strict=True)
        split = (config.heldout_share, config.seed)
        if config.tokenizer:
            self.tokenizer = config.tokenizer
            identity = tokenizer_identity(config.tokenizer)
        else:
            shares = self.weights if len(self.weights) > 1 else ()
            identity = _key(self.described, shares, config.vocab_size, config.max_length, split)
            self.tokenizer = str(self.root / f"tokenizer-{identity}")
        cut = (dataclasses.asdict(config.span_options), config.min_tokens, split)
        self.targets = [
            self.root / f"{described['kind']}-{_key(FORMAT, described, cut, identity)}"
            for described in self.described
        ]

    def _open(self, spec: str) -> tuple[Source, dict[str, Any]]:
        """A source and its description; one out of reach is what it was when it was last asked."""
        options = self.config.options
        known = self.root / "hub" / f"{_key(spec, dataclasses.asdict(options))}.json"
        try:
            source = open_source(spec, options)
            described = source.describe()
        except Unreachable as error:
            if not known.is_file():
                raise
            log.warning("%s; going on with what was prepared of it before", error)
            return _OutOfReach(error), json.loads(known.read_text(encoding="utf-8"))
        if "commit" in described:
            known.parent.mkdir(parents=True, exist_ok=True)
            with written_whole(known) as half:
                half.write_text(json.dumps(described), encoding="utf-8")
        return source, described


class _OutOfReach:
    """A source of which nothing can be read now."""

    def __init__(self, error: Unreachable) -> None:
        self.error, self.bad = error, BadRecords(0.0)

    def documents(self) -> Iterator[Document]:
        """Raises what was said of the source."""
        raise self.error

    def describe(self) -> dict[str, Any]:
        """Raises what was said of the source."""
        raise self.error


def prepared_directories(config: PrepareConfig) -> list[tuple[Path, float]]:
    """Returns where the data of each source are, or would be, prepared, with its weight."""
    plan = _Plan(config)
    return list(zip(plan.targets, plan.weights, strict=True))


def prepared_directory(config: PrepareConfig) -> Path:
    """Returns where the data of a configuration with one source are, or would be, prepared."""
    return _only(prepared_directories(config))


def prepare_mixture(config: PrepareConfig, progress: bool = True) -> list[tuple[Path, float]]:
    """Prepares every source that is not prepared yet; returns (directory, weight) of each.

    Raises UserError for whatever a user can mend: sources, options, a full disk.
    """
    plan = _Plan(config)
    if not config.tokenizer and not all(map(is_prepared, plan.targets)):
        _train_tokenizer(plan, progress)
    for source, spec, described, target in zip(
        plan.sources, plan.specs, plan.described, plan.targets, strict=True
    ):
        with built_once(target) as partial:
            if partial is not None:
                named = {"spec": spec, "source": described}
                build(config, source, named, plan.tokenizer, partial, progress)
    return list(zip(plan.targets, plan.weights, strict=True))


def prepare(config: PrepareConfig, progress: bool = True) -> Path:
    """Prepares a configuration with one source, unless it is prepared; returns the directory."""
    return _only(prepare_mixture(config, progress))


def _only(directories: list[tuple[Path, float]]) -> Path:
    if len(directories) != 1:
        raise UserError(f"{len(directories)} sources are a mixture; use prepare_mixture")
    return directories[0][0]


def _train_tokenizer(plan: _Plan, progress: bool) -> None:
    config = plan.config
    with built_once(Path(plan.tokenizer)) as partial, Progress("tokenizer", progress) as bar:
        if partial is None:
            return

        def texts() -> Iterator[str]:
            for source, weight in zip(plan.sources, plan.weights, strict=True):
                left = TRAINING_CHARACTERS * weight / sum(plan.weights)  # each has its share
                for document in source.documents():
                    bar.advance(1)
                    if left <= 0:
                        break
                    if not is_heldout(document.group, config.heldout_share, config.seed):
                        left -= len(document.text)
                        yield document.text

        train_wordpiece(texts(), config.vocab_size, partial, config.max_length)
