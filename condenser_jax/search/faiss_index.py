"""An index of FAISS (Douze et al. 2024) beside the vectors: built once, saved, read again.

    flat   exact, in the memory of the machine
    ivf    inverted lists: about 4 sqrt(n) of them, of which a query looks into a sixteenth
    hnsw   a graph of neighbours (Malkov and Yashunin 2018), 32 of each vector

All of them hold the whole corpus in memory, in float32; `top_k` does not.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from condenser_jax.errors import UserError, choose
from condenser_jax.search.top_k import Corpus, Hits
from condenser_jax.whole_files import written_whole

INDEXES = ("flat", "ivf", "hnsw")
BLOCK = 65536  # vectors that are added at a time
NEIGHBOURS = 32  # of a vector in the graph
SEARCHED = 256  # vectors of the graph that are kept in sight, at least
LISTS_SEARCHED = 16  # one in so many
SAMPLE = 64  # vectors per list from which lists are learned


class FaissIndex:
    """An index in memory."""

    def __init__(self, kind: str, index: Any) -> None:
        self.kind, self.index = kind, index

    def search(self, queries: np.ndarray, k: int) -> Hits:
        """The best k of each query [Q, D]; id -1 where the index found fewer."""
        k = min(k, self.index.ntotal)
        if self.kind == "hnsw":
            self.index.hnsw.efSearch = max(SEARCHED, k)
        scores, ids = self.index.search(np.ascontiguousarray(queries, np.float32), k)
        return Hits(ids.astype(np.int64), scores)


def find_index(vectors: Corpus, directory: Path, kind: str, content: str) -> FaissIndex:
    """Reads the index of a kind from the directory of its vectors, or builds and saves it.

    Args:
      vectors: [n, D], at least one.
      directory: where the index is kept.
      kind: one of INDEXES.
      content: tells vectors apart; an index of another content is built anew.

    Raises UserError as `check_index` does.
    """
    check_index(kind)
    faiss = _faiss()
    path = directory / f"faiss-{kind}.index"
    note = path.with_suffix(".json")
    known = {"content": content, "faiss": faiss.__version__, "rows": len(vectors)}
    if not (path.exists() and _read_note(note) == known):
        note.unlink(missing_ok=True)
        with written_whole(path) as half:
            faiss.write_index(_build(faiss, vectors, kind), str(half))
        with written_whole(note) as half:
            half.write_text(json.dumps(known), encoding="utf-8")
    return FaissIndex(kind, faiss.read_index(str(path)))


def check_index(kind: str) -> None:
    """Raises UserError for an unknown kind of index, and if faiss is not installed."""
    choose("index", kind, INDEXES)
    _faiss()


def _read_note(path: Path) -> Any:
    """What an index was built of; None where there is no note, or a damaged one."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _build(faiss: Any, vectors: Corpus, kind: str) -> Any:
    width, rows = vectors[0:1].shape[1], len(vectors)
    if kind == "flat":
        index = faiss.IndexFlatIP(width)
    elif kind == "hnsw":
        index = faiss.IndexHNSWFlat(width, NEIGHBOURS, faiss.METRIC_INNER_PRODUCT)
    else:
        lists = max(1, min(int(4 * rows**0.5), rows // SAMPLE))
        quantizer = faiss.IndexFlatIP(width)
        index = faiss.IndexIVFFlat(quantizer, width, lists, faiss.METRIC_INNER_PRODUCT)
        index.nprobe = max(1, lists // LISTS_SEARCHED)
        index.train(_sample(vectors, lists * SAMPLE))
    for start in range(0, rows, BLOCK):
        index.add(_wide(vectors[start : start + BLOCK]))
    return index


def _sample(vectors: Corpus, count: int) -> np.ndarray:
    """About so many vectors, evenly spread."""
    stride = max(1, len(vectors) // count)
    blocks = range(0, len(vectors), BLOCK * stride)
    return np.concatenate([_wide(vectors[b : b + BLOCK * stride][::stride]) for b in blocks])


def _wide(vectors: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(vectors, np.float32)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise UserError(
            'an index needs faiss, which is not installed; pip install "condenser_jax[faiss]", or '
            "leave --index empty"
        ) from error
    return faiss
