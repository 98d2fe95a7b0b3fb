"""Exact search: as brute force in float64 finds it, whatever the blocks and the devices."""

import tracemalloc

import jax
import ml_dtypes
import numpy as np
import pytest

from condenser_jax.errors import UserError
from condenser_jax.search import top_k
from condenser_jax.search.top_k import search_vectors
from condenser_jax.training.sharding import make_mesh

RNG = np.random.default_rng(0)
CORPUS = RNG.normal(size=(700, 12)).astype(np.float32)
QUERIES = RNG.normal(size=(9, 12)).astype(np.float32)
FEW_VALUES = RNG.integers(-1, 2, (700, 3)).astype(np.float32)  # so that most scores are equal
ONE, ALL = make_mesh(devices=jax.devices()[:1]), make_mesh()


def brute_force(queries, corpus, k):
    """Rows and scores in float64; of equal scores the first row."""
    scores = queries.astype(np.float64) @ corpus.astype(np.float64).T
    ids = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return ids, np.take_along_axis(scores, ids, axis=1)


def assert_as_brute_force(hits, queries, corpus, k):
    """The scores of brute force; where rows differ, their scores are those of a tie."""
    _, scores = brute_force(queries, corpus, k)
    assert hits.ids.shape == hits.scores.shape == scores.shape
    np.testing.assert_allclose(hits.scores, scores, rtol=1e-5, atol=1e-5)
    all_scores = queries.astype(np.float64) @ corpus.astype(np.float64).T
    found = np.take_along_axis(all_scores, hits.ids, axis=1)
    np.testing.assert_allclose(found, scores, rtol=1e-5, atol=1e-5)
    assert all(len(set(row)) == len(row) for row in hits.ids.tolist())


@pytest.mark.parametrize("mesh", [ONE, ALL], ids=["one device", "eight devices"])
@pytest.mark.parametrize(("k", "block"), [(5, 4096), (5, 16), (60, 16), (10_000, 32)])
def test_search_finds_what_brute_force_finds(mesh, k, block):
    """With one block and with several, a k above a block, and one above the corpus."""
    hits = search_vectors(QUERIES, CORPUS, k, mesh, block=block)
    assert_as_brute_force(hits, QUERIES, CORPUS, k)


@pytest.mark.parametrize(("k", "block"), [(40, 4096), (40, 16)])
def test_of_equal_scores_the_first_in_the_corpus_are_kept(k, block):
    ids, scores = brute_force(FEW_VALUES[:9], FEW_VALUES, k)
    assert (np.diff(scores, axis=1) == 0).mean() > 0.9
    for mesh in (ONE, ALL):
        hits = search_vectors(FEW_VALUES[:9], FEW_VALUES, k, mesh, block=block)
        np.testing.assert_array_equal(hits.ids, ids)
        np.testing.assert_array_equal(hits.scores, scores)


def test_a_search_like_one_before_compiles_nothing(caplog):
    wishes = QUERIES, CORPUS, 6, ONE
    with jax.log_compiles():
        search_vectors(*wishes)
        assert "Finished XLA compilation of jit(step)" in caplog.text
        caplog.clear()
        search_vectors(*wishes)
    assert "jit(step)" not in caplog.text


def test_queries_in_blocks_find_the_same(monkeypatch):
    whole = search_vectors(QUERIES, CORPUS, 5, ONE)
    monkeypatch.setattr(top_k, "QUERIES", 4)
    parts = search_vectors(QUERIES, CORPUS, 5, ONE)
    assert parts.ids.dtype == np.int64
    np.testing.assert_array_equal(parts.ids, whole.ids)
    np.testing.assert_allclose(parts.scores, whole.scores, rtol=1e-5)


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
def test_narrow_vectors_are_multiplied_in_float32(dtype):
    narrow = CORPUS.astype(dtype)
    hits = search_vectors(QUERIES, narrow, 5, ALL, block=16)
    assert_as_brute_force(hits, QUERIES, narrow, 5)
    assert np.abs(hits.scores - search_vectors(QUERIES, CORPUS, 5, ALL).scores).max() > 1e-5


def test_the_corpus_is_read_once_and_never_more_than_a_block_of_it():
    class Watched:
        read = 0

        def __len__(self):
            return len(CORPUS)

        def __getitem__(self, rows):
            found = CORPUS[rows]
            assert len(found) <= 16 * ALL.size
            self.read += len(found)
            return found

    watched, seen = Watched(), []
    search_vectors(QUERIES, watched, 5, ALL, block=16, advance=seen.append)
    assert watched.read == sum(seen) == len(CORPUS) and len(seen) == 6


def test_what_many_queries_find_is_held_once():
    """Of the host's own arrays: ids of 8 bytes, scores of 4, and blocks on their way."""
    queries, k = np.tile(QUERIES, (300, 1)), 500
    search_vectors(queries, CORPUS, k, ONE)  # compiles
    tracemalloc.start()
    hits = search_vectors(queries, CORPUS, k, ONE)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 13.5 * hits.ids.size


def test_an_approximate_search_finds_most_of_the_best():
    ids, _ = brute_force(QUERIES, CORPUS, 20)
    hits = search_vectors(QUERIES, CORPUS, 20, ALL, recall=0.9, block=16)
    shared = [len(set(a) & set(b)) for a, b in zip(ids.tolist(), hits.ids.tolist(), strict=True)]
    assert sum(shared) >= 0.8 * ids.size


def test_nothing_is_found_in_nothing():
    assert search_vectors(QUERIES, CORPUS[:0], 5, ONE).ids.shape == (9, 0)
    assert search_vectors(QUERIES[:0], CORPUS, 5, ONE).ids.shape == (0, 5)


@pytest.mark.parametrize(
    ("k", "recall", "message"),
    [
        (0, 0.0, "k 0 asks for no passage; use 1 or more"),
        (1, 1.5, "approximate 1.5 is no share of .* from 0 to below 1, e.g. 0.95, or leave"),
    ],
)
def test_impossible_wishes_are_refused(k, recall, message):
    with pytest.raises(UserError, match=message):
        search_vectors(QUERIES, CORPUS, k, ONE, recall=recall)


def test_the_last_block_is_filled_up_with_zeros_where_a_cpu_takes_it_without_a_copy():
    found = top_k._filled_up(CORPUS[:3], 16)
    assert found.shape == (16, 12) and found.dtype == CORPUS.dtype
    np.testing.assert_array_equal(found[:3], CORPUS[:3])
    assert not found[3:].any() and found.ctypes.data % 64 == 0
    placed = jax.device_put(found, jax.devices()[0])
    assert placed.unsafe_buffer_pointer() == found.ctypes.data
