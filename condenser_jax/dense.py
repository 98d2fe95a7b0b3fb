"""The two halves of a dense search: a corpus becomes vectors, and queries find them.

Each process of a group encodes shards of its own, on its own devices, and nothing is exchanged but
the agreement on what is encoded; all of them see the output.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from condenser_jax import vectors as stored
from condenser_jax.cluster import check_same, is_first, wait_for_all
from condenser_jax.data.progress import Progress
from condenser_jax.encoder import Encoder
from condenser_jax.encoder_source import KINDS, PASSAGE, QUERY
from condenser_jax.errors import UserError, choose
from condenser_jax.retrieval.collection import CollectionOptions
from condenser_jax.retrieval.folders import read_texts
from condenser_jax.retrieval.kinds import open_collection, open_corpus
from condenser_jax.retrieval.texts import Texts
from condenser_jax.search.faiss_index import check_index, find_index
from condenser_jax.search.top_k import Hits, check_wishes, search_vectors
from condenser_jax.vectors import DTYPES, Vectors, VectorsCard, open_vectors

SHARD_ROWS = 16384  # a run that is killed loses at most one shard of each process


def open_texts(
    where: str,
    kind: str = PASSAGE,
    split: str = "test",
    options: CollectionOptions | None = None,
) -> Texts:
    """Passages or queries: of a file (.jsonl or .tsv, perhaps compressed), or those of a collection
    such as "beir:FOLDER" or "docstrings:", of which `split` says whose queries. Raises UserError
    for neither.
    """
    choose("kind of text", kind, KINDS)
    options = options or CollectionOptions()
    if Path(where).expanduser().is_file():
        return read_texts(where, options.bad_share)
    if kind == PASSAGE:
        return open_corpus(where, options)
    return open_collection(where, split, options).queries


def encode_corpus(
    encoder: Encoder,
    texts: Texts,
    output: str | Path,
    *,
    source: str = "",
    kind: str = PASSAGE,
    dtype: str = "float32",
    shard_rows: int = SHARD_ROWS,
    shows_progress: bool = False,
) -> Vectors:
    """Encodes texts into a directory, or what is missing or damaged there; returns all vectors.

    Args:
      encoder: whose card and hashes go into the card of the vectors.
      texts: with titles, if they have any, in front.
      output: a directory that is new, or holds a part of the same vectors.
      source: what the texts are, for the card.
      kind: "passage" or "query".
      dtype: in which vectors are kept: float32, bfloat16 or float16.
      shard_rows: vectors of a shard.
      shows_progress: whether to draw a bar of this process's share.

    Raises UserError if `output` holds something else, RunFailed for vectors that are not finite.
    """
    choose("dtype of vectors", dtype, DTYPES)
    if shard_rows < 1:
        raise UserError(f"shard_rows {shard_rows} leaves no vector in a shard; use 1 or more")
    directory = Path(output).expanduser()
    texts_hash = stored.hash_texts((text.id, text.joined) for text in texts)
    card = VectorsCard(
        source, kind, texts_hash, dtype, encoder.width, len(texts), shard_rows, encoder.described()
    )
    check_same("what is encoded", card.digest, "start all of them with the same flags")
    if is_first():
        stored.create(directory, card, (text.id for text in texts))
    wait_for_all("vectors created")
    own = range(jax.process_index(), card.shards, jax.process_count())
    missing = [shard for shard in own if not stored.is_sound(directory, card, shard)]
    total = sum(len(card.rows_of(shard)) for shard in missing)
    with Progress("encode", shows_progress, total) as bar:
        for shard in missing:
            rows = card.rows_of(shard)
            part = [text.joined for text in texts[rows.start : rows.stop]]
            found = encoder.encode(part, kind, bar.advance)
            stored.write_shard(directory, card, shard, found)
    wait_for_all("vectors encoded")
    return open_vectors(directory)


def encode_as_kept(
    encoder: Encoder,
    texts: Texts,
    directory: str | Path,
    *,
    source: str,
    shows_progress: bool = False,
) -> Vectors:
    """`encode_corpus` of passages for whoever takes their vectors in any form: what lies in the
    directory is used or gone on with, whatever dtype, size of shards and spelling of the source
    were asked for there.
    """
    form: dict[str, Any] = {"source": source}
    if known := stored.known_card(directory):
        form = {name: getattr(known, name) for name in ("source", "dtype", "shard_rows")}
    return encode_corpus(encoder, texts, directory, shows_progress=shows_progress, **form)


def search_corpus(
    encoder: Encoder,
    vectors: Vectors,
    queries: Texts,
    k: int,
    *,
    recall: float = 0.0,
    index: str = "",
    shows_progress: bool = False,
) -> "FoundRun":
    """Returns the best k passages of each query, as a run that makes its lines when they are asked
    for.

    Args:
      encoder: of the queries; must be the one that the vectors were made with.
      vectors: of the passages.
      queries: their texts.
      k: how many passages of each.
      recall: see `search_vectors`; 0 is exact.
      index: "" searches the vectors themselves; "flat", "ivf" or "hnsw" a FAISS index beside them,
        which is built if it is not there.
      shows_progress: whether to draw a bar.

    Raises UserError, naming each difference, for vectors of another encoder; and, before anything
    is encoded, for what cannot be asked.
    """
    check_wishes(k, recall)
    if index:
        check_index(index)
    if index and recall:
        raise UserError(
            f"approximate {recall:g} is a wish to the search of the vectors themselves, and index "
            f"{index!r} is searched in their place; leave one of the two out"
        )
    stored.check_encoder(vectors, encoder.described(), encoder.source.path)
    wanted = encoder.encode([text.joined for text in queries], QUERY)
    if index:
        found = find_index(vectors, vectors.directory, index, vectors.card.digest)
        hits = found.search(wanted, k)
    else:
        with Progress("search", shows_progress, len(vectors)) as bar:
            hits = search_vectors(
                wanted, vectors, k, encoder.mesh, recall=recall, advance=bar.advance
            )
    return FoundRun(vectors, queries.ids, hits)


class FoundRun(Mapping[str, Mapping[str, float]]):
    """Hits under the ids of queries and passages; of one query at a time."""

    def __init__(self, vectors: Vectors, queries: list[str], hits: Hits) -> None:
        self.vectors, self.hits = vectors, hits
        self._places = {name: place for place, name in enumerate(queries)}

    def __getitem__(self, query: str) -> dict[str, float]:
        place = self._places[query]
        ids, scores = self.hits.ids[place], self.hits.scores[place]
        is_found = ids >= 0
        names = self.vectors.ids(ids[is_found])
        return dict(zip(names, scores[is_found].tolist(), strict=True))

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)
