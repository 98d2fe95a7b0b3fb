"""Texts per second: our encoder against sentence-transformers, on the same weights and device.

    python benchmarks/encode.py --model=DIR       # an encoder that sentence-transformers loads
    python benchmarks/encode.py --size=small      # random weights, 6 layers x 384, 8192 words
    python benchmarks/encode.py --size=base       # the same at BERT-base

The texts are bodies of docstrings, of mixed length. sentence-transformers runs as shipped (batches
of 32) and tuned: with the batch size and number of threads that were fastest on a sample. All run
in turns, in one process, in float32; vectors must be equal within 1e-4. Compilation happens before
the rounds and is told as `first_seconds`. Processor seconds stand beside those of the clock: they
say more where other programs run. Appends JSON to docs/benchmarks/encode.jsonl.
"""

import argparse
import itertools
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

from condenser_jax.environment import tune_process  # noqa: E402

tune_process()
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # a GPU is shared with torch

import jax  # noqa: E402
import numpy as np  # noqa: E402
import record  # noqa: E402
from flag_types import count, limit  # noqa: E402

from condenser_jax import Encoder  # noqa: E402
from condenser_jax.dense import open_texts  # noqa: E402

TOLERANCE = 1e-4
SAMPLE = 128  # texts on which sentence-transformers is tuned
BATCHES = (16, 32, 64, 128)
LENGTH, VOCABULARY = 256, 8192
SIZES = {  # of random encoders: width, layers, heads
    "small": (384, 6, 12),
    "base": (768, 12, 12),
}
SHIPPED, TUNED, OURS = "sentence-transformers", "sentence-transformers tuned", "ours"
Encode = Callable[[list[str]], np.ndarray]


def docstring_bodies(count: int) -> list[str]:
    """So many bodies, drawn at random."""
    corpus = open_texts("docstrings:")
    chosen = np.random.default_rng(0).permutation(len(corpus))[:count]
    return [corpus[int(row)].text for row in chosen]


def random_encoder(folder: Path, texts: list[str], size: str) -> Path:
    """Exports an encoder with random weights, mean pooling, normalised."""
    from condenser_jax.data.tokenization import train_wordpiece
    from condenser_jax.hf.card import EncoderCard
    from condenser_jax.hf.export import export
    from condenser_jax.hf.model_card import Facts
    from condenser_jax.models.config import BackboneConfig, ComputeConfig
    from condenser_jax.objectives.retriever import TextEncoder

    train_wordpiece(texts, VOCABULARY, folder / "tokenizer", 512)
    width, layers, heads = SIZES[size]
    config = BackboneConfig(
        VOCABULARY,
        hidden_size=width,
        num_layers=layers,
        num_heads=heads,
        intermediate_size=4 * width,
    )
    card = EncoderCard("mean", True, query_max_length=LENGTH, passage_max_length=LENGTH)
    group = TextEncoder(config, ComputeConfig(), "mean", True).init(jax.random.key(0))
    params = {"backbone": jax.tree.map(np.asarray, group)}
    return export(params, config, folder / "tokenizer", folder / "model", card, Facts("random"))


