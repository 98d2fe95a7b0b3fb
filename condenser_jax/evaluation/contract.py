"""What a task of launch/evaluate.py is given, and what it hands back.

A new task is a function (encoders, options) -> Report, and one more row of `tasks.TASKS`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from condenser_jax.data.store import Prepared
from condenser_jax.models.config import BackboneConfig
from condenser_jax.types import Tree


class Encoder(NamedTuple):
    """An encoder, wherever it was read from."""

    name: str  # in tables and pictures; no two encoders of a report share one
    path: str  # a work directory, a Hugging Face directory or a hub id, as the user wrote it
    config: BackboneConfig
    params: Tree  # the group `backbone`, host arrays
    tokenizer: Any
    prepared: Callable[[], Sequence[Prepared]] | None  # a run's data, read when called


class Options(NamedTuple):
    """The flags of the command; a task reads those that concern it."""

    data: str = ""  # source of texts; "": each encoder's own default
    limit: int = 512  # texts
    max_length: int = 128  # tokens of a text, [CLS] and [SEP] included


class Report(NamedTuple):
    """What a task found."""

    table: str  # for people
    figures: dict[str, Any]  # as JSON
    draw: Callable[[Path], None] | None = None  # writes the picture, where there is one


Task = Callable[[Sequence[Encoder], Options], Report]
