"""Prepared data are whole, without copies, the same for any number of workers, and found again."""

import errno
import json
import random
import signal
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest

from condenser_jax.data import building, near_copies, tokenization
from condenser_jax.data import prepare as prepare_module
from condenser_jax.data.built_once import built_once
from condenser_jax.data.cutting import is_heldout
from condenser_jax.data.duplicates import FIRST, NEVER, SECOND, keep_one_of_equals
from condenser_jax.data.near_copies import write_copied
from condenser_jax.data.prepare import (
    PrepareConfig,
    is_prepared,
    prepare,
    prepare_mixture,
    prepared_directory,
    report,
)
from condenser_jax.data.store import open_prepared, verify
from condenser_jax.data.tokenization import load_backend
from condenser_jax.errors import UserError
from condenser_jax.feeds.corpus import Corpus, DataConfig, prepare_corpus, summary

WORDS = "the model reads a span of text and learns to guess every masked word in it".split()


def sentence(generator):
    return " ".join(generator.choices(WORDS, k=generator.randint(6, 14))).capitalize() + "."


def write_corpus(path, documents=120, seed=0):
    generator = random.Random(seed)
    lines = [" ".join(sentence(generator) for _ in range(6)) for _ in range(documents)]
    path.write_text("\n".join(lines) + "\n")
    return lines


@pytest.fixture
def config(tmp_path):
    write_corpus(tmp_path / "corpus.txt")
    return PrepareConfig(
        source=f"text:{tmp_path}/corpus.txt",
        vocab_size=120,
        max_length=24,
        heldout_share=0.2,
        workers=1,
        directory=str(tmp_path / "prepared"),
    )


def run(config):
    return open_prepared(prepare(config, progress=False))


def span_texts(prepared, split):
    backend = load_backend(prepared.tokenizer_directory)
    pairs = zip(split.offsets[:-1], split.offsets[1:], strict=True)
    return [backend.decode(split.ids[a:b].tolist()) for a, b in pairs]


def test_every_document_is_train_or_held_out_as_a_whole(config, tmp_path):
    prepared = run(config)
    heldout = " ".join(span_texts(prepared, prepared.heldout))
    for number, line in enumerate((tmp_path / "corpus.txt").read_text().splitlines(), start=1):
        start = line.lower().split(".")[0]
        assert (start in heldout) == is_heldout(f"corpus.txt:{number}", 0.2, 0)


def test_the_card_adds_up(config):
    prepared = run(config)
    card, train, heldout = prepared.card, prepared.train, prepared.heldout
    assert card["documents"]["read"] == 120
    assert card["splits"]["train"]["spans"] == len(train)
    assert card["splits"]["train"]["tokens"] == len(train.ids) == prepared.unigram.sum()
    assert card["splits"]["train"]["documents"] == len(train.documents) - 1
    dropped = card["spans"]
    lost = dropped["too_short"] + dropped["duplicates"] + dropped["of_duplicate_documents"]
    assert dropped["cut"] - lost == len(train) + len(heldout)
    assert sum(count for _, _, count in card["splits"]["train"]["histogram"]) == len(train)
    assert train.lengths.min() >= config.min_tokens and train.lengths.max() <= 8 * 24
    assert heldout.copied.shape == (len(heldout),)
    verify(prepared)


def test_padding_is_what_batches_will_pad(config):
    prepared = run(config)
    real = np.minimum(prepared.train.lengths, 22) + 2
    share = prepared.card["splits"]["train"]["padding_share"]
    assert share == pytest.approx(1 - real.mean() / 24, abs=1e-4)


def test_the_report_shows_counts_a_histogram_and_ten_spans(config):
    text = report(run(config).card)
    for claim in (
        "120 read",
        "exact copies dropped",
        "% padding",
        "bad records    0 of 120",
        "near",
    ):
        assert claim in text
    assert len(text.split("ten spans\n")[1].splitlines()) == 10


