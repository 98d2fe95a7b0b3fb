"""From a collection to a retriever's run: what is trained on, what is measured, what is refused."""

import dataclasses
import json
import logging

import jax
import numpy as np
import pytest

from condenser_jax.build import build
from condenser_jax.data.ranking_batches import Lists
from condenser_jax.data.tokenization import tokenizer_hash
from condenser_jax.errors import UserError
from condenser_jax.evaluation.passage_retrieval import draw_sample
from condenser_jax.feeds import ranking
from condenser_jax.feeds.corpus import check_spans
from condenser_jax.feeds.ranking import RANKING
from condenser_jax.feeds.same_split import warn_of_another_split
from condenser_jax.feeds.tokens import Tokens
from condenser_jax.methods import configure
from condenser_jax.retrieval.collection import CollectionOptions
from condenser_jax.retrieval.kinds import open_collection
from condenser_jax.retrieval.selection import limited, with_wrong_positives
from condenser_jax.retrieval.training_texts import open_training, write_tevatron
from tests.encoders import export_tiny
from tests.hf_models import random_params, tiny_config

TOPICS = "apple banana cherry damson elder fig grape hazel iris juniper kiwi lemon".split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A BEIR folder: passage n speaks of topic n, query n asks for it."""
    root = tmp_path_factory.mktemp("fruits")
    passages = [{"_id": f"p{n}", "text": f"all about the {t}"} for n, t in enumerate(TOPICS)]
    queries = [{"_id": f"q{n}", "text": f"what is a {t}"} for n, t in enumerate(TOPICS)]
    for name, records in (("corpus", passages), ("queries", queries)):
        (root / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    (root / "qrels").mkdir()
    for split, numbers in (("train", range(8)), ("dev", range(8, 12))):
        lines = "".join(f"q{n}\tp{n}\t1\n" for n in numbers)
        (root / "qrels" / f"{split}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{lines}")
    return root


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONDENSER_JAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def config(folder):
    """(overrides of sections) -> a tiny retriever."""

    def make(**sections):
        values = {
            "data": {
                "train": f"beir:{folder}",
                "vocab_size": 80,
                "query_length": 16,
                "passage_length": 16,
                "group": 2,
            },
            "model": {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "intermediate_size": 32},
            "objective": {"name": "retriever"},
            "training": {"steps": 4, "batch_size": 8},
            "evaluation": {"queries": 3, "passages": 9, "batch_size": 8},
        }
        for name, changes in sections.items():
            values.setdefault(name, {}).update(changes)
        return configure(values)

    return make


@pytest.fixture(scope="module")
def built(config):
    return build(config())


def test_a_batch_holds_queries_with_their_groups(built):
    batch = built.run.batches.batch(0)
    assert batch["query_input_ids"].shape == (8, 16)
    assert batch["passage_input_ids"].shape == (8, 2, 16)
    read = built.material.tokenizer.batch_decode
    asked = read(batch["query_input_ids"], skip_special_tokens=True)
    found = read(batch["passage_input_ids"][:, 0], skip_special_tokens=True)
    for query, passage in zip(asked, found, strict=True):
        topic = query.removeprefix("what is a ")
        assert passage.removeprefix("all about the ") == topic and topic


def test_the_figures_are_those_of_the_sample_beside_bm25(built):
    figures = built.run.evaluate(built.run.initial_state().params, {})
    assert set(figures) == {
        f"heldout/{name}" for name in ("mrr@10", "ndcg@10", "recall@100", "bm25_mrr@10")
    }
    assert figures["heldout/bm25_mrr@10"] == 1.0  # every topic is a word of its own
    assert figures["heldout/recall@100"] == 1.0 and 0 < figures["heldout/mrr@10"] <= 1


def test_the_card_says_what_the_run_trained(config, built):
    changed = config(
        data={"query_prefix": "query: "}, objective={"pooling": "mean", "normalise": True}
    )
    card = RANKING.card(changed, tokenizer_hash(built.material.tokenizer_directory))
    assert (card.pooling, card.normalize, card.query_prefix) == ("mean", True, "query: ")
    assert card.is_fine_tuned and not card.has_trained_mlm_head
    assert (card.query_max_length, card.passage_max_length) == (16, 16)
    assert "contrast: 15 negatives of each query, 1 of them hard" in built.notes[-1]


def test_untied_encoders_start_equal_and_are_two_groups(config):
    state = build(config(objective={"tied": False})).run.initial_state()
    assert set(state.params) == {"backbone", "query_backbone"}
    pairs = zip(*(jax.tree.leaves(state.params[g]) for g in state.params), strict=True)
    assert all(np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("queries_seed", [1, None])
def test_untied_encoders_start_from_both_of_an_export_or_from_its_one(
    config, tmp_path, queries_seed
):
    init = export_tiny(tmp_path, queries_seed=queries_seed)
    tokenizer = json.loads((init / "tokenizer.json").read_text())
    pieces = {"type": "WordPiece", "continuing_subword_prefix": "##"}
    tokenizer["model"] |= {**pieces, "max_input_chars_per_word": 100}
    (init / "tokenizer.json").write_text(json.dumps(tokenizer))
    built = build(config(model={"init": str(init)}, objective={"tied": False}))
    state = built.run.initial_state()
    read = tiny_config("bert")
    for group, seed in (("backbone", 0), ("query_backbone", queries_seed or 0)):
        expected = random_params(read, seed)["backbone"]
        jax.tree.map(np.testing.assert_array_equal, state.params[group], expected)
    (origin,) = (note for note in built.notes if note.startswith("weights: query_backbone"))
    own = f": from {init}/query_encoder/model.safetensors"
    assert origin == "weights: query_backbone" + (own if queries_seed else " copied from backbone")


def test_a_sample_holds_every_relevant_passage_and_no_more_than_asked(folder):
    collection = open_collection(f"beir:{folder}", "dev")
    sample = draw_sample(collection, 3, 9, seed=0)
    assert len(sample.queries) == 3 and len(sample.passages) == 9
    relevant = {passage for grades in sample.qrels.values() for passage in grades}
    assert relevant <= set(sample.passages.ids)
    assert sample.queries.ids != draw_sample(collection, 3, 9, seed=1).queries.ids
    assert len(draw_sample(collection, 3, 1, seed=0).passages) == 3


def test_a_query_that_is_a_passage_does_not_find_itself_during_training(folder):
    sample = draw_sample(open_collection(f"beir:{folder}", "dev"), 3, 9, seed=0)
    query, (relevant, *_) = sample.queries.ids[0], sample.qrels[sample.queries.ids[0]]
    run = {query: {query: 2.0, relevant: 1.0}}
    assert not sample.own and sample.figures(run)["heldout/mrr@10"] == pytest.approx(0.5 / 3)
    own = sample._replace(own=frozenset([query]))
    assert own.figures(run)["heldout/mrr@10"] == pytest.approx(1 / 3)


def test_fewer_labels_are_a_part_of_more(folder):
    data = open_training(f"beir:{folder}")
    few, more = (set(limited(data, n, seed=0).queries.ids) for n in (2, 5))
    assert len(few) == 2 and few < more < set(data.queries.ids)
    assert limited(data, 0, seed=0) is data
    kept = limited(data, 5, seed=0)
    passages = [kept.passages.ids[number] for number in kept.positives.numbers]
    assert passages == [name.replace("q", "p") for name in kept.queries.ids]


def test_lists_of_some_queries_keep_their_scores():
    lists = Lists(np.array([0, 2, 2, 5]), np.arange(5, dtype=np.int32), np.arange(5.0))
    some = lists.take(np.array([2, 0]))
    assert some.offsets.tolist() == [0, 3, 5]
    assert some.numbers.tolist() == some.scores.tolist() == [2, 3, 4, 0, 1]


def test_a_share_of_the_positives_is_wrong(folder):
    data = open_training(f"beir:{folder}")
    numbers = np.tile(data.positives.numbers, 500)
    many = data._replace(positives=data.positives._replace(numbers=numbers))
    changed = with_wrong_positives(many, 0.4, seed=0).positives.numbers != numbers
    assert abs(changed.mean() - 0.4 * 11 / 12) < 0.03  # a twelfth of the draws hits the right one
    assert with_wrong_positives(data, 0.0, seed=0) is data


def test_texts_are_encoded_once_and_found_again(monkeypatch):
    texts = ["all about the apple", "fig"]
    tokens = Tokens.train(texts * 20, 80, 16)
    store = tokens.store(texts, "", 3)
    assert store.lengths.tolist()[1] <= 3 and store.lengths.max() == 3
    monkeypatch.setattr(Tokens, "_write", lambda *arguments: pytest.fail("encoded again"))
    assert tokens.store(texts, "", 3).directory == store.directory
    with pytest.raises(BaseException, match="encoded again"):
        tokens.store(texts, "query: ", 3)


def write_training(path, groups):
    """A training file of (query, positive, negatives) with a score for each passage."""
    lines = [
        {
            "query_id": str(number),
            "query": query,
            "positive_passages": [{"docid": positive, "text": positive, "score": 1.0}],
            "negative_passages": [{"docid": n, "text": n, "score": 0.5} for n in negatives],
        }
        for number, (query, positive, negatives) in enumerate(groups)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return f"tevatron:{path}"


def test_a_query_without_a_negative_cannot_be_distilled(config, folder, tmp_path):
    groups = [("what is a fig", "fig", ["grape"]), ("what is a kiwi", "kiwi", [])]
    data = {"train": write_training(tmp_path / "t.jsonl", groups), "collection": f"beir:{folder}"}
    with pytest.raises(UserError, match="'kl', but 1 of 2 queries of .* have no hard negative"):
        build(config(data=data, objective={"distillation": "kl"}))


def test_a_collection_that_judges_nothing_cannot_be_measured(config, folder, tmp_path):
    (tmp_path / "psgs_w100.tsv").write_text("id\ttext\ttitle\n1\ta fig is a fruit\tFig\n")
    (tmp_path / "dev.qa.csv").write_text("what is a fig\t['fruit']\n")
    data = {"train": f"beir:{folder}", "collection": f"dpr:{tmp_path}"}
    with pytest.raises(
        UserError, match="judges no query of its 'dev' .data.split., so nothing can"
    ):
        build(config(data=data))


def test_another_dev_set_is_another_run(built, folder):
    material = built.material
    changed = dataclasses.replace(material, collection=open_collection(f"beir:{folder}", "train"))
    assert changed.hashes["evaluation"] != material.hashes["evaluation"]
    assert changed.hashes["judgements"] == material.hashes["judgements"]


@pytest.mark.parametrize(
    ("split", "warned"),
    [
        ({}, False),
        ({"split_seed": 1}, True),
        ({"heldout_share": 0.2}, True),
        ({"heldout_share": 0.05}, False),  # a part of what was held out
    ],
)
@pytest.mark.parametrize(
    "before",
    [
        {"seed": 0, "data": {"source": "docstrings:", "heldout_share": 0.1}},
        {"seed": 3, "data": {"train": "docstrings:", "heldout_share": 0.1, "split_seed": 0}},
    ],
)
def test_a_start_that_has_read_the_test_modules_is_warned_of(
    tmp_path, caplog, monkeypatch, before, split, warned
):
    monkeypatch.setattr(logging.getLogger("condenser_jax"), "propagate", True)
    (tmp_path / "config.json").write_text(json.dumps(before))
    (tmp_path / "data_hashes.json").write_text("{}")
    warn_of_another_split(str(tmp_path), "docstrings:jax", CollectionOptions(**split))
    text = "HAS READ MODULES OF `test`: it was trained with seed 0 and heldout_share 0.1, and split"
    assert (text in caplog.text) == warned


def test_a_task_with_labels_holds_out_none_of_the_test_modules(tmp_path, caplog, monkeypatch):
    """GLUE's embedded task has a split of its own."""
    monkeypatch.setattr(logging.getLogger("condenser_jax"), "propagate", True)
    (tmp_path / "config.json").write_text('{"seed": 0, "data": {"source": "docstrings:"}}')
    (tmp_path / "data_hashes.json").write_text("{}")
    warn_of_another_split(str(tmp_path), "docstrings:", CollectionOptions())
    assert (
        "HAS READ MODULES OF `test`: it was trained with seed 0 and heldout_share 0" in caplog.text
    )


