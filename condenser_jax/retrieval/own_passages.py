"""Queries that are passages themselves: a query does not find the passage of its own id.

In ArguAna and Quora queries are taken from the corpus, and what each of them finds
first is itself. BEIR leaves that passage out of what was found, before any figure
(`ignore_identical_ids` of its evaluation; Thakur et al. 2021), and so do we. We differ only where
it is judged relevant: there it counts.
"""

from collections.abc import Iterator, Mapping, Set

from condenser_jax.retrieval.collection import Qrels, Run
from condenser_jax.retrieval.texts import Texts
from condenser_jax.retrieval.trec import ranked


def own_passages(corpus: Texts, queries: Texts, qrels: Qrels) -> frozenset[str]:
    """The ids of the queries that are passages too, and not relevant to themselves."""
    names = queries.ids
    return frozenset(
        name
        for name, place in zip(names, corpus.positions(names).tolist(), strict=True)
        if place >= 0 and qrels.get(name, {}).get(name, 0) < 1
    )


def depth_for(own: Set[str], k: int) -> int:
    """How many passages to look for, so that k are left."""
    return k + bool(own)


def without_own(run: Run, own: Set[str], k: int) -> Run:
    """The best k passages of every query of a run, without the passage of its id for those in
    `own`; lines are made when they are asked for. Without such queries it is the run itself.
    """
    return _Others(run, own, k) if own else run


class _Others(Mapping[str, Mapping[str, float]]):
    def __init__(self, run: Run, own: Set[str], k: int) -> None:
        self.run, self.own, self.k = run, own, k

    def __getitem__(self, query: str) -> dict[str, float]:
        found = dict(self.run[query])
        if query in self.own:
            found.pop(query, None)
        return {name: found[name] for name in ranked(found, self.k)}

    def __iter__(self) -> Iterator[str]:
        return iter(self.run)

    def __len__(self) -> int:
        return len(self.run)