def test_copies_of_documents_and_spans_are_dropped(config, tmp_path):
    lines = write_corpus(tmp_path / "corpus.txt")
    plain = run(config)
    assert plain.card["documents"]["duplicates"] == 0
    (tmp_path / "corpus.txt").write_text("\n".join(lines + lines[:50]) + "\n")
    doubled = run(config)
    assert doubled.card["documents"]["duplicates"] == 50
    kept = span_texts(doubled, doubled.train) + span_texts(doubled, doubled.heldout)
    assert len(kept) == len(set(kept))


def test_no_held_out_span_is_a_span_of_train(config, tmp_path):
    lines = write_corpus(tmp_path / "corpus.txt")
    (tmp_path / "corpus.txt").write_text("\n".join(lines * 3) + "\n")
    prepared = run(replace(config, recipe="paragraphs"))
    train = set(span_texts(prepared, prepared.train))
    assert len(prepared.heldout) > 0
    assert not train & set(span_texts(prepared, prepared.heldout))


def test_the_number_of_workers_changes_nothing(config):
    first = run(config)
    second = run(replace(config, workers=2, directory=config.directory + "-2"))
    assert first.card == second.card


def test_the_seed_changes_the_cuts(config):
    first, second = run(config), run(replace(config, seed=1))
    assert first.directory != second.directory
    assert first.card["files"] != second.card["files"]


def test_prepared_data_are_found_again(config):
    directory = prepare(config, progress=False)
    assert directory == prepared_directory(config) and is_prepared(directory)
    before = (directory / "card.json").stat().st_mtime_ns
    assert prepare(replace(config, workers=2), progress=False) == directory
    assert (directory / "card.json").stat().st_mtime_ns == before


def test_a_changed_source_is_prepared_anew(config, tmp_path):
    directory = prepared_directory(config)
    write_corpus(tmp_path / "corpus.txt", seed=1)
    assert prepared_directory(config) != directory


def test_a_mixture_shares_one_tokenizer(config, tmp_path):
    write_corpus(tmp_path / "other.txt", seed=1)
    pairs = [(config.source, 1.0), (f"text:{tmp_path}/other.txt", 0.5)]
    mixed = prepare_mixture(replace(config, source=pairs), progress=False)
    hashes = {open_prepared(directory).card["tokenizer"]["hash"] for directory, _ in mixed}
    assert len(hashes) == 1 and [weight for _, weight in mixed] == [1.0, 0.5]
    with pytest.raises(UserError, match="2 sources are a mixture; use prepare_mixture"):
        prepare(replace(config, source=pairs), progress=False)


def test_each_source_of_a_mixture_has_its_share_in_the_training_of_the_tokenizer(
    config, tmp_path, monkeypatch, caplog
):
    """Else a large first source would be all that the tokenizer knows."""
    monkeypatch.setattr(prepare_module, "TRAINING_CHARACTERS", 8000)
    monkeypatch.setattr(tokenization, "TRAINING_CHARACTERS", 8000)
    words = ["один", "два", "три", "четыре", "пять", *WORDS[:5]]
    generator = random.Random(0)
    lines = [" ".join(generator.choices(words, k=9)) for _ in range(200)]
    (tmp_path / "b.txt").write_text("\n".join(lines))
    both = f"0.5 {config.source} + 0.5 text:{tmp_path}/b.txt"
    for what, is_known in ((both, True), (config.source, False)):
        trained = replace(config, source=what, vocab_size=800)
        tokenizer = open_prepared(prepare_mixture(trained, progress=False)[0][0])
        where = str(tokenizer.tokenizer_directory)
        source, how = f"text:{tmp_path}/b.txt", {"text_layout": "lines", "workers": 1}
        data = DataConfig(source=source, directory=config.directory, heldout_share=0.2, **how)
        caplog.clear()
        corpus = prepare_corpus(data, 0, where)
        unknown = corpus.unigram[corpus.vocabulary.unk_id] / corpus.unigram.sum()
        assert (unknown < 0.01) == is_known
        told = f"THE TOKENIZER DOES NOT KNOW {100 * unknown:.1f} % OF THE TOKENS of text:"
        assert (told in caplog.text) != is_known


