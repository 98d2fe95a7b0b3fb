"""How much of a corpus masking never reaches: rows in which no word fits the budget.

To a byte-level BPE, text without spaces (Chinese, Japanese, a minified file) is one word, and words
are never cut, so that such rows train no masked token. BERT's own rule splits CJK characters.
"""

import numpy as np

from condenser_jax.data.fixed_batches import fixed_batches
from condenser_jax.data.masking import WORDS
from condenser_jax.data.rows import SpanStore
from condenser_jax.data.vocabulary import Vocabulary

SAMPLED_ROWS = 1000
TOLERATED_SHARE = 0.01  # very short rows lose their mask in any corpus


def unmaskable_share(
    spans: SpanStore,
    vocabulary: Vocabulary,
    max_length: int,
    mask_rate: float,
    seed: int,
    masking: str = WORDS,
) -> float:
    """Returns the share of rows without a masked token, of up to SAMPLED_ROWS spans evenly spread.

    Raises UserError for a store without spans.
    """
    total = len(spans.offsets) - 1
    sample = np.unique(np.linspace(0, total - 1, SAMPLED_ROWS).round().astype(np.int64))
    how = len(sample), max_length, mask_rate, seed, masking
    (batch,) = fixed_batches(spans, sample, vocabulary, *how)
    return 1.0 - float(batch["masked_weights"].any(axis=1).mean())
