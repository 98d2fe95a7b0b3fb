"""Open question answering: does a passage hold an answer, and does one of the best k?

Matching follows DPR (Karpukhin et al. 2020): passage and answer are brought to Unicode's NFD,
split into runs of letters, digits and marks, and single other signs, and compared without case; an
answer is found where its tokens stand in a row. Titles are not looked at.
"""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import regex

from condenser_jax.errors import UserError
from condenser_jax.retrieval.collection import Answers, Run
from condenser_jax.retrieval.texts import Texts
from condenser_jax.retrieval.trec import ranked

TOKEN = regex.compile(r"[\p{L}\p{N}\p{M}]+|[^\p{Z}\p{C}]")
ACCURACIES = (5, 20, 100)


def _tokens(text: str) -> str:
    """The tokens of a text between blanks, which no token holds: a row of them is a substring."""
    return f" {' '.join(TOKEN.findall(unicodedata.normalize('NFD', text))).lower()} "


def has_answer(passage: str, answers: Iterable[str]) -> bool:
    """True when the tokens of one of `answers` stand in a row in the passage."""
    tokens = _tokens(passage)
    return any(wanted.strip() and wanted in tokens for wanted in map(_tokens, answers))


def top_k_accuracy(
    run: Run, answers: Answers, corpus: Texts, ks: Sequence[int] = ACCURACIES
) -> dict[str, dict[str, float]]:
    """Returns {"Accuracy@k": {query id: 1 if one of the best k passages holds an answer, else 0}}.

    Passages are ranked as by trec_eval; every query of `answers` counts. Raises UserError when the
    run names a passage that the corpus does not have.
    """
    best = {query: ranked(run.get(query, {}), max(ks)) for query in answers}
    texts = _texts({name for names in best.values() for name in names}, corpus)
    first = {query: _first_hit(best[query], answers[query], texts) for query in answers}
    return {f"Accuracy@{k}": {q: float(rank <= k) for q, rank in first.items()} for k in ks}


def _texts(names: set[str], corpus: Texts) -> Mapping[str, str]:
    ordered = sorted(names)
    places = corpus.positions(ordered)
    for name, place in zip(ordered, places, strict=True):
        if place < 0:
            raise UserError(f"the run names passage {name!r}, which the corpus does not have")
    return {name: corpus[place].text for name, place in zip(ordered, places.tolist(), strict=True)}


def _first_hit(names: Sequence[str], answers: Sequence[str], texts: Mapping[str, str]) -> float:
    hits = (rank for rank, name in enumerate(names, 1) if has_answer(texts[name], answers))
    return next(hits, float("inf"))
