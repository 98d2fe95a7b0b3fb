"""From pairs and triplets of sentences to a run: what is trained on, measured, refused."""

import numpy as np
import pytest

from condenser_jax.build import build
from condenser_jax.errors import UserError
from condenser_jax.feeds.sentences import SCORED_PAIRS, TRIPLETS, read_pairs
from condenser_jax.methods import configure
from condenser_jax.retrieval import sentence_sources
from condenser_jax.retrieval.collection import CollectionOptions
from condenser_jax.retrieval.docstring_pairs import DocstringPair
from condenser_jax.retrieval.metrics import cosines, spearman
from tests.helpers import compile_quickly

WORDS = "apple banana cherry damson elder fig grape hazel iris juniper kiwi lemon".split()
PAIRS = [(i % 6 / 1.2, f"the {a} is ripe", f"a {WORDS[-1 - i]}") for i, a in enumerate(WORDS)]
TRIPLET = [(a, f"{a} again", WORDS[i - 1]) for i, a in enumerate(WORDS)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with pairs, and one with triplets: 12 rows to train on, 5 to measure."""
    root = tmp_path_factory.mktemp("sentences")
    for kind, header, rows in (
        ("pairs", "score\tsentence1\tsentence2", PAIRS),
        ("triplets", "anchor\tpositive\tnegative", TRIPLET),
    ):
        (root / kind).mkdir()
        for split, some in (("train", rows), ("dev", rows[:5])):
            lines = "".join("\t".join(map(str, row)) + "\n" for row in some)
            (root / kind / f"{split}.tsv").write_text(f"{header}\n{lines}")
    return root


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONDENSER_JAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def config(folder):
    """(method, overrides of sections) -> a tiny run."""

    def make(method="similarity", **sections):
        where = folder / ("pairs" if method == "similarity" else "triplets")
        values = {
            "data": {"train": str(where), "vocab_size": 80, "max_length": 16},
            "model": {"hidden_size": 16, "num_layers": 1, "num_heads": 2, "intermediate_size": 32},
            "objective": {"name": method},
            "training": {"steps": 4, "batch_size": 8},
            "evaluation": {"batch_size": 8},
        }
        for name, changes in sections.items():
            values.setdefault(name, {}).update(changes)
        return configure(values)

    return make


@pytest.fixture(scope="module")
def built(config):
    return build(config())


def test_a_batch_holds_pairs_with_their_similarity(built):
    batches = built.run.batches
    assert batches.steps_per_epoch == 2
    batch = batches.batch(0)
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (8, 2, 16)
    read = built.material.tokenizer.batch_decode
    expected = {tuple(row[1:]): row[0] / 5 for row in PAIRS}
    for ids, similarity in zip(batch["input_ids"], batch["similarity"], strict=True):
        first, second = read(ids, skip_special_tokens=True)
        assert expected[first, second] == pytest.approx(similarity)


def test_a_batch_is_a_function_of_step_and_rows_and_an_epoch_visits_every_row(built):
    batches = built.run.batches
    some = batches.batch(3, np.array([5, 1]))
    for name, whole in batches.batch(3).items():
        np.testing.assert_array_equal(some[name], whole[[5, 1]])
    stream = np.concatenate([batches.batch(step)["input_ids"] for step in range(3)])
    assert len(np.unique(stream[:12], axis=0)) == len(np.unique(stream[12:], axis=0)) == 12


def test_the_figures_are_those_of_the_vectors_of_the_held_out_pairs(built):
    params = built.run.initial_state().params
    figures = built.run.evaluate(params, {})
    ids, mask = np.zeros((16, 16), np.int32), np.zeros((16, 16), np.int32)
    rows = [text for row in PAIRS[:5] for text in row[1:]]
    for place, text in enumerate(rows):
        found = built.material.tokenizer(text)["input_ids"]
        ids[place, : len(found)], mask[place, : len(found)] = found, 1
    mask[:, 0] = 1
    batch = {"input_ids": ids, "attention_mask": mask}
    embed = compile_quickly(built.run.objective.predict["embed"], params, {}, batch)
    vectors = np.array(embed(params, {}, batch))[:10]
    expected = spearman(cosines(vectors[::2], vectors[1::2]), [row[0] for row in PAIRS[:5]])
    assert figures["heldout/spearman"] == pytest.approx(expected)
    assert set(figures) == {f"heldout/{n}" for n in ("spearman", "pearson", "squared_error")}


def test_the_size_of_a_batch_changes_no_figure(config, built):
    params = built.run.initial_state().params
    other = build(config(evaluation={"batch_size": 16})).run
    expected = pytest.approx(built.run.evaluate(params, {}), abs=1e-3)
    assert other.evaluate(params, {}) == expected


def test_triplets_are_measured_by_their_accuracy(config):
    run = build(config("sections")).run
    assert run.batches.batch(0)["input_ids"].shape == (8, 3, 16)
    figures = run.evaluate(run.initial_state().params, {})
    assert list(figures) == ["heldout/accuracy"] and 0 <= figures["heldout/accuracy"] <= 1


def test_scores_from_0_to_1_are_warned_of(tmp_path, caplog):
    for high, is_told in (("1.0", True), ("4.0", False)):
        caplog.clear()
        text = f"score\tsentence1\tsentence2\n0.5\ta\tb\n{high}\tc\td\n"
        (tmp_path / "train.tsv").write_text(text)
        rows = read_pairs(str(tmp_path), "train", CollectionOptions())
        assert rows.values["similarity"].tolist() == pytest.approx([0.1, float(high) / 5])
        assert ("THE HIGHEST SCORE OF" in caplog.text) == is_told


def test_fewer_labels_are_a_part_of_more_and_the_tokenizer_stays(config, built):
    few, more = (SCORED_PAIRS.open(config(data={"train_limit": limit})) for limit in (3, 6))
    assert set(few.train.texts) < set(more.train.texts) and len(few.train.texts) == 3
    assert few.tokenizer_directory == built.material.tokenizer_directory
    assert few.hashes["train"] != more.hashes["train"] and few.hashes["dev"] == more.hashes["dev"]


def test_the_card_says_how_the_vectors_were_trained(config):
    card = SCORED_PAIRS.card(config(objective={"pooling": "mean"}), "hash")
    assert (card.pooling, card.normalize, card.passage_max_length) == ("mean", True, 16)
    assert card.is_fine_tuned and not card.has_trained_mlm_head
    assert not TRIPLETS.card(config("sections"), "hash").normalize


def test_docstrings_give_pairs_scored_by_their_words_and_triplets_of_one_module(monkeypatch):
    found = [
        DocstringPair("Sort an array.", "Sort an array in place.\nMore.", "m"),
        DocstringPair("Join two.", "Two are joined.", "m"),
        DocstringPair("Other.", "Another module.", "n"),
    ]
    monkeypatch.setattr(sentence_sources, "read_pairs", lambda *arguments: iter(found))
    options = CollectionOptions()
    pairs = sentence_sources.open_pairs("docstrings:x", "train", options)
    assert [pair[:2] for pair in pairs] == [
        ("Sort an array.", "Two are joined."),
        ("Join two.", "Two are joined."),
        ("Other.", "Sort an array in place."),
    ]
    assert pairs[0].score == pairs[2].score == 0 and 0 < pairs[1].score < 5
    assert sentence_sources.open_triplets("docstrings:x", "train", options) == [
        ("Sort an array.", "Sort an array in place.", "Two are joined.")
    ]
    monkeypatch.setattr(sentence_sources, "read_pairs", lambda *arguments: iter(found[:1]))
    with pytest.raises(UserError, match="docstrings:x has 1 docstrings for dev at heldout_share"):
        sentence_sources.open_pairs("docstrings:x", "dev", options)


@pytest.mark.parametrize(
    ("sections", "text"),
    [
        ({"data": {"max_length": 2}}, "data.max_length is 2, which leaves no room between"),
        ({"data": {"train_limit": 13}}, "data.train_limit is 13; expected 1 to 12, as many rows"),
        ({"evaluation": {"rows": 1}}, "evaluation.rows is 1; expected at least 2, among which"),
        ({"data": {"split": "tset"}}, "has no split 'tset' .tset.tsv.; it has: dev, train"),
        ({"data": {"train": "{}/pairs/train.tsv"}}, "data.dev is empty, and data.train is one"),
    ],
)
def test_what_cannot_be_is_refused_with_the_remedy(config, folder, sections, text):
    for values in sections.values():
        values |= {k: v.format(folder) for k, v in values.items() if isinstance(v, str)}
    with pytest.raises(UserError, match=text):
        build(config(**sections))
