"""Records of tasks: from folders, the hub's format and TFDS's, each sound or named as broken."""

import gzip
import json

import numpy as np
import pytest

from condenser_jax.errors import UserError
from condenser_jax.glue.records import BrokenTest, parse_record, read_split
from condenser_jax.glue.tasks import NINE, TASKS
from condenser_jax.retrieval.sound import Broken

COLA, RTE, STSB = TASKS["cola"], TASKS["rte"], TASKS["stsb"]
PAIRS = [
    {"sentence1": "it rains", "sentence2": "it is wet", "label": 0, "idx": 0},
    {"sentence1": "it rains", "sentence2": "it is dry", "label": 1, "idx": 1},
]


def _write(folder, name, records):
    folder.mkdir(parents=True, exist_ok=True)
    text = "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records)
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return folder.parent


@pytest.mark.parametrize("name", ["train.jsonl", "train.jsonl.gz"])
def test_a_folder_of_json_lines_is_read_plain_or_compressed(tmp_path, name):
    source = str(_write(tmp_path / "glue" / "rte", name, PAIRS))
    found = read_split(source, RTE, "train", 0.01)
    assert found.texts == (["it rains", "it rains"], ["it is wet", "it is dry"])
    assert found.labels.tolist() == [0, 1] and len(found) == 2


def test_labels_may_be_names_and_scores_are_numbers(tmp_path):
    named = [r | {"label": RTE.labels[r["label"]]} for r in PAIRS]
    source = str(_write(tmp_path / "glue" / "rte", "train.jsonl", named))
    assert read_split(source, RTE, "train", 0.01).labels.tolist() == [0, 1]
    _write(tmp_path / "glue" / "stsb", "train.jsonl", [PAIRS[0] | {"label": 3.25}])
    assert read_split(source, STSB, "train", 0.01).labels.tolist() == [3.25]


def test_of_hidden_labels_none_is_read(tmp_path):
    hidden = [r | {"label": -1} for r in PAIRS]
    source = str(_write(tmp_path / "glue" / "rte", "test.jsonl", hidden))
    assert read_split(source, RTE, "test", 0.01, has_labels=False).labels is None
    with pytest.raises(UserError, match="label -1, which is out of range"):
        read_split(source, RTE, "test", 0.01)


def test_some_examples_keep_their_labels(tmp_path):
    source = str(_write(tmp_path / "glue" / "rte", "train.jsonl", PAIRS))
    last = read_split(source, RTE, "train", 0.01).only(np.array([1]))
    assert (last.texts, last.labels.tolist()) == ((["it rains"], ["it is dry"]), [1])


@pytest.mark.parametrize(
    ("task", "record", "text"),
    [
        (COLA, {"text": "a"}, "has no field 'sentence'; its fields are: text"),
        (COLA, {"sentence": "a"}, "has no field 'label'"),
        (
            COLA,
            {"sentence": "a", "label": 2},
            r"has label 2, which is out of range; expected 0 \(unacceptable\), 1 \(acceptable\)",
        ),
        (COLA, {"sentence": "a", "label": "yes"}, "has label 'yes'; expected a whole number or"),
        (COLA, {"sentence": "a", "label": True}, "has label True; expected a whole number or"),
        (COLA, {"sentence": "a", "label": 0.5}, "has label 0.5; expected a whole number or one of"),
        (COLA, {"sentence": 3, "label": 1}, "field 'sentence' is a int, not a text"),
        (STSB, PAIRS[0] | {"label": 5.5}, "has label 5.5, which is out of range; expected 0 to 5"),
        (STSB, PAIRS[0] | {"label": "x"}, "label 'x' is not a number"),
    ],
)
def test_what_is_broken_is_named(task, record, text):
    with pytest.raises(Broken, match=text):
        parse_record(record, task)


def test_a_whole_label_may_be_written_as_pandas_writes_it():
    assert parse_record({"sentence": "a", "label": 1.0}, COLA).label == 1


@pytest.mark.parametrize(
    ("numbers", "order"),
    [
        ((2, 0, 1), "bca"),
        (("2", "0", "1"), "bca"),
        ((2.0, 0.0, 1.0), "bca"),
        ((-1, -1, -1), "abc"),
        ((None, None, None), "abc"),
        ((0, 1, None), r"numbers \(idx\) that are not 0 to 2, each once"),
        ((0, 1, 1), r"numbers \(idx\) that are not 0 to 2, each once"),
        ((10, 7, 1), r"numbers \(idx\) that are not 0 to 2, each once"),
        ((0, 1, "x"), "has idx 'x'; expected a whole number"),
    ],
)
def test_a_test_split_stands_in_the_order_of_its_numbers_or_is_refused(tmp_path, numbers, order):
    records = [
        {"sentence1": text, "sentence2": "x"} | ({} if number is None else {"idx": number})
        for text, number in zip("abc", numbers, strict=True)
    ]
    source = str(_write(tmp_path / "glue" / "rte", "test.jsonl", records))
    if len(order) > 3:
        with pytest.raises(BrokenTest, match=order):
            read_split(source, RTE, "test", 0.5, has_labels=False)
    else:
        assert "".join(read_split(source, RTE, "test", 0.5, has_labels=False).texts[0]) == order


