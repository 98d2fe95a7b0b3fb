"""What a method learns from. A feed is a kind of training data, such as masked spans or queries
with their passages; a material is the data of one run, opened.

The loop asks a material for batches and figures and knows nothing else of it. A new kind of data is
a file in this folder, named by the rows of `methods.METHODS` that learn from it.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jax.sharding import Mesh

from condenser_jax.config import RunConfig
from condenser_jax.data.batches import Batches
from condenser_jax.data.vocabulary import Vocabulary
from condenser_jax.hf.card import EncoderCard
from condenser_jax.objectives.base import Goal, Objective
from condenser_jax.types import Frozen, Params

Figures = Mapping[str, float]  # {"heldout/name": value}
Evaluate = Callable[[Params, Frozen], dict[str, float]]


class Material(Protocol):
    """The data of one run: tokenizer, batches, and what it is evaluated on."""

    @property
    def tokenizer(self) -> Any:
        """The fast tokenizer, loaded."""
        ...

    @property
    def tokenizer_directory(self) -> Path:
        """The tokenizer as transformers saves it."""
        ...

    @property
    def vocabulary(self) -> Vocabulary:
        """What batches need to know of the tokenizer."""
        ...

    @property
    def hashes(self) -> dict[str, str]:
        """{name: hash} of what must not change while a run lasts."""
        ...

    @property
    def cards(self) -> list[dict[str, Any]]:
        """What an export tells of the data: of each source its `spec` and `summary`, and more."""
        ...

    @property
    def unigram(self) -> np.ndarray | None:
        """int64 [V] counts of the training tokens, for the MLM bias; None where nobody counted."""
        ...

    def batches(self) -> Batches:
        """The batches of the run, as functions of the step."""
        ...

    def evaluation(self, objective: Objective, goal: Goal, mesh: Mesh) -> Evaluate:
        """What is measured during the run; nothing is placed on a device before it is called."""
        ...


class Feed(Protocol):
    """A kind of training data: its sections of the configuration, and how it is opened."""

    @property
    def data(self) -> type:
        """The dataclass of the section `data`."""
        ...

    @property
    def evaluation(self) -> type:
        """The dataclass of the section `evaluation`, which has a `batch_size`."""
        ...

    def check(self, config: RunConfig) -> None:
        """Raises UserError for values that cannot be, before anything is read."""
        ...

    def longest(self, config: RunConfig) -> int:
        """Tokens of the longest row of a batch."""
        ...

    def tokens_per_step(self, config: RunConfig) -> int:
        """Tokens of a global batch, padding included."""
        ...

    def open(self, config: RunConfig) -> Material:
        """Reads, and prepares what is not prepared yet."""
        ...

    def card(self, config: RunConfig, tokenizer_hash: str) -> EncoderCard:
        """How texts become vectors with an encoder that is trained so."""
        ...

    def describe(self, config: RunConfig) -> Iterable[str]:
        """Lines of the start-up log."""
        ...

    def closing(self, before: Figures, after: Figures) -> Iterable[str]:
        """What a finished run says of its figures, line by line."""
        ...
