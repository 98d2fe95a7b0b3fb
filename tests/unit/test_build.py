"""From a configuration to a run: what fits is built, what does not is one line with the remedy."""

import dataclasses
import logging
import shutil

import jax
import numpy as np
import pytest

from condenser_jax.build import build
from condenser_jax.data.mixture import parse_mixture
from condenser_jax.errors import UserError
from condenser_jax.evaluation.masked_lm import log_unigram
from condenser_jax.hf.card import EncoderCard
from condenser_jax.hf.export import export
from condenser_jax.hf.model_card import Facts
from condenser_jax.methods import configure
from condenser_jax.models.dropout import key_of_run

WORDS = "the small encoder reads a long text and learns which words were masked in it".split()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A text file of 400 documents, two sentences each."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("corpus") / "documents.txt"
    lines = (
        f"Document {i}: {' '.join(rng.choice(WORDS, 9))}. Then {' '.join(rng.choice(WORDS, 8))}."
        for i in range(400)
    )
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def config(corpus):
    """(overrides of sections) -> a small run on the corpus, prepared once."""

    def make(**sections):
        values = {
            "data": {
                "source": f"text:{corpus}",
                "directory": str(corpus.parent / "prepared"),
                "vocab_size": 120,
                "max_length": 16,
                "heldout_share": 0.2,
                "recipe": "paragraphs",
                "workers": 1,
            },
            "model": {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "intermediate_size": 32},
            "objective": {"name": "condenser"},
            "training": {"steps": 4, "batch_size": 8},
            "evaluation": {"spans": 16, "documents": 8, "batch_size": 8},
        }
        for name, changes in sections.items():
            values.setdefault(name, {}).update(changes)
        return configure(values)

    return make


@pytest.fixture(scope="module")
def built(config):
    return build(config())


@pytest.fixture(scope="module")
def exported(built, tmp_path_factory):
    """A Hugging Face directory of the untrained run, with a head of two layers."""
    params = jax.tree.map(np.asarray, built.run.initial_state().params)
    output = tmp_path_factory.mktemp("models") / "untrained"
    card = EncoderCard(query_max_length=16, passage_max_length=16)
    tokenizer = built.material.tokenizer_directory
    export(params, built.backbone, tokenizer, output, card, Facts(objective="condenser"))
    return output


def test_a_built_run_has_the_seed_and_the_rate_of_its_configuration(config):
    run = build(dataclasses.replace(config(optimizer={"learning_rate": 0.25}), seed=3)).run
    assert float(run.dials.learning_rate) == 0.25
    np.testing.assert_array_equal(run.dials.key, key_of_run(3))


def test_a_built_run_evaluates_beside_the_unigram(built):
    figures = built.run.evaluate(built.run.initial_state().params, {})
    assert {"heldout/head_loss", "heldout/late_loss", "heldout/unigram"} <= set(figures)
    assert 0 <= figures["heldout/head_accuracy"] <= 1


def test_the_mlm_bias_is_born_at_the_log_unigram(built):
    bias = np.asarray(built.run.initial_state().params["mlm_head"]["bias"])
    expected = log_unigram(built.material.unigram)
    np.testing.assert_allclose(bias[: len(expected)], expected, rtol=1e-6)
    assert len(bias) > len(expected)
    assert (bias[len(expected) :] == expected.min().astype(np.float32)).all(), (
        "no token is likelier"
    )


def test_a_checkpoint_gives_every_group_and_says_where_from(config, exported, built):
    warm = build(config(model={"init": str(exported)}, data={"tokenizer": ""}))
    before, after = (run.initial_state().params for run in (built.run, warm.run))
    padded, real = built.backbone.padded_vocab_size, built.backbone.vocab_size
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        rows = real if len(a) == padded else len(a)  # an export has no padded vocabulary rows
        np.testing.assert_array_equal(a[:rows], b[:rows])
    assert any("condenser_head: from" in note for note in warm.notes)


def test_a_random_head_on_a_trained_backbone_is_warned_of_loudly(config, exported, caplog):
    (exported / "condenser_head.safetensors").rename(exported / "elsewhere")
    logger = logging.getLogger("condenser_jax")
    logger.propagate = True
    try:
        with caplog.at_level(logging.WARNING, logger="condenser_jax"):
            build(config(model={"init": str(exported)}))
        assert "THE CONDENSER HEAD IS RANDOM" in caplog.text
        caplog.clear()
        build(config(model={"init": str(exported)}, objective={"head_warmup_steps": 2}))
        assert "RANDOM" not in caplog.text
    finally:
        (exported / "elsewhere").rename(exported / "condenser_head.safetensors")


