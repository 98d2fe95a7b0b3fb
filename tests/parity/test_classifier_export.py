"""Exported classifiers, loaded by transformers, predict what we predict.

Reference: AutoModelForSequenceClassification and a pipeline, torch on CPU, float32, tolerance 1e-5.
Negative control: a perturbed weight of the head must differ.
"""

import dataclasses
import json

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="compares with torch, which is not installed")

from condenser_jax.data.tokenization import train_wordpiece  # noqa: E402
from condenser_jax.errors import UserError  # noqa: E402
from condenser_jax.exporting import sample_ids  # noqa: E402
from condenser_jax.feeds.pairs import encode_pairs  # noqa: E402
from condenser_jax.feeds.tokens import Tokens  # noqa: E402
from condenser_jax.glue.tasks import TASKS  # noqa: E402
from condenser_jax.hf.card import EncoderCard  # noqa: E402
from condenser_jax.hf.classifier_export import (  # noqa: E402
    Head,
    export_classifier,
    logits_of,
)
from condenser_jax.hf.load import load_checkpoint  # noqa: E402
from condenser_jax.hf.model_card import Facts  # noqa: E402
from condenser_jax.models.config import ComputeConfig  # noqa: E402
from condenser_jax.objectives import classifier  # noqa: E402
from tests.helpers import random_params, tiny_backbone  # noqa: E402

FIRST = ["the cat sat on a mat", "it rained"]
SECOND = ["it rained all day", "the mat sat on the cat all day long"]
CASES = [("bert", "mnli"), ("bert", "stsb"), ("roberta", "rte"), ("electra", "rte")]
LENGTH = 20


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONDENSER_JAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        where = tmp_path_factory.mktemp("tokenizer")
        train_wordpiece([*FIRST * 20, *SECOND * 20], 80, where, LENGTH)
        yield Tokens.load(where)


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def exported(request, tokens, tmp_path_factory):
    """(directory, task, our logits)."""
    model_type, task = request.param
    config = tiny_backbone(
        vocab_size=tokens.vocabulary.size,
        model_type=model_type,
        num_layers=2,
        type_vocab_size=1 if model_type == "roberta" else 2,
        pad_token_id=tokens.vocabulary.pad_id,
        embedding_size=8 if model_type == "electra" else None,
    )
    options = classifier.ClassifierConfig(task=task)
    objective = classifier.build(config, ComputeConfig(), options)
    params = random_params(objective)
    head = Head(task, TASKS[task].labels, None)
    card, facts = EncoderCard(passage_max_length=16, query_max_length=16), Facts("classifier")
    facts = dataclasses.replace(facts, evaluation={"heldout/accuracy": 0.75})
    output = tmp_path_factory.mktemp(model_type) / "model"
    export_classifier(params, config, head, tokens.directory, output, card, facts)
    encoded = encode_pairs(tokens, (FIRST, SECOND), LENGTH, "test")
    batch = encoded.rows(np.arange(2), LENGTH, tokens.vocabulary.pad_id)
    return output, TASKS[task], np.asarray(objective.predict["logits"](params, {}, batch))


def test_what_an_export_is_checked_by_tells_it_from_another(exported):
    """Padding within a text has another position in transformers: no id of it is compared."""
    directory, task, _ = exported
    checkpoint = load_checkpoint(directory, ("backbone", "pooler"))
    config, ids = checkpoint.config, sample_ids(checkpoint.config)
    options = classifier.ClassifierConfig(task=task.name)
    objective = classifier.build(config, ComputeConfig(), options)
    params = random_params(objective)  # those that were written

    def apart(ids):
        ones = np.ones_like(ids)
        batch = {"input_ids": ids, "attention_mask": ones, "token_type_ids": 0 * ids}
        ours = objective.predict["logits"](params, {}, batch)
        return np.abs(logits_of(directory, ids) - np.asarray(ours)).max()

    assert config.pad_token_id not in ids
    assert apart(ids) < 1e-5
    if config.model_type == "roberta":
        assert apart(np.arange(ids.size)[None] % config.vocab_size) > 1e-3


def _model(directory):
    from transformers import AutoModelForSequenceClassification

    model, report = AutoModelForSequenceClassification.from_pretrained(
        directory, output_loading_info=True
    )
    assert not any(report.values())
    return model.eval()


def _logits(model, directory):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(directory)
    inputs = tokenizer(FIRST, SECOND, padding=True, return_tensors="pt")
    with torch.no_grad():
        return model(**inputs).logits.numpy()


def test_auto_model_for_sequence_classification_computes_our_logits(exported):
    directory, _, ours = exported
    model = _model(directory)
    kind = {"bert": "Bert", "roberta": "Roberta", "electra": "Electra"}[model.config.model_type]
    assert type(model).__name__ == f"{kind}ForSequenceClassification"
    assert np.abs(_logits(model, directory) - ours).max() < 1e-5
    with torch.no_grad():
        list(model.classifier.parameters())[0][0, 3] += 0.1
    assert np.abs(_logits(model, directory) - ours).max() > 1e-4


def test_a_pipeline_says_our_labels(exported):
    import transformers

    directory, task, ours = exported
    classify = transformers.pipeline("text-classification", str(directory))
    found = classify([{"text": a, "text_pair": b} for a, b in zip(FIRST, SECOND, strict=True)])
    if task.is_regression:
        expected = [("score", score) for score in ours[:, 0]]
    else:
        shares = np.exp(ours - ours.max(1, keepdims=True))
        shares /= shares.sum(1, keepdims=True)
        expected = [(task.labels[row.argmax()], row.max()) for row in shares]
    for one, (label, score) in zip(found, expected, strict=True):
        assert one["label"] == label and one["score"] == pytest.approx(score, abs=1e-5)


def test_texts_are_cut_where_they_were_cut_in_training(exported):
    from transformers import AutoTokenizer

    directory, _, _ = exported
    tokenizer = AutoTokenizer.from_pretrained(directory)
    assert len(tokenizer("the cat " * 99, truncation=True)["input_ids"]) == 16


def test_the_config_and_the_card_say_what_is_predicted(exported):
    directory, task, _ = exported
    config = json.loads((directory / "config.json").read_text())
    labels = task.labels or ("score",)
    assert config["id2label"] == {str(i): label for i, label in enumerate(labels)}
    assert config["label2id"] == {label: i for i, label in enumerate(labels)}
    kind = "regression" if task.is_regression else "single_label_classification"
    assert config["problem_type"] == kind
    text = (directory / "README.md").read_text()
    assert "pipeline_tag: text-classification" in text and "library_name: transformers" in text
    assert f"fine-tuned on the task `{task.name}`" in text
    assert "| heldout/accuracy | 0.75 |" in text


def test_an_export_is_a_start_for_another_task_without_its_classifier(exported):
    directory, _, _ = exported
    checkpoint = load_checkpoint(directory, ("backbone", "pooler"))
    expected = {"backbone", "pooler"} if checkpoint.config.has_pooler else {"backbone"}
    assert set(checkpoint.params) == expected
    assert any("ignored" in note and "classifier" in note for note in checkpoint.notes)
    assert jax.tree.leaves(load_checkpoint(directory, ("backbone",)).params)


def test_another_directory_is_not_replaced(exported, tokens, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine.txt").write_text("mine")
    config = tiny_backbone()
    with pytest.raises(UserError, match="exists and is not an earlier export"):
        export_classifier(
            {},
            config,
            Head("rte", (), None),
            tokens.directory,
            tmp_path / "model",
            EncoderCard(passage_max_length=16, query_max_length=16),
            Facts("classifier"),
        )
