"""The recipe of launch/mine.py: a corpus is encoded and searched with the training queries, what is
found becomes hard negatives, beside those of BM25 or without them, and a training file.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from condenser_jax.data.progress import Progress
from condenser_jax.dense import encode_as_kept, search_corpus
from condenser_jax.encoder import Encoder
from condenser_jax.errors import UserError
from condenser_jax.retrieval.bm25 import Bm25
from condenser_jax.retrieval.collection import CollectionOptions
from condenser_jax.retrieval.mining import Mined, MiningOptions, Ranking, join, mine
from condenser_jax.retrieval.training_texts import TrainingTexts, open_training, write_tevatron
from condenser_jax.whole_files import check_file

ENDINGS = (".jsonl", ".jsonl.gz")


def mine_file(
    output: str | Path,
    data: str,
    split: str,
    options: MiningOptions,
    *,
    encoder: Encoder | None = None,
    vectors: str | Path = "",
    uses_bm25: bool = False,
    forced: bool = False,
    reading: CollectionOptions | None = None,
    shows_progress: bool = False,
) -> str:
    """Writes a training file with hard negatives; returns what there is in it, for people.

    Args:
      output: of the file, .jsonl or .jsonl.gz; "tevatron:<output>" opens it.
      data: what is trained on, as `open_training` reads it; negatives that it has already stay.
      split: of a collection.
      options: how many of what is found, and which; each ranking gives as many.
      encoder: finds negatives by its vectors; None if BM25 alone does.
      vectors: directory of the encoder's vectors of the corpus, read, gone on with, or made.
      uses_bm25: whether BM25 finds negatives (too).
      forced: mines with an encoder that was never fine-tuned.
      reading: how the data are read.
      shows_progress: whether to draw bars.

    Raises UserError for nothing to mine with, an encoder that was never fine-tuned, vectors of
    another encoder or corpus, and data without judgements.
    """
    check_wishes(output, encoder is not None or uses_bm25)
    if encoder is not None and not forced:
        check_fine_tuned(encoder)
    texts = open_training(data, split, reading)
    found: dict[str, Mined] = {}
    if encoder is not None:
        ranking = rank_by_vectors(encoder, texts, vectors, data, options.depth, shows_progress)
        found["the model's"] = mine(ranking, texts, options)
    if uses_bm25:
        found["BM25's"] = mine(rank_by_words(texts, options.depth, shows_progress), texts, options)
    negatives = join(texts.negatives, *(mined.negatives for mined in found.values()))
    write_tevatron(output, texts._replace(negatives=negatives))
    said = summary(np.diff(negatives.offsets), found)
    if texts.positives.scores is not None:
        said += f"\nthe scores of {data} are left out: what is mined has none"
    return said


def check_wishes(output: str | Path, has_ranking: bool) -> None:
    """Raises UserError, with both mistakes where there are two, for an output that is no training
    file and for nothing to mine with; and for an output that cannot be written.
    """
    wrong = []
    if not str(output).endswith(ENDINGS):
        wrong.append(f"--output={output} names no training file; expected {' or '.join(ENDINGS)}")
    if not has_ranking:
        wrong.append("there is nothing to mine with; name --model, or --bm25, or both")
    if wrong:
        raise UserError(". Also, ".join(wrong))
    check_file(output, "--output")


def check_fine_tuned(encoder: Encoder) -> None:
    """Raises UserError for an encoder whose card does not say that it was fine-tuned."""
    if not encoder.card.is_fine_tuned:
        raise UserError(
            f"{encoder.source.path} was never fine-tuned, so what it ranks high is arbitrary and "
            "makes poor negatives; mine for a first retriever with --bm25 alone and fine-tune it, "
            "or mine with this one all the same: --force"
        )


def rank_by_vectors(
    encoder: Encoder,
    texts: TrainingTexts,
    directory: str | Path,
    source: str,
    depth: int,
    shows_progress: bool,
) -> Ranking:
    """The best passages of each query by dot product; vectors of the passages are kept."""
    passages = encode_as_kept(
        encoder, texts.passages, directory, source=source, shows_progress=shows_progress
    )
    run = search_corpus(encoder, passages, texts.queries, depth, shows_progress=shows_progress)
    return Ranking(*run.hits)


def rank_by_words(texts: TrainingTexts, depth: int, shows_progress: bool) -> Ranking:
    """The best passages of each query by BM25."""
    with Progress("bm25", shows_progress, len(texts.queries)) as bar:
        return Ranking(*Bm25(texts.passages).rank(texts.queries, depth, bar.advance))


def summary(counts: np.ndarray, found: Mapping[str, Mined]) -> str:
    """What a training file holds, by queries, with what each ranking left out."""
    lines = [f"{len(counts):,} queries with {counts.mean():.1f} hard negatives each"]
    if not counts.all():
        lines[0] += f"; {int((counts == 0).sum()):,} have none"
    for name, mined in found.items():
        each = np.diff(mined.negatives.offsets).mean()
        line = f"{name}: {each:.1f} each; left out: {mined.copies:,} near-copies of positives"
        far = f", {mined.too_near:,} that score too near to one" if mined.too_near else ""
        lines.append(line + far)
    return "\n".join(lines)