def test_word_frequencies_of_a_mixture_are_those_of_the_rows_that_are_drawn():
    first, second = np.array([90, 10, 0]), np.array([0, 0, 4])
    sources = [(types.SimpleNamespace(unigram=one), w) for one, w in ((first, 1.0), (second, 3.0))]
    assert Corpus(tuple(sources), None, None).unigram.tolist() == [23, 3, 78]
    assert Corpus(tuple(sources[:1]), None, None).unigram.tolist() == [90, 10, 0]


def test_a_dataset_of_the_hub_is_prepared_anew_with_its_commit_and_found_without_a_network(
    config, monkeypatch, caplog
):
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict({"text": [sentence(random.Random(n)) for n in range(60)]})
    commits = ["first", "first", "second"]
    monkeypatch.setattr(datasets, "load_dataset", lambda *given, **how: table)
    monkeypatch.setattr(
        huggingface_hub,
        "HfApi",
        lambda: types.SimpleNamespace(
            dataset_info=lambda name: types.SimpleNamespace(sha=commits.pop(0))
        ),
    )
    hub = replace(config, source="hf:me/corpus")
    prepared = prepare(hub, progress=False)
    assert prepared_directory(hub) == prepared
    assert prepared_directory(hub) != prepared, "another commit"

    def no_network(*given, **how):
        raise OSError("offline")

    commits.append("first")
    prepare(hub, progress=False)
    monkeypatch.setattr(datasets, "load_dataset", no_network)
    assert prepare(hub, progress=False) == prepared
    assert "going on with what was prepared of it before" in caplog.text
    with pytest.raises(UserError, match="'me/corpus' .* cannot be loaded: offline; check the name"):
        prepare(replace(hub, max_length=30), progress=False)
    with pytest.raises(UserError, match="'me/other' .* cannot be loaded: offline"):
        prepare(replace(hub, source="hf:me/other"), progress=False)


def test_a_tokenizer_of_ones_own_is_used(config):
    first = run(config)
    again = run(replace(config, tokenizer=str(first.tokenizer_directory), recipe="fixed"))
    assert again.card["tokenizer"] == first.card["tokenizer"]
    assert (again.tokenizer_directory / "vocab.txt").is_file()


def test_a_full_disk_is_named_and_leaves_nothing(config, monkeypatch):
    def fill(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(building, "write_splits", fill)
    with pytest.raises(UserError, match=r"the disk of .*prepared is full \(\d+ MB free"):
        prepare(config, progress=False)
    left = [p.name for p in Path(config.directory).iterdir() if not p.name.startswith("tokenizer")]
    assert [name for name in left if not name.endswith(".lock")] == []


def test_a_place_that_cannot_be_written_is_named(config, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="file/prepared cannot be written: Not a directory"):
        prepare(replace(config, directory=str(tmp_path / "file" / "prepared")), progress=False)


def test_a_killed_build_leaves_nothing_that_is_taken_for_good(tmp_path):
    target = tmp_path / "data"
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from condenser_jax.data.built_once import built_once\n"
        "with built_once(Path(sys.argv[1])) as partial:\n"
        "    (partial / 'half').write_text('half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(target)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not target.exists() and (tmp_path / ".data.partial" / "half").exists()
    with built_once(target) as partial:
        assert list(partial.iterdir()) == []
    assert target.exists()


def test_text_that_leaves_nothing_to_train_on_is_refused(config, tmp_path):
    (tmp_path / "corpus.txt").write_text("one two\nthree four\n")
    with pytest.raises(UserError, match="no text is left to train on: no span of 6 tokens or more"):
        prepare(replace(config, heldout_share=0.0), progress=False)


def test_a_corpus_too_small_to_hold_out_is_refused(config, tmp_path):
    write_corpus(tmp_path / "corpus.txt", documents=3)
    with pytest.raises(
        UserError, match="none of 3 documents .* heldout_share 0.001; raise it or give"
    ):
        prepare(replace(config, heldout_share=0.001), progress=False)
    assert len(run(replace(config, heldout_share=0.0)).heldout) == 0


def test_shares_and_lengths_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match="heldout_share 1.5 is not within 0 and 1"):
        PrepareConfig(heldout_share=1.5)
    with pytest.raises(UserError, match="min_tokens 60 does not fit spans of at most 30 tokens"):
        PrepareConfig(max_length=32, min_tokens=60)


