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
    teacher: str = ""  # of a student: who taught it
    licence: str = ""  # SPDX name; it depends on corpus, start and teacher: only the user knows it
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # source, counts
    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # steps, batch, rate
    evaluation: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # held-out metrics
    versions: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # packages


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
    taught = f" It learned from a teacher, {facts.teacher}." if facts.teacher else ""
    sections = [
        front_matter(facts, "sentence-transformers", "sentence-similarity"),
        f"# {name}",
        f"A {config.model_type} encoder ({config.num_layers} layers x {config.hidden_size}, "
        f"vocabulary {config.vocab_size}) {trained} with the objective `{facts.objective}` by "
        f"condenser_jax. Initial weights: {facts.initial_weights}.{taught}",
        "## Use",
        _use(card, has_query_encoder),
        f"{_pooler(config, has_mlm_head)} `{CARD_FILE}` says all this to programs.",
        _masked_lm(card) if has_mlm_head else "",
        _onnx(card, has_query_encoder) if has_onnx else "",
        table("Data", facts.data),
        table("Training", facts.training),
        table("Evaluation", facts.evaluation),
        table("Versions", facts.versions),
        "## Licence",
        facts.licence or _unknown_licence(facts),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _unknown_licence(facts: Facts) -> str:
    teacher = ", and on that of the teacher" if facts.teacher else ""
    return f"Not stated. It depends on those of the corpus and of the initial weights{teacher}."


def front_matter(facts: Facts, library: str, pipeline: str) -> str:
    """What the hub reads: the library and the pipeline that the model is for, tags, licence."""
    lines = ["---", f"library_name: {library}", f"pipeline_tag: {pipeline}"]
    lines += ["tags:", "- condenser_jax", f"- {facts.objective}"]
    lines += [f"license: {facts.licence.lower()}"] if facts.licence else []
    return "\n".join([*lines, "---"])


def _use(card: EncoderCard, has_query_encoder: bool) -> str:
    pooling = {
        "cls": "the last hidden state of the first token (CLS)",
        "mean": "the mean of the last hidden states over the attended tokens",
    }[card.pooling]
    length = "scaled to unit length" if card.normalize else "not normalised"
    said = [
        f"The vector of a text is {pooling}, {length}; vectors are compared by dot product.",
        f"Queries are cut to {card.query_max_length} tokens, "
        f"passages to {card.passage_max_length}.",
    ]
    for kind, prefix in (("Queries", card.query_prefix), ("Passages", card.passage_prefix)):
        said += [f"{kind} are prefixed with `{prefix}`."] if prefix else []
    if has_query_encoder:
        said.append("Queries have an encoder of their own in `query_encoder/`, of the same kind.")
    return "\n\n".join(
        [
            " ".join(said),
            "```python\nfrom condenser_jax import Encoder\n\n"
            'encoder = Encoder.load("this directory")\n'
            'queries = encoder.encode(["a query"], "query")\n'
            'scores = queries @ encoder.encode(["a passage"]).T\n```',
            "The same with sentence-transformers:",
            _sentence_transformers(card, has_query_encoder),
        ]
    )


def _sentence_transformers(card: EncoderCard, has_query_encoder: bool) -> str:
    """Its `encode` knows no prefixes, and a directory of it has one length, that of passages."""
    lines = ["from sentence_transformers import SentenceTransformer", ""]
    if not has_query_encoder and card.query_max_length == card.passage_max_length:
        lines.append('queries = passages = SentenceTransformer("this directory")')
    else:
        folder = "this directory/query_encoder" if has_query_encoder else "this directory"
        lines += [
            'passages = SentenceTransformer("this directory")',
            f'queries = SentenceTransformer("{folder}")',
            f"queries.max_seq_length = {card.query_max_length}",
        ]
    lines.append(
        'scores = queries.encode_query(["a query"]) @ passages.encode_document(["a passage"]).T'
    )
    return "\n".join(["```python", *lines, "```"])


def _pooler(config: BackboneConfig, has_mlm_head: bool) -> str:
    if config.model_type == "electra":
        return "No pooler is used and none is stored; `AutoModel` knows none either."
    head = "; an MLM head it always reports as unexpected" if has_mlm_head else ""
    return (
        "No pooler is used and none is stored: `AutoModel` reports `pooler.dense` as missing and "
        f"fills it at random unless it is given `add_pooling_layer=False`{head}. The hidden states "
        "are the same either way."
    )


def _masked_lm(card: EncoderCard) -> str:
    if card.has_trained_mlm_head:
        return "`AutoModelForMaskedLM` loads the masked language model that was trained with it."
    return (
        "**The masked language model of this directory predicts nonsense.** Its MLM head never "
        "learned to fill masks from the states of this encoder: late MLM was off, or masked words "
        "had been replaced by others. Use the vectors, not `AutoModelForMaskedLM`."
    )


def _onnx(card: EncoderCard, has_query_encoder: bool) -> str:
    folder = "query_encoder" if has_query_encoder else "."
    query, passage = card.query_prefix + "a query", card.passage_prefix + "a passage"
    files = "`encoder.onnx` is the same encoder"
    if has_query_encoder:
        files = "`encoder.onnx` and `query_encoder/encoder.onnx` are the same encoders"
    return "\n".join(
        [
            f"{files} for ONNX Runtime: token ids to vectors, pooling and normalisation included.",
            "",
            "```python",
            "import numpy, onnxruntime, tokenizers",
            "",
            "",
            "def encode(text, folder, length):",
            '    tokenizer = tokenizers.Tokenizer.from_file(f"{folder}/tokenizer.json")',
            "    tokenizer.enable_truncation(length)",
            "    ids = numpy.array([tokenizer.encode(text).ids])",
            '    session = onnxruntime.InferenceSession(f"{folder}/encoder.onnx")',
            '    return session.run(None, {"input_ids": ids, "attention_mask": ids * 0 + 1})[0]',
            "",
            "",
            f"query = encode({query!r}, {folder!r}, {card.query_max_length})",
            f"passage = encode({passage!r}, '.', {card.passage_max_length})",
            "scores = query @ passage.T",
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
