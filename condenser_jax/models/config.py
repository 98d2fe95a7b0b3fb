"""What an encoder is (architecture) and how it is computed (dtype, scan, remat), kept apart.

The architecture travels with the weights; the form of the computation is a choice of the run.
"""

import dataclasses

VOCABULARY_MULTIPLE = (
    128  # so that a padded vocabulary divides by any tensor * fsdp mesh and by hardware tiles
)


@dataclasses.dataclass(frozen=True)
class BackboneConfig:
    """Architecture of a BERT-type encoder, in the field names of this project.

    `hf/names.py` translates it from and to a Hugging Face `config.json`.
    """

    vocab_size: int  # real entries; the table is padded to `padded_vocab_size`
    model_type: str = "bert"  # "bert", "roberta", or "electra": embeddings may be factorised
    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    intermediate_size: int = 3072
    max_positions: int = 512  # rows of the position table (RoBERTa: 2 more than the longest text)
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.1
    initializer_range: float = 0.02
    pad_token_id: int = 0
    embedding_size: int | None = None  # E, of ELECTRA's tables; None: hidden_size

    def __post_init__(self) -> None:
        assert self.embedding_size is None or self.model_type == "electra", (
            "factorised embeddings are ELECTRA's"
        )

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the word table: `vocab_size` rounded up to a multiple of 128."""
        return -(-self.vocab_size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE

    @property
    def embedding_width(self) -> int:
        """E, the width of the embedding tables and of the states before the vocabulary product."""
        return self.embedding_size or self.hidden_size

    @property
    def head_width(self) -> int:
        """K, the width of one attention head."""
        return self.hidden_size // self.num_heads

    @property
    def has_pooler(self) -> bool:
        """Whether checkpoints of this type may hold a pooler: of BERT alone is it the encoder's."""
        return self.model_type == "bert"

    @property
    def position_offset(self) -> int:
        """Row of the position table that the first token reads (RoBERTa: after its padding id)."""
        return self.pad_token_id + 1 if self.model_type == "roberta" else 0

    @property
    def max_length(self) -> int:
        """The longest text, specials included, that the position table can number."""
        return self.max_positions - self.position_offset


@dataclasses.dataclass(frozen=True)
class ComputeConfig:
    """The form of the computation. None of these changes the result, only its cost."""

    dtype: str = "float32"  # of matrix products: float32, bfloat16 (GPU, TPU) or float64 (tests)
    scan_layers: bool = (
        False  # one compiled layer run N times (short compilation) or N layers (faster on CPU)
    )
    remat: bool = (
        False  # recompute each layer in the backward pass: less memory, a third more operations
    )
    lean: bool = (
        True  # compute only the positions that somebody reads; False is the plain reference form
    )
    chunk_rows: int = 0  # rows of the batch encoded at a time (gradient caching); 0: all of them

    @property
    def wide(self) -> "ComputeConfig":
        """The same in at least float32: for a product whose result is a few numbers of each text,
        of which bfloat16 would keep 8 bits (of a score of 4 the next one is 4.03).
        """
        return self if self.dtype == "float64" else dataclasses.replace(self, dtype="float32")

    def chunks_of(self, rows: int) -> int:
        """How many chunks a batch of `rows` falls into."""
        if not 0 < self.chunk_rows < rows:
            return 1
        assert rows % self.chunk_rows == 0, f"{self.chunk_rows} does not divide {rows} rows"
        return rows // self.chunk_rows
