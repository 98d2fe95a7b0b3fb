"""The encoder card: what one must know to turn texts into vectors as the model was meant to.

Weights alone do not say which pooling, prefixes or lengths go with them. The card travels in every
work directory and every exported directory as JSON.
"""

import dataclasses
import json
from pathlib import Path

from condenser_jax.errors import UserError, choose
from condenser_jax.whole_files import written_whole

CARD_FILE = "encoder_card.json"
POOLINGS = ("cls", "mean")


@dataclasses.dataclass(frozen=True)
class EncoderCard:
    """How texts become vectors."""

    pooling: str = "cls"  # the last hidden state of the CLS, no pooler; "mean" over attended tokens
    normalize: bool = False  # to unit length; vectors are compared by their dot product either way
    query_prefix: str = ""
    passage_prefix: str = ""
    query_max_length: int = 128  # tokens, specials included
    passage_max_length: int = 128
    tokenizer_hash: str = ""
    has_trained_mlm_head: bool = True  # False without late MLM: the masked LM predicts nonsense
    is_fine_tuned: bool = False  # on labels, as a retriever or for similarity; not from text alone

    def __post_init__(self) -> None:
        choose("pooling", self.pooling, POOLINGS)


def write_card(card: EncoderCard, path: str | Path) -> None:
    """Writes the card as JSON."""
    text = json.dumps(dataclasses.asdict(card), indent=2, ensure_ascii=False)
    with written_whole(path) as half:
        half.write_text(text + "\n", encoding="utf-8")


def read_card(path: str | Path) -> EncoderCard:
    """Reads a card; raises UserError if it is missing, broken, or has unknown or bad fields."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing: nothing says how this encoder pools; export it again"
        ) from None
    except (OSError, ValueError) as e:
        raise UserError(f"{path} is not readable JSON ({e}); export the encoder again") from e
    if not isinstance(content, dict):
        raise UserError(
            f"{path} is no encoder card but a {type(content).__name__}; export it again"
        )
    fields = {field.name: field for field in dataclasses.fields(EncoderCard)}
    for name, value in content.items():
        kind = type(fields[choose(f"field in {path}", name, fields)].default)
        if type(value) is not kind:
            raise UserError(f"{path} has {name} {value!r}, expected {kind.__name__}; correct it")
    return EncoderCard(**content)
