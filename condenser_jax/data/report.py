"""What `prepare` found, as a card (JSON) and as a page for people."""

from typing import Any

import numpy as np

from condenser_jax.data.spans import SPECIALS_PER_SPAN
from condenser_jax.data.splits import SplitCounts

HISTOGRAM_BINS = 8
BAR_WIDTH = 40


def describe_split(counts: SplitCounts, max_length: int) -> dict[str, Any]:
    """Returns counts, padding and histogram of one split; lengths are tokens without specials."""
    body = max_length - SPECIALS_PER_SPAN
    lengths = np.arange(len(counts.lengths))
    spans, tokens = int(counts.lengths.sum()), int((lengths * counts.lengths).sum())
    real = int(((np.minimum(lengths, body) + SPECIALS_PER_SPAN) * counts.lengths).sum())
    return {
        "documents": counts.documents,
        "documents_with_two_spans": counts.documents_with_two_spans,
        "spans": spans,
        "tokens": tokens,
        "tokens_per_span": round(tokens / max(spans, 1), 2),
        "padding_share": round(1 - real / (spans * max_length), 4) if spans else 0.0,
        "histogram": _histogram(counts.lengths, body),
    }


def _histogram(counts: np.ndarray, body: int) -> list[list[int]]:
    """Returns [first length, last length, number of spans] per bin; the last bin holds what is
    cut.
    """
    edges = sorted(
        {1 + round(i * body / HISTOGRAM_BINS) for i in range(HISTOGRAM_BINS)} | {body + 1}
    )
    bins = [[a, b - 1, int(counts[a:b].sum())] for a, b in zip(edges[:-1], edges[1:], strict=True)]
    return bins + [[body + 1, max(body + 1, len(counts) - 1), int(counts[body + 1 :].sum())]]


def report(card: dict[str, Any]) -> str:
    """Returns a card as text for people."""
    documents, spans, bad = card["documents"], card["spans"], card["bad_records"]
    tokenizer, near = card["tokenizer"], card["near_copies"]
    lines = [
        f"source         {card['spec']}",
        f"tokenizer      {tokenizer['vocab_size']} tokens, hash {tokenizer['hash'][:12]}",
        f"recipe         {card['recipe']['recipe']}, max_length {card['recipe']['max_length']}",
        f"documents      {documents['read']:,} read, {documents['duplicates']:,} exact copies "
        f"dropped, {documents['without_spans']:,} without a span",
        f"spans          {spans['cut']:,} cut, {spans['too_short']:,} too short, "
        f"{spans['duplicates']:,} exact copies dropped",
        f"bad records    {bad['count']:,} of {bad['records']:,}",
        *(f"               {place}" for place in bad["first"]),
    ]
    for name, split in card["splits"].items():
        lines.append(
            f"{name:<14} {split['documents']:,} documents ({split['documents_with_two_spans']:,} "
            f"with two spans or more), {split['spans']:,} spans, {split['tokens']:,} tokens, "
            f"{split['tokens_per_span']:.1f} a span, {split['padding_share']:.1%} padding"
        )
    lines.append(
        f"near copies    {near['mean_share']:.1%} of held-out 8-grams occur in train; "
        f"{near['over_a_fifth']:.1%} of held-out spans share over a fifth"
    )
    lines += ["", "lengths of train spans, in tokens", *_bars(card["splits"]["train"]["histogram"])]
    lines += ["", "ten spans", *(f"  {text}" for text in card["preview"])]
    return "\n".join(lines)


def _bars(histogram: list[list[int]]) -> list[str]:
    most = max(1, *(count for _, _, count in histogram))
    return [
        f"  {first:>5}-{last:<5} {count:>10,} {'#' * round(BAR_WIDTH * count / most)}".rstrip()
        for first, last, count in histogram
    ]