def test_a_head_copied_from_the_late_layers_equals_them(config):
    run = build(config(objective={"head_init": "late", "head_layers": 1})).run
    params = run.initial_state().params
    copied, late = params["condenser_head"]["layer_0"], params["backbone"]["layers"]["layer_1"]
    for a, b in zip(jax.tree.leaves(copied), jax.tree.leaves(late), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "sections, message",
    [
        ({"objective": {"early_layer": 2}}, r"early_layer 2 is out of range .* use 0 .* to 1"),
        ({"objective": {"head_layers": 0}}, r"head_layers is 0; a head has at least 1 layer"),
        ({"objective": {"head_init": "lat"}}, r"did you mean 'late'"),
        ({"objective": {"head_init": "late"}}, r"copies 2 late layers, but there are only 1"),
        ({"model": {"num_heads": 3}}, r"hidden_size 16 is not divisible by model.num_heads 3"),
        ({"model": {"num_heads": 0}}, r"model.num_heads is 0; expected at least 1"),
        ({"data": {"mask_rate": -1.0}}, r"data.mask_rate is -1.0; expected a share between 0"),
        ({"model": {"model_type": "albert"}}, r"unknown model.model_type 'albert'"),
        ({"model": {"hidden_dropout": 1.0}}, r"model.hidden_dropout is 1.0; expected a share"),
        ({"model": {"max_positions": 8}}, r"max_length 16 is longer than the 8 positions"),
        ({"model": {"init": "nowhere"}}, r"nowhere"),
        ({"compute": {"dtype": "float8"}}, r"unknown compute.dtype 'float8'"),
        (
            {"training": {"batch_size": 9}, "mesh": {"data": 8}},
            r"batch_size 9 is not divisible by 8",
        ),
        ({"training": {"steps": 0}}, r"training.steps is 0; expected at least 1"),
        ({"training": {"patience": -1}}, r"training.patience is -1; expected a number of eval"),
        ({"training": {"threads": 0}}, r"training.threads is 0; expected at least 1"),
        ({"evaluation": {"spans": 0}}, r"evaluation.spans is 0; expected at least 1"),
        (
            {"objective": {"name": "cocondenser"}, "evaluation": {"documents": 1}},
            r"evaluation.documents is 1; expected at least 2, among which a span's other",
        ),
        ({"optimizer": {"learning_rate": -1.0}}, r"learning_rate is -1.0; expected above 0"),
        ({"training": {"profile": [5, 3]}}, r"profile is \(5, 3\); expected \(first, last\) step"),
        (
            {"model": {"hidden_size": 130, "num_heads": 65}},
            r"65 heads .* dropout counts at most 64 heads",
        ),
        ({"training": {"profile": [3]}}, r"expected \(first, last\) step"),
        ({"optimizer": {"decay": "square"}}, r"unknown optimizer.decay 'square'"),
        ({"optimizer": {"warmup": 2.0}}, r"optimizer.warmup is 2.0; expected a share"),
        ({"data": {"heldout_share": 0.0}}, r"nothing is held out .* raise it or give more"),
    ],
)
def test_what_does_not_fit_is_one_line_with_the_remedy(config, sections, message):
    with pytest.raises(UserError, match=message) as caught:
        build(config(**sections))
    assert "\n" not in str(caught.value)


COCONDENSER = {"name": "cocondenser"}


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"objective": COCONDENSER, "training": {"accumulate": 2, "batch_size": 16}},
            r"training.accumulate is 2, but this objective reads its batch as a whole",
        ),
        ({"objective": {"early_layer": 2}}, r"early_layer 2 is out of range"),
        ({"objective": {"head_layers": 1}, "model": {"init": "exported"}}, r"has 2 layers, objec"),
    ],
)
def test_what_is_wrong_with_the_objective_is_told_before_anything_is_prepared(
    config, exported, sections, message
):
    if "model" in sections:
        sections = {**sections, "model": {"init": str(exported)}}
    with pytest.raises(UserError, match=message):
        build(config(**sections, data={"source": "text:/nowhere/at-all.txt"}))


