"""From a task's folder to a run: what is trained on, what is measured, what is refused."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from condenser_jax.build import build
from condenser_jax.errors import UserError
from condenser_jax.evaluation.classification import Part, classification_evaluator
from condenser_jax.feeds.glue import GLUE, hashes_of, read_splits
from condenser_jax.glue.records import Examples
from condenser_jax.glue.tasks import TASKS
from condenser_jax.methods import configure
from condenser_jax.training.sharding import make_mesh

WET, DRY = "rain storm flood river".split(), "sand dust desert drought".split()


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONDENSER_JAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """RTE about the weather; of MNLI one dev set is smaller than the other."""
    root = tmp_path_factory.mktemp("glue")
    pairs = [
        {"sentence1": f"there is {a}", "sentence2": f"look at the {b}", "label": int(same)}
        for words in (WET, DRY)
        for a in words
        for other, same in ((words, 0), (DRY if words is WET else WET, 1))
        for b in other
    ]
    mnli = [
        {"premise": r["sentence1"], "hypothesis": r["sentence2"], "label": r["label"]}
        for r in pairs
    ]
    files = {
        "rte/train": pairs,
        "rte/validation": pairs[::3],
        "mnli/train": mnli,
        "mnli/validation_matched": mnli[::2],
        "mnli/validation_mismatched": mnli[::5],
        "mrpc/train": pairs,
    }
    for name, records in files.items():
        path = root / f"{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return root


@pytest.fixture(scope="module")
def config(folder):
    """(overrides of sections) -> a tiny classifier."""

    def make(**sections):
        values = {
            "data": {"source": str(folder), "vocab_size": 80, "max_length": 16},
            "model": {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "intermediate_size": 32},
            "objective": {"name": "classifier", "task": "rte"},
            "training": {"steps": 4, "batch_size": 8},
            "evaluation": {"batch_size": 8},
        }
        for name, changes in sections.items():
            values.setdefault(name, {}).update(changes)
        return configure(values)

    return make


def test_a_run_measures_the_whole_dev_set_of_its_task(config):
    built = build(config())
    figures = built.run.evaluate(built.run.initial_state().params, {})
    names = ("accuracy", "loss", "score", "constant_accuracy", "constant_score")
    assert set(figures) == {f"heldout/{name}" for name in names}
    labels = built.material.dev["validation"].labels
    assert figures["heldout/constant_score"] == pytest.approx(np.mean(labels == 0))  # 32 to 32
    assert figures["heldout/accuracy"] * 22 == pytest.approx(
        round(figures["heldout/accuracy"] * 22)
    )
    assert built.run.batches.batch(0)["token_type_ids"].max() == 1
    assert "task rte: sentence1 and sentence2 -> one of entailment, not_entailment" in built.notes
    for group in ("backbone", "pooler", "classifier"):
        assert f"weights: {group} from scratch" in built.notes


def test_the_card_says_that_the_encoder_is_fine_tuned(config):
    card = GLUE.card(config(), "hash")
    assert card.is_fine_tuned and not card.has_trained_mlm_head


def test_the_figures_of_two_dev_sets_have_two_names_and_one_score():
    """Logits that are right on the first set and wrong on the second."""
    ids = np.array([[0], [1], [2], [0], [0], [0], [0], [0]], np.int32)
    parts = [
        Part("_matched", [{"input_ids": ids}], np.array([0, 1, 2])),
        Part("_mismatched", [{"input_ids": ids}], np.array([1, 2, 0, 0])),
    ]

    def logits(params, frozen, batch):
        return jax.nn.one_hot(batch["input_ids"][:, 0], 3)

    figures = classification_evaluator(logits, parts, TASKS["mnli"], make_mesh())({}, {})
    assert figures["heldout/accuracy_matched"] == 1.0
    assert figures["heldout/accuracy_mismatched"] == 0.25
    assert figures["heldout/score"] == 0.625 and "heldout/loss_matched" in figures


def test_both_dev_sets_of_mnli_are_opened_and_measured_apart(config):
    built = build(config(objective={"task": "mnli"}))
    figures, material = built.run.evaluate(built.run.initial_state().params, {}), built.material
    names = [
        f"{name}_{part}" for name in ("accuracy", "loss") for part in ("matched", "mismatched")
    ]
    names += ["score", *(f"constant_{name}" for name in ("score", *names[:2]))]
    assert set(figures) == {f"heldout/{name}" for name in names}
    assert {split: len(part) for split, part in material.dev.items()} == {
        "validation_matched": 32,
        "validation_mismatched": 13,
    }
    assert set(material.hashes) == {"train", *material.dev}


def test_fewer_texts_are_the_same_for_every_seed_and_a_part_of_more(config):
    def trained(limit, seed):
        made = config(data={"train_limit": limit})
        train, _ = read_splits(dataclasses.replace(made, seed=seed))
        return set(zip(*train.texts, strict=True))

    assert trained(10, 0) == trained(10, 1) < trained(20, 0)
    train, _ = read_splits(config())
    assert trained(10, 0) != set(zip(*(side[:10] for side in train.texts), strict=True))


def test_other_labels_are_other_data(config):
    train, dev = read_splits(config())
    other = hashes_of(Examples(train.texts, 1 - train.labels), dev)
    assert {name for name, now in hashes_of(train, dev).items() if other[name] != now} == {"train"}


@pytest.mark.parametrize(
    ("sections", "text"),
    [
        ({"objective": {"task": "rtee"}}, "unknown GLUE task 'rtee'; did you mean 'rte'"),
        ({"objective": {"head_dropout": 1.0}}, "objective.head_dropout is 1.0; expected a share"),
        ({"objective": {"task": "mrpc"}}, "mrpc has no validation.jsonl .* but train.jsonl"),
        ({"objective": {"task": "cola"}}, "cola is not a directory; expected a folder of GLUE"),
        (
            {"data": {"dev_split": "dev"}},
            r"rte has no dev.jsonl \(nor .gz, .zst\), but train.jsonl",
        ),
        ({"data": {"max_length": 7}}, "data.max_length is 7, which leaves no room between the"),
        ({"data": {"max_length": 0}}, "data.max_length is 0, which leaves no room between the"),
        ({"data": {"max_length": 600}}, "data.max_length 600 is longer than the 512 positions of"),
        (
            {"data": {"train_limit": -1}},
            r"data.train_limit is -1; expected 0 \(all texts\) or more",
        ),
        ({"data": {"train_limit": 99}}, "data.train_limit is 99, but there are 64 texts to train"),
        ({"optimizer": {"layer_decay": 0.0}}, "optimizer.layer_decay is 0.0; expected a factor"),
    ],
)
def test_what_cannot_be_is_refused_with_the_remedy(config, sections, text):
    with pytest.raises(UserError, match=text):
        build(config(**sections))
