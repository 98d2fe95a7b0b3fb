"""A retriever learns what is planted: from a configuration to the end of a run, on a collection in
which queries ask in one language and passages answer in another.

Query and passage share no word, so a dictionary has to be learned from the labels: BM25 and an
untrained encoder find nothing. What is asked in evaluations are pairs of words of which no
training query held both: each word was learned beside others. With labels that are shuffled
among the training queries the same run must find nothing either.
"""

import itertools
import json
import random
import time

import jax
import pytest

from condenser_jax.build import build
from condenser_jax.data.tokenization import train_wordpiece
from condenser_jax.methods import configure
from condenser_jax.training.checkpoints import Checkpoints
from condenser_jax.training.loop import Loop, Run
from condenser_jax.training.signals import StopRequest
from tests.helpers import QUICK

ADJECTIVES = {
    "black": "schwarze",
    "white": "weisse",
    "large": "grosse",
    "quick": "schnelle",
    "cheap": "billige",
    "young": "junge",
}
NOUNS = {
    "dog": "hunde",
    "horse": "pferde",
    "tree": "baeume",
    "knife": "messer",
    "shirt": "hemden",
    "car": "autos",
}
QUERIES = [" ".join(pair) for pair in itertools.product(ADJECTIVES, NOUNS)]
PASSAGES = [" ".join(pair) for pair in itertools.product(ADJECTIVES.values(), NOUNS.values())]
HELD_OUT = [number for number in range(36) if (number // 6 + number % 6) % 3 == 2]  # 12 of 36


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """One of both languages; one that is trained on passages would cut queries into letters."""
    directory = tmp_path_factory.mktemp("tokenizer")
    return train_wordpiece([*QUERIES, *PASSAGES], 200, directory, 16)


def write_collection(folder, answers):
    """A BEIR folder; `answers` are the passages of the queries that are trained on."""
    (folder / "qrels").mkdir(parents=True)
    for name, texts in (("corpus", PASSAGES), ("queries", QUERIES)):
        records = ({"_id": f"{name[0]}{n}", "text": text} for n, text in enumerate(texts))
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    for split, judged in (("train", answers), ("dev", {n: n for n in HELD_OUT})):
        lines = "".join(f"q{query}\tc{passage}\t1\n" for query, passage in judged.items())
        (folder / "qrels" / f"{split}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{lines}")
    return f"beir:{folder}"


def learned(answers, tokenizer, folder, monkeypatch):
    """The figures of a run before and after, of held-out queries among all passages."""
    monkeypatch.setenv("CONDENSER_JAX_CACHE", str(folder / "cache"))
    monkeypatch.setattr(
        Run, "compile_step", lambda run, active: run.lower_step(active).compile(QUICK)
    )
    config = configure(
        {
            "objective": {
                "name": "retriever",
                "pooling": "mean",
                "normalise": True,
                "temperature": 0.1,
            },
            "data": {
                "train": write_collection(folder / "collection", answers),
                "tokenizer": str(tokenizer),
                "query_length": 8,
                "passage_length": 8,
            },
            "model": {
                "hidden_size": 32,
                "num_layers": 1,
                "num_heads": 2,
                "intermediate_size": 32,
                "initializer_range": 0.1,
                "hidden_dropout": 0.0,
                "attention_dropout": 0.0,
            },
            "optimizer": {"learning_rate": 1e-2},
            "training": {"steps": 100, "batch_size": 24, "log_every": 100},
            "evaluation": {"batch_size": 36},
        }
    )
    run = build(config, jax.devices()[:1]).run
    with Checkpoints(folder / "checkpoints") as checkpoints:
        loop = Loop(run, run.initial_state(), checkpoints, [], StopRequest())
        loop.train(0, time.time())
        checkpoints.wait()
    return loop.history["first"], loop.history["last"]


RIGHT = {number: number for number in range(36) if number not in HELD_OUT}


def test_a_retriever_finds_for_every_new_query_the_passage_it_was_planted_for(
    tokenizer, tmp_path, monkeypatch
):
    before, after = learned(RIGHT, tokenizer, tmp_path, monkeypatch)
    assert before["heldout/mrr@10"] < 0.2 and after["heldout/bm25_mrr@10"] == 0.0
    assert after["heldout/mrr@10"] == 1.0


def test_with_shuffled_labels_it_finds_nothing(tokenizer, tmp_path, monkeypatch):
    passages = list(RIGHT)
    random.Random(0).shuffle(passages)
    shuffled = dict(zip(RIGHT, passages, strict=True))
    assert sum(query == passage for query, passage in shuffled.items()) <= 3
    _, after = learned(shuffled, tokenizer, tmp_path, monkeypatch)
    assert after["heldout/mrr@10"] < 0.3
