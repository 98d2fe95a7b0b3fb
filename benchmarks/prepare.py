"""Time and memory of `prepare` against the size of the corpus: memory should hardly grow.

    python benchmarks/prepare.py --megabytes 3 50 200 [--output=docs/benchmarks/prepare.jsonl]

The text is that of the docstrings corpus, repeated with a running number in every sentence so that
no span is an exact copy. Each size is prepared in a process of its own; peak memory is the largest
resident set of that process, and of the largest of its workers.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import record
from flag_types import count

MEGABYTE = 1_000_000


def main() -> None:
    """Writes the corpora, prepares each in its own process, prints a table, appends JSON."""
    arguments = parse()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.worker:
            print(json.dumps(prepare_one(Path(arguments.worker), arguments.workers)))
            return
        train_tokenizer(Path(folder) / "tokenizer")
        rows = []
        for megabytes in arguments.megabytes:
            corpus = write_corpus(Path(folder) / f"{megabytes}.jsonl", megabytes)
            rows.append({"megabytes": megabytes} | in_own_process(corpus, arguments.workers))
            corpus.unlink()
            report(rows[-1])
    record.append(arguments.output, {"workers": arguments.workers, "sizes": rows})


def parse() -> argparse.Namespace:
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=count, nargs="+", default=[3, 50, 200])
    parser.add_argument("--workers", type=count, default=os.cpu_count())
    parser.add_argument("--output", type=Path, default=record.FOLDER / "prepare.jsonl")
    parser.add_argument("--worker", help=argparse.SUPPRESS)  # the corpus that this process prepares
    return parser.parse_args()


def texts() -> Iterator[str]:
    """The documents of the docstrings corpus."""
    from condenser_jax.data.sources import open_source

    return (document.text for document in open_source("docstrings:").documents())


def train_tokenizer(directory: Path) -> Path:
    """A tokenizer beside the corpora, so that its training is not part of what is measured."""
    from condenser_jax.data.tokenization import train_wordpiece

    return train_wordpiece(texts(), 8192, directory, 128)


def write_corpus(path: Path, megabytes: int) -> Path:
    """Writes documents until the file has its size."""
    documents, written, number = list(texts()), 0, 0
    with open(path, "w", encoding="utf-8") as file:
        while written < megabytes * MEGABYTE:
            text = documents[number % len(documents)].replace(". ", f" {number}. ")
            written += file.write(json.dumps({"text": f"{number} {text}"}) + "\n")
            number += 1
    return path


def in_own_process(corpus: Path, workers: int) -> dict:
    """What `prepare_one` finds in a fresh process."""
    line = [sys.executable, __file__, f"--worker={corpus}", f"--workers={workers}"]
    done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def prepare_one(corpus: Path, workers: int) -> dict:
    """Prepares a corpus with the tokenizer beside it; seconds, peak memory and counts."""
    from condenser_jax.data.prepare import PrepareConfig, prepare
    from condenser_jax.data.store import open_prepared

    config = PrepareConfig(
        source=f"jsonl:{corpus}",
        tokenizer=str(corpus.parent / "tokenizer"),
        workers=workers,
        directory=str(corpus.parent / "prepared"),
    )
    began = time.perf_counter()
    card = open_prepared(prepare(config)).card
    seconds = time.perf_counter() - began
    processes = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    peaks = [resource.getrusage(who).ru_maxrss for who in processes]
    return {
        "seconds": round(seconds, 1),
        "peak_mb": round(peaks[0] / 1024),
        "largest_worker_peak_mb": round(peaks[1] / 1024),
        "train_spans": card["splits"]["train"]["spans"],
        "train_tokens": card["splits"]["train"]["tokens"],
    }


def report(row: dict) -> None:
    """One line per size."""
    pace = row["megabytes"] / row["seconds"]
    print(
        f"{row['megabytes']:>6} MB: {row['seconds']:>7} s, {pace:.2f} MB/s, "
        f"peak {row['peak_mb']} MB (largest worker {row['largest_worker_peak_mb']} MB), "
        f"{row['train_spans']:,} spans, {row['train_tokens']:,} tokens",
        flush=True,
    )


if __name__ == "__main__":
    main()
