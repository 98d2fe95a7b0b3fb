"""What a task of launch/evaluate.py is given, and what it hands back.

A new task is a file with a function (options) -> Report, and one more row of `table.TASKS` with the
flags that it reads.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from condenser_jax.encoder_source import Usage
from condenser_jax.retrieval.collection import CollectionOptions


@dataclass(frozen=True)
class Options:
    """The flags of the command, by their names; a task reads those that its row names."""

    models: Sequence[str] = ()  # work directories, Hugging Face directories or hub ids
    run: Sequence[str] = ()  # TREC runs of whatever system
    data: str = ""
    split: str = "test"
    pooling: str | None = None  # of models that do not say it, and so the prefixes
    query_prefix: str | None = None
    passage_prefix: str | None = None
    bm25: bool = True  # a row for BM25
    english: bool = False  # BM25 with English stop words and stems, not language-blind
    k: int = 1000  # passages that are found for each query
    vectors: str = ""  # a directory that keeps the vectors of the corpus; "": they are not kept
    trec: bool = False  # also write what was found
    baseline: str = ""  # results of an earlier evaluation
    limit: int = 512  # texts
    max_length: int = 128  # tokens of a text, [CLS] and [SEP] included
    reading: CollectionOptions = CollectionOptions()  # --bad_share --heldout_share --split_seed

    @property
    def usage(self) -> Usage:
        """What is told of models that do not tell it."""
        return Usage(self.pooling, self.query_prefix, self.passage_prefix)


class Report(NamedTuple):
    """What a task found."""

    table: str  # for people
    figures: dict[str, Any]  # as JSON
    files: Mapping[str, Callable[[Path], object]] = {}  # ending of the name -> writes that file


class Task(NamedTuple):
    """A row of the table of tasks."""

    report: Callable[[Options], Report]
    flags: tuple[str, ...]  # that it reads, beside --model and --output
