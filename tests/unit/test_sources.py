"""Documents come out of every kind of source, in order; what is broken is named by line."""

import gzip
import json
import tracemalloc

import pytest

from condenser_jax.data import files, lines
from condenser_jax.data.documents import SourceOptions
from condenser_jax.data.sources import open_source
from condenser_jax.errors import UserError


def texts(spec, **options):
    return [d.text for d in open_source(spec, SourceOptions(**options)).documents()]


def write_lines(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def test_a_text_file_gives_one_document_per_line(tmp_path):
    (tmp_path / "a.txt").write_text("first\n\nsecond\r\n")
    assert texts(f"text:{tmp_path}/a.txt") == ["first", "second"]


def test_a_text_file_gives_one_document_per_block_between_blank_lines(tmp_path):
    (tmp_path / "a.txt").write_text("first\nstill first\n\n\nsecond")
    found = texts(f"text:{tmp_path}/a.txt", text_layout="paragraphs")
    assert found == ["first\nstill first", "second"]


def test_files_are_read_by_name_through_folders(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.txt").write_text("from sub\n")
    (tmp_path / "b.txt").write_text("from b\n")
    (tmp_path / "empty.txt").write_text("")
    documents = list(open_source(f"text:{tmp_path}/**/*.txt").documents())
    assert [d.key for d in documents] == ["b.txt:1", "sub/a.txt:1"]
    assert [d.text for d in documents] == ["from b", "from sub"]


def test_json_lines_are_read_from_gzip(tmp_path):
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        file.write('{"body": "one"}\n\n{"body": "two"}\n')
    assert texts(f"jsonl:{tmp_path}/*.gz", text_field="body") == ["one", "two"]


def test_json_lines_are_read_from_zstandard(tmp_path):
    zstandard = pytest.importorskip("zstandard")
    packed = zstandard.ZstdCompressor().compress(b'{"text": "one"}\n{"text": "two"}\n')
    (tmp_path / "a.jsonl.zst").write_bytes(packed)
    assert texts(f"jsonl:{tmp_path}/a.jsonl.zst") == ["one", "two"]


def test_parquet_rows_become_documents(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(
        pyarrow.table({"text": ["one", "two"], "n": [1, 2]}), tmp_path / "a.parquet"
    )
    assert texts(f"parquet:{tmp_path}/a.parquet") == ["one", "two"]
    with pytest.raises(
        UserError, match="has no field 'body'; its fields are: n, text; set text_field"
    ):
        texts(f"parquet:{tmp_path}/a.parquet", text_field="body")
    (tmp_path / "bad.parquet").write_text("no parquet")
    with pytest.raises(UserError, match="bad.parquet is not a parquet file"):
        texts(f"parquet:{tmp_path}/bad.parquet")


def test_a_hugging_face_folder_gives_its_split(tmp_path):
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict({"text": ["one", "two"]})
    datasets.DatasetDict({"train": table}).save_to_disk(tmp_path / "mine")
    source = open_source(f"hf:{tmp_path}/mine")
    assert [d.text for d in source.documents()] == ["one", "two"]
    described = source.describe()
    (tmp_path / "mine" / "train" / "cache-1a2b.arrow").write_text("of somebody who filtered it")
    assert open_source(f"hf:{tmp_path}/mine").describe() == described
    (tmp_path / "mine" / "train" / "data-9.arrow").write_text("more")
    assert open_source(f"hf:{tmp_path}/mine").describe() != described
    with pytest.raises(UserError, match="has no split 'test'; it has: train"):
        open_source(f"hf:{tmp_path}/mine", SourceOptions(split="test"))


def test_a_hugging_face_dataset_out_of_reach_is_one_clear_line():
    pytest.importorskip("datasets")
    with pytest.raises(
        UserError, match="hf dataset 'nobody/nothing' .* cannot be loaded: .*network"
    ):
        open_source("hf:nobody/nothing")


def test_a_tfds_folder_gives_its_texts(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets")

    class Tiny(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        pkg_dir_path = tmp_path  # where TFDS would look for a citation

        def _info(self):
            features = tfds.features.FeaturesDict({"text": tfds.features.Text()})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            yield from ((word, {"text": word}) for word in ("one", "two"))

    builder = Tiny(data_dir=str(tmp_path), file_format="array_record")
    builder.download_and_prepare()
    spec = f"tfds:{builder.data_path}"
    assert sorted(texts(spec)) == ["one", "two"]
    assert len(texts(spec, split="train[:50%]+train")) == 3
    with pytest.raises(UserError, match="has no split 'test'; it has: train"):
        open_source(spec, SourceOptions(split="test"))


def test_a_tfds_dataset_out_of_reach_is_one_clear_line(tmp_path):
    pytest.importorskip("tensorflow_datasets")
    with pytest.raises(UserError, match="tfds dataset '.*' cannot be loaded: "):
        open_source(f"tfds:{tmp_path}")


def test_an_unknown_kind_names_the_nearest():
    with pytest.raises(UserError, match="unknown kind of source 'json'; did you mean 'jsonl'"):
        open_source("json:a.json")
    with pytest.raises(UserError, match="source 'a.json' names no kind; write KIND:WHERE"):
        open_source("a.json")
    with pytest.raises(UserError, match="unknown text_layout 'line'; did you mean 'lines'"):
        SourceOptions(text_layout="line")


def test_a_glob_without_files_is_refused(tmp_path):
    with pytest.raises(UserError, match="no file matches '.*none.txt'"):
        open_source(f"text:{tmp_path}/none.txt")


@pytest.mark.parametrize("kind, ending", [("text", "txt"), ("jsonl", "jsonl")])
def test_a_directory_is_told_how_to_name_its_files(tmp_path, kind, ending):
    (tmp_path / f"a.{ending}").write_text('{"text": "one"}')
    with pytest.raises(UserError) as error:
        open_source(f"{kind}:{tmp_path}")
    message = f"{tmp_path} is a directory, expected files; name those in it: "
    remedy = f"{kind}:{tmp_path}/*.{ending}"
    assert str(error.value) == f"{message}'{remedy}'"
    assert len(texts(remedy)) == 1


def test_empty_files_are_refused(tmp_path):
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(UserError, match=r"a.txt is empty \(1 files match"):
        open_source(f"text:{tmp_path}/*.txt")


def test_binary_data_is_refused(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"PK\x03\x04\0\0")
    with pytest.raises(UserError, match="a.txt holds binary data"):
        texts(f"text:{tmp_path}/a.txt")


def test_lines_that_are_not_utf8_are_named(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"good\n\xff\xfe bad\n")
    with pytest.raises(UserError, match="1 of 2 records are broken.*a.txt:2 is not UTF-8"):
        texts(f"text:{tmp_path}/a.txt")


def test_a_truncated_gzip_file_is_named(tmp_path):
    whole = gzip.compress(json.dumps({"text": "word " * 1000}).encode() * 50)
    (tmp_path / "a.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="a.jsonl.gz cannot be read: .*is it complete"):
        texts(f"jsonl:{tmp_path}/a.jsonl.gz")


def test_broken_json_is_counted_and_named_by_file_and_line(tmp_path):
    lines = ['{"text": "good"}'] * 99 + ['{"text": ']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    source = open_source(f"jsonl:{tmp_path}/a.jsonl", SourceOptions(bad_share=0.01))
    assert len(list(source.documents())) == 99
    assert (source.bad.bad, source.bad.records) == (1, 100)
    assert source.bad.first[0].startswith("a.jsonl:100 is not JSON")


def test_too_much_broken_json_is_fatal(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "good"}\n{"text": \n')
    with pytest.raises(
        UserError, match="1 of 2 records are broken, above bad_share 0.01; .*a.jsonl:2"
    ):
        texts(f"jsonl:{tmp_path}/a.jsonl")


def test_too_much_broken_json_stops_a_long_file_early(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "good"}\n' + "broken\n" * 5000)
    with pytest.raises(UserError, match="999 of 1000 records are broken"):
        texts(f"jsonl:{tmp_path}/a.jsonl")


def test_a_missing_field_names_the_fields_there_are(tmp_path):
    write_lines(tmp_path / "a.jsonl", [{"body": "x", "id": 1}])
    with pytest.raises(UserError, match="a.jsonl:1 has no field 'text'; its fields are: body, id"):
        texts(f"jsonl:{tmp_path}/a.jsonl")


def test_a_field_of_another_type_is_counted(tmp_path):
    write_lines(tmp_path / "a.jsonl", [{"text": "x"}, {"text": 3}, [1], {"body": "x"}])
    source = open_source(f"jsonl:{tmp_path}/a.jsonl", SourceOptions(bad_share=0.9))
    assert [d.text for d in source.documents()] == ["x"]
    assert source.bad.first == [
        "a.jsonl:2 field 'text' is a int, not a text",
        "a.jsonl:3 is a list, not an object with fields",
        "a.jsonl:4 has no field 'text'",
    ]


def test_a_description_changes_with_the_content_but_not_with_the_place(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.txt").write_text("same size")
    first = open_source(f"text:{tmp_path}/one/a.txt").describe()
    assert first == open_source(f"text:{tmp_path}/two/a.txt").describe()
    (tmp_path / "two" / "a.txt").write_text("SAME SIZE")
    assert first != open_source(f"text:{tmp_path}/two/a.txt").describe()


def test_a_large_file_is_known_by_blocks_from_its_start_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "BLOCK", 10)

    def known_with_a_change_at(place):
        (tmp_path / "a").write_bytes(b"." * place + b"!" + b"." * (999 - place))
        return files.fingerprint(str(tmp_path / "a"))

    assert len({known_with_a_change_at(place) for place in (0, 9, 200, 999)}) == 4
    assert known_with_a_change_at(100) == known_with_a_change_at(101)  # between two blocks


def test_a_zstandard_file_that_is_cut_off_or_damaged_is_named(tmp_path):
    zstandard = pytest.importorskip("zstandard")
    packed = zstandard.ZstdCompressor().compress(b'{"text": "one"}\n' * 9)
    two_frames = packed + packed
    (tmp_path / "two.jsonl.zst").write_bytes(two_frames)
    assert len(texts(f"jsonl:{tmp_path}/two.jsonl.zst")) == 18
    for name, content in (("cut", two_frames[:-3]), ("damaged", b"hello")):
        (tmp_path / f"{name}.jsonl.zst").write_bytes(content)
        with pytest.raises(UserError, match=f"{name}.jsonl.zst cannot be read: .*is it complete"):
            texts(f"jsonl:{tmp_path}/{name}.jsonl.zst")


def test_json_that_no_text_can_hold_is_a_broken_record(tmp_path):
    lines = ['{"text": "fine"}'] * 3 + ['{"text": "half \\ud800"}', "[" * 200_000]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    source = open_source(f"jsonl:{tmp_path}/a.jsonl", SourceOptions(bad_share=0.5))
    assert [d.text for d in source.documents()] == ["fine"] * 3
    assert (
        source.bad.bad == 2
        and "a.jsonl:4 field 'text' holds half a character" in (source.bad.first[0])
    )


def test_a_parquet_file_that_is_damaged_inside_is_named(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"text": [f"text {i} " * 20 for i in range(500)]}), path)
    content = bytearray(path.read_bytes())
    middle = slice(len(content) // 3, len(content) // 3 + 400)
    content[middle] = bytes(byte ^ 0xFF for byte in content[middle])
    path.write_bytes(content)
    with pytest.raises(UserError, match="a.parquet cannot be read: .*; is it complete?"):
        texts(f"parquet:{path}")


def write_bytes(path, content):
    if path.suffix == ".zst":
        content = pytest.importorskip("zstandard").ZstdCompressor().compress(content)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.mark.parametrize("ending", ["txt", "txt.gz", "txt.zst"])
def test_a_line_without_an_end_is_a_broken_record_named_by_file_and_line(
    tmp_path, monkeypatch, ending
):
    monkeypatch.setattr(lines, "MAX_LINE", 10)
    write_bytes(tmp_path / f"a.{ending}", b"first\n" + b"x" * 10 + b"\n" + b"y" * 35 + b"\nlast")
    source = open_source(f"text:{tmp_path}/a.{ending}", SourceOptions(bad_share=0.5))
    assert [(d.key, d.text) for d in source.documents()] == [
        (f"a.{ending}:1", "first"),
        (f"a.{ending}:2", "x" * 10),
        (f"a.{ending}:4", "last"),
    ]
    assert source.bad.first == [f"a.{ending}:3 is a line of over 10 bytes"]


@pytest.mark.parametrize("kind", ["text", "jsonl"])
def test_a_file_of_one_endless_line_is_refused_without_holding_it(tmp_path, monkeypatch, kind):
    def peak_while_reading(limit, refused):
        monkeypatch.setattr(lines, "MAX_LINE", limit)
        tracemalloc.start()
        with pytest.raises(UserError, match=refused):
            texts(f"{kind}:{path}")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return peak

    path, size = tmp_path / "a.txt", 1 << 22
    path.write_bytes(b"\xff" * size)
    refused = "1 of 1 records are broken, above bad_share 0.01; the first: a.txt:1 is"
    assert peak_while_reading(1 << 16, f"{refused} a line of over 65,536 bytes") < size / 4
    assert peak_while_reading(size, f"{refused} not UTF-8") > size


def test_a_text_without_a_blank_line_is_bounded_too(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_LINE", 20)
    (tmp_path / "a.txt").write_text("word\n" * 4 + "\n" + "word\n" * 9 + "\nlast")
    options = SourceOptions(text_layout="paragraphs", bad_share=0.5)
    source = open_source(f"text:{tmp_path}/a.txt", options)
    assert [d.text for d in source.documents()] == ["word\nword\nword\nword", "last"]
    assert source.bad.first == ["a.txt:6 begins 20 characters without a blank line"]