def test_a_start_is_held_against_the_collection_that_is_searched(
    config, folder, tmp_path, monkeypatch
):
    """A training file is mined from it, and says nothing of its split."""
    texts = open_training(f"beir:{folder}")
    write_tevatron(tmp_path / "mined.jsonl", texts)
    asked = []
    monkeypatch.setattr(ranking, "warn_of_another_split", lambda *given: asked.append(given[1]))
    RANKING.open(config())
    mined = {"train": f"tevatron:{tmp_path}/mined.jsonl", "collection": f"beir:{folder}"}
    RANKING.open(config(data=mined))
    assert asked == [f"beir:{folder}"] * 2


def test_nothing_is_said_of_other_data_and_of_what_is_no_run(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("condenser_jax"), "propagate", True)
    other = CollectionOptions(split_seed=1)
    warn_of_another_split(str(tmp_path), "docstrings:", other)  # an export, perhaps
    before = {"seed": 0, "data": {"source": "text:my.txt", "heldout_share": 0.1}}
    (tmp_path / "config.json").write_text(json.dumps(before))
    (tmp_path / "data_hashes.json").write_text("{}")
    warn_of_another_split(str(tmp_path), "docstrings:", other)
    warn_of_another_split(str(tmp_path), "beir:my/scifact", other)
    assert not caplog.text