def their_encoders(directory: Path, texts: list[str]) -> tuple[dict[str, Encode], dict]:
    """As shipped and tuned, and what tuning found."""
    import torch
    from sentence_transformers import SentenceTransformer

    device = "cuda" if torch.cuda.is_available() and jax.default_backend() == "gpu" else "cpu"
    model = SentenceTransformer(str(directory), device=device)
    shipped = torch.get_num_threads()
    cores = len(os.sched_getaffinity(0))
    tried = {}
    for threads, batch in itertools.product(sorted({shipped, cores, max(1, cores // 2)}), BATCHES):
        torch.set_num_threads(threads)
        model.encode(texts[:8], batch_size=batch)
        began = perf_counter()
        model.encode(texts[:SAMPLE], batch_size=batch)
        tried[threads, batch] = perf_counter() - began
    threads, batch = min(tried, key=tried.__getitem__)

    def run(threads: int, **options) -> Encode:
        def encode(texts: list[str]) -> np.ndarray:
            torch.set_num_threads(threads)
            return model.encode(texts, **options)

        return encode

    found = {"threads": threads, "batch": batch, "threads_as_shipped": shipped}
    return {SHIPPED: run(shipped), TUNED: run(threads, batch_size=batch)}, found


def measure(encoders: dict[str, Encode], texts: list[str], rounds: int) -> dict:
    """Seconds of each round, the encoders in turns, and how far their vectors are apart."""
    seconds: dict[str, list[float]] = {name: [] for name in encoders}
    of_processors: dict[str, list[float]] = {name: [] for name in encoders}
    vectors = {}
    for number in range(rounds):
        for name, encode in encoders.items():
            began, used = perf_counter(), process_time()
            vectors[name] = encode(texts)
            seconds[name].append(round(perf_counter() - began, 3))
            of_processors[name].append(round(process_time() - used, 3))
            times = f"{seconds[name][-1]:>9.2f} s, {of_processors[name][-1]:>9.2f} s of processors"
            print(f"round {number + 1}: {name:<28}{times}", flush=True)
    apart = max(float(np.abs(found - vectors[OURS]).max()) for found in vectors.values())
    assert apart < TOLERANCE, f"vectors differ by {apart:.1e}, allowed {TOLERANCE:.0e}"
    return {
        "seconds": seconds,
        "processor_seconds": of_processors,
        "largest_difference": apart,
    }


def report(found: dict, texts: int) -> None:
    """Texts per second, and ratios of medians."""
    medians, used = (
        {name: statistics.median(seconds) for name, seconds in found[times].items()}
        for times in ("seconds", "processor_seconds")
    )
    found["texts_per_second"] = {name: round(texts / s, 1) for name, s in medians.items()}
    found["ratio"] = round(medians[SHIPPED] / medians[OURS], 2)
    found["ratio_to_tuned"] = round(medians[TUNED] / medians[OURS], 2)
    found["processor_ratios"] = [round(used[name] / used[OURS], 2) for name in (SHIPPED, TUNED)]
    for name, pace in found["texts_per_second"].items():
        print(f"{name:<28}{pace:>9.1f} texts/s")
    print(
        f"ours is {found['ratio']} times as fast as shipped, {found['ratio_to_tuned']} times as "
        f"tuned, by seconds of processors {' and '.join(map(str, found['processor_ratios']))}; "
        f"vectors within {found['largest_difference']:.1e}"
    )


def main() -> None:
    """Builds or loads the encoder, measures, prints, appends JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a directory; default: random weights")
    parser.add_argument("--size", choices=SIZES, default="small", help="of random weights")
    parser.add_argument("--texts", type=count, default=5000)
    parser.add_argument("--rounds", type=count, default=3)
    parser.add_argument("--tokens_per_batch", type=limit, default=0, help="of ours; 0: its default")
    parser.add_argument("--output", type=Path, default=record.FOLDER / "encode.jsonl")
    arguments = parser.parse_args()
    texts = docstring_bodies(arguments.texts)
    with tempfile.TemporaryDirectory() as folder:
        directory = arguments.model or random_encoder(Path(folder), texts, arguments.size)
        ours = Encoder.load(directory, tokens_per_batch=arguments.tokens_per_batch)
        theirs, tuning = their_encoders(directory, texts)
        began = perf_counter()
        ours.encode(texts)
        first = perf_counter() - began
        found = measure({OURS: ours.encode, **theirs}, texts, arguments.rounds)
    config = ours.source.config
    weights = "/".join(arguments.model.parts[-2:]) if arguments.model else "random"
    described = {
        "model": f"{weights}, {config.num_layers} layers x {config.hidden_size}",
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "texts": len(texts),
        "tokens_per_batch": ours.tokens_per_batch,
        "first_seconds": round(first, 2),  # with compilation
        "tuned": tuning,
    }
    report(found, len(texts))
    record.append(arguments.output, described | found)


if __name__ == "__main__":
    main()
