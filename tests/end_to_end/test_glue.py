"""GLUE from a folder to a table, files for the test server, and a classifier in a pipeline."""

import json

import pytest

from tests.end_to_end.launching import launch

pytestmark = pytest.mark.slow
WORDS = {0: "rain storm flood river".split(), 1: "sand dust desert drought".split()}


@pytest.fixture
def folder(tmp_path):
    """RTE of an easy kind: whether the second text is of the same climate."""
    records = [
        {"sentence1": f"there is {a}", "sentence2": f"look at the {b}", "label": int(x != y)}
        for x in WORDS
        for a in WORDS[x]
        for y in WORDS
        for b in WORDS[y]
    ]
    (tmp_path / "glue" / "rte").mkdir(parents=True)
    for split, part in (("train", records * 2), ("validation", records), ("test", records[:10])):
        hidden = [r | {"label": -1} for r in part] if split == "test" else part
        text = "".join(json.dumps(record) + "\n" for record in hidden)
        (tmp_path / "glue" / "rte" / f"{split}.jsonl").write_text(text)
    return tmp_path / "glue"


def test_a_suite_ends_with_a_table_and_files_and_is_read_back(folder, tmp_path):
    root = tmp_path / "runs"
    flags = [
        "--config=configs/glue_suite.py:smoke",
        f"--config.run.data.source={folder}",
        "--config.tasks=rte",
        "--config.seeds=1",
        "--config.learning_rates=(2e-3,)",
        "--config.keep=True",
        f"--workdir={root}",
        "--name=tiny",
    ]
    first = launch("glue", *flags, cache=tmp_path / "cache")
    assert first.returncode == 0, first.stderr
    assert "tiny: last step" in first.stdout and "rte   accuracy" in first.stdout
    lines = (root / "submission" / "RTE.tsv").read_text().splitlines()
    assert lines[0] == "index\tprediction" and len(lines) == 11
    assert {line.split("\t")[1] for line in lines[1:]} <= {"entailment", "not_entailment"}
    again = launch("glue", *flags, cache=tmp_path / "cache")
    assert again.returncode == 0 and again.stdout == first.stdout
    assert "finished before" in again.stderr and "compiled" not in again.stderr

    run, output = root / "rte" / "lr0.002-seed0", tmp_path / "export"
    exported = launch("export", f"--workdir={run}", f"--output={output}", cache=tmp_path / "cache")
    assert exported.returncode == 0, exported.stderr
    assert "heldout/accuracy" in (output / "README.md").read_text()
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    classify = transformers.pipeline("text-classification", str(output))
    found = classify({"text": "there is rain", "text_pair": "look at the flood"})
    assert found["label"] in ("entailment", "not_entailment")