def test_held_out_is_about_its_share_of_the_groups():
    share = np.mean([is_heldout(f"package.module{i}", 0.1, 0) for i in range(5000)])
    assert 0.085 < share < 0.115


@pytest.mark.parametrize("bucket_rows", [4, 1000])
def test_one_of_equals_is_kept_train_first(tmp_path, bucket_rows):
    generator = np.random.default_rng(0)
    values = generator.integers(0, 1 << 64, 12, dtype=np.uint64)[generator.integers(0, 12, 40)]
    ranks = generator.choice([FIRST, SECOND, NEVER], 40).astype(np.uint8)
    values.tofile(tmp_path / "hashes.bin")
    keep = keep_one_of_equals(tmp_path / "hashes.bin", ranks, bucket_rows)
    expected = set()
    for value in set(values.tolist()):
        rows = [i for i in np.flatnonzero(values == value) if ranks[i] < NEVER]
        expected |= {min(rows, key=lambda i: (ranks[i], i))} if rows else set()
    assert set(np.flatnonzero(keep)) == expected


def write_split(directory, spans):
    directory.mkdir()
    np.array([t for span in spans for t in span], np.uint16).tofile(directory / "ids.bin")
    ends = np.cumsum([0] + [len(span) for span in spans]).astype(np.int64)
    ends.tofile(directory / "offsets.bin")


@pytest.mark.parametrize("grams_per_pass", [20, 10_000])
def test_near_copies_equal_a_count_by_hand(tmp_path, monkeypatch, grams_per_pass):
    monkeypatch.setattr(near_copies, "TRAIN_TOKENS", 64)
    generator = random.Random(0)
    train = [[generator.randrange(9) for _ in range(generator.randint(4, 40))] for _ in range(30)]
    heldout = [train[3], train[5][2:] + [7] * 9, [1] * 5, [8, 7] * 10, train[7][1:6]]
    write_split(tmp_path / "train", train)
    write_split(tmp_path / "heldout", heldout)
    write_copied(tmp_path / "heldout", tmp_path / "train", "uint16", grams_per_pass)
    known = {tuple(span[i : i + 8]) for span in train for i in range(len(span) - 7)}
    expected = []
    for span in heldout:
        grams = [tuple(span[i : i + 8]) for i in range(len(span) - 7)]
        expected.append(sum(gram in known for gram in grams) / max(len(grams), 1))
    assert 0 < expected[1] < 1
    copied = np.fromfile(tmp_path / "heldout" / "copied.bin", np.float32)
    assert copied == pytest.approx(expected, abs=1e-6)


def test_what_prepares_imports_neither_jax_nor_transformers():
    program = (
        "import sys, condenser_jax.data.prepare, condenser_jax.data.docstrings\n"
        "print({'jax', 'transformers', 'torch', 'datasets'} & set(sys.modules))\n"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_run_tells_how_many_records_are_broken_and_where_the_first_is(config, tmp_path):
    assert "broken" not in summary(run(config).card)
    texts = write_corpus(tmp_path / "corpus.txt")
    sound = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (tmp_path / "broken.jsonl").write_text(sound + "{no\n")
    told = summary(run(replace(config, source=f"jsonl:{tmp_path}/broken.jsonl")).card)
    assert "; 1 of 121 records are broken and left out, the first: " in told
    assert "broken.jsonl:121 " in told
