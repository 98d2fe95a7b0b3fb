"""Peak memory and time of exact search against the size of the corpus: memory should not grow.

    python benchmarks/search.py --rows 1000000 4000000 [--width=768] [--folder=/tmp]

Each size is a directory of random vectors as launch/encode.py writes it (3 GB per million of 768 in
float32; removed at the end), searched in a process of its own. Memory is what the process holds
itself, read 50 times a second and at every block: its anonymous pages, without the pages of mapped
files, which the kernel may drop. Appends JSON to docs/benchmarks/search.jsonl.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

import numpy as np  # noqa: E402
import record  # noqa: E402
from flag_types import count  # noqa: E402

from condenser_jax.vectors import VectorsCard, create, open_vectors, write_shard  # noqa: E402

SHARD_ROWS = 16384
CHECKED = 3  # queries whose best are compared with a product in float64
ENCODER = {"pooling": "cls"}  # of nobody: the queries are vectors already


def write_corpus(directory: Path, rows: int, width: int) -> None:
    """Random vectors; one shard repeated with a shift, so that writing takes no time."""
    card = VectorsCard("random", "passage", "", "float32", width, rows, SHARD_ROWS, ENCODER)
    create(directory, card, (str(row) for row in range(rows)))
    base = np.random.default_rng(0).normal(size=(SHARD_ROWS, width)).astype(np.float32)
    for shard in range(card.shards):
        count = len(card.rows_of(shard))
        write_shard(directory, card, shard, np.roll(base, shard, axis=1)[:count])


class Memory:
    """The most anonymous memory of this process: 50 times a second, and whenever it is asked, since
    a busy machine lets the clock miss what lasts shortly.
    """

    def __init__(self) -> None:
        self.peak = 0

    def note(self, count: int = 0) -> None:
        """Looks now; `count` is what `search_vectors` tells of its blocks."""
        found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
        self.peak = max(self.peak, int(found[1]) * 1024 if found else 0)


@contextmanager
def watched_memory() -> Iterator[Memory]:
    """Watches while the block runs."""
    memory, stop = Memory(), threading.Event()

    def watch() -> None:
        while not stop.wait(0.02):
            memory.note()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield memory
    finally:
        stop.set()
        thread.join()


def search_one(directory: Path, queries: int, k: int) -> dict:
    """Searches all queries once, checks a few, and tells memory and time."""
    from condenser_jax.search.top_k import block_rows, search_vectors
    from condenser_jax.training.sharding import make_mesh

    vectors = open_vectors(directory)
    wanted = np.random.default_rng(1).normal(size=(queries, vectors.card.width))
    wanted = wanted.astype(np.float32)
    mesh = make_mesh()
    search_vectors(wanted, vectors[: block_rows(vectors, mesh)], k, mesh)  # compiles
    with watched_memory() as memory:
        began = perf_counter()
        hits = search_vectors(wanted, vectors, k, mesh, advance=memory.note)
        seconds = perf_counter() - began
    return {
        "rows": len(vectors),
        "width": vectors.card.width,
        "queries": queries,
        "k": k,
        "seconds": round(seconds, 2),
        "peak_anonymous_bytes": memory.peak,
        "largest_difference": difference(wanted[:CHECKED], vectors, hits.scores[:CHECKED]),
    }


def difference(queries: np.ndarray, vectors, found: np.ndarray) -> float:
    """How far the scores found are from those of a search in float64, shard by shard."""
    best = np.full(found.shape, -np.inf)
    for shard in vectors.shards:
        scores = queries.astype(np.float64) @ shard.astype(np.float64).T
        both = np.concatenate([best, scores], axis=1)
        best = -np.sort(-both, axis=1)[:, : found.shape[1]]
    return float(np.abs(best - found).max())


def in_own_process(directory: Path, queries: int, k: int) -> dict:
    """What `search_one` finds in a fresh process, tuned as launch/search.py is."""
    from condenser_jax.environment import tuned

    line = [sys.executable, __file__, f"--worker={directory}", f"--queries={queries}", f"--k={k}"]
    done = subprocess.run(
        line, stdout=subprocess.PIPE, text=True, check=True, env=tuned(os.environ)
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Writes each corpus, searches it, prints a table, appends JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=count, nargs="+", default=[1_000_000, 4_000_000])
    parser.add_argument("--width", type=count, default=768)
    parser.add_argument("--queries", type=count, default=256)
    parser.add_argument("--k", type=count, default=1000)
    parser.add_argument("--folder", help="where the corpus is written; default: as tempfile says")
    parser.add_argument("--output", type=Path, default=record.FOLDER / "search.jsonl")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)  # what is searched here
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(search_one(arguments.worker, arguments.queries, arguments.k)))
        return
    sizes = []
    for rows in arguments.rows:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            write_corpus(Path(folder) / "vectors", rows, arguments.width)
            sizes.append(in_own_process(Path(folder) / "vectors", arguments.queries, arguments.k))
        found = sizes[-1]
        print(
            f"{rows:>12,} x {arguments.width}: {found['peak_anonymous_bytes'] / 1e6:>8.0f} MB, "
            f"{found['seconds']:>8.1f} s, scores within {found['largest_difference']:.1e}",
            flush=True,
        )
    peaks = [found["peak_anonymous_bytes"] for found in sizes]
    growth = round(max(peaks) / min(peaks) - 1, 4)
    print(f"the largest peak is {100 * growth:.1f} % above the smallest")
    record.append(arguments.output, {"sizes": sizes, "growth": growth})


if __name__ == "__main__":
    main()
