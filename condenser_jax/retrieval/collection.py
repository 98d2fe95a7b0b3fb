"""What a search is evaluated on: passages, queries, and which passages answer which query."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from condenser_jax.errors import UserError
from condenser_jax.retrieval.texts import Texts

Qrels = Mapping[str, Mapping[str, int]]  # query id -> passage id -> grade; relevant from 1 on
Run = Mapping[str, Mapping[str, float]]  # query id -> passage id -> score
Answers = Mapping[str, Sequence[str]]  # query id -> strings of which a passage must hold one


@dataclass(frozen=True)
class CollectionOptions:
    """How a collection is read; every kind reads what concerns it."""

    bad_share: float = 0.01  # the share of broken records of a file above which reading stops
    heldout_share: float = 0.1  # docstrings: the share of the modules that are `test`
    split_seed: int = 0  # docstrings: a run with both equal never trains on `test`

    def __post_init__(self) -> None:
        if not 0 <= self.bad_share <= 1:
            raise UserError(f"bad_share {self.bad_share:g} is not within 0 and 1")
        if not 0 < self.heldout_share <= 0.4:
            raise UserError(
                f"heldout_share {self.heldout_share:g} of a collection is not within 0 and 0.4: "
                "test and dev take as much each"
            )

    @classmethod
    def of(cls, data: Any) -> "CollectionOptions":
        """As the section `data` of a configuration says."""
        return cls(data.bad_share, data.heldout_share, data.split_seed)


@dataclass(frozen=True)
class Collection:
    """One split of a collection.

    `queries` are those of the split, in the order of their file: with at least one relevant
    passage, or, in open question answering, with answers. Those in `own` do not find the passage
    of their own id (`own_passages`).
    """

    spec: str
    split: str
    corpus: Texts
    queries: Texts
    qrels: Qrels = field(default_factory=dict)
    answers: Answers = field(default_factory=dict)
    own: frozenset[str] = frozenset()
