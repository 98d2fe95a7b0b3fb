"""What may be said about preparing data: one frozen record, checked at birth."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from condenser_jax.data.documents import SourceOptions
from condenser_jax.data.spans import SpanOptions
from condenser_jax.errors import UserError


@dataclass(frozen=True)
class PrepareConfig:
    """What to prepare; `directory` is the folder under which prepared data are kept and found
    again.
    """

    source: str | Sequence[tuple[str, float]] = "docstrings:"  # text, or [(spec, weight), ...]
    options: SourceOptions = field(default_factory=SourceOptions)
    tokenizer: str = ""  # a directory or hub id; "" trains a WordPiece on the training part
    vocab_size: int = 8192  # of a trained tokenizer
    recipe: str = "sentences"
    max_length: int = 128  # with [CLS] and [SEP]
    short_probability: float = 0.1
    sentences_per_span: int = 3
    min_tokens: int = 6  # shorter spans are dropped, and counted
    heldout_share: float = 0.02  # of the groups of documents
    seed: int = 0
    workers: int = 2  # processes; 1 works in this one. The result does not depend on it
    directory: str = "prepared"

    def __post_init__(self) -> None:
        if not 0 <= self.heldout_share < 1:
            raise UserError(f"heldout_share {self.heldout_share:g} is not within 0 and 1")
        body = self.span_options.body
        if not 1 <= self.min_tokens <= body:
            raise UserError(
                f"min_tokens {self.min_tokens} does not fit spans of at most {body} tokens "
                f"(max_length {self.max_length}); use 1 to {body}"
            )

    @property
    def span_options(self) -> SpanOptions:
        """The part that decides the cuts."""
        return SpanOptions(
            self.recipe,
            self.max_length,
            self.short_probability,
            self.seed,
            self.sentences_per_span,
        )