def test_broken_records_are_counted_and_named_by_file_and_line(tmp_path, caplog):
    records = [*(PAIRS * 50), PAIRS[0] | {"label": 7}, "not json"]
    source = str(_write(tmp_path / "glue" / "rte", "train.jsonl", records))
    assert len(read_split(source, RTE, "train", 0.05)) == 100
    assert "rte train: 2 of 102 records are broken and left out: train.jsonl:101" in caplog.text
    with pytest.raises(UserError, match=r"2 of 102 records are broken, above bad_share 0.01"):
        read_split(source, RTE, "train", 0.01)


@pytest.mark.parametrize(
    ("split", "text"),
    [
        (
            "validation",
            r"rte has no validation.jsonl \(nor .gz, .zst\), but train.jsonl; expected a folder of "
            r"GLUE tasks, here rte/validation.jsonl \(data.train_split and data.dev_split name",
        ),
        ("train", "has no record of rte in train; name another source"),
    ],
)
def test_a_split_that_is_missing_or_empty_is_refused(tmp_path, split, text):
    source = str(_write(tmp_path / "glue" / "rte", "train.jsonl", []))
    with pytest.raises(UserError, match=text):
        read_split(source, RTE, split, 0.01)


def test_a_folder_without_the_task_is_refused(tmp_path):
    with pytest.raises(UserError, match="cola is not a directory; expected a folder of GLUE tasks"):
        read_split(str(tmp_path), COLA, "train", 0.01)


@pytest.mark.parametrize(("source", "task"), [("docstrings:", "cola"), ("hf:", "packages")])
def test_a_task_that_a_source_has_not_is_refused(source, task):
    with pytest.raises(UserError, match=f"task '{task}' is not to be had from '{source}'"):
        read_split(source, TASKS[task], "train", 0.01)


@pytest.mark.parametrize(
    ("source", "split", "text"),
    [
        ("docstrings:", "training", "'packages' has no split 'training'; it has train and valida"),
        ("docstrings:", "test", "'packages' has no split 'test'; it has train and validation"),
        ("docstrings:scipy", "train", "from 'docstrings:scipy': its packages are jax and numpy, "),
    ],
)
def test_another_part_of_the_embedded_task_is_refused(source, split, text):
    with pytest.raises(UserError, match=text):
        read_split(source, TASKS["packages"], split, 0.0)


def test_datasets_of_the_hub_are_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    kinds = {
        "sentence1": datasets.Value("string"),
        "sentence2": datasets.Value("string"),
        "label": datasets.ClassLabel(names=list(RTE.labels)),
        "idx": datasets.Value("int32"),
    }
    found = datasets.Dataset.from_list(PAIRS, features=datasets.Features(kinds))
    datasets.DatasetDict({"train": found}).save_to_disk(str(tmp_path / "rte"))
    source = f"hf:{tmp_path}"
    assert read_split(source, RTE, "train", 0.01).labels.tolist() == [0, 1]
    with pytest.raises(UserError, match="has no split 'validation'; it has: train"):
        read_split(source, RTE, "validation", 0.01)


def test_datasets_of_tfds_are_read(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")
    records = [
        {"sentence1": f"text {n}", "sentence2": "a text", "label": n % 2, "idx": n}
        for n in range(12)
    ]

    class Rte(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = tmp_path

        def _info(self):
            features = {
                "sentence1": tfds.features.Text(),
                "sentence2": tfds.features.Text(),
                "label": tfds.features.ClassLabel(names=list(RTE.labels)),
                "idx": np.int32,
            }
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features)
            )

        def _split_generators(self, manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            yield from enumerate(records)

    Rte(data_dir=str(tmp_path), file_format="array_record").download_and_prepare()
    found = read_split(f"tfds:{tmp_path}", RTE, "train", 0.01)
    assert sorted(zip(*found.texts, found.labels.tolist(), strict=True)) == sorted(
        (r["sentence1"], r["sentence2"], r["label"]) for r in records
    )
    test = read_split(f"tfds:{tmp_path}", RTE, "train", 0.01, has_labels=False)
    assert test.texts[0] == [r["sentence1"] for r in records], "as the server counts them"
    assert found.texts[0] != test.texts[0], "TFDS has shuffled them"


def test_a_test_split_with_a_broken_record_is_refused(tmp_path):
    """All that follow would have another number at the server."""
    (tmp_path / "rte").mkdir()
    lines = [*map(json.dumps, PAIRS), json.dumps({"sentence1": "a", "sentence2": None})]
    (tmp_path / "rte" / "test.jsonl").write_text("\n".join(lines * 100))
    with pytest.raises(BrokenTest, match=r"wants a prediction on each; the first: test.jsonl:\d"):
        read_split(str(tmp_path), RTE, "test", 0.5, has_labels=False)


def test_the_embedded_task_is_there_without_a_network():
    train, dev = (
        read_split("docstrings:", TASKS["packages"], s, 0.0) for s in ("train", "validation")
    )
    for part in (train, dev):
        assert len(part) > 300 and set(part.labels.tolist()) == {0, 1}
    assert not set(train.texts[0]) & set(dev.texts[0])


def test_fields_are_one_text_or_two_and_names_of_files_are_the_server_s():
    assert {len(task.fields) for task in NINE.values()} == {1, 2}
    files = [test.file for task in NINE.values() for test in task.tests]
    expected = "CoLA SST-2 MRPC STS-B QQP MNLI-m MNLI-mm AX QNLI RTE WNLI".split()
    assert files == expected
