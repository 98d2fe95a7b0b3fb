"""What systems find in a collection, each as a run: models, runs that are on disk, and BM25."""

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from condenser_jax.dense import encode_as_kept, search_corpus
from condenser_jax.errors import UserError
from condenser_jax.retrieval.bm25 import Bm25, Bm25Options, check_packages
from condenser_jax.retrieval.collection import Collection, Run
from condenser_jax.retrieval.metrics import PerQuery
from condenser_jax.retrieval.own_passages import depth_for, without_own
from condenser_jax.retrieval.trec import check_run, ranked, read_run, write_run
from condenser_jax.tasks.contract import Options, Report
from condenser_jax.tasks.models import name_models, open_each
from condenser_jax.tasks.systems import BM25, report_systems
from condenser_jax.vectors import known_card

log = logging.getLogger("condenser_jax")


class Measured(NamedTuple):
    """What a task makes of rankings."""

    task: str
    collection: Collection
    k: int  # passages of each query
    asked: Sequence[str]  # ids of the queries that have figures
    figures: Callable[[Run], PerQuery]
    what: str  # for the heading


def report_rankings(measured: Measured, options: Options) -> Report:
    """The report of all systems: models in their order, then runs, then BM25. What can be refused
    is refused before the first of them encodes, but for vectors of a later one that are not its.
    """
    collection, found = measured.collection, dict[str, Run]()
    names = name_models([*options.models, *options.run], [BM25])
    if options.bm25:
        check_packages(_words(options))
    if options.trec:
        check_run("", chain(collection.queries.ids, collection.corpus.ids))

    def measure(name: str, run: Run) -> tuple[str, PerQuery]:
        if options.trec:
            found[name] = _held(run)
        return name, measured.figures(run)

    def systems() -> Iterator[tuple[str, PerQuery]]:
        given = {
            name: measured.figures(_read(path, measured, options))
            for name, path in names.items()
            if path in options.run
        }
        models = {name: path for name, path in names.items() if name not in given}
        for name, run in _find_by_models(models, collection, options, measured.k):
            yield measure(name, run)
        yield from given.items()
        if options.bm25:
            yield measure(BM25, find_by_words(measured, options))

    queries = {query.id: query.joined for query in collection.queries}
    texts = (queries[name] for name in sorted(measured.asked))
    report = report_systems(measured.task, systems(), measured.asked, options, measured.what, texts)
    return _with_runs(report, found)


def _read(path: str, measured: Measured, options: Options) -> Run:
    """The best k passages of every query of a run on disk; queries that nobody asks do not count.
    Raises UserError for one that asks none of ours, and for too many broken lines.
    """
    collection, where = measured.collection, Path(path).expanduser()
    read = read_run(where, options.reading.bad_share, collection.corpus)
    run = {query: read[query] for query in measured.asked if query in read}
    total = len(measured.asked)
    if not run:
        raise UserError(
            f"--run={path} finds nothing for any of the {total:,} queries of {options.data} "
            f"({options.split}); check --data and --split"
        )
    if missed := total - len(run):
        log.warning("%s finds nothing for %d of %d queries: they count as 0", path, missed, total)
    others = without_own(run, collection.own, measured.k)
    return {q: {p: r[p] for p in ranked(r, measured.k)} for q, r in others.items()}


def _find_by_models(
    models: Mapping[str, str], collection: Collection, options: Options, k: int
) -> Iterator[tuple[str, Run]]:
    """Yields each name and the best `k` passages of every query (`own_passages`). One model is in
    memory at a time, and its run can be read until the next is asked for.
    """
    depth = depth_for(collection.own, k)
    places = _places(options.vectors, list(models))
    for name, encoder in open_each(models, options.usage):
        with _kept(places[name]) as directory:
            vectors = encode_as_kept(
                encoder, collection.corpus, directory, source=options.data, shows_progress=True
            )
            run = search_corpus(encoder, vectors, collection.queries, depth, shows_progress=True)
            yield name, without_own(run, collection.own, k)


def _words(options: Options) -> Bm25Options:
    """How BM25 counts words."""
    return Bm25Options(stop_words=options.english, stemming=options.english)


def find_by_words(measured: Measured, options: Options) -> Run:
    """What BM25 finds."""
    collection, depth = measured.collection, depth_for(measured.collection.own, measured.k)
    by_words = Bm25(collection.corpus, _words(options)).search(collection.queries, depth)
    return without_own(by_words, collection.own, measured.k)


def _places(vectors: str, names: Sequence[str]) -> dict[str, Path | None]:
    """Where the user wants the vectors of each model: in a folder of its name, or, of one model,
    where some lie already (launch/encode.py's); None for nowhere. Raises UserError for vectors of
    one model where there are several.
    """
    if not vectors:
        return dict.fromkeys(names)
    root = Path(vectors).expanduser()
    if known_card(root) is None:
        return {name: root / file_name(name) for name in names}
    if len(names) > 1:
        raise UserError(
            f"--vectors={vectors} holds the vectors of one model, and there are {len(names)}; "
            "name that --model alone, or another directory, in which each has its own"
        )
    return dict.fromkeys(names, root)


@contextmanager
def _kept(place: Path | None) -> Iterator[Path]:
    """Where a model's vectors go: kept if the user names a place, else gone afterwards."""
    if place:
        yield place
        return
    with tempfile.TemporaryDirectory(prefix="condenser_jax-") as directory:
        yield Path(directory) / "vectors"


def _held(run: Run) -> Run:
    """A run that stays when its vectors are gone."""
    return {query: dict(passages) for query, passages in run.items()}


def _with_runs(report: Report, runs: dict[str, Run]) -> Report:
    """The report with a TREC run of each system beside its files."""
    files = {
        f".{file_name(name)}.trec": lambda path, name=name: write_run(
            path, runs[name], file_name(name)
        )
        for name in runs
    }
    return report._replace(files={**report.files, **files})


def file_name(name: str) -> str:
    """A system's name, which may be a path, as one word for a file or a TREC run."""
    return "_".join(name.strip("/").replace("/", " ").split())
