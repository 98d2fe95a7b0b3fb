"""What the CLS attends to and receives, against sums done by hand; its table, JSON and picture."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from condenser_jax.data.prepare import PrepareConfig, prepare
from condenser_jax.data.store import Spans, open_prepared
from condenser_jax.data.tokenization import load_tokenizer, train_wordpiece
from condenser_jax.data.vocabulary import Vocabulary
from condenser_jax.errors import UserError
from condenser_jax.evaluation.cls_attention import attention_figures, cls_attention
from condenser_jax.hf.card import EncoderCard
from condenser_jax.hf.export import export
from condenser_jax.hf.model_card import Facts
from condenser_jax.tasks import texts as texts_module
from condenser_jax.tasks.cls_attention import report_cls_attention, report_weights
from condenser_jax.tasks.contract import Options
from condenser_jax.tasks.models import read_weights
from condenser_jax.tasks.table import write_files
from condenser_jax.tasks.texts import read_texts, to_batches
from condenser_jax.training.sharding import make_mesh
from tests.hf_models import random_params, tiny_config

CONFIG = dataclasses.replace(tiny_config("bert"), vocab_size=96)
LINES = [f"the condenser number {i} reads {'many ' * (i % 7)}short texts" for i in range(40)]
figures = jax.jit(attention_figures)
ROWS = 8  # one per virtual device
IDS = [np.arange(5, 16), np.array([7])]  # two texts without their specials


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "lines.txt"
    path.write_text("".join(f"{line}\n" for line in LINES))
    return path


@pytest.fixture(scope="module")
def tokenizer_directory(tmp_path_factory):
    return train_wordpiece(LINES, CONFIG.vocab_size, tmp_path_factory.mktemp("tokenizer"), 40)


@pytest.fixture(scope="module")
def models(tokenizer_directory, tmp_path_factory):
    """Two exported directories, of two and of one layers."""
    folder = tmp_path_factory.mktemp("exported")
    shallow = dataclasses.replace(CONFIG, num_layers=1)
    card, facts = EncoderCard(query_max_length=40, passage_max_length=40), Facts("condenser")
    for name, config, seed in (("two", CONFIG, 0), ("one", shallow, 1)):
        params = random_params(config, seed)
        export(params, config, tokenizer_directory, folder / name, card, facts)
    return [str(folder / name) for name in ("two", "one")]


@pytest.fixture(scope="module")
def vocabulary(tokenizer_directory):
    return Vocabulary.from_tokenizer(load_tokenizer(tokenizer_directory))


@pytest.fixture(scope="module")
def both(vocabulary):
    return measure(IDS, vocabulary)


def measure(ids, vocabulary):
    params = random_params(CONFIG)["backbone"]
    return cls_attention(CONFIG, params, to_batches(ids, vocabulary, ROWS), make_mesh())


def softmax(row):
    weights = np.exp(row - row.max())
    return weights / weights.sum()


def test_three_tokens_by_hand():
    scores = np.random.default_rng(0).normal(size=(1, 2, 3, 3))  # B H L L
    entropies, received = [], []
    for head in scores[0]:
        weights = np.array([softmax(row) for row in head])
        entropies.append(-sum(w * np.log(w) for w in weights[0]))
        received += [weights[1, 0], weights[2, 0]]
    got = figures(jnp.array(scores), jnp.ones((1, 3)))
    np.testing.assert_allclose(got[0], [np.mean(entropies)], atol=1e-6)
    np.testing.assert_allclose(got[1], [np.mean(received)], atol=1e-6)


def test_uniform_attention_has_the_logarithm_of_the_length():
    mask = jnp.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    entropy, received = figures(jnp.full((2, 3, 5, 5), 7.0), mask)
    np.testing.assert_allclose(entropy, np.log([5, 2]), atol=1e-6)
    np.testing.assert_allclose(received, [1 / 5, 1 / 2], atol=1e-6)


def test_a_cls_that_all_attend_to_receives_everything():
    scores = jnp.zeros((1, 2, 4, 4)).at[..., 0].set(60.0)
    entropy, received = figures(scores, jnp.array([[1, 1, 1, 0]]))
    np.testing.assert_allclose(entropy, [0.0], atol=1e-6)
    np.testing.assert_allclose(received, [1.0], atol=1e-6)


def test_what_the_cls_gives_itself_is_not_received():
    scores = jnp.zeros((1, 1, 3, 3)).at[0, 0, 0, 0].set(60.0)
    entropy, received = figures(scores, jnp.ones((1, 3)))
    np.testing.assert_allclose([entropy[0], received[0]], [0.0, 1 / 3], atol=1e-6)


def test_padding_neither_attends_nor_is_attended_to():
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(1, 2, 6, 6))
    alone = figures(jnp.array(scores[..., :4, :4]), jnp.ones((1, 4)))
    scores[..., 4:] = 50.0
    scores[..., 4:, 0] = -50.0
    padded = figures(jnp.array(scores), jnp.array([[1, 1, 1, 1, 0, 0]]))
    np.testing.assert_allclose(np.array(padded), np.array(alone), atol=1e-6)


def test_every_text_counts_the_same_and_filling_rows_do_not(both, vocabulary):
    alone = [np.array(measure([ids], vocabulary)[:2]) for ids in IDS]
    np.testing.assert_allclose(both[:2], np.mean(alone, axis=0), atol=1e-6)
    assert np.abs(alone[0] - alone[1]).min() > 1e-3, "the texts are told apart"


def test_the_uniform_reference_is_that_of_the_same_texts(both):
    lengths = np.array([13, 3])
    np.testing.assert_allclose(both.uniform_entropy, np.log(lengths).mean(), atol=1e-6)
    np.testing.assert_allclose(both.uniform_received, (1 / lengths).mean(), atol=1e-6)


def test_several_batches_are_one_mean(both, vocabulary):
    many = IDS * 10
    assert sum(1 for _ in to_batches(many, vocabulary, ROWS)) == 3
    np.testing.assert_allclose(measure(many, vocabulary)[:2], both[:2], atol=1e-6)


def test_two_models_stand_in_one_table_one_json_and_one_picture(models, text_file, tmp_path):
    options = Options(tuple(models), f"text:{text_file}", limit=12, max_length=40)
    report = report_cls_attention(options)
    lines = report.table.splitlines()
    assert [line.split()[0] for line in lines[3:7]] == ["layer", "1", "2", "uniform"]
    assert "two: 12 texts of " in report.table and "texts differ" not in report.table
    found = json.loads(json.dumps(report.figures))["models"]
    assert {name: len(found[name]["received"]) for name in found} == {"two": 2, "one": 1}
    assert found["two"]["uniform_entropy"] == found["one"]["uniform_entropy"]
    assert found["two"]["entropy"][0] != found["one"]["entropy"][0]
    assert [path.name for path in write_files(report, tmp_path / "both")] == [
        "both.json",
        "both.png",
    ]
    from matplotlib.image import imread

    picture = (imread(tmp_path / "both.png")[..., :3] * 255).round().astype(int)
    height, width, _ = picture.shape
    for panel in np.split(picture[height // 4 :], [width // 2], axis=1):  # below the legend
        for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):  # a line or a mark of each model
            assert (panel == colour).all(-1).sum() > 20


@pytest.fixture
def run(models, text_file):
    """(an encoder as of a run that held out half of its text, its prepared data)."""
    config = PrepareConfig(
        source=f"text:{text_file}",
        tokenizer=models[0],
        max_length=16,
        heldout_share=0.5,
        workers=1,
        directory=str(text_file.parent / "prepared"),
    )
    prepared = open_prepared(prepare(config, progress=False))
    return read_weights(models[0], "run")._replace(prepared=lambda: [prepared]), prepared


def test_a_run_is_shown_the_spans_that_it_held_out(run, text_file):
    encoder, prepared = run
    texts = read_texts(encoder, Options())
    assert texts.origin == f"held out of text:{text_file}"
    spans = prepared.heldout
    expected = np.split(spans.ids, spans.offsets[1:-1])
    assert list(map(list, texts.ids)) == list(map(list, expected))


def test_texts_are_cut_and_no_more_than_the_limit(run, text_file):
    encoder, prepared = run
    for options in (
        Options(limit=5, max_length=6),
        Options(data=f"text:{text_file}", limit=5, max_length=6),
    ):
        texts = read_texts(encoder, options)
        assert len(texts.ids) == 5 and max(map(len, texts.ids)) == 4
    nothing = prepared._replace(heldout=open_empty(prepared))
    with pytest.raises(UserError, match="no text held out of text:.* for .*; name others: --data"):
        read_texts(encoder._replace(prepared=lambda: [nothing]), Options())


def open_empty(prepared):
    """Spans of a split in which there are none."""
    spans = Spans(prepared.heldout.directory, prepared.heldout.dtype, prepared.heldout.pad_id)
    spans.offsets = np.zeros(1, np.int64)
    return spans


def test_texts_that_differ_between_models_are_pointed_out(run, models, monkeypatch, text_file):
    monkeypatch.setattr(texts_module, "DEFAULT_SOURCE", f"text:{text_file}")
    both = [run[0], read_weights(models[1], "other")]
    report = report_weights(both, Options(max_length=16))
    assert report.table.endswith(
        "The texts differ, and entropy grows with length; --data=SOURCE shares them."
    )


def test_a_folder_that_is_no_model_is_one_line(tmp_path):
    with pytest.raises(UserError, match="is neither a work directory nor a Hugging Face directory"):
        read_weights(str(tmp_path), "it")
    with pytest.raises(UserError, match="is neither a directory here nor a hub id"):
        read_weights(str(tmp_path / "absent"), "it")


def test_a_model_without_tokenizer_is_one_line(models, tmp_path):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(f"{models[0]}/{name}", tmp_path / name)
    with pytest.raises(UserError, match=r"has no tokenizer; copy that of its model \(tokenizer.js"):
        read_weights(str(tmp_path), "it")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(limit=0), "--limit=0 leaves no text; use 1 or more"),
        (
            Options(max_length=2),
            r"--max_length=2 leaves no room between \[CLS\] and \[SEP\]; use 3",
        ),
        (Options(max_length=41), "--max_length=41 is longer than the 40 positions of .*; use 40"),
    ],
)
def test_options_that_fit_no_text_are_one_line(models, options, message):
    with pytest.raises(UserError, match=message):
        report_cls_attention(dataclasses.replace(options, models=tuple(models[:1])))


def test_a_source_without_text_is_one_line(models, tmp_path):
    (tmp_path / "blank.txt").write_text("\n \n")
    encoder = read_weights(models[0], "it")
    with pytest.raises(UserError, match="no text text:.*blank.txt for .*two; name others: --data="):
        read_texts(encoder, Options(data=f"text:{tmp_path / 'blank.txt'}"))
