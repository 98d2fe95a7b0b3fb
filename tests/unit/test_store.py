"""Prepared spans are read back exactly, window by window, and a changed file is refused."""

import json
import pickle

import numpy as np
import pytest

from condenser_jax.data.store import FORMAT, Spans, file_hash, is_prepared, open_prepared, verify
from condenser_jax.errors import UserError

SPANS = [[5, 6, 7, 8], [9], [10, 11, 12, 13, 14, 15]]


def write_split(directory, spans=SPANS):
    directory.mkdir(parents=True)
    np.array([t for span in spans for t in span], np.uint16).tofile(directory / "ids.bin")
    ends = np.cumsum([0] + [len(span) for span in spans])
    ends.astype(np.int64).tofile(directory / "offsets.bin")
    np.array([0, 2, 3][: len(spans) + 1], np.int64).tofile(directory / "documents.bin")


@pytest.fixture
def spans(tmp_path):
    write_split(tmp_path / "train")
    return Spans(tmp_path / "train", "uint16", pad_id=0)


@pytest.fixture
def prepared(tmp_path):
    for name in ("train", "heldout"):
        write_split(tmp_path / name)
    np.arange(16, dtype=np.int64).tofile(tmp_path / "train" / "unigram.bin")
    names = ["train/ids.bin", "heldout/offsets.bin"]
    files = {
        name: {"bytes": (tmp_path / name).stat().st_size, "hash": file_hash(tmp_path / name)}
        for name in names
    }
    card = {"format": FORMAT, "dtype": "uint16", "tokenizer": {"pad_id": 0}, "files": files}
    (tmp_path / "card.json").write_text(json.dumps(card))
    return open_prepared(tmp_path)


def test_spans_know_their_lengths(spans):
    assert len(spans) == 3
    assert spans.lengths.tolist() == [4, 1, 6]
    assert spans.documents.tolist() == [0, 2, 3]


def test_gather_reads_windows_and_pads_on_the_right(spans):
    ids, lengths = spans.gather(np.array([2, 0, 1, 2]), np.array([1, 0, 0, 4]), 4)
    assert ids.tolist() == [[11, 12, 13, 14], [5, 6, 7, 8], [9, 0, 0, 0], [14, 15, 0, 0]]
    assert lengths.tolist() == [4, 4, 1, 2]
    assert ids.dtype == lengths.dtype == np.int32


def test_gather_equals_a_loop(spans):
    generator = np.random.default_rng(0)
    indices = generator.integers(0, 3, 50)
    starts = generator.integers(0, spans.lengths[indices])
    ids, lengths = spans.gather(indices, starts, 5)
    for row, length, index, start in zip(ids, lengths, indices, starts, strict=True):
        expected = SPANS[index][start : start + 5]
        assert row.tolist() == expected + [0] * (5 - len(expected)) and length == len(expected)


def test_spans_travel_without_their_files(spans):
    assert spans.ids[0] == 5
    packed = pickle.dumps(spans)
    assert len(packed) < 500
    assert pickle.loads(packed).gather(np.array([1]), np.array([0]), 2)[0].tolist() == [[9, 0]]


def test_an_empty_split_has_no_spans(tmp_path):
    write_split(tmp_path / "heldout", [])
    spans = Spans(tmp_path / "heldout", "uint16", 0)
    assert len(spans) == 0 and spans.lengths.tolist() == []
    assert spans.gather(np.zeros(0, int), np.zeros(0, int), 3)[0].shape == (0, 3)


def test_prepared_data_are_opened_by_their_card(prepared):
    assert is_prepared(prepared.directory)
    assert len(prepared.train) == len(prepared.heldout) == 3
    assert prepared.unigram.tolist() == list(range(16))
    verify(prepared)


def test_a_changed_file_is_refused(prepared):
    path = prepared.directory / "train" / "ids.bin"
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        UserError, match="ids.bin has changed since it was written; remove .* prepare"
    ):
        verify(prepared)


def test_a_missing_file_is_refused(prepared):
    (prepared.directory / "heldout" / "offsets.bin").unlink()
    with pytest.raises(UserError, match="offsets.bin is missing; remove .* and run prepare again"):
        verify(prepared)


def test_a_directory_without_a_card_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"holds no prepared data \(no card.json of format \d\)"):
        open_prepared(tmp_path)
    (tmp_path / "card.json").write_text("{half")
    assert not is_prepared(tmp_path)
