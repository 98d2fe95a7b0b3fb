"""Writes a fine-tuned classifier as a directory that `AutoModelForSequenceClassification` and the
pipelines of transformers load, all or nothing.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from condenser_jax.hf import names
from condenser_jax.hf.card import CARD_FILE, EncoderCard, write_card
from condenser_jax.hf.config import config_to_hf
from condenser_jax.hf.export import check_nothing_is_lost, copy_tokenizer, exported
from condenser_jax.hf.load import WEIGHT_FILES
from condenser_jax.hf.model_card import Facts, front_matter, table
from condenser_jax.models.config import BackboneConfig

ARCHITECTURES = {
    "bert": "BertForSequenceClassification",
    "roberta": "RobertaForSequenceClassification",
    "electra": "ElectraForSequenceClassification",
}
SCORE = "score"  # the one label of a regression


class Head(NamedTuple):
    """What a classifier predicts."""

    task: str
    labels: tuple[str, ...]  # by id; (): a score
    dropout: float | None  # None: that of the hidden states


def export_classifier(
    params: Mapping[str, Any],
    config: BackboneConfig,
    head: Head,
    tokenizer_directory: str | Path,
    output: str | Path,
    card: EncoderCard,
    facts: Facts,
    check: Callable[[Path], None] = lambda directory: None,
) -> Path:
    """Writes backbone, pooler (of BERT) and classifier to `output`; as `export` does otherwise."""
    import safetensors.numpy

    output = Path(output).expanduser().resolve()
    groups = [group for group in ("backbone", "pooler", "classifier") if group in params]
    with exported(output, config, card) as folder:
        copy_tokenizer(folder, Path(tokenizer_directory))
        write_card(card, folder / CARD_FILE)
        tensors = names.to_hf(params, config, groups)
        safetensors.numpy.save_file(tensors, folder / WEIGHT_FILES[0], metadata={"format": "pt"})
        fields = json.dumps(classifier_config(config, head), indent=2)
        (folder / "config.json").write_text(fields + "\n", encoding="utf-8")
        _tell_tokenizer(folder / "tokenizer_config.json", config, card)
        text = classifier_card(output.name, config, head, facts)
        (folder / "README.md").write_text(text, encoding="utf-8")
        check_nothing_is_lost(output, folder)
        check(folder)
    return output


def _tell_tokenizer(path: Path, config: BackboneConfig, card: EncoderCard) -> None:
    """Tells a tokenizer how long the texts were that the model learned from, and one of BERT's kind
    that its model, a RoBERTa, has no token types.
    """
    fields = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    fields["model_max_length"] = card.passage_max_length
    if config.type_vocab_size == 1:
        fields["model_input_names"] = ["input_ids", "attention_mask"]
    path.write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")


def classifier_config(config: BackboneConfig, head: Head) -> dict[str, Any]:
    """The fields of `config.json`."""
    labels = head.labels or (SCORE,)
    return config_to_hf(config, has_mlm_head=False) | {
        "architectures": [ARCHITECTURES[config.model_type]],
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
        "problem_type": "single_label_classification" if head.labels else "regression",
        "classifier_dropout": head.dropout,
    }


def logits_of(directory: Path, ids: np.ndarray) -> np.ndarray | None:
    """What transformers computes of token ids [B, L] with an exported classifier: [B, C]; None
    where torch is not installed.
    """
    try:
        import torch
    except ImportError:
        return None
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(directory, trust_remote_code=False)
    with torch.no_grad():
        return model.eval()(torch.tensor(ids)).logits.numpy()


def classifier_card(name: str, config: BackboneConfig, head: Head, facts: Facts) -> str:
    """The README.md: what it predicts, how it is used, with which numbers."""
    what = f"one of {', '.join(head.labels)}" if head.labels else "a score"
    sections = [
        front_matter(facts, "transformers", "text-classification"),
        f"# {name}",
        f"This {config.model_type} encoder ({config.num_layers} layers x {config.hidden_size}) was "
        f"fine-tuned on the task `{head.task}` by condenser_jax: it predicts {what}. Initial "
        f"weights: {facts.initial_weights}.",
        "## Use",
        "```python\nfrom transformers import pipeline\n\n"
        'classify = pipeline("text-classification", "this directory")\n'
        'classify({"text": "a text", "text_pair": "of pairs the second text"})\n```',
        table("Data", facts.data),
        table("Training", facts.training),
        table("Evaluation", facts.evaluation),
        table("Versions", facts.versions),
        "## Licence",
        facts.licence or "Not stated. It depends on the data and on the initial weights.",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"
