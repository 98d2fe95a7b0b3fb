"""Negatives are hard, are no positives in disguise, and are drawn the same every time."""

import numpy as np
import pytest

from condenser_jax.errors import UserError
from condenser_jax.retrieval.mining import MiningOptions, Ranking, join, mine, word_grams
from condenser_jax.retrieval.texts import Text, Texts
from condenser_jax.retrieval.training_texts import TrainingTexts, lists_of

LONG = "the norm of a vector is the square root of the sum of its squared entries"
PASSAGES = Texts.of(
    Text(f"p{number}", text)
    for number, text in enumerate(
        [
            LONG,  # 0, the positive of query a
            "The NORM of a vector: is the square-root of the sum of its squared entries!",
            f"{LONG} and here follows something else that is as long as the norm was before it",
            "the norm of a matrix is another thing, though it has a root of a sum as well",
            "a sum",  # 4, the positive of query b
            "A sum.",
            "a sum of all",
            "a product",
            "a quotient",
            "nothing of the kind",
        ]
    )
)
QUERIES = Texts.of([Text("a", "vector length"), Text("b", "add")])
TRAINING = TrainingTexts(QUERIES, PASSAGES, lists_of([[0], [4]]), lists_of([[], []]))
ROWS = np.array([[3, 0, 1, 2, 7, 8, 9, -1], [4, 5, 6, 7, 8, 3, 9, -1]])
SCORES = np.array([[9.5, 9, 8.8, 8.5, 8, 5, -3, 0], [9.0, 8, 7, 6, 5, 4, 3, 0]])
RANKING = Ranking(ROWS, SCORES)
ALL = MiningOptions(negatives=9)


def mined(options=ALL, ranking=RANKING, texts=TRAINING):
    found = mine(ranking, texts, options)
    return [found.negatives.of(query).tolist() for query in range(len(texts.queries))]


def test_positives_and_their_near_copies_are_no_negatives_and_the_rest_stands_best_first():
    found = mine(RANKING, TRAINING, ALL)
    assert [found.negatives.of(query).tolist() for query in (0, 1)] == [
        [3, 7, 8, 9],  # not 1, the same words, nor 2, which holds it whole
        [6, 7, 8, 3, 9],  # not 5, the same two words; but 6, which has more of them
    ]
    assert (found.copies, found.too_near) == (3, 0)


def test_a_query_that_is_a_passage_is_no_negative_of_its_own():
    queries = Texts.of([Text("p7", "a product"), Text("b", "add")])
    assert mined(texts=TRAINING._replace(queries=queries)) == [[3, 8, 9], [6, 7, 8, 3, 9]]


def test_a_passage_of_which_less_than_half_is_shared_is_no_near_copy():
    words = [f"w{number}" for number in range(40)]

    def negatives(changed):
        other = " ".join([*words[:-changed], *(f"x{n}" for n in range(changed))])
        passages = Texts.of([Text("p", " ".join(words)), Text("n", other)])
        texts = TrainingTexts(QUERIES[:1], passages, lists_of([[0]]), lists_of([[]]))
        return mined(ranking=Ranking(np.array([[0, 1]]), np.array([[2.0, 1.0]])), texts=texts)[0]

    assert negatives(16) == []  # 17 of 33 runs of 8 words are shared
    assert negatives(17) == [1]


def test_grams_see_words_not_signs_and_short_texts_whole():
    np.testing.assert_array_equal(word_grams("A (small) Array_of"), word_grams("a small array of"))
    assert len(word_grams("a small array")) == 1
    assert word_grams("a small array") != word_grams("small a array")
    assert len(word_grams("one two three four five six seven eight nine")) == 2


def test_candidates_are_the_best_of_the_ranking_alone():
    assert mined(MiningOptions(depth=5, negatives=9)) == [[3, 7], [6, 7, 8]]
    assert mined(MiningOptions(depth=1)) == [[3], []]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"margin": 0.0}, [[7, 8, 9], [6, 7, 8, 3, 9]]),  # 3 scores above the positive of a
        ({"margin": 1.0}, [[7, 8, 9], [6, 7, 8, 3, 9]]),
        ({"margin": 2.5}, [[8, 9], [7, 8, 3, 9]]),
        ({"share": 0.6}, [[8, 9], [8, 3, 9]]),
        ({"share": 0.6, "margin": 5.0}, [[9], [3, 9]]),
    ],
)
def test_what_scores_too_near_to_the_positive_is_left_out(options, expected):
    found = mine(RANKING, TRAINING, MiningOptions(negatives=9, **options))
    assert [found.negatives.of(query).tolist() for query in (0, 1)] == expected
    assert found.too_near > 0


def test_a_share_of_a_negative_score_lies_below_it():
    ranking = Ranking(ROWS[1:, :4], np.array([[-1.0, -1.05, -1.06, -1.2]]))
    one = TRAINING._replace(queries=QUERIES[1:], positives=lists_of([[4]]))
    assert mined(MiningOptions(share=0.9), ranking, one) == [[7]]


def test_a_positive_below_the_ranking_leaves_nothing_that_is_surely_worse():
    unseen = TRAINING._replace(positives=lists_of([[5], [0]]))
    assert mined(MiningOptions(depth=2, share=0.95), texts=unseen) == [[], []]
    assert mined(MiningOptions(depth=2), texts=unseen) == [[3, 0], [4, 5]]


def test_what_is_drawn_depends_on_seed_and_query_and_on_nothing_else():
    few = MiningOptions(negatives=2)
    both = mined(few)
    assert [len(found) for found in both] == [2, 2] and both == mined(few)
    turned = TRAINING._replace(queries=QUERIES[::-1], positives=lists_of([[4], [0]]))
    assert mined(few, Ranking(ROWS[::-1], SCORES[::-1]), turned) == both[::-1]
    seeds = {str(mined(MiningOptions(negatives=2, seed=seed))) for seed in range(20)}
    assert len(seeds) > 5


def test_every_candidate_is_drawn_equally_often():
    draws = [mined(MiningOptions(negatives=1, seed=seed))[0][0] for seed in range(1000)]
    counts = np.array([draws.count(row) for row in (3, 7, 8, 9)])
    assert counts.sum() == 1000 and (np.abs(counts - 250) < 60).all()  # 4.4 deviations


def test_lists_are_joined_each_passage_once_in_the_order_of_the_lists():
    joined = join(lists_of([[5, 2], []]), lists_of([[2, 7], []]), lists_of([[5], [1]]))
    assert [joined.of(query).tolist() for query in (0, 1)] == [[5, 2, 7], [1]]
    assert joined.offsets.tolist() == [0, 3, 4] and joined.numbers.dtype == np.int32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 0}, "depth 0 mines nothing; use 1 or more"),
        ({"negatives": 0}, "negatives 0 mines nothing; use 1 or more"),
        ({"margin": -1.0}, "margin -1 is not a distance between scores; use 0 or more"),
        ({"share": 1.5}, "share 1.5 of a positive's score is not within 0 and 1"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        MiningOptions(**options)
