"""What systems find in a collection: BM25 and every model, each as a run."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from condenser_jax.dense import encode_corpus, search_corpus
from condenser_jax.retrieval.bm25 import Bm25, Bm25Options
from condenser_jax.retrieval.collection import Collection, Run
from condenser_jax.retrieval.own_passages import depth_for, without_own
from condenser_jax.retrieval.trec import write_run
from condenser_jax.tasks.contract import Options, Report
from condenser_jax.tasks.models import name_models, open_encoder, pooling_of
from condenser_jax.tasks.systems import BM25


def find(collection: Collection, options: Options, k: int) -> Iterator[tuple[str, Run]]:
    """Yields each system's name and the best `k` passages of every query (`own_passages`): models
    in their order, then BM25. One model is in memory at a time, and its run can be read until the
    next is asked for.
    """
    own, depth = collection.own, depth_for(collection.own, k)
    models = name_models(options.models, [BM25])
    poolings = pooling_of(list(models.values()), options.pooling)
    for name, path in models.items():
        encoder = open_encoder(path, poolings[path])
        with _kept(options.vectors, name) as directory:
            vectors = encode_corpus(
                encoder, collection.corpus, directory, source=options.data, shows_progress=True
            )
            run = search_corpus(encoder, vectors, collection.queries, depth, shows_progress=True)
            yield name, without_own(run, own, k)
    if options.bm25:
        how = Bm25Options(stop_words=options.english, stemming=options.english)
        by_words = Bm25(collection.corpus, how).search(collection.queries, depth)
        yield BM25, without_own(by_words, own, k)


@contextmanager
def _kept(vectors: str, name: str) -> Iterator[Path]:
    """Where a model's vectors go: kept if the user names a place, else gone afterwards."""
    if vectors:
        yield Path(vectors).expanduser() / file_name(name)
        return
    with tempfile.TemporaryDirectory(prefix="condenser_jax-") as directory:
        yield Path(directory) / "vectors"


def held(run: Run) -> Run:
    """A run that stays when its vectors are gone."""
    return {query: dict(passages) for query, passages in run.items()}


def with_runs(report: Report, runs: dict[str, Run]) -> Report:
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
