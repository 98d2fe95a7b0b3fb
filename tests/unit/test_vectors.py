"""Vectors on disk: what is written is read, what is missing or damaged is made again, what does not
fit is refused by name.
"""

import dataclasses
import json

import ml_dtypes
import numpy as np
import pytest

from condenser_jax.encoder_source import Usage
from condenser_jax.errors import RunFailed, UserError
from condenser_jax.vectors import (
    TOLD,
    VectorsCard,
    check_encoder,
    create,
    differences,
    hash_texts,
    is_sound,
    known_card,
    open_vectors,
    write_shard,
)

ENCODER = {"pooling": "cls", "query_prefix": "", "weights_hash": "a" * 32}
CARD = VectorsCard("beir:x", "passage", "t" * 32, "float32", 3, 10, 4, ENCODER)
IDS = [f"doc {i}" for i in range(10)]
ROWS = np.arange(30, dtype=np.float32).reshape(10, 3)


def written(directory, card=CARD, shards=range(3)):
    create(directory, card, IDS)
    for shard in shards:
        rows = card.rows_of(shard)
        write_shard(directory, card, shard, ROWS[rows.start : rows.stop])
    return directory


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_rows_are_read_as_they_were_written_within_shards_and_across(tmp_path, dtype):
    vectors = open_vectors(written(tmp_path / "v", dataclasses.replace(CARD, dtype=dtype)))
    assert len(vectors) == 10 and vectors[0:1].dtype == (
        ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    )
    for start in range(11):
        for stop in range(start, 11):
            np.testing.assert_array_equal(vectors[start:stop].astype(np.float32), ROWS[start:stop])
    np.testing.assert_array_equal(vectors.take(np.array([9, 0, 5, 0])), ROWS[[9, 0, 5, 0]])
    assert vectors.ids([9, 0, 4]) == ["doc 9", "doc 0", "doc 4"]
    assert list(vectors.each_id()) == IDS
    assert np.shares_memory(vectors[4:8], vectors.shards[1])  # mapped, not read


def test_a_damaged_a_short_and_a_missing_shard_are_noticed(tmp_path):
    directory = written(tmp_path / "v")
    assert [is_sound(directory, CARD, shard) for shard in range(3)] == [True] * 3
    content = bytearray((directory / "00000.bin").read_bytes())
    content[5] ^= 1
    (directory / "00000.bin").write_bytes(content)
    (directory / "00001.bin").write_bytes(b"short")
    (directory / "00002.json").unlink()
    assert [is_sound(directory, CARD, shard) for shard in range(3)] == [False] * 3
    with pytest.raises(UserError, match=r"lacks 2 of 3 shards \(00001.bin first\); start the same"):
        open_vectors(directory)


def test_creating_again_keeps_what_is_there_and_refuses_other_vectors(tmp_path):
    directory = written(tmp_path / "v")
    create(directory, CARD, IDS)
    assert is_sound(directory, CARD, 0)
    other = dataclasses.replace(CARD, dtype="float16", encoder=ENCODER | {"pooling": "mean"})
    differ = "dtype 'float32', not 'float16'; pooling 'cls', not 'mean'"
    remedy = "name another directory for these, or remove that one"  # whatever the command's flag
    with pytest.raises(UserError, match=f"v holds other vectors: {differ}; {remedy}$"):
        create(directory, other, IDS)


def test_a_kill_while_the_card_is_written_is_no_hindrance(tmp_path):
    (tmp_path / "card.json.partial").write_text('{"rows":')
    create(tmp_path, CARD, IDS)
    assert known_card(tmp_path) == CARD


def test_a_directory_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(
        UserError, match="holds thesis.tex, .* no vectors; name another directory for"
    ):
        create(tmp_path, CARD, IDS)
    with pytest.raises(UserError, match=r"holds no vectors \(no card.json of theirs\); make them"):
        open_vectors(tmp_path)


def test_vectors_that_are_not_finite_are_not_written(tmp_path):
    create(tmp_path / "v", CARD, IDS)
    rows = ROWS[4:8].copy()
    rows[1, 2] = np.nan
    with pytest.raises(RunFailed, match="1 of the vectors of rows 4 to 7 are not finite .* row 5"):
        write_shard(tmp_path / "v", CARD, 1, rows)
    narrow = dataclasses.replace(CARD, dtype="float16")
    with pytest.raises(RunFailed, match="not finite in float16, row 4 first; use --dtype=float32"):
        write_shard(tmp_path / "v", narrow, 1, np.full((4, 3), 1e6, np.float32))
    assert not is_sound(tmp_path / "v", CARD, 1)


def test_an_encoder_of_queries_must_share_everything_and_every_difference_is_named(tmp_path):
    vectors = open_vectors(written(tmp_path / "v"))
    check_encoder(vectors, dict(ENCODER), "my-model")
    other = {"pooling": "mean", "query_prefix": "query: ", "weights_hash": "b" * 32}
    with pytest.raises(UserError) as found:
        check_encoder(vectors, other, "my-model")
    assert str(found.value) == (
        f"{tmp_path / 'v'} was not encoded with my-model: it has pooling 'cls', not 'mean'; "
        "query_prefix '', not 'query: '; weights_hash aaaaaaaa, not bbbbbbbb; encode the corpus "
        "with this model, or name the model that it was encoded with"
    )


def test_a_model_that_is_used_otherwise_than_then_is_told_which_flags_say_so(tmp_path):
    assert TOLD == set(Usage._fields)
    vectors = open_vectors(written(tmp_path / "v"))
    with pytest.raises(UserError) as found:
        check_encoder(vectors, ENCODER | {"query_prefix": "query: "}, "my-model")
    assert str(found.value) == (
        f"{tmp_path / 'v'} was not encoded with my-model: it has query_prefix '', not 'query: '; "
        "use the model as it was used then (--pooling, --query_prefix, --passage_prefix), or "
        "encode the corpus anew"
    )


def test_vectors_of_queries_are_not_searched(tmp_path):
    card = dataclasses.replace(CARD, kind="query")
    with pytest.raises(UserError, match="holds vectors of kind 'query'; encode the corpus with"):
        check_encoder(open_vectors(written(tmp_path / "v", card)), ENCODER, "my-model")


def test_vectors_of_another_format_are_refused(tmp_path):
    directory = written(tmp_path / "v")
    card = json.loads((directory / "card.json").read_text())
    (directory / "card.json").write_text(json.dumps(card | {"format": 0}))
    with pytest.raises(UserError, match="has vectors of format 0, expected 1; encode them anew"):
        open_vectors(directory)


def test_what_only_one_side_has_is_a_difference():
    assert differences({"a": 1, "b": 2}, {"b": 2, "c": 3}) == ["c None, not 3", "a 1, not None"]


def test_the_hash_of_texts_sees_ids_texts_and_order():
    texts = [("1", "a"), ("2", "b")]
    hashes = {hash_texts(t) for t in (texts, texts[::-1], [("1", "a"), ("2", "c")], [("1a", "")])}
    assert len(hashes) == 4
    assert hash_texts(iter(texts)) == hash_texts(texts)