def test_there_is_nothing_to_prepare_for_a_retriever(config):
    with pytest.raises(UserError, match="retriever does not learn from spans, so there is nothing"):
        check_spans(config())


@pytest.mark.parametrize(
    ("sections", "text"),
    [
        ({"data": {"query_length": 2}}, "data.query_length is 2, which leaves no room between"),
        ({"data": {"group": 0}}, r"data.group is 0; expected 1 \(no hard negatives\) or more."),
        (
            {"data": {"group": 1}, "objective": {"distillation": "kl"}},
            "distillation 'kl' compares the passages of a query, and data.group is 1; use 2",
        ),
        (
            {"objective": {"negatives": 3}},
            "objective.negatives 3 does not divide training.batch_size 8; use a divisor of it",
        ),
        ({"evaluation": {"queries": 0}}, "evaluation.queries is 0; expected at least 1."),
        (
            {"data": {"train": "tevatron:train.jsonl"}},
            "data.collection is empty; a training file names no collection to search",
        ),
        (
            {"data": {"wrong_positives": 0.2}, "objective": {"distillation": "kl"}},
            "data.wrong_positives is 0.2, and passages put in at random have no score to distil",
        ),
        (
            {"data": {"split": "test"}},
            "data.split is 'test', whose queries are asked in evaluations: .* has no split 'test'",
        ),
        ({"data": {"train_limit": 9}}, "data.train_limit is 9; expected 1 to 8, as many queries"),
        ({"data": {"wrong_positives": 1.0}}, "data.wrong_positives is 1.0; expected a share of"),
        (
            {"objective": {"distillation": "kl"}},
            "distillation is 'kl', but not every passage of beir:.* has a score; add the field",
        ),
        (
            {"training": {"accumulate": 2, "batch_size": 16}},
            "training.accumulate is 2, but this objective reads its batch as a whole",
        ),
    ],
)
def test_what_cannot_be_is_refused_with_the_remedy(config, sections, text):
    with pytest.raises(UserError, match=text):
        build(config(**sections))
