"""The README.md of an exported directory: what was trained on what, with which numbers.

Numbers come in as flat mappings and go out as tables, so that a new figure needs no change here.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from condenser_jax.hf.card import CARD_FILE, EncoderCard
from condenser_jax.models.config import BackboneConfig


@dataclasses.dataclass(frozen=True)
class Facts:
    """What is known about a run. Each mapping becomes a table, in its order."""

    objective: str  # "condenser"
    initial_weights: str = "random"  # or where they came from
    licence: str = ""  # SPDX name; it depends on corpus and initial weights: only the user knows it
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # source, counts
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # steps, batch, rate
    evaluation: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # held-out metrics
    versions: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # packages


QUERIES = (
    "**Queries have an encoder of their own**, in `query_encoder/`, a directory of the same kind: "
    "encode queries with it and passages with this one. `condenser_jax.Encoder` does so by itself."
)


def model_card(
    name: str,
    config: BackboneConfig,
    card: EncoderCard,
    facts: Facts,
    has_mlm_head: bool,
    has_onnx: bool = False,
    has_query_encoder: bool = False,
) -> str:
    """Returns the Markdown text of the model card."""
    trained = "fine-tuned" if card.is_fine_tuned else "pre-trained"
    sections = [
        front_matter(facts, "sentence-transformers", "sentence-similarity"),
        f"# {name}",
        f"A {config.model_type} encoder ({config.num_layers} layers x {config.hidden_size}, "
        f"vocabulary {config.vocab_size}) {trained} with the objective `{facts.objective}` by "
        f"condenser_jax. Initial weights: {facts.initial_weights}.",
        "## Use",
        _use(card, config),
        QUERIES if has_query_encoder else "",
        _masked_lm(card) if has_mlm_head else "",
        _onnx(card) if has_onnx else "",
        table("Data", facts.data),
        table("Training", facts.training),
        table("Evaluation", facts.evaluation),
        table("Versions", facts.versions),
        "## Licence",
        facts.licence or "Not stated. It depends on the corpus and on the initial weights.",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def front_matter(facts: Facts, library: str, pipeline: str) -> str:
    """What the hub reads: the library and the pipeline that the model is for, tags, licence."""
    lines = ["---", f"library_name: {library}", f"pipeline_tag: {pipeline}"]
    lines += ["tags:", "- condenser_jax", f"- {facts.objective}"]
    lines += [f"license: {facts.licence.lower()}"] if facts.licence else []
    return "\n".join([*lines, "---"])


def _use(card: EncoderCard, config: BackboneConfig) -> str:
    pooling = {
        "cls": "the last hidden state of the first token (CLS)",
        "mean": "the mean of the last hidden states over the attended tokens",
    }[card.pooling]
    length = "scaled to unit length" if card.normalize else "not normalised"
    prefixes = [
        f"{kind} are prefixed with `{prefix}`."
        for kind, prefix in (("Queries", card.query_prefix), ("Passages", card.passage_prefix))
        if prefix
    ]
    return "\n\n".join(
        [
            f"The vector of a text is {pooling}, {length}; vectors are compared by dot product. "
            f"Queries are cut to {card.query_max_length} tokens, passages to "
            f"{card.passage_max_length}. {' '.join(prefixes)}".strip(),
            "```python\nfrom sentence_transformers import SentenceTransformer\n\n"
            'vectors = SentenceTransformer("this directory").encode(["a text"])\n```',
            f"{_pooler(config)} `{CARD_FILE}` says all this to programs.",
        ]
    )


def _pooler(config: BackboneConfig) -> str:
    if config.model_type == "electra":
        return "No pooler is used and none is stored; `AutoModel` knows none either."
    return (
        "No pooler is used and none is stored: `AutoModel` reports `pooler.dense` as missing and "
        "fills it at random unless it is given `add_pooling_layer=False`; an MLM head it always "
        "reports as unexpected. The hidden states are the same either way."
    )


def _masked_lm(card: EncoderCard) -> str:
    if card.has_trained_mlm_head:
        return "`AutoModelForMaskedLM` loads the masked language model that was trained with it."
    return (
        "**The masked language model of this directory predicts nonsense.** Late MLM was off: the "
        "MLM head was trained on the states of the condenser head, never on those of this encoder. "
        "Use the vectors, not `AutoModelForMaskedLM`."
    )


def _onnx(card: EncoderCard) -> str:
    prefix = f"{card.passage_prefix!r} + " if card.passage_prefix else ""
    return "\n".join(
        [
            "`encoder.onnx` is the same encoder for ONNX Runtime: token ids to vectors, pooling "
            "and normalisation included.",
            "",
            "```python",
            "import numpy, onnxruntime, tokenizers",
            "",
            'tokenizer = tokenizers.Tokenizer.from_file("tokenizer.json")',
            f"tokenizer.enable_truncation({card.passage_max_length})",
            f'ids = numpy.array([tokenizer.encode({prefix}"a text").ids])',
            'session = onnxruntime.InferenceSession("encoder.onnx")',
            'feeds = {"input_ids": ids, "attention_mask": numpy.ones_like(ids)}',
            "vectors = session.run(None, feeds)[0]",
            "```",
        ]
    )


def table(title: str, rows: Mapping[str, Any]) -> str:
    """A section with a table of keys and values; "" without any."""
    if not rows:
        return ""
    lines = [f"| {key} | {_show(value)} |" for key, value in rows.items()]
    return "\n".join([f"## {title}", "", "| | |", "|---|---|", *lines])


def _show(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value).replace("|", "\\|").replace("\n", " ")
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"