def test_a_fresh_mlm_head_on_a_trained_backbone_is_named_and_born_at_the_unigram(
    config, exported, monkeypatch
):
    from condenser_jax import warm_start as module

    complete = module.load_checkpoint(str(exported))
    headless = dataclasses.replace(
        complete, params={"backbone": complete.params["backbone"]}, notes=[]
    )
    monkeypatch.setattr(module, "load_checkpoint", lambda path, groups: headless)
    built = build(config(model={"init": str(exported)}, objective={"name": "mlm"}))
    assert "weights: mlm_head random" in built.notes
    bias = np.asarray(built.run.initial_state().params["mlm_head"]["bias"])
    expected = log_unigram(built.material.unigram)
    np.testing.assert_allclose(bias[: len(expected)], expected, rtol=1e-6)


def test_another_tokenizer_than_the_checkpoints_is_warned_of(config, exported, tmp_path, caplog):
    from condenser_jax.data.tokenization import train_wordpiece

    texts = (f"a{i:03d} b{i:03d}" for i in range(40))
    other = train_wordpiece(texts, 90, tmp_path / "other", 16)
    logger = logging.getLogger("condenser_jax")
    logger.propagate = True
    with caplog.at_level(logging.WARNING, logger="condenser_jax"):
        build(config(model={"init": str(exported)}, data={"tokenizer": str(other)}))
    assert "THE TOKENIZER IS NOT THAT OF THE CHECKPOINT" in caplog.text


@pytest.mark.parametrize(
    ("section", "key", "value", "expected"),
    [
        ("optimizer", "clip_norm", 0.0, "above 0, or None not to clip"),
        ("optimizer", "clip_norm", -1.0, "above 0, or None not to clip"),
        ("optimizer", "b1", 2.0, "at least 0 and under 1"),
        ("optimizer", "weight_decay", -1.0, "at least 0"),
        ("data", "bad_share", -1.0, "a share, 0 to 1"),
    ],
)
def test_a_value_that_would_train_nothing_or_backwards_is_refused(
    config, section, key, value, expected
):
    with pytest.raises(UserError, match=f"{section}.{key} is {value}; expected {expected}"):
        build(config(**{section: {key: value}}))


def test_weights_without_a_tokenizer_beside_them_are_warned_of(config, exported, tmp_path, caplog):
    bare = shutil.copytree(exported, tmp_path / "bare")
    for file in [*bare.glob("tokenizer*"), bare / "vocab.txt"]:
        file.unlink()
    build(config(model={"init": str(bare)}, data={"tokenizer": ""}))
    assert "THE CHECKPOINT HAS NO TOKENIZER beside it" in caplog.text
    caplog.clear()
    build(config(model={"init": str(bare)}, data={"tokenizer": str(exported)}))
    assert "NO TOKENIZER" not in caplog.text


def test_a_head_of_another_depth_is_refused(config, exported):
    with pytest.raises(UserError, match=r"has 2 layers, objective.head_layers is 1; set --config"):
        build(config(model={"init": str(exported)}, objective={"head_layers": 1}))


def test_a_vocabulary_that_does_not_fit_the_weights_is_refused(config, exported, built, tmp_path):
    from condenser_jax.data.tokenization import train_wordpiece

    texts = (f"a{i:03d} b{i:03d} c{i:03d}" for i in range(400))
    larger = train_wordpiece(texts, 600, tmp_path / "larger", 16)
    with pytest.raises(UserError, match="vocabulary"):
        build(config(model={"init": str(exported)}, data={"tokenizer": str(larger)}))


@pytest.mark.parametrize(
    "text, expected",
    [
        ("docstrings:", [("docstrings:", 1.0)]),
        ("0.8 hf:a/b:c + 0.2 text:x y.txt", [("hf:a/b:c", 0.8), ("text:x y.txt", 0.2)]),
        ("text:a.txt + 3 jsonl:b.jsonl", [("text:a.txt", 1.0), ("jsonl:b.jsonl", 3.0)]),
    ],
)
def test_a_mixture_is_read_from_one_string(text, expected):
    assert parse_mixture(text) == expected


@pytest.mark.parametrize(
    "text, message",
    [("text:a + ", "empty part"), ("0 text:a", "not a positive number"), ("1e text:a", "positive")],
)
def test_a_broken_mixture_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        parse_mixture(text)


def test_text_in_which_no_word_can_be_masked_is_refused(config, tmp_path):
    rng = np.random.default_rng(0)
    words = ("".join(rng.choice(list("abcdefghij"), 20)) for _ in range(200))
    (tmp_path / "long.txt").write_text("\n".join(words))
    with pytest.raises(
        UserError, match="no word of what is held out .* is short enough to be masked"
    ):
        build(config(data={"source": f"text:{tmp_path}/long.txt", "mask_rate": 0.01}))
